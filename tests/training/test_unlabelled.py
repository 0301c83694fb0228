"""Images without annotations: features only, or with what the teacher finds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekd
from edgekd._recipe import DataConfig, DistillConfig, InputConfig, ModelConfig, Recipe, UnlabelledConfig
from edgekd.errors import DataError, RecipeError
from edgekd.training.data.unlabelled import read_unlabelled
from edgekd.training.models import build_model
from edgekd.training.pseudo import pseudo_labels
from edgekd.training.run import read_splits
from edgekd.training.teacher import TappedNetwork, Teacher
from edgekd.training.teacher_cache import CachedTeacher
from edgekd.training.trainer import Trainer

from .test_distill import teacher_for

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = ("red", "blue")
SIZE = InputConfig(height=64, width=64)


@pytest.fixture
def pictures(scenes: DataConfig) -> Path:
    return Path(scenes.val).parent / "val"


class Finder(nn.Module):
    """Finds, whatever the image, label 0 at score 0.9, label 1 at 0.4 and label 2 at 0.8, in network pixels."""

    strides, channels, num_classes = (8,), (4,), 3

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images.new_zeros(len(images), 4, 8, 8)]

    def head_outputs(self, features: Any) -> Any:
        return features

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = torch.tensor([[8.0, 16, 24, 40], [0, 0, 8, 8], [30, 30, 50, 50]])
        scores = torch.diag(torch.tensor([0.9, 0.4, 0.8]))
        return boxes.expand(len(images), 3, 4), scores.expand(len(images), 3, 3)


def finder(classes: tuple[str, ...] | None = ("red", "blue", "green")) -> Teacher:
    return Teacher(Finder(), SIZE, {}, classes)


def test_reader_takes_folders_and_lists(pictures: Path, tmp_path: Path) -> None:
    found = read_unlabelled(pictures, CLASSES, "detect")
    assert [sample.path.name for sample in found.samples] == ["000.png", "001.png", "002.png", "003.png"]
    assert all(sample.boxes.shape == (0, 4) and sample.size == (80, 60) for sample in found.samples)
    listed = tmp_path / "some.txt"
    listed.write_text(f"{pictures / '002.png'}\n\n")
    assert [sample.path.name for sample in read_unlabelled(listed, CLASSES, "detect").samples] == ["002.png"]


def test_reader_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image in .*: a folder of pictures, or a list file"):
        read_unlabelled(tmp_path, CLASSES, "detect")
    (tmp_path / "list.txt").write_text("gone.png\n")
    with pytest.raises(DataError, match=r"gone\.png"):
        read_unlabelled(tmp_path / "list.txt", CLASSES, "detect")


def test_pseudo_labels_are_the_teachers_detections_in_image_pixels_by_class_name(
    pictures: Path, tmp_path: Path
) -> None:
    images = read_unlabelled(pictures, ("blue", "red"), "detect")
    found = pseudo_labels(images, finder(), 0.5, tmp_path / "p.json", torch.device("cpu"))
    for sample in found.samples:  # 80x60 -> 64x48 and 8 rows of padding above and below
        np.testing.assert_allclose(sample.boxes, [[10, 10, 30, 40]], atol=1e-4)
        assert sample.labels.tolist() == [1]
        assert sample.difficult.tolist() == [False]
    held = json.loads((tmp_path / "p.json").read_text())
    assert [row["score"] for row in held["annotations"]] == pytest.approx([0.9] * 4)
    assert held["categories"] == [{"id": 0, "name": "blue"}, {"id": 1, "name": "red"}]


def test_pseudo_labels_are_kept_and_corrections_count_until_something_changes(pictures: Path, tmp_path: Path) -> None:
    images, file = read_unlabelled(pictures, CLASSES, "detect"), tmp_path / "p.json"
    place = torch.device("cpu")
    pseudo_labels(images, finder(), 0.5, file, place)
    held = json.loads(file.read_text())
    del held["annotations"][0]
    file.write_text(json.dumps(held))
    assert [len(sample.boxes) for sample in pseudo_labels(images, finder(), 0.5, file, place).samples] == [0, 1, 1, 1]
    assert [len(sample.boxes) for sample in pseudo_labels(images, finder(), 0.3, file, place).samples] == [2, 2, 2, 2]
    file.write_text("{")
    with pytest.raises(DataError, match=r"no JSON .*; remove it, and it is made again"):
        pseudo_labels(images, finder(), 0.3, file, place)
    held["info"]["conf"] = 0.3
    held["annotations"][0]["category_id"] = 2
    file.write_text(json.dumps(held))
    with pytest.raises(DataError, match=r"is damaged .*; remove it, and it is made again"):
        pseudo_labels(images, finder(), 0.3, file, place)


def test_labels_that_are_written_down_need_no_teacher_behind_a_cache(pictures: Path, tmp_path: Path) -> None:
    def refuse() -> Teacher:
        raise AssertionError("the teacher was built")

    images, file = read_unlabelled(pictures, CLASSES, "detect"), tmp_path / "p.json"
    teachers = [CachedTeacher(tmp_path / "cache", {"weights": "w"}, load) for load in (finder, refuse)]
    for teacher in teachers:
        found = pseudo_labels(images, teacher, 0.5, file, torch.device("cpu"))
        assert [len(sample.boxes) for sample in found.samples] == [1, 1, 1, 1]


def test_teachers_that_cannot_label_are_refused(pictures: Path, tmp_path: Path) -> None:
    images = read_unlabelled(pictures, CLASSES, "detect")
    blind = Teacher(TappedNetwork(nn.Conv2d(3, 4, 3, 8, 1), {"": 8}), SIZE, {})
    for teacher, message in (
        (blind, "needs a teacher with a head"),
        (finder(("a", "b", "c")), r"3 classes \(a, b, c\) have none in common with the data's \(red, blue\)"),
        (finder(None), "or their names are not known"),
    ):
        with pytest.raises(RecipeError, match=message):
            pseudo_labels(images, teacher, 0.5, tmp_path / "p.json", torch.device("cpu"))
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize("targets", [False, True])
def test_detector_loss_sees_unlabelled_images_only_with_pseudo_labels_and_methods_always(
    small: Callable[..., Recipe], pictures: Path, tmp_path: Path, targets: bool
) -> None:
    section = UnlabelledConfig(images=str(pictures), batch=2, pseudo_labels=targets)
    recipe = small(distill=(DistillConfig(method="pkd"),), unlabelled=section, steps=1)
    splits = read_splits(recipe)
    seen: dict[str, Any] = {}
    trainer = Trainer(
        recipe,
        tmp_path,
        splits["train"],
        splits["val"],
        teacher=teacher_for(recipe),
        unlabelled=read_unlabelled(pictures, CLASSES, "detect"),
        device=torch.device("cpu"),
    )
    loss, distiller = trainer.student.head.loss, trainer.distiller

    def detect(outputs: Any, boxes: Any, labels: Any) -> Any:
        seen["detector"] = (len(outputs.logits[0]), len(boxes), len(labels))
        return loss(outputs, boxes, labels)

    def taught(ours: Any, theirs: Any, scene: Any) -> Any:
        seen["methods"] = (len(ours.features[3]), len(theirs["teacher"].features[3]), len(scene.boxes))
        return type(distiller).forward(distiller, ours, theirs, scene)

    trainer.student.head.loss = detect
    assert distiller is not None
    distiller.forward = taught
    trainer.run()
    assert seen["methods"] == (6, 6, 6)
    assert seen["detector"] == ((6, 6, 6) if targets else (4, 4, 4))


def test_whole_run_with_pseudo_labels_of_a_recipes_teacher(
    small: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    config = ModelConfig(backbone="csp-tiny", width=0.25, channels=24, head_depth=1)
    weights = edgekd.train(small(steps=40, lr=1e-2, student=config), tmp_path / "teacher").weights
    section = UnlabelledConfig(images=str(pictures), batch=2, pseudo_labels=True, conf=0.2)
    recipe = small(
        distill=(DistillConfig(method="pkd"),),
        teacher=dataclasses.replace(config, weights=str(weights)),
        unlabelled=section,
    )
    report = edgekd.distill(recipe, tmp_path / "student", cache=tmp_path / "cache")
    assert report.bundle.exists()
    held = json.loads((tmp_path / "student" / "pseudo-labels.json").read_text())
    assert len(held["images"]) == 4
    assert held["annotations"]
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match=r"holds another run .*unlabelled"):
        edgekd.distill(recipe.replace(unlabelled=dataclasses.replace(section, batch=1)), tmp_path / "student")


def test_receipt_trains_every_seed_on_the_labels_that_were_corrected(
    small: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    teacher = Teacher(build_model(small().student, 2, SIZE, seed=0), SIZE, {})
    section = UnlabelledConfig(images=str(pictures), pseudo_labels=True, batch=2)
    recipe, file = small(unlabelled=section, steps=1), tmp_path / "pseudo-labels.json"
    edgekd.distill(recipe, tmp_path, teacher=teacher)
    row = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [5, 5, 20, 20], "iscrowd": 0, "area": 400}
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": [row]}))
    edgekd.distill(recipe, tmp_path, teacher=teacher, resume=False, receipt=True, seeds=(0, 1))
    (own, other) = (json.loads(path.read_text()) for path in (file, tmp_path / "receipt/distilled-seed1" / file.name))
    assert own == other
    assert len(own["annotations"]) == 1


def test_pseudo_labels_alone_are_enough_and_features_alone_are_not(
    small: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    teacher = Teacher(build_model(small().student, 2, SIZE, seed=0), SIZE, {})
    labelled = UnlabelledConfig(images=str(pictures), pseudo_labels=True, batch=2)
    assert edgekd.distill(small(unlabelled=labelled, steps=1), tmp_path / "a", teacher=teacher).steps == 1
    bare = small(unlabelled=UnlabelledConfig(images=str(pictures)))
    with pytest.raises(RecipeError, match=r"no \[\[distill\]\] entry"):
        edgekd.distill(bare, tmp_path / "b", teacher=teacher)


def test_recipe_that_names_no_such_labeller_is_refused(
    small: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    section = UnlabelledConfig(images=str(pictures), pseudo_labels=True, teacher="big")
    recipe = small(distill=(DistillConfig(method="pkd"),), unlabelled=section)
    teacher = Teacher(build_model(recipe.student, 2, SIZE, seed=0), SIZE, {})
    with pytest.raises(RecipeError, match=r"\[unlabelled\] names the teacher 'big'; possible: teacher"):
        edgekd.distill(recipe, tmp_path, teacher=teacher)
