"""Any backbone x neck x head x width, and what is refused."""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.errors import RecipeError, WeightsError
from edgekd.training.models import build_model, count
from edgekd.training.models.backbones import build_backbone
from edgekd.training.models.heads.head import share_of_total
from edgekd.training.models.necks import build_neck

SIZE = InputConfig(height=64, width=96)
TINY = ModelConfig(backbone="csp-tiny", width=0.25, channels=16, head_depth=1)


@pytest.mark.parametrize("levels", [(3, 4, 5), (3, 4, 5, 6, 7), (4, 5), (3,)])
@pytest.mark.parametrize("neck", ["fpn", "pafpn"])
@pytest.mark.parametrize("backbone", ["csp-tiny", "squeezenet1.1"])
def test_detector_when_any_parts_meet_then_shapes_follow_the_contract(
    backbone: str, neck: str, levels: tuple[int, ...]
) -> None:
    if backbone == "squeezenet1.1" and levels == (4, 5):
        levels = (4, 5, 6)
    config = dataclasses.replace(TINY, backbone=backbone, neck=neck, levels=levels)
    model = build_model(config, 2, SIZE, seed=0).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = model.features(images)
        boxes, scores = model(images)
    assert model.strides == tuple(2**level for level in levels)
    assert model.channels == (16,) * len(levels)
    expected = [(2, 16, -(-64 // stride), -(-96 // stride)) for stride in model.strides]
    assert [tuple(item.shape) for item in features] == expected
    cells = sum(height * width for _, _, height, width in expected)
    assert boxes.shape == (2, cells, 4)
    assert scores.shape == (2, cells, 2)


@pytest.mark.parametrize(("neck", "head"), [("fpn", "dense"), ("fpn", "retina"), ("fpn", "yolo"), ("yolov4", "yolo")])
def test_detector_when_it_learns_then_every_parameter_gets_a_gradient(neck: str, head: str) -> None:
    model = build_model(dataclasses.replace(TINY, head=head, neck=neck), 2, SIZE, seed=0)
    outputs = model.head_outputs(model.features(torch.randn(2, 3, 64, 96)))
    losses = model.loss(
        outputs, [torch.tensor([[4.0, 4, 60, 50]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0)]
    )
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_build_when_seeded_then_weights_repeat_and_the_global_generator_is_untouched() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = build_model(TINY, 2, SIZE, seed=7).state_dict()
    assert torch.equal(torch.rand(1), expected)
    second = build_model(TINY, 2, SIZE, seed=7).state_dict()
    third = build_model(TINY, 2, SIZE, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["backbone.stem.conv.weight"], third["backbone.stem.conv.weight"])


def test_student_when_built_as_recommended_then_it_has_about_a_third_of_a_million_parameters() -> None:
    config = ModelConfig(backbone="csp-tiny", width=0.5, channels=48)
    size = InputConfig(height=256, width=256)
    parameters, macs = count(build_model(config, 3, size), size)
    assert 0.28e6 < parameters < 0.38e6
    assert 0.1e9 < macs < 0.3e9


def test_count_when_resnets_are_counted_then_multiplications_are_the_published_ones() -> None:
    size = InputConfig(height=224, width=224)
    assert count(build_backbone("resnet18"), size).macs == pytest.approx(1.814e9, rel=1e-3)
    assert count(build_backbone("mobilenetv2"), size).macs == pytest.approx(0.300e9 - 0.020e9, rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"backbone": "vgg"}, "no backbone 'vgg'; possible: csp-tiny"),
        ({"neck": "bifpn"}, "no neck 'bifpn'; possible: fpn, pafpn, yolov4"),
        ({"head": "ssd"}, "no head 'ssd'; possible: dense"),
        ({"levels": (3, 5)}, r"levels should be consecutive.*got \[3, 5\]"),
        ({"levels": ()}, "levels should be consecutive"),
        ({"levels": (2, 3)}, r"start at one of \[3, 4, 5\] \(csp-tiny\)"),
        ({"levels": (5, 6, 7, 8)}, "end at 7"),
        ({"levels": (5, 6), "backbone": "squeezenet1.1"}, r"start at one of \[3, 4\]"),
        ({"channels": 7}, "channels should be an even number from 8, got 7"),
        ({"head_depth": -1}, "head_depth should be 0 or more"),
        ({"head": "yolo", "levels": (4, 5)}, r"head 'yolo' .*three levels.*\[3, 4, 5\]; got 2"),
        ({"neck": "yolov4", "levels": (4, 5, 6)}, "neck 'yolov4' .*got 3 levels and 2 maps; necks fpn and pafpn"),
        ({"neck": "yolov4", "levels": (3, 4)}, "neck 'yolov4' .*got 2 levels and 2 maps"),
        ({"neck": "yolov4", "backbone": "squeezenet1.1"}, "got 3 levels and 2 maps"),
        ({"neck": "yolov4"}, "head 'dense' .*this neck gives 16, 32, 64; possible: neck fpn or pafpn, or head yolo"),
        ({"neck": "yolov4", "head": "retina"}, "head 'retina' .*gives 16, 32, 64"),
    ],
)
def test_build_when_the_combination_is_impossible_then_the_error_says_what_is_possible(
    changes: dict[str, object], pattern: str
) -> None:
    with pytest.raises(RecipeError, match=pattern):
        build_model(dataclasses.replace(TINY, **changes), 2, SIZE)  # type: ignore[arg-type]


def test_build_when_the_input_does_not_divide_then_the_nearest_size_is_named() -> None:
    with pytest.raises(RecipeError, match=r"input\.height = 300 should be a multiple of 32, for example 288"):
        build_model(TINY, 2, InputConfig(height=300, width=320))
    with pytest.raises(RecipeError, match="at least one class"):
        build_model(TINY, 0, SIZE)


def test_build_when_weights_are_missing_then_the_error_names_the_file() -> None:
    with pytest.raises(WeightsError, match="no weights file at nowhere"):
        build_model(dataclasses.replace(TINY, weights="nowhere.npz"), 2, SIZE)


def test_neck_when_only_one_level_comes_in_then_it_still_builds_the_rest() -> None:
    for name in ("fpn", "pafpn"):
        maps = build_neck(name, [24], 8, 3)([torch.randn(1, 24, 10, 6)])
        assert [tuple(item.shape[2:]) for item in maps] == [(10, 6), (5, 3), (3, 2)]


def share(rank: int, folder: str, totals: tuple[float, float]) -> None:
    """One of two processes: write down its share of the joined total."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    value = share_of_total(torch.tensor(totals[rank]))
    Path(folder, f"share{rank}").write_text(str(value.item()))
    dist.destroy_process_group()


@pytest.mark.parametrize(("totals", "expected"), [((6.0, 2.0), 4.0), ((0.25, 0.25), 0.5)])
def test_share_of_total_when_two_ranks_train_then_their_mean_loss_is_that_of_the_joined_batch(
    totals: tuple[float, float], expected: float, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=share, args=(rank, str(tmp_path), totals)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [float((tmp_path / f"share{rank}").read_text()) for rank in range(2)] == [expected, expected]


def test_share_of_total_when_alone_then_it_is_the_total_but_at_least_one() -> None:
    assert share_of_total(torch.tensor(5.0)).item() == 5.0
    assert share_of_total(torch.tensor(0.2)).item() == 1.0
