"""A trained detector as a file, and that file as a teacher."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest
import torch

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.errors import RecipeError, WeightsError
from edgekd.training.checkpoint import read_meta, write_tensors
from edgekd.training.detector_file import load_teacher, write_detector
from edgekd.training.models import Detector, build_model
from edgekd.training.teacher import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

SIZE = InputConfig(height=64, width=64, color="bgr", mean=(1.0, 2.0, 3.0))
CONFIG = ModelConfig(backbone="csp-tiny", width=0.25, channels=16, head_depth=1)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Detector]:
    model = build_model(CONFIG, 3, SIZE, seed=5)
    path = tmp_path / "student.safetensors"
    write_detector(path, model, ("a", "b", "c"))
    return path, model


def with_weights(path: Path, **changes: object) -> ModelConfig:
    return dataclasses.replace(CONFIG, weights=str(path), **changes)  # type: ignore[arg-type]


def test_file_says_what_it_holds(saved: tuple[Path, Detector]) -> None:
    meta = read_meta(saved[0])
    assert meta["kind"] == "detector"
    assert meta["classes"] == ["a", "b", "c"]
    assert meta["model"]["backbone"] == "csp-tiny"
    assert meta["model"]["levels"] == [3, 4, 5]
    assert meta["input"]["color"] == "bgr"
    assert meta["input"]["mean"] == [1.0, 2.0, 3.0]


def test_file_becomes_a_frozen_teacher_whatever_the_students_classes(saved: tuple[Path, Detector]) -> None:
    path, model = saved
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    teacher = load_teacher(with_weights(path, sha256=digest), SIZE, num_classes=7)
    network = teacher.network
    assert fingerprint(network) == fingerprint(model) == teacher.source["state_sha256"]  # type: ignore[arg-type]
    assert teacher.source["file_sha256"] == digest
    assert not any(p.requires_grad for p in network.parameters())  # type: ignore[attr-defined]
    assert not network.training  # type: ignore[attr-defined]


def test_size_of_the_teacher_may_differ_from_the_students(saved: tuple[Path, Detector]) -> None:
    bigger = dataclasses.replace(SIZE, height=128, width=128)
    teacher = load_teacher(with_weights(saved[0], input=bigger), SIZE, num_classes=3)
    taps = teacher.look(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), SIZE, head=False)
    assert taps.features[3].shape == (1, 16, 16, 16)


def test_same_file_starts_a_student(saved: tuple[Path, Detector]) -> None:
    path, model = saved
    assert fingerprint(build_model(with_weights(path), 3, SIZE, seed=9)) == fingerprint(model)


def test_wrong_architecture_names_what_the_file_has(saved: tuple[Path, Detector]) -> None:
    with pytest.raises(RecipeError, match=r"\[teacher\] does not fit .*channels = 16 \(the recipe says 32\)"):
        load_teacher(with_weights(saved[0], channels=32), SIZE, num_classes=3)


def test_another_normalisation_than_the_files_is_refused(saved: tuple[Path, Detector]) -> None:
    plain = InputConfig(height=64, width=64)
    with pytest.raises(RecipeError, match=r"\[teacher.input\] does not fit .*color = 'bgr' \(the recipe says 'rgb'\)"):
        load_teacher(with_weights(saved[0]), plain, num_classes=3)


def test_teacher_without_weights_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"\[teacher\] needs trained weights: weights = "):
        load_teacher(CONFIG, SIZE, num_classes=3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_backbone_alone_is_no_teacher(saved: tuple[Path, Detector], tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"backbone{suffix}", saved[1].backbone.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        write_tensors(path, state, {})
    with pytest.raises(RecipeError, match=r"\[teacher\] needs a whole detector, .* holds a backbone alone"):
        load_teacher(with_weights(path), SIZE, num_classes=3)


def test_missing_file_and_wrong_digest_are_errors(saved: tuple[Path, Detector], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of the \[teacher\] at .*none\.safetensors; `edgekd train`"):
        load_teacher(with_weights(tmp_path / "none.safetensors"), SIZE, num_classes=3)
    with pytest.raises(WeightsError, match=r"has SHA-256 .* the recipe says 00"):
        load_teacher(with_weights(saved[0], sha256="00" * 32), SIZE, num_classes=3)
