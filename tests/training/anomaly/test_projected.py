"""RD++: projectors, their losses, and what the network around them leaves as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from edgekd.training.anomaly import PlainStudent, ProjectedNetwork, cosine
from edgekd.training.anomaly.embedding import Embedding
from edgekd.training.anomaly.projected import projection_losses
from edgekd.training.anomaly.projector import InstanceNorm, Projector

from .conftest import pyramid, textures

if TYPE_CHECKING:
    from collections.abc import Callable

STD = (58.395, 57.12, 57.375)


@pytest.fixture
def network() -> Callable[[], ProjectedNetwork]:
    def make() -> ProjectedNetwork:
        teacher = pyramid()
        embedding = Embedding(teacher.channels)
        student = PlainStudent(embedding.outputs, [teacher.channels], (16, 24, 32))
        return ProjectedNetwork(teacher, Projector(teacher.channels), embedding, student, STD)

    return make


def pyramids(count: int, batch: int = 4) -> list[list[torch.Tensor]]:
    return [[torch.randn(batch, size, side, side) for size, side in ((4, 8), (6, 4), (8, 2))] for _ in range(count)]


def test_norm_is_that_of_torch() -> None:
    features = 3 * torch.randn(2, 5, 6, 7) + 1
    torch.testing.assert_close(InstanceNorm()(features), F.instance_norm(features))


def test_projector_keeps_shapes_through_a_quarter_of_the_channels() -> None:
    projector = Projector((16, 8, 4))
    maps = [torch.randn(2, count, 6, 4) for count in (16, 8, 4)]
    assert [each.shape for each in projector(maps)] == [each.shape for each in maps]
    convs = [layer for layer in projector.scales[0].modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convs] == [(16, 8), (8, 4), (4, 8), (8, 16)]
    assert all(layer.kernel_size == (3, 3) and layer.bias is None for layer in convs)


def test_losses_are_those_written_out_with_torchs_own() -> None:
    ours, theirs, raw = pyramids(3)
    ours = [0.1 * each for each in ours]
    raw = [0.02 * each + one for each, one in zip(raw, ours, strict=True)]  # cosines above the margin
    torch.manual_seed(3)
    found = projection_losses(ours, theirs, raw)
    reconstruction = sum((1 - F.cosine_similarity(b, a)).mean() for a, b in zip(ours, theirs, strict=True))
    away = -torch.ones(4)
    contrast = sum(
        F.cosine_embedding_loss(r.flatten(1), a.flatten(1), away, margin=0.5) for r, a in zip(raw, ours, strict=True)
    )
    torch.testing.assert_close(found["reconstruction"], reconstruction)
    torch.testing.assert_close(found["contrast"], contrast)
    assert float(contrast) > 0.1
    torch.manual_seed(3)
    order = torch.randperm(4)
    means = [
        torch.stack([torch.softmax(a.flatten(1)[rows], 1).mean(0) for rows in (order[:2], order[2:])]) for a in ours
    ]
    # Distances are far below the blur, where the divergence is that of the means.
    expected = sum((one - other).square().sum() / 2 for one, other in means)
    torch.testing.assert_close(found["transport"], expected, rtol=0.02, atol=0)


def test_contrast_is_silent_below_the_margin_and_transport_for_images_that_are_alike() -> None:
    ours, theirs, _ = pyramids(3)
    found = projection_losses(ours, theirs, [-each for each in ours])
    assert float(found["contrast"]) == 0
    same = [each[:1].expand(4, -1, -1, -1) for each in ours]
    assert float(projection_losses(same, theirs, ours)["transport"]) == pytest.approx(0, abs=1e-9)
    assert float(found["transport"]) > 1e-6
    assert float(projection_losses(ours, ours, ours)["reconstruction"]) == pytest.approx(0, abs=1e-5)


def test_loss_is_distillation_of_raw_features_and_a_fifth_of_the_weighted_losses(
    network: Callable[[], ProjectedNetwork],
) -> None:
    made = network().eval()
    images = textures(4)
    torch.manual_seed(1)
    total, named = made.loss(images)
    assert set(named) == {"project.transport", "project.reconstruction", "project.contrast"}
    seen = made.look(images)
    torch.testing.assert_close(seen.targets[0], made.teachers[0](images))
    distilled = cosine.loss(seen.targets[0], seen.students[0])
    transport, reconstruction, contrast = named.values()
    torch.testing.assert_close(total, distilled + 0.2 * (transport + 0.01 * reconstruction + 0.1 * contrast) / 1.11)


def test_everything_but_the_teacher_learns_and_the_loss_falls(network: Callable[[], ProjectedNetwork]) -> None:
    made = network().train()
    state = {name: value.clone() for name, value in made.teachers.state_dict().items()}
    optimizer = torch.optim.Adam([each for each in made.parameters() if each.requires_grad], 5e-3, betas=(0.5, 0.999))
    losses = []
    for step in range(25):
        total, _ = made.loss(textures(4, step))
        optimizer.zero_grad()
        total.backward()
        assert all(each.grad is not None for part in (made.projector, made.student) for each in part.parameters())
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.75 * losses[0]
    assert all(torch.equal(value, state[name]) for name, value in made.teachers.state_dict().items())


def test_pseudo_anomaly_is_a_fifth_of_the_range_in_one_box_and_drawn_from_torchs_generator(
    network: Callable[[], ProjectedNetwork],
) -> None:
    made = network()
    images = textures(6)
    torch.manual_seed(5)
    spoilt = made.spoilt(images)
    added = (spoilt - images) * torch.tensor(STD)[:, None, None] / 255
    assert 0.05 < float(added.abs().max()) < 0.5
    assert all(0 < float((each != 0).any(0).float().mean()) < 0.02 for each in added)
    torch.manual_seed(5)
    assert torch.equal(made.spoilt(images), spoilt)
    assert not torch.equal(made.spoilt(images), spoilt)


def test_score_of_an_image_does_not_depend_on_its_batch(network: Callable[[], ProjectedNetwork]) -> None:
    made = network().eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        raw, together = made(images)
        alone = torch.cat([made(images[i : i + 1])[1] for i in range(4)])
    assert raw.shape == (4, 1, 16, 16)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
