"""What a recipe brings to a run beside its data: teachers, and images without annotations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from .data.unlabelled import read_unlabelled
from .detector_file import cached_teacher, load_teacher
from .distributed import first_rank_first
from .pseudo import FILE, pseudo_labels
from .teacher_cache import CachedTeacher

if TYPE_CHECKING:
    import torch

    from .._recipe import Recipe
    from .data.sample import Dataset
    from .teacher import Guide, Teacher


def teachers_of(
    recipe: Recipe, given: Teacher | Mapping[str, Teacher] | None, num_classes: int, cache: Path | None
) -> dict[str, Guide]:
    """Return the run's teachers by name: those given, or those of the recipe."""
    if not recipe.distill and recipe.unlabelled is None:
        return {}
    if given is not None:
        named = given if isinstance(given, Mapping) else {"teacher": given}
        return dict(named) if cache is None else {name: _cached(each, cache / name) for name, each in named.items()}
    if recipe.teacher is not None and "teacher" in recipe.teachers:
        raise RecipeError('the name "teacher" is that of [teacher]: give [teachers.teacher] another')
    found: dict[str, Guide] = {}
    for name, config in recipe.all_teachers().items():
        if cache is None:
            found[name] = load_teacher(config, recipe.input, num_classes)
        else:
            found[name] = cached_teacher(config, recipe.input, num_classes, cache / name)
    if not found:
        raise RecipeError('[[distill]] needs a [teacher] with weights = "OUT/student.safetensors"')
    return found


def _cached(teacher: Teacher, folder: Path) -> CachedTeacher:
    identity: dict[str, Any] = {"input": dataclasses.asdict(teacher.input)}
    identity.update({key: teacher.source[key] for key in ("state_sha256", "taps") if key in teacher.source})
    return CachedTeacher(folder, json.loads(json.dumps(identity)), lambda: teacher)


def unlabelled_of(
    recipe: Recipe, labelled: Dataset, teachers: Mapping[str, Guide], folder: Path, device: torch.device
) -> Dataset | None:
    """Return the images of [unlabelled], with a teacher's labels if the recipe asks for them; the first rank labels."""
    section = recipe.unlabelled
    if section is None:
        return None
    images = read_unlabelled(Path(section.images), labelled.classes, labelled.task)
    if not section.pseudo_labels:
        return images
    if section.teacher not in teachers:
        possible = ", ".join(teachers)
        raise RecipeError(f"[unlabelled] names the teacher {section.teacher!r}; possible: {possible}")
    with first_rank_first():
        return pseudo_labels(images, teachers[section.teacher].to(device), section.conf, folder / FILE, device)
