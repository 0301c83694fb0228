"""Presets of anomaly detection: recipes that can be built, from whatever weights there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgekd._anomaly_presets import INPUTS, METHODS, MODELS, preset
from edgekd._anomaly_recipe import AnomalyRecipe, AnomalyTeacherConfig
from edgekd.errors import UsageError


@pytest.mark.parametrize("name", MODELS)
def test_preset_without_weights_has_the_teacher_that_edgekd_brings_along(name: str, tmp_path: Path) -> None:
    plan = preset(name, tmp_path / "bottle", alpha=0.2)
    assert [(each.backbone, each.weights) for each in plan.teachers] == [("resnet18", "textures")]
    assert (plan.name, plan.data.path, plan.predict.alpha) == ("bottle", str(tmp_path / "bottle"), 0.2)
    assert plan.model.target == "single"
    assert AnomalyRecipe.from_dict(plan.to_dict()) == plan


def test_named_weights_replace_the_pair_and_bring_the_input_they_know(tmp_path: Path) -> None:
    both = preset("edge", tmp_path, teacher_weights={"resnet18": "a.npz", "mobilenetv2-tf": tmp_path / "b.npz"})
    assert [each.weights for each in both.teachers] == [str(Path("a.npz").resolve()), str(tmp_path / "b.npz")]
    assert [each.stages for each in both.teachers] == ["layer3", "all"]
    assert [each.input for each in both.teachers] == [None, INPUTS["mobilenetv2-tf"]]
    assert (both.model.target, both.model.fusion) == ("fused_sg", "iaff"), "what the evidence was made with"
    one = preset("quality", tmp_path, teacher_weights={"resnet50": "c.pth"})
    assert (one.model.target, len(one.teachers)) == ("single", 1)


def with_full_teachers(plan: AnomalyRecipe) -> AnomalyRecipe:
    """Return the plan with teachers as large as published ones, which need no files to be counted."""
    names = ("resnet18", "mobilenetv2")[: 2 if plan.model.method == "rd" else 1]
    teachers = tuple(AnomalyTeacherConfig(backbone=each) for each in names)
    model = dataclasses.replace(plan.model, target="fused_sg" if len(names) == 2 else "single")
    return dataclasses.replace(plan, teachers=teachers, model=model)


def test_edge_network_stored_in_halves_leaves_room_for_golden_images_in_12_megabytes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgekd.training.anomaly.build import build_network

    network = build_network(with_full_teachers(preset("edge", tmp_path)))
    count = sum(each.numel() for each in network.parameters())
    assert 2 * count < 11.2e6


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_preset_of_every_method_is_a_recipe_that_can_be_built(method: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgekd.training.anomaly.build import build_network
    from edgekd.training.anomaly.network import METHODS as BUILT

    brought = preset(name, tmp_path, method=method)
    assert (brought.model.method, len(brought.teachers)) == (method, 1)
    build_network(brought)
    plan = with_full_teachers(brought)
    assert BUILT == METHODS
    count = sum(each.numel() for each in build_network(plan).parameters())
    assert name != "edge" or (2 * count < 11.2e6 and plan.model.storage == "fp16")


@pytest.mark.parametrize(
    ("name", "method", "weights", "why"),
    [
        ("tiny", "rd", {}, "no preset 'tiny'; possible: edge, quality"),
        ("edge", "rd+", {}, r"no method 'rd\+'; possible: rd, rd\+\+, stfpm"),
        ("edge", "rd", {"a": "1", "b": "2", "c": "3"}, "one or two teachers are possible, got weights of 3: a, b, c"),
        ("edge", "stfpm", {"a": "1", "b": "2"}, "with method 'stfpm' one teacher is possible, got weights of 2: a, b"),
    ],
)
def test_what_no_preset_has_is_refused(
    name: str, method: str, weights: dict[str, str], why: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        preset(name, tmp_path, method=method, teacher_weights=weights)
