"""Which sets calibrate and judge: the training set and the validation set, and no others unless forced."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgekd._anomaly_recipe import AnomalyRecipe
from edgekd._int8.data import calibration_images, judging_images, network_pixels
from edgekd._int8.options import Calibration
from edgekd.errors import DataError, MissingPackageError, UsageError
from edgekd.geometry import resize
from edgekd.training.anomaly.images import hold_out
from edgekd.training.data.read import read
from edgekd.training.resume import data_fingerprint

from ..conformance import bundles
from . import networks, sets

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._int8.data import Chosen, Judges
    from edgekd._manifest import Manifest

    from .conftest import Trained


def chosen(manifest: Manifest, **options: Any) -> Chosen:
    return calibration_images(manifest, Calibration(**options), lambda _: None)


def judges(manifest: Manifest, **options: Any) -> Judges:
    return judging_images(manifest, Calibration(**options))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that no bundle knows: other pictures."""
    folder = tmp_path_factory.mktemp("other")
    sets.write_set(folder, sets.coloured(), 10, 10)
    for path in folder.glob("images/*/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    for path in (*folder.glob("images/*/*"), *folder.glob("labels/*/*")):
        path.rename(path.with_name(f"other-{path.name}"))
    return folder


def test_recipe_names_the_sets(trained: Trained) -> None:
    manifest = trained.bundle.manifest
    picked = chosen(manifest)
    assert picked.pixels.shape == (sets.TRAIN, 3, networks.HEIGHT, networks.WIDTH)
    assert picked.pixels.dtype == np.float32
    expected = {
        "images": 24,
        "of": 24,
        "near_copies": 0,
        "origin": "train",
        "forced": False,
        "name": str(trained.folder),
    }
    assert {name: picked.about[name] for name in expected} == expected
    found = judges(manifest)
    assert found.search is found.report
    assert found.about["origin"] == "val"
    assert found.about["images"] == sets.VAL
    assert found.about["objects"] == sum(len(item.labels) for item in found.search.samples) > 50


def test_pixels_are_those_that_predict_shows_the_network(trained: Trained) -> None:
    manifest = trained.bundle.manifest
    image = networks.scene(3)
    spec = dataclasses.replace(manifest.input, height=48, width=64, color="bgr", pad=7)
    odd = dataclasses.replace(manifest, input=spec)
    seen = network_pixels(odd, image)
    expected = np.full((48, 64, 3), 7.0)
    expected[2:45] = resize(image, 43, 64)[:, :, ::-1]
    assert seen.shape == (3, 48, 64)
    mean, std = np.array(spec.mean), np.array(spec.std)
    np.testing.assert_allclose(seen.transpose(1, 2, 0), (expected - mean) / std, atol=0.02)


def test_fewer_images_are_chosen_where_fewer_are_asked_for(trained: Trained) -> None:
    picked = chosen(trained.bundle.manifest, images=9)
    assert len(picked.pixels) == picked.about["images"] == 9
    assert picked.about["sha256"] != chosen(trained.bundle.manifest).about["sha256"]
    again = chosen(trained.bundle.manifest, images=9)
    assert again.about == picked.about
    np.testing.assert_array_equal(again.pixels, picked.pixels)


@pytest.mark.parametrize("images", [0, 1, 7, 4097])
def test_numbers_of_images_that_cannot_calibrate_are_refused_at_once(images: int) -> None:
    with pytest.raises(UsageError, match=rf"images should be 8 to 4096, got {images}"):
        Calibration(images=images)


def test_the_fewest_images_do_calibrate(trained: Trained) -> None:
    assert len(chosen(trained.bundle.manifest, images=8).pixels) == 8


def test_near_copies_are_counted_and_too_few_images_refused(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    shutil.copytree(trained.folder / "images" / "train", folder)
    for path in sorted(folder.iterdir())[:9]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    picked = chosen(trained.bundle.manifest, train=folder, force=True)
    assert (picked.about["of"], picked.about["near_copies"], picked.about["images"]) == (33, 9, 24)
    for path in sorted(folder.iterdir())[6:]:
        path.unlink()
    for path in sorted(folder.iterdir()):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    with pytest.raises(DataError, match=r"has 6 different images \(6 of 12 are near copies.*at least 8"):
        chosen(trained.bundle.manifest, train=folder, force=True)


@pytest.mark.parametrize("what", ["val", "test", "other"])
def test_sets_that_did_not_train_are_refused_unless_forced(trained: Trained, other: Path, what: str) -> None:
    bundle = trained.bundle
    if what == "test":
        test = read(other, "yolo", "val", bundle.manifest.classes)  # the other set's second half
        known = {**bundle.manifest.provenance["data"], "test": {"images": 10, "sha256": data_fingerprint(test)}}
        bundle = bundle.replace(dataclasses.replace(bundle.manifest, provenance={"data": known}))
    path = {
        "val": trained.folder / "images" / "val",
        "test": other / "images" / "val",
        "other": other / "images" / "train",
    }[what]
    message = {
        "val": "is the network's validation set: what int8 loses could not be told on it",
        "test": "is the network's test set",
        "other": r"is not the set that the network was trained on \(24 images, sha256 [0-9a-f]{12}\)",
    }[what]
    with pytest.raises(UsageError, match=message) as caught:
        chosen(bundle.manifest, train=path)
    assert "--calib DIR" in str(caught.value)
    assert "--force" in str(caught.value)
    forced = chosen(bundle.manifest, train=path, force=True)
    assert (forced.about["origin"], forced.about["forced"]) == (what, True)


def test_training_set_is_known_wherever_it_lies(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "moved")
    assert chosen(trained.bundle.manifest, train=tmp_path / "moved").about["origin"] == "train"
    (tmp_path / "moved" / "labels" / "train" / "000.txt").write_text("0 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is not the set that the network was trained on"):
        chosen(trained.bundle.manifest, train=tmp_path / "moved")


def test_bundle_without_provenance_takes_any_set(other: Path) -> None:
    manifest = sets.coloured().manifest
    assert chosen(manifest, train=other).about["origin"] == "unknown"
    assert judges(manifest, train=other).about["origin"] == "unknown"


def test_bare_folder_calibrates_and_the_recipe_judges(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "images" / "train", tmp_path / "bare")
    imported = sets.coloured().manifest
    assert chosen(imported, train=tmp_path / "bare").about["images"] == 24
    known = dataclasses.replace(imported, recipe=trained.bundle.manifest.recipe)
    assert judges(known, train=tmp_path / "bare").about["name"] == str(trained.folder)
    with pytest.raises(DataError, match="validation images"):
        judges(imported, train=tmp_path / "bare")


def test_folder_without_splits_is_not_taken_for_its_own_judge(trained: Trained) -> None:
    """`images/train` read as "val" is the training images again."""
    imported = sets.coloured().manifest
    part = trained.folder / "images" / "train"
    with pytest.raises(UsageError, match=r"judged on annotated validation images.*--val DIR"):
        judges(imported, train=part)
    known = dataclasses.replace(imported, recipe=trained.bundle.manifest.recipe)
    assert judges(known, train=part).about["images"] == sets.VAL


def test_validation_images_of_the_calibration_folder_come_before_the_recipes(trained: Trained, other: Path) -> None:
    assert judges(trained.bundle.manifest, train=other).about["name"] == str(other)
    assert judges(trained.bundle.manifest, train=other, val=trained.folder).about["name"] == str(trained.folder)


@pytest.mark.parametrize("what", ["train", "test"])
def test_judges_are_neither_training_nor_test_images_unless_forced(trained: Trained, other: Path, what: str) -> None:
    bundle = trained.bundle
    test = read(other, "yolo", "val", bundle.manifest.classes)
    known = {**bundle.manifest.provenance["data"], "test": {"images": 10, "sha256": data_fingerprint(test)}}
    manifest = dataclasses.replace(bundle.manifest, provenance={"data": known})
    path = trained.folder / "images" / "train" if what == "train" else other / "images" / "val"
    with pytest.raises(UsageError, match=rf"the set that the network was {what}ed on.*\(--val\), or --force") as caught:
        judges(manifest, val=path)
    assert str(path) in str(caught.value)
    assert judges(manifest, val=path, force=True).about["origin"] == what


def test_other_validation_images_are_welcome(trained: Trained, other: Path) -> None:
    assert judges(trained.bundle.manifest, val=other).about["origin"] == "other"


def test_set_without_objects_judges_nothing(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "empty")
    for path in (tmp_path / "empty" / "labels" / "val").iterdir():
        path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"has no annotated object.*\(--val\)"):
        judges(trained.bundle.manifest, val=tmp_path / "empty")


def test_no_set_named_anywhere_says_what_to_give() -> None:
    manifest = sets.coloured().manifest
    with pytest.raises(UsageError, match=r"bundle's recipe names none: give them \(--calib DIR\)"):
        chosen(manifest)
    with pytest.raises(UsageError, match=r"bundle's recipe names none: give them \(--val DIR\)"):
        judges(manifest)


def test_paths_of_the_recipe_that_are_gone_say_where_they_come_from(trained: Trained, tmp_path: Path) -> None:
    gone = dataclasses.replace(
        trained.bundle.manifest, recipe={"data": {"train": "/gone/train", "val": "/gone/val", "format": "yolo"}}
    )
    with pytest.raises(
        DataError, match=r"calibration images, /gone/train \(named by the bundle's recipe; others: --calib"
    ):
        chosen(gone)
    with pytest.raises(DataError, match=r"validation images, /gone/val \(named by the bundle's recipe; others: --val"):
        judges(gone)
    with pytest.raises(DataError, match=f"calibration images, {tmp_path}/x: no file or folder"):
        chosen(gone, train=tmp_path / "x")
    with pytest.raises(DataError, match=f"validation images, {tmp_path}/x: no file or folder"):
        judges(gone, val=tmp_path / "x")


def test_format_of_the_recipe_is_not_that_of_another_set(trained: Trained) -> None:
    coco = dataclasses.replace(
        trained.bundle.manifest, recipe={"data": {"train": "/gone", "val": "/gone", "format": "coco"}}
    )
    assert chosen(coco, train=trained.folder).about["images"] == 24
    assert judges(coco, val=trained.folder).about["images"] == sets.VAL
    with pytest.raises(DataError, match="no COCO JSON"):
        chosen(coco, train=trained.folder, format="coco")


def test_set_of_another_task_is_refused(trained: Trained, category: Path) -> None:
    with pytest.raises(DataError, match="is a set of task anomaly; the bundle is for task detect"):
        judges(trained.bundle.manifest, val=category / "test")


def test_without_the_readers_packages_it_says_what_to_install(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "edgekd.training.data.read", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'edgekd\[train\]'"):
        judges(trained.bundle.manifest)


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """An anomaly set: 40 normal images, and a test of 6 normal and 4 + 3 with two kinds of defect."""
    counts = {"train/good": 40, "test/good": 6, "test/crack": 4, "test/hole": 3}
    for offset, (part, count) in enumerate(counts.items()):
        folder = tmp_path / "category" / part
        folder.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(networks.scene(100 * offset + index)).save(folder / f"{index:03}.png")
    return tmp_path / "category"


def anomaly_manifest(category: Path, *, recipe: bool = True) -> Manifest:
    """Return a manifest as anomaly training writes it: the fingerprint of the part that trained."""
    said = {
        "name": "parts", "task": "anomaly", "data": {"path": str(category), "calibration": 0.2},
        "teachers": [{"student": {"backbone": "resnet18"}}], "predict": {"alpha": 0.1},
    }  # fmt: skip
    whole = AnomalyRecipe.from_dict(_recipe(said))
    train, held = hold_out(
        read(category, "mvtec", "train"), whole.data.calibration, whole.predict.alpha, whole.train.seed
    )
    known = {
        name: {"images": len(part), "sha256": data_fingerprint(part)}
        for name, part in (("train", train), ("calibration", held), ("test", read(category, "mvtec", "test")))
    }
    manifest = dataclasses.replace(bundles.anomaly_manifest(), provenance={"data": known})
    return dataclasses.replace(manifest, recipe=whole.to_dict()) if recipe else manifest


def _recipe(said: dict[str, Any]) -> dict[str, Any]:
    return {**said, "teachers": [{"backbone": "resnet18"}]}


def test_anomaly_folder_calibrates_with_its_normal_images_and_is_judged_by_halves(category: Path) -> None:
    manifest = anomaly_manifest(category)
    picked = chosen(manifest)
    assert (picked.about["origin"], picked.about["of"]) == ("train", 40)
    found = judges(manifest)
    assert found.about["origin"] == "test"
    assert (found.about["images"], found.about["images_reported"], found.about["objects"]) == (7, 6, 4)
    search, report = ({sample.path for sample in part.samples} for part in (found.search, found.report))
    assert not search & report
    assert len(search | report) == 13
    for part in (found.search, found.report):
        assert {sample.defect for sample in part.samples} == {"good", "crack", "hole"}
    assert found.search.name.endswith("(first half)")


def test_anomaly_test_with_too_little_of_a_kind_is_refused(category: Path) -> None:
    manifest = anomaly_manifest(category)
    for path in [*(category / "test" / "good").iterdir()][1:]:
        path.unlink()
    with pytest.raises(DataError, match="at least two normal and two anomalous images"):
        judges(manifest)


def test_anomaly_set_of_other_images_does_not_calibrate(category: Path) -> None:
    manifest = anomaly_manifest(category)
    for index in range(40):
        Image.fromarray(networks.scene(5000 + index)).save(category / "train" / "good" / f"new-{index}.png")
        (category / "train" / "good" / f"{index:03}.png").unlink()
    with pytest.raises(UsageError, match="is not the set that the network was trained on"):
        chosen(manifest)
