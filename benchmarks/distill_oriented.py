"""Oriented boxes in the training evidence: data sets, pairs of networks, and what is measured of them besides.

Large images are cut into tiles for training; the test images are measured whole, as `predict(tile=)` sees them. The
false positives on background are those on test tiles without any object, at the same recalls for every network.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_settings import RESNET18, SHARED, DataSet, Pair

import edgekd
from edgekd.training.data.read import read
from edgekd.training.metrics.background import Ranked, background_images
from edgekd.training.metrics.measure import ORIENTED

if TYPE_CHECKING:
    from collections.abc import Iterator

RECALLS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AERIAL = {"scenes": ((120, 20, 40), 0), "scenes-teacher": ((500, 1, 1), 1)}  # images in train, val, test; seed
AERIAL_TILE, UCAS_TILE = (128, 32), (256, 64)  # size, overlap
METHODS = ("baseline", "pkd", "fgd", "nsd", "nsd_pos")
TURNED = {"flip_vertical": 0.5, "rotate_deg": 45.0}  # seen from above, nothing is upright

BUDGET: dict[str, Any] = {
    "teacher_steps": {"ucas": 2000, "aerial": 2500},
    "size": 192,
    "augment": TURNED,
    "teacher_augment": TURNED,
}

PAIRS: dict[str, Pair] = {
    "retina-obb": Pair(
        note="rotated RetinaNet ResNet-18 -> the same of a quarter of the width; angles as classes in both",
        student={"backbone": "resnet18", "width": 0.25, "neck": "fpn", "channels": 64, "head": "retina-obb-class"},
        teacher={"backbone": "resnet18", "neck": "fpn", "channels": 64, "head": "retina-obb-class", **RESNET18},
        methods=("regress", *METHODS),
        heads={"regress": "retina-obb"},
        student_steps={"ucas": 800, "aerial": 800},
        tuned_by="retina-obb",
        **BUDGET,
    ),
    "dense-obb": Pair(
        note="real time: dense-obb ResNet-18 -> MobileNetV3-small of half the width, anchor-free, angle regressed",
        student={"backbone": "mobilenetv3-small", "width": 0.5, "neck": "pafpn", "channels": 48, "head": "dense-obb"},
        teacher={"backbone": "resnet18", "neck": "pafpn", "channels": 96, "head": "dense-obb", **RESNET18},
        methods=METHODS,
        student_steps={"ucas": 2400, "aerial": 2400},  # after 400 it has found nothing yet, after 800 AP 6
        tuned_by="dense-obb",
        **BUDGET,
    ),
}


def oriented_sets(work: Path) -> dict[str, DataSet]:
    """Return the sets of oriented boxes by name; `work` holds scenes and tiles."""
    data = work / "data"
    aerial, ucas = data / "aerial", data / "ucas"
    return {
        "ucas": DataSet(
            ucas / "train" / "fit.json", ucas / "train" / "choose.json", SHARED / "ucas_aod_mini" / "val.txt",
            ucas / "train" / "fit.json",
            "UCAS-AOD subset, tiles of 55 training images, 12 whole test images",
            *UCAS_TILE, ucas / "test" / "tiles.json",
        ),
        "aerial": DataSet(
            aerial / "train" / "tiles.json", aerial / "val" / "tiles.json", aerial / "scenes" / "test.json",
            aerial / "teacher" / "tiles.json",
            "synthetic aerial scenes, tiles of 120 training images (teacher: 500 others), 40 whole test images",
            *AERIAL_TILE, aerial / "test" / "tiles.json",
        ),
    }  # fmt: skip


def prepare(name: str, work: Path) -> None:
    """Draw and cut what is missing of a set."""
    for data, tiles, (size, overlap) in _cuts(name, work / "data" / name):
        if not tiles.exists():
            edgekd.data_tile(data, tiles, size=size, overlap=overlap)
    train = work / "data" / name / "train"
    if name == "ucas" and not (train / "choose.json").exists():  # written last; another process may be reading them
        _hold_out(train)


def _cuts(name: str, folder: Path) -> Iterator[tuple[Path, Path, tuple[int, int]]]:
    """Yield what to cut, the folder of its tiles, and their size and overlap."""
    if name == "ucas":
        yield SHARED / "ucas_aod_mini" / "train.txt", folder / "train", UCAS_TILE
        yield SHARED / "ucas_aod_mini" / "val.txt", folder / "test", UCAS_TILE
        return
    for scenes, ((train, val, test), seed) in AERIAL.items():
        if not (folder / scenes).exists():
            edgekd.data_synth("aerial", folder / scenes, train=train, val=val, test=test, seed=seed)
    for split in ("train", "val", "test"):
        yield folder / "scenes" / f"{split}.json", folder / split, AERIAL_TILE
    yield folder / "scenes-teacher" / "train.json", folder / "teacher", AERIAL_TILE


def _hold_out(tiles: Path) -> None:
    """Split the training tiles by image: every sixth image is there to choose with."""
    found = json.loads((tiles / "tiles.json").read_text())
    stems = sorted({_stem(image) for image in found["images"]})
    held = set(stems[::6])
    for name, wanted in (("fit", set(stems) - held), ("choose", held)):
        images = [image for image in found["images"] if _stem(image) in wanted]
        ids = {image["id"] for image in images}
        kept = [each for each in found["annotations"] if each["image_id"] in ids]
        path = tiles / f"{name}.json"
        path.with_suffix(".part").write_text(json.dumps({**found, "images": images, "annotations": kept}))
        path.with_suffix(".part").replace(path)


def _stem(image: dict[str, Any]) -> str:
    return str(Path(image["file_name"]).stem.split("__")[0])


def measure_oriented(bundle: Path, data: DataSet) -> dict[str, Any]:
    """Return DOTA's figures on the whole test images in both modes, and the false positives on background tiles."""
    by_mode = {
        mode: edgekd.evaluate(bundle, data.test, tile=data.tile, overlap=data.overlap, mode=mode).metrics
        for mode in ("area", "voc07")
    }
    return {**by_mode["area"], "voc07": by_mode["voc07"], "at_recall": on_background(bundle, data)}


def on_background(bundle: Path, data: DataSet) -> dict[str, Any]:
    """Return false positives per tile, by the recall of all objects of the test tiles that is reached."""
    with edgekd.load(bundle) as detector:
        tiles = read(data.test_tiles, classes=detector.names)
        found = [detector.predict(sample.load(), color="rgb", **ORIENTED._asdict()) for sample in tiles.samples]
    ranked = Ranked(found, tiles)
    points = {f"{recall:g}": dataclasses.asdict(ranked.at(recall)) for recall in RECALLS if recall <= ranked.highest}
    return {"tiles": len(tiles), "background_tiles": len(background_images(tiles)), "points": points}
