"""Training, distillation and the bundle of oriented detectors, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from edgekd._bundle import Bundle
from edgekd._distill import distill
from edgekd._golden import golden_outputs
from edgekd._manifest import ANGLE
from edgekd._recipe import DataConfig, DistillConfig, InputConfig, Recipe, UnlabelledConfig
from edgekd._train import train
from edgekd.errors import DataError, RecipeError
from edgekd.geometry import xywhr_to_corners
from edgekd.training.data.coco import read_coco
from edgekd.training.data.unlabelled import read_unlabelled
from edgekd.training.explain_view import view
from edgekd.training.export import export_onnx
from edgekd.training.models import build_model
from edgekd.training.pseudo import pseudo_labels
from edgekd.training.run import read_splits
from edgekd.training.teacher import Teacher
from edgekd.training.trainer import Trainer

Small = Callable[..., Recipe]
CPU = torch.device("cpu")


def write_turned(folder: Path, split: str, count: int, seed: int) -> Path:
    """Write pictures of one or two turned rectangles on grey, 80x60 px, as oriented COCO JSON; return its path."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        picture = rng.integers(90, 130, (60, 80, 3), dtype=np.uint8)
        for _ in range(int(rng.integers(1, 3))):
            middle, side = rng.uniform((20, 20), (60, 40)), rng.uniform((18, 8), (30, 14))
            box = np.float32([[*middle, *side, rng.uniform(-math.pi / 2, math.pi / 2)]])
            corners = xywhr_to_corners(box)[0]
            label = int(rng.integers(0, 2))
            cv2.fillPoly(picture, [corners.round().astype(np.int32)], ((220, 30, 30), (30, 30, 220))[label])
            (left, top), (right, low) = corners.min(0).tolist(), corners.max(0).tolist()
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0}
            hull = {"bbox": [left, top, right - left, low - top], "area": float(side.prod())}
            annotations.append({**row, **hull, "segmentation": [corners.reshape(-1).tolist()]})
        Image.fromarray(picture).save(folder / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 60})
    categories = [{"id": label, "name": name} for label, name in enumerate(("red", "blue"))]
    content = {"info": {"layout": "xywhr"}, "images": images, "annotations": annotations, "categories": categories}
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("turned")
    return DataConfig(**{split: str(write_turned(folder, split, n, n)) for split, n in (("train", 8), ("val", 3))})


def recipe_of(small: Small, data: DataConfig, head: str, **changes: Any) -> Recipe:
    recipe = small(data=data, **changes)
    return recipe.replace(student=dataclasses.replace(recipe.student, head=head, neck="fpn"))


def trainer_of(recipe: Recipe, folder: Path, **options: Any) -> Trainer:
    splits = read_splits(recipe)
    return Trainer(recipe, folder, splits["train"], splits["val"], device=CPU, **options)


def test_run_leaves_a_bundle_of_oriented_boxes(small: Small, turned: DataConfig, tmp_path: Path) -> None:
    report = train(recipe_of(small, turned, "dense-obb", steps=3, eval_every=2), tmp_path)
    bundle = Bundle.read(report.bundle)
    boxes, scores = bundle.manifest.outputs
    assert (boxes.shape, boxes.layout, scores.shape) == ((84, 5), "xywhr", (84, 2))
    assert bundle.manifest.angle == ANGLE
    assert bundle.manifest.predict.iou == 0.1  # nobody asked: neighbours side by side hardly overlap
    found = golden_outputs(bundle, bundle.manifest.golden[0])[0]
    assert bool((found[..., 2] >= found[..., 3]).all())
    assert bool((np.abs(found[..., 4]) <= np.float32(math.pi / 2)).all())
    assert "AP50" in report.metrics["val"]


