"""Teachers, embedding and students: shapes, sizes, what stays as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd import geometry
from edgekd._recipe import InputConfig
from edgekd.errors import RecipeError
from edgekd.training.anomaly import MirrorStudent, PlainStudent, Pyramid
from edgekd.training.anomaly.embedding import Embedding
from edgekd.training.anomaly.pyramid import TAPS
from edgekd.training.anomaly.score import PeakScore
from edgekd.training.models import load_weights
from edgekd.training.models.backbones import build_backbone

INPUT = InputConfig(height=64, width=64)
WEIGHTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "weights"


def parameters(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def teacher(name: str, width: float = 1.0) -> Pyramid:
    return Pyramid(name, build_backbone(name, width), INPUT)


@pytest.mark.parametrize("name", TAPS)
def test_teacher_gives_strides_four_eight_and_sixteen(name: str) -> None:
    found = teacher(name, 0.25)
    shapes = [tuple(each.shape) for each in found(torch.rand(2, 3, 64, 96))]
    sizes = [(16, 24), (8, 12), (4, 6)]
    assert shapes == [(2, count, *size) for count, size in zip(found.channels, sizes, strict=True)]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenetv2", "mobilenetv2-tf", "squeezenet1.1"])
def test_teacher_sees_what_its_backbone_sees(name: str) -> None:
    backbone = build_backbone(name, 0.25).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(images)[:2]
    torch.testing.assert_close(Pyramid(name, backbone, INPUT)(images)[1:], expected)


def test_teacher_is_frozen_and_stays_in_evaluation_mode() -> None:
    found = teacher("resnet18", 0.25)
    torch.nn.Sequential(found).train()
    assert not any(module.training for module in found.modules())
    assert not any(parameter.requires_grad for parameter in found.parameters())
    before = {name: value.clone() for name, value in found.state_dict().items()}
    assert not found(torch.rand(2, 3, 64, 64, requires_grad=True))[0].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_teacher_with_another_input_sees_its_own_pixels(color: str) -> None:
    theirs = dataclasses.replace(INPUT, color=color, mean=(104.0, 117.0, 123.0), std=(1.0, 2.0, 3.0))
    backbone = build_backbone("resnet18", 0.25)
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).double()  # RGB

    def normalised(config: InputConfig) -> torch.Tensor:
        planes = pixels.flip(1) if config.color == "bgr" else pixels
        mean, std = (torch.tensor(value).double()[:, None, None] for value in (config.mean, config.std))
        return ((planes - mean) / std).float()

    own = Pyramid("resnet18", backbone, theirs)
    adapted = Pyramid("resnet18", backbone, INPUT, theirs)
    torch.testing.assert_close(adapted.adapt(normalised(INPUT)), normalised(theirs), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(adapted(normalised(INPUT)), own(normalised(theirs)), atol=1e-3, rtol=1e-3)


def test_a_backbone_without_taps_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'csp-tiny' backbone is no anomaly teacher; possible: mobilenetv2, "):
        Pyramid("csp-tiny", build_backbone("csp-tiny", 0.25), INPUT)


@pytest.mark.parametrize(
    ("name", "sizes", "embedded"),
    [("resnet18", (2.78, 11.68, 3.70, 4.74), 512), ("resnet50", (8.54, 30.83, 15.82, 24.0), 2048)],
)
def test_parts_have_the_sizes_of_the_published_ones(name: str, sizes: tuple[float, ...], embedded: int) -> None:
    """ResNet-18: 2.8, 11.7 and 3.7 million in RD4AD; 4.7 and 24.0 in the specification of the plain student."""
    found = teacher(name)
    bottleneck = name == "resnet50"
    embedding = Embedding(found.channels, bottleneck=bottleneck)
    mirror = MirrorStudent(found, embedding.outputs)
    plain = PlainStudent(embedding.outputs, [found.channels], (128, 256, 512) if bottleneck else (64, 128, 256))
    assert [parameters(each) for each in (found, embedding, mirror, plain)] == pytest.approx(sizes, abs=0.006)
    assert embedding.outputs == embedded


@pytest.mark.parametrize("size", [(256, 256), (320, 256)])
def test_embedding_is_at_stride_thirty_two_and_students_come_back_to_the_teacher(size: tuple[int, int]) -> None:
    height, width = size
    found = teacher("resnet18", 0.25)
    embedding = Embedding(found.channels).eval()
    features = found(torch.rand(1, 3, height, width))
    embedded = embedding(features)
    assert embedded.shape == (1, 2 * found.channels[2], height // 32, width // 32)
    shapes = [each.shape for each in features]
    assert [each.shape for each in MirrorStudent(found, embedding.outputs)(embedded)[0]] == shapes
    both = PlainStudent(embedding.outputs, [found.channels, (5, 6, 7)], (8, 16, 16))(embedded)
    assert [each.shape for each in both[0]] == shapes
    assert [each.shape[1] for each in both[1]] == [5, 6, 7]


def test_mirror_enlarges_by_transposed_convolutions_and_ends_in_relu() -> None:
    found = teacher("resnet50", 0.25)
    mirror = MirrorStudent(found, 64)
    transposed = [layer for layer in mirror.modules() if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert len(transposed) == 6
    assert all(layer.stride == layer.kernel_size == (2, 2) for layer in transposed)
    assert not any(layer.stride == (2, 2) for layer in mirror.modules() if isinstance(layer, torch.nn.Conv2d))
    assert [len(stage) for stage in mirror.stages] == [3, 4, 6]
    assert all((each >= 0).all() for each in mirror(torch.randn(2, 64, 2, 2))[0])


def test_plain_student_has_linear_heads_and_no_transposed_convolution() -> None:
    student = PlainStudent(64, [(4, 5, 6)], (8, 16, 16))
    assert not any(isinstance(layer, torch.nn.ConvTranspose2d) for layer in student.modules())
    assert any((each < 0).any() for each in student(torch.randn(2, 64, 2, 2))[0])


def test_a_mirror_of_no_resnet_is_refused() -> None:
    with pytest.raises(RecipeError, match="no mirror of 'mobilenetv2'; possible: resnet18"):
        MirrorStudent(teacher("mobilenetv2", 0.25), 64)


def test_score_is_the_peak_of_the_map_blurred_as_the_runtime_blurs_it() -> None:
    maps = torch.rand(3, 1, 16, 20)
    score = PeakScore()
    expected = np.stack([geometry.blur(each[0].numpy(), geometry.gaussian(1.0)) for each in maps])
    np.testing.assert_allclose(score.blur(maps)[:, 0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(score(maps).numpy(), expected.max(axis=(1, 2)), atol=1e-6)


def test_blur_keeps_a_constant_map_and_its_kernel_sums_to_one() -> None:
    score = PeakScore(4.0)
    assert len(score.kernel) == 33
    assert float(score.kernel.sum()) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(score.blur(torch.full((1, 1, 40, 40), 3.0)), torch.full((1, 1, 40, 40), 3.0))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "stages"),
    [
        ("resnet18", "resnet18_imagenet1k_v1_conv1_to_layer3.npz", "layer3"),
        ("mobilenetv2-tf", "mobilenet_v2_imagenet_dequant_fp32.npz", "all"),
        ("squeezenet1.1", "squeezenet1_1_imagenet.npz", "all"),
    ],
)
def test_published_weights_make_teachers(name: str, file: str, stages: str) -> None:
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"no {WEIGHTS / file}")
    backbone = build_backbone(name)
    load_weights(backbone, WEIGHTS / file, stages=stages)
    for features in Pyramid(name, backbone, INPUT)(torch.rand(1, 3, 64, 64)):
        assert torch.isfinite(features).all()
        assert float(features.std()) > 0.01
