"""STFPM: a student of the teacher's architecture, its loss and the product of its scales."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgekd._recipe import InputConfig
from edgekd.training.anomaly import EncoderStudent, MatchingNetwork, Pyramid
from edgekd.training.anomaly.cosine import product_map
from edgekd.training.anomaly.matching import UNFOLDED
from edgekd.training.anomaly.pyramid import TAPS
from edgekd.training.models.backbones import build_backbone

from .conftest import INPUT, pyramid, textures


def network() -> MatchingNetwork:
    return MatchingNetwork(pyramid(), EncoderStudent("resnet18", build_backbone("resnet18", 0.25)))


def halves(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return half the squared distance of the features brought to length 1, `(B, H, W)`: the paper's own form."""
    return (F.normalize(ours) - F.normalize(theirs)).square().sum(1) / 2


def test_loss_is_the_mean_of_half_squared_distances_of_unit_features_summed_over_scales() -> None:
    made = network().eval()
    images = textures(3)
    with torch.no_grad():
        (ours,), (theirs,), _ = made.look(images)
        expected = sum(halves(a, b).mean() for a, b in zip(ours, theirs, strict=True))
        for kind in ("global", "per_location"):
            total, named = made.loss(images, kind)
            torch.testing.assert_close(total, expected)
            assert named == {}


def test_map_is_the_product_over_scales_brought_to_the_finest() -> None:
    made = network().eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        (ours,), (theirs,), _ = made.look(images)
        raw, score = made(images)
        maps = [halves(a, b)[:, None] for a, b in zip(ours, theirs, strict=True)]
    expected = torch.ones(2, 1, 16, 24)
    for each in maps:
        expected = expected * F.interpolate(each, size=(16, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(score, made.score(raw))
    assert float(raw.max()) > 0.01


def test_a_scale_that_agrees_has_the_last_word() -> None:
    maps = [torch.rand(1, 4, size, size) + 0.1 for size in (8, 4, 2)]
    assert float(product_map(maps, [-maps[0], -maps[1], 3 * maps[2]]).abs().max()) < 1e-6
    torch.testing.assert_close(product_map(maps, [-each for each in maps]), torch.full((1, 1, 8, 8), 8.0))


@pytest.mark.parametrize("name", TAPS)
def test_student_has_the_shapes_of_every_teacher_and_batchnorm_where_theirs_is_folded(name: str) -> None:
    student = EncoderStudent(name, build_backbone(UNFOLDED.get(name, name), 0.25))
    teacher = Pyramid(name, build_backbone(name, 0.25), INPUT)
    (found,) = student(torch.rand(2, 3, 64, 96))
    assert [each.shape for each in found] == [each.shape for each in teacher(torch.rand(2, 3, 64, 96))]
    assert all(parameter.requires_grad for parameter in student.parameters())
    normed = any(isinstance(layer, torch.nn.BatchNorm2d) for layer in student.modules())
    assert normed == (name != "squeezenet1.1")


def test_student_sees_the_image_as_the_teacher_does() -> None:
    theirs = InputConfig(height=64, width=64, color="bgr", mean=(104.0, 117.0, 123.0), std=(1.0, 2.0, 3.0))
    backbone = build_backbone("resnet18", 0.25)
    teacher = Pyramid("resnet18", backbone, INPUT, theirs)
    made = MatchingNetwork(teacher, EncoderStudent("resnet18", backbone)).eval()  # one backbone for both
    raw, _ = made(torch.randn(1, 3, 64, 64))
    assert float(raw.detach().abs().max()) < 1e-6


def test_training_moves_the_student_alone_and_a_pasted_square_stands_out() -> None:
    made = network().train()
    state = {name: value.clone() for name, value in made.teachers.state_dict().items()}
    optimizer = torch.optim.SGD(made.student.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    losses = []
    for step in range(60):
        total, _ = made.loss(textures(4, step))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, state[name]) for name, value in made.teachers.state_dict().items())
    assert not any(each.training for each in made.pyramids[0].modules())
    normal = textures(6, 1000)
    spoilt = normal[:1].clone()
    spoilt[..., 24:40, 32:48] = 2 * torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        made.eval()
        _, usual = made(normal)
        raw, score = made(spoilt)
    y, x = divmod(int(made.score.blur(raw).argmax()), raw.shape[3])
    assert 24 - 16 <= 4 * y < 40 + 16
    assert 32 - 16 <= 4 * x < 48 + 16
    assert float(score) > 3 * float(usual.max())