@pytest.mark.parametrize("head", ["dense-obb", "retina-obb", "retina-obb-class"])
def test_training_lowers_the_loss(small: Small, turned: DataConfig, tmp_path: Path, head: str) -> None:
    trainer_of(recipe_of(small, turned, head, steps=30, lr=1e-2, warmup=5), tmp_path).run()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert ("loss_angle" in rows[0]) == (head == "retina-obb-class")


@pytest.mark.parametrize("head", ["dense-obb", "retina-obb"])
def test_methods_take_oriented_boxes_and_heads(small: Small, turned: DataConfig, tmp_path: Path, head: str) -> None:
    entries = tuple(DistillConfig(method=name) for name in ("fgd", "crosskd"))
    recipe = recipe_of(small, turned, head, steps=2, distill=entries)
    network = build_model(dataclasses.replace(recipe.student, head="dense-obb"), 2, recipe.input, seed=3)
    trainer = trainer_of(recipe, tmp_path, teacher=Teacher(network, recipe.input, {"name": "own"}))
    trainer.run()
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"crosskd.class", "crosskd.box"} <= set(row)
    assert row["crosskd.box"] > 0
    shown = view(trainer, trainer.train_set.samples[0])
    assert shown.boxes.shape[1] == 4
    assert bool((shown.boxes[:, 2:] > shown.boxes[:, :2]).all())


def of_teacher(recipe: Recipe) -> Teacher:
    """Return a wider teacher with the student's kind of head."""
    network = build_model(dataclasses.replace(recipe.student, channels=24), 2, recipe.input, seed=3)
    return Teacher(network, recipe.input, {"name": "own"})


def test_negative_core_distillation_runs_from_recipe_to_a_bundle_whose_graph_does_not_know(
    small: Small, turned: DataConfig, tmp_path: Path
) -> None:
    entry = DistillConfig(method="nsd", options={"warmup": 0.0})
    recipe = recipe_of(small, turned, "retina-obb-class", steps=4, distill=(entry,))
    recipe = recipe.replace(student=dataclasses.replace(recipe.student, channels=8, levels=(4, 5)))
    report = distill(recipe, tmp_path, teacher=of_teacher(recipe))
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    found = {key: value for key, value in row.items() if key.startswith("nsd.")}
    assert set(found) == {f"nsd.{term}.p{level}" for term in ("pixel", "logit", "box", "angle") for level in (4, 5)}
    assert all(math.isfinite(value) and value > 0 for value in found.values())
    with Bundle.read(report.bundle) as bundle:
        taught = bundle.graph()
    baseline = trainer_of(recipe.replace(distill=()), tmp_path / "alone")
    baseline.run()
    alone = export_onnx(baseline.average.model, recipe.input)
    assert taught != alone  # other weights
    assert nodes(taught) == nodes(alone)


def nodes(data: bytes) -> list[bytes]:
    return [node.SerializeToString() for node in onnx.load_from_string(data).graph.node]


@pytest.mark.parametrize("head", ["dense-obb", "retina-obb-class"])
def test_negative_core_distillation_of_weight_zero_leaves_the_run_as_it_is(
    small: Small, turned: DataConfig, tmp_path: Path, head: str
) -> None:
    def trained(folder: str, *entries: DistillConfig) -> dict[str, torch.Tensor]:
        recipe = recipe_of(small, turned, head, steps=2, distill=entries)
        trainer = trainer_of(recipe, tmp_path / folder, teacher=of_teacher(recipe) if entries else None)
        trainer.run()
        return trainer.student.state_dict()

    alone = trained("alone")
    zero = trained("zero", DistillConfig(method="nsd", weight=0.0, options={"warmup": 0.0}))
    taught = trained("taught", DistillConfig(method="nsd", options={"warmup": 0.0}))
    assert alone.keys() == zero.keys() == taught.keys()
    assert all(torch.equal(alone[key], zero[key]) for key in alone)
    assert not all(torch.equal(alone[key], taught[key]) for key in alone)


