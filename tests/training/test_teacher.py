"""The teacher's view of the student's batch, and networks of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.errors import RecipeError
from edgekd.training.data.loader import normalise
from edgekd.training.models import build_model
from edgekd.training.teacher import TappedNetwork, Teacher, fingerprint, levels_of, translate

RGB = InputConfig(height=64, width=96)
CAFFE = InputConfig(height=64, width=96, color="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_same_input_is_normalised_as_the_students() -> None:
    assert torch.allclose(translate(images(), RGB, RGB), normalise(images(), RGB), atol=1e-6)


def test_colour_order_and_normalisation_are_the_teachers() -> None:
    seen = translate(images(), RGB, CAFFE)
    blue = images()[:, 2].float()
    assert torch.allclose(seen[:, 0], blue - 103.53, atol=1e-4)
    back = translate(images().flip(1), CAFFE, RGB)  # a BGR batch for an RGB teacher
    assert torch.allclose(back, normalise(images(), RGB), atol=1e-5)


def test_image_is_resized_to_the_teachers_size() -> None:
    ramp = torch.arange(96, dtype=torch.uint8).expand(2, 3, 64, 96)
    plain = InputConfig(height=128, width=192, mean=(0, 0, 0), std=(1, 1, 1))
    seen = translate(ramp, RGB, plain)
    assert seen.shape == (2, 3, 128, 192)
    inside = seen[0, 0, 10, 2:-2]
    assert torch.allclose(inside, (torch.arange(192)[2:-2] + 0.5) / 2 - 0.5, atol=1e-3)  # pixel centres stay put


def test_teacher_of_another_size_and_channels_shows_its_own_grids() -> None:
    size = InputConfig(height=128, width=192)
    network = build_model(ModelConfig(backbone="csp-tiny", width=0.25, channels=24), 3, size, seed=0)
    teacher = Teacher(network, size, {})
    taps = teacher.look(images(), RGB, head=False)
    assert {level: tuple(f.shape) for level, f in taps.features.items()} == {
        3: (2, 24, 16, 24), 4: (2, 24, 8, 12), 5: (2, 24, 4, 6),
    }  # fmt: skip
    assert taps.head is None
    assert not any(f.requires_grad for f in taps.features.values())
    assert teacher.channels == {3: 24, 4: 24, 5: 24}


def test_head_runs_only_when_asked_and_half_precision_gives_fp32_features() -> None:
    network = build_model(ModelConfig(backbone="csp-tiny", width=0.25, channels=16), 3, RGB, seed=0)
    teacher = Teacher(network, RGB, {})
    heads: list[int] = []
    network.head.register_forward_hook(lambda *_: heads.append(1))
    exact = teacher.look(images(), RGB, head=False)
    assert heads == []
    half = teacher.look(images(), RGB, head=True, amp=torch.bfloat16)
    assert heads == [1]
    assert half.head is not None
    for level, feature in half.features.items():
        assert feature.dtype == torch.float32
        error = (feature - exact.features[level]).norm() / exact.features[level].norm()
        assert 0 < error.item() < 0.05


def test_batch_statistics_are_not_updated() -> None:
    network = build_model(ModelConfig(backbone="csp-tiny", width=0.25, channels=16), 3, RGB, seed=0).train()
    teacher = Teacher(network, RGB, {})
    before = fingerprint(network)
    teacher.look(images(), RGB, head=True)
    assert fingerprint(network) == before


def test_fingerprint_sees_every_bit_and_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = fingerprint(model)
    assert fingerprint(model) == before
    model[1].running_mean[0] = 1e-30
    assert fingerprint(model) != before
    assert fingerprint(nn.Linear(2, 2, bias=False)) != fingerprint(nn.Linear(2, 2, bias=False))


def test_levels_of_strides() -> None:
    assert levels_of((8, 16, 32)) == (3, 4, 5)
    with pytest.raises(RecipeError, match="stride 12 is no power of two"):
        levels_of((12,))


def own_network() -> nn.Module:
    body = nn.Sequential()
    body.add_module("stem", nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU()))
    body.add_module("stage3", nn.Conv2d(4, 6, 3, 2, 1))
    body.add_module("stage4", nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 10, 3, 2, 1)))
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    return body


def test_own_network_is_tapped_by_submodule_and_stride() -> None:
    network = TappedNetwork(own_network(), {"stage4": 16, "stage3": 8})
    assert network.strides == (8, 16)
    assert network.channels == (6, 10)
    taps = Teacher(network, RGB, {}).look(images(), RGB, head=False)
    assert {level: tuple(f.shape) for level, f in taps.features.items()} == {3: (2, 6, 8, 12), 4: (2, 10, 4, 6)}
    expected = network.module.stage3(network.module.stem(normalise(images(), RGB)))
    assert torch.allclose(taps.features[3], expected, atol=1e-5)


def test_tap_shows_its_submodule_where_the_next_layer_writes_in_place() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, 2, 1))
    network = TappedNetwork(body, {"0": 2, "2": 4})
    pixels = normalise(images(), RGB)
    fine, coarse = network.features(pixels)
    expected = body[0](pixels)
    assert float(expected.detach().min()) < 0
    assert torch.equal(fine, expected)
    assert torch.equal(coarse, body[2](expected.relu()))
    assert network._overwritten == {"0"}, "nothing else is copied"


def test_tapping_an_own_network_leaves_its_state_alone() -> None:
    body = own_network().train()
    before = fingerprint(body)
    TappedNetwork(body, {"stage4": 16})
    assert fingerprint(body) == before


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ({"stage9": 8}, "the teacher has no submodule 'stage9'; it has: stem, stem.0"),
        (
            {"stage3": 16},
            r"tap 'stage3': stride 16 of \(256, 256\) pixels means \(1, C, 16, 16\), got \(1, 6, 32, 32\)",
        ),
    ],
)
def test_wrong_taps_are_refused(taps: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TappedNetwork(own_network(), taps)
