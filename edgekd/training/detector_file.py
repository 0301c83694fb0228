"""`student.safetensors`: a trained detector that says what it is, to be tested, continued, or taken as a teacher."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError, WeightsError
from .checkpoint import read_meta, write_tensors
from .models import Detector, build_model
from .teacher import Teacher
from .teacher_cache import CachedTeacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._recipe import InputConfig, ModelConfig

SHAPE = ("backbone", "width", "neck", "channels", "head", "head_depth", "levels")  # of ModelConfig: what a network is
PIXELS = ("color", "mean", "std")  # of InputConfig: what its weights are used to


def write_detector(path: Path, model: Detector, classes: Sequence[str]) -> None:
    """Write a detector's weights with its architecture, input and classes as metadata."""
    meta = {
        "kind": "detector",
        "model": {name: getattr(model.config, name) for name in SHAPE},
        "input": dataclasses.asdict(model.input),
        "classes": list(classes),
    }
    write_tensors(path, model.state_dict(), meta)


def load_teacher(config: ModelConfig, student_input: InputConfig, num_classes: int) -> Teacher:
    """Build the recipe's [teacher] with its weights, frozen.

    A file that edgekd wrote says how many classes its head has (they may differ from the student's) and must agree with
    the recipe on architecture and pixel normalisation. Other files are taken as the student's are, if they hold neck
    and head too.

    Raises:
        RecipeError: [teacher] has no weights, or those of a backbone alone, or contradicts its file.
        WeightsError: the file is missing, damaged, or does not fit.
    """
    _check_weights(config)
    if not Path(config.weights).is_file():
        raise WeightsError(
            f"no weights of the [teacher] at {config.weights}; `edgekd train` one, and name its OUT/student.safetensors"
        )
    size = config.input or student_input
    meta = _described(Path(config.weights))
    if meta is not None:
        _agree("[teacher]", {name: getattr(config, name) for name in SHAPE}, meta["model"], config.weights)
        _agree("[teacher.input]", {name: getattr(size, name) for name in PIXELS}, meta["input"], config.weights)
        num_classes = len(meta["classes"])
    network = build_model(config, num_classes, size, seed=0)
    report = network.weights
    assert report is not None
    if report.kind != "detector":  # neck and head would teach what chance put there
        raise RecipeError(
            f"[teacher] needs a whole detector, {config.weights} holds a {report.kind} alone; put it into [student], "
            '`edgekd train` that, and set [teacher] weights = "OUT/student.safetensors"'
        )
    source = {"backbone": config.backbone, "weights": Path(config.weights).name, "file_sha256": report.sha256}
    return Teacher(network, size, source, None if meta is None else meta["classes"])


def cached_teacher(config: ModelConfig, student_input: InputConfig, num_classes: int, folder: Path) -> CachedTeacher:
    """Return the recipe's teacher behind a cache in `folder`; its weights are read at the first miss.

    A cache that has all features is enough where the weights file is missing, if [teacher] gives its `sha256`.

    Raises:
        RecipeError: [teacher] has no weights, or the folder holds the features of another teacher.
        WeightsError: the weights file is missing and its hash is not given, or at a miss; it has another hash.
    """
    size = config.input or student_input
    if config.sha256 is None:
        _check_weights(config)
    path = Path(config.weights)
    digest = asked = None if config.sha256 is None else config.sha256.lower()
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if asked not in (None, digest):
        raise WeightsError(f"{path} has SHA-256 {digest}, the recipe says {asked}")
    if digest is None:
        raise WeightsError(f"no weights at {path}; with a cache of its features, sha256 = ... in [teacher] will do")
    identity = {
        "file_sha256": digest,
        "model": _plain({name: getattr(config, name) for name in SHAPE}),
        "input": _plain(dataclasses.asdict(size)),
    }
    return CachedTeacher(folder, identity, lambda: load_teacher(config, student_input, num_classes))


def _check_weights(config: ModelConfig) -> None:
    if config.weights == "none":
        raise RecipeError('[teacher] needs trained weights: weights = "OUT/student.safetensors" of a training run')


def _described(path: Path) -> dict[str, Any] | None:
    """Return the metadata of a detector file, or None for a file of another kind (or none: the loader says so)."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        meta = read_meta(path)
    except WeightsError:
        return None
    return meta if meta.get("kind") == "detector" else None


def _agree(section: str, said: dict[str, Any], held: dict[str, Any], path: str) -> None:
    wrong = [
        f"{name} = {held[name]!r} (the recipe says {_plain(value)!r})"
        for name, value in said.items()
        if _plain(value) != held[name]
    ]
    if wrong:
        raise RecipeError(f"{section} does not fit {path}, which has {', '.join(wrong)}")


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