def test_page_of_negative_core_distillation_shows_the_background(
    small: Small, turned: DataConfig, tmp_path: Path
) -> None:
    recipe = recipe_of(small, turned, "retina-obb-class", steps=1, distill=(DistillConfig(method="nsd"),))
    trainer = trainer_of(recipe, tmp_path, teacher=of_teacher(recipe))
    trainer.run()
    level = view(trainer, trainer.train_set.samples[0]).entries[0].levels[0]
    shown = {each.name: each for each in level.maps}
    assert {"background", "foreground", "teacher energy", "student energy"} == set(shown)
    assert shown["background"].values.shape == (8, 8)
    on_objects = shown["background"].on_objects
    assert on_objects is not None
    assert on_objects < 1


def test_head_and_data_of_unlike_boxes_are_refused_with_what_is_possible(
    small: Small, turned: DataConfig, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"'dense' cannot learn the oriented boxes .* dense-obb, .*retina-obb-class$"):
        trainer_of(recipe_of(small, turned, "dense"), tmp_path)
    upright = small()
    upright = upright.replace(student=dataclasses.replace(upright.student, head="retina-obb"))
    with pytest.raises(RecipeError, match=r"'retina-obb' cannot learn the upright boxes .* dense, retina, .*yolo$"):
        trainer_of(upright, tmp_path)


def changed(data: DataConfig, tmp_path: Path, key: str, change: Callable[[dict[str, Any]], None]) -> DataConfig:
    """Return the sets with the JSON of one of them changed, beside its pictures as before."""
    source = Path(getattr(data, key))
    content = json.loads(source.read_text())
    change(content)
    (tmp_path / source.stem).symlink_to(source.parent / source.stem)
    path = tmp_path / source.name
    path.write_text(json.dumps(content))
    return dataclasses.replace(data, **{key: str(path)})


def test_training_set_without_objects_is_refused(small: Small, turned: DataConfig, tmp_path: Path) -> None:
    data = changed(turned, tmp_path, "train", lambda content: content["annotations"].clear())
    with pytest.raises(DataError, match=r"data.train \(.*train.json\) has no object to learn on any of its 8 images"):
        read_splits(recipe_of(small, data, "dense-obb"))
    (tmp_path / "upright").mkdir()
    upright = changed(data, tmp_path / "upright", "train", lambda content: content.pop("info"))
    with pytest.raises(DataError, match="has no object to learn"):  # not that val has boxes of another kind
        read_splits(recipe_of(small, upright, "dense-obb"))
    unlabelled = UnlabelledConfig(images=str(tmp_path / "train"), pseudo_labels=True)
    assert len(read_splits(recipe_of(small, data, "dense-obb").replace(unlabelled=unlabelled))["train"]) == 8


@pytest.mark.parametrize(("key", "kinds"), [("val", ("upright", "oriented")), ("train", ("oriented", "upright"))])
def test_splits_of_unlike_boxes_are_refused(
    small: Small, turned: DataConfig, tmp_path: Path, key: str, kinds: tuple[str, str]
) -> None:
    data = changed(turned, tmp_path, key, lambda content: content.pop("info"))
    message = rf"data.val \(.*val.json\) is a set of {kinds[0]} boxes, data.train \(.*\) of {kinds[1]} boxes"
    with pytest.raises(DataError, match=message):
        read_splits(recipe_of(small, data, "dense-obb"))


def test_validation_images_without_objects_have_no_kind(small: Small, turned: DataConfig, tmp_path: Path) -> None:
    def emptied(content: dict[str, Any]) -> None:
        content["annotations"].clear()
        del content["info"]

    data = changed(turned, tmp_path, "val", emptied)
    assert len(read_splits(recipe_of(small, data, "dense-obb"))["val"]) == 3


def test_objects_of_a_class_that_is_not_learnt_are_told_of(
    small: Small, turned: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][1]["name"] = "green"

    read_splits(recipe_of(small, turned, "dense-obb"))
    assert capsys.readouterr().err == ""
    read_splits(recipe_of(small, changed(turned, tmp_path, "val", rename), "dense-obb"))
    assert "edgekd: data.val: " in (said := capsys.readouterr().err)
    assert "objects of class 'green' dropped: not asked for; `edgekd data lint` lists all" in said


class Turned(nn.Module):
    """Finds, whatever the image, one box of each class in network pixels (64x64), scores 0.9 and 0.4."""

    strides, channels, num_classes, box_columns = (8,), (4,), 2, 5

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images.new_zeros(len(images), 4, 8, 8)]

    def head_outputs(self, features: Any) -> Any:
        return features

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = torch.tensor([[16.0, 28, 16, 8, 0.5], [40, 30, 20, 10, -0.7]])
        return boxes.expand(len(images), 2, 5), torch.diag(torch.tensor([0.9, 0.4])).expand(len(images), 2, 2)


def test_oriented_teacher_labels_images_of_an_oriented_set(turned: DataConfig, tmp_path: Path) -> None:
    pictures = Path(turned.val).parent / "val"
    images = read_unlabelled(pictures, ("red", "blue"), "obb")
    teacher = Teacher(Turned(), InputConfig(height=64, width=64), {}, ("blue", "red"))
    file = tmp_path / "labels.json"
    found = pseudo_labels(images, teacher, 0.5, file, CPU)
    for sample in found.samples:  # 80x60 -> 64x48 and 8 rows of padding above and below
        np.testing.assert_allclose(sample.boxes, [[20, 25, 20, 10, 0.5]], atol=1e-4)
        assert sample.labels.tolist() == [1]
    again = pseudo_labels(images, teacher, 0.5, file, CPU)
    assert all(a.boxes.tobytes() == b.boxes.tobytes() for a, b in zip(found.samples, again.samples, strict=True))
    (pictures / "labels.json").write_text(file.read_text())  # whoever corrects them opens them as a set
    read_again = read_coco(pictures / "labels.json")
    assert (read_again.task, len(read_again)) == ("obb", 3)
    np.testing.assert_allclose(read_again.samples[0].boxes, found.samples[0].boxes, atol=1e-4)
    held = json.loads(file.read_text())
    assert held["annotations"][0]["area"] == pytest.approx(200)
    del held["annotations"][0]["segmentation"]
    file.write_text(json.dumps(held))
    with pytest.raises(DataError, match="is damaged"):
        pseudo_labels(images, teacher, 0.5, file, CPU)


def test_teacher_of_another_kind_of_boxes_labels_nothing(small: Small, turned: DataConfig, tmp_path: Path) -> None:
    pictures = Path(turned.val).parent / "val"
    size = InputConfig(height=64, width=64)
    upright = Teacher(build_model(small().student, 2, size, seed=0), size, {}, ("red", "blue"))
    oriented = Teacher(Turned(), size, {}, ("red", "blue"))
    for task, teacher, message in (
        ("obb", upright, "the teacher's boxes are upright, the data's are oriented"),
        ("detect", oriented, "the teacher's boxes are oriented, the data's are upright"),
    ):
        images = read_unlabelled(pictures, ("red", "blue"), task)
        with pytest.raises(RecipeError, match=message):
            pseudo_labels(images, teacher, 0.5, tmp_path / "labels.json", CPU)


def test_run_with_unlabelled_aerial_images(small: Small, turned: DataConfig, tmp_path: Path) -> None:
    section = UnlabelledConfig(images=str(Path(turned.val).parent / "val"), batch=2, pseudo_labels=True, conf=0.0)
    recipe = recipe_of(small, turned, "dense-obb", steps=2).replace(unlabelled=section)
    teacher = Teacher(build_model(recipe.student, 2, recipe.input, seed=1), recipe.input, {}, ("red", "blue"))
    assert distill(recipe, tmp_path, teacher=teacher).steps == 2
    assert json.loads((tmp_path / "pseudo-labels.json").read_text())["info"]["layout"] == "xywhr"
