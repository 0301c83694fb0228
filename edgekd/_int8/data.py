"""The images that calibrate and those that judge, and whether they may."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._preprocess import images_in
from ..errors import DataError, ImageError, MissingPackageError, UsageError
from .options import FEWEST_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .._manifest import Manifest
    from ..training.data.sample import Dataset
    from .options import Calibration


@dataclass(frozen=True)
class Chosen:
    """The calibration images.

    Attributes:
        pixels: `(K, 3, H, W)` float32, as the network sees them.
        about: name, images, those it was chosen from, near copies left out, fingerprint, origin: for the receipt.
    """

    pixels: NDArray[np.float32]
    about: dict[str, Any]


@dataclass(frozen=True)
class Judges:
    """The validation images.

    Attributes:
        search: what the search for layers looks at.
        report: what the receipt's figures are of. The same set for detectors; of an anomaly set, whose only defects are
            test images, the other half of them.
        about: name, images, fingerprint, origin: for the receipt.
    """

    search: Dataset
    report: Dataset
    about: dict[str, Any]


def calibration_images(manifest: Manifest, options: Calibration, tell: Callable[[str], None]) -> Chosen:
    """Read the training images and choose those that calibrate.

    Raises:
        UsageError: no set was named and the bundle knows none; or it is not the training set and `force` was not given.
        DataError: it cannot be read, or holds too few different images.
        MissingPackageError: a package of the readers is missing.
    """
    from ..quantization.pick import distinct, pick, view

    dataset = _training_set(manifest, options)
    origin = _origin(manifest, dataset)
    _check_calibration(manifest, dataset, origin, force=options.force)
    tell(f"calibration: choosing among {len(dataset)} images of {dataset.name}")
    views = [view(sample.load(), sample.labels, sample.boxes) for sample in dataset.samples]
    chosen = pick(views, options.images)
    copies = len(views) - len(distinct(views))
    if len(chosen) < FEWEST_IMAGES:
        raise DataError(
            f"{dataset.name} has {len(chosen)} different images ({copies} of {len(views)} are near copies of others); "
            f"calibration takes at least {FEWEST_IMAGES}"
        )
    picked = dataclasses.replace(dataset, samples=tuple(dataset.samples[index] for index in chosen))
    pixels = np.stack([network_pixels(manifest, sample.load()) for sample in picked.samples])
    about = {
        "name": dataset.name,
        "images": len(chosen),
        "of": len(dataset),
        "near_copies": copies,
        "sha256": _fingerprint(picked),
        "origin": origin,
        "forced": options.force,
    }
    return Chosen(pixels, about)


def judging_images(manifest: Manifest, options: Calibration) -> Judges:
    """Read the validation images.

    Raises:
        UsageError: no set was named and the bundle knows none; or it is the training or test set and `force` was not
            given.
        DataError: it cannot be read, or shows nothing to find.
        MissingPackageError: a package of the readers is missing.
    """
    dataset = _validation_set(manifest, options)
    origin = _origin(manifest, dataset)
    anomaly = manifest.task == "anomaly"
    if not anomaly and origin in ("train", "test") and not options.force:
        raise UsageError(
            f"{dataset.name} is the set that the network was {'trained' if origin == 'train' else 'tested'} on; what "
            "int8 loses is measured on validation images, which also decide which layers stay in floating point: name "
            "others (--val), or --force"
        )
    about: dict[str, Any] = {"name": dataset.name, "sha256": _fingerprint(dataset), "origin": origin}
    if anomaly:
        search, report = _halves(dataset)
        about |= {"images": len(search), "images_reported": len(report), "objects": _defects(search)}
        return Judges(search, report, about)
    objects = sum(len(sample.labels) for sample in dataset.samples)
    if not objects:
        raise DataError(
            f"{dataset.name} has no annotated object; what int8 loses is measured on some: name a set (--val)"
        )
    return Judges(dataset, dataset, {**about, "images": len(dataset), "objects": objects})


def network_pixels(manifest: Manifest, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return `(3, H, W)` float32 of an RGB image, placed by the runtime's own letterbox."""
    return _placed(manifest, image)[0]


def _placed(manifest: Manifest, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ops.Placement]:
    spec = manifest.input
    return ops.letterbox(
        image, spec.height, spec.width, swap=spec.color != "rgb", mean=spec.mean, std=spec.std, pad=spec.pad,
        stretch=manifest.task == "anomaly",
    )  # fmt: skip


def placed(manifest: Manifest, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ops.Placement]:
    """Return `(1, 3, H, W)` float32 of an RGB image, and where it lies."""
    pixels, placement = _placed(manifest, image)
    return np.ascontiguousarray(pixels[None]), placement


def _training_set(manifest: Manifest, options: Calibration) -> Dataset:
    source = options.train
    if source is None:
        source = _recipe_path(manifest, "train")
    if source is None:
        raise UsageError(
            "int8 is calibrated on training images, and the bundle's recipe names none: give them (--calib DIR)"
        )
    try:
        return _read(source, _format(manifest, options, options.train), "train", manifest)
    except DataError as error:
        bare = _bare_images(Path(source), manifest)
        if bare is None:
            raise _named(error, "calibration", source, options.train) from error
        return bare


def _validation_set(manifest: Manifest, options: Calibration) -> Dataset:
    split = "test" if manifest.task == "anomaly" else "val"
    known = _recipe_path(manifest, "val")
    if options.val is None and options.train is not None and (split == "test" or Path(options.train).is_dir()):
        try:
            beside = _read(options.train, _format(manifest, options, options.train), split, manifest)
            if split == "test" or not _is_training_part(beside, manifest, options):
                return beside
        except DataError as error:
            if known is None or split == "test":
                raise _named(error, "validation", options.train, options.train) from error
    source = known if options.val is None else options.val
    if source is None:
        raise UsageError(
            "int8 is judged on annotated validation images, and the bundle's recipe names none: give them (--val DIR)"
        )
    try:
        return _read(source, _format(manifest, options, options.val), split, manifest)
    except DataError as error:
        raise _named(error, "validation", source, options.val) from error


def _is_training_part(dataset: Dataset, manifest: Manifest, options: Calibration) -> bool:
    """Whether a folder's "val" is its "train": readers of formats without splits give the same images for either."""
    assert options.train is not None
    train = _read(options.train, _format(manifest, options, options.train), "train", manifest)
    return _fingerprint(train) == _fingerprint(dataset)


def _named(error: DataError, what: str, source: str | Path, given: str | Path | None) -> DataError:
    """Return an error that says where a set comes from, since the user may have named none."""
    where = "" if given is not None else f" (named by the bundle's recipe; others: {FLAGS[what]})"
    return DataError(f"{what} images, {source}{where}: {error}")


FLAGS = {"calibration": "--calib DIR", "validation": "--val DIR"}


def _read(source: str | Path, format: str, split: str, manifest: Manifest) -> Dataset:  # noqa: A002
    try:
        from ..training.data.read import read
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"int8 needs {error.name} to read images: pip install 'edgekd[train]'") from error
    classes = None if manifest.task == "anomaly" else manifest.classes
    dataset = read(source, format, split, classes, whole=True)
    if (dataset.task == "anomaly") != (manifest.task == "anomaly"):
        raise DataError(f"{dataset.name} is a set of task {dataset.task}; the bundle is for task {manifest.task}")
    return dataset


def _recipe_path(manifest: Manifest, split: str) -> str | None:
    """Return what the bundle's recipe says of a split's place."""
    data = (manifest.recipe or {}).get("data")
    found = data.get("path" if manifest.task == "anomaly" else split) if isinstance(data, dict) else None
    return found if isinstance(found, str) else None


def _format(manifest: Manifest, options: Calibration, given: str | Path | None) -> str:
    data = (manifest.recipe or {}).get("data")
    if given is None and options.format == "auto" and isinstance(data, dict):
        return str(data.get("format", "auto"))
    return options.format


def _bare_images(folder: Path, manifest: Manifest) -> Dataset | None:
    """Return the images of a folder without annotations, or None where there are none."""
    from ..training.data.files import header_size
    from ..training.data.sample import Dataset, Sample

    if not folder.is_dir():
        return None
    try:
        paths = images_in(folder)
    except ImageError:  # it holds none; what its reader says of it is the better word
        return None
    samples = tuple(
        Sample(
            path=path,
            size=header_size(path),
            boxes=np.empty((0, 4), np.float32),
            labels=np.empty(0, np.int64),
            difficult=np.empty(0, np.bool_),
        )
        for path in paths
    )
    return Dataset(str(folder), manifest.task, manifest.classes, samples)


def _origin(manifest: Manifest, dataset: Dataset) -> str:
    """Return which of the bundle's sets this is: "train", "val", "test", or "other"; "unknown" if it names none."""
    known = manifest.provenance.get("data")
    if not isinstance(known, dict):
        return "unknown"
    marks = {_fingerprint(dataset), *_parts(manifest, dataset)}
    names = [name for name, row in known.items() if isinstance(row, dict) and row.get("sha256") in marks]
    return next((name for name in ("test", "val", "train") if name in names), "other")


def _parts(manifest: Manifest, dataset: Dataset) -> set[str]:
    """Return the fingerprint of the part of an anomaly set that trained; the rest of its folder set the thresholds."""
    if manifest.task != "anomaly" or manifest.recipe is None:
        return set()
    from .._anomaly_recipe import AnomalyRecipe
    from ..errors import EdgekdError
    from ..training.anomaly.images import hold_out

    try:
        recipe = AnomalyRecipe.from_dict(manifest.recipe)
        train, _ = hold_out(dataset, recipe.data.calibration, recipe.predict.alpha, recipe.train.seed)
    except EdgekdError:  # of another version, or too few images: then it is another set
        return set()
    return {_fingerprint(train)}


def _fingerprint(dataset: Dataset) -> str:
    from ..training.resume import data_fingerprint

    return data_fingerprint(dataset)


def _check_calibration(manifest: Manifest, dataset: Dataset, origin: str, *, force: bool) -> None:
    if force or origin in ("train", "unknown"):
        return
    if origin in ("test", "val"):
        kind = "test" if origin == "test" else "validation"
        problem = f"is the network's {kind} set: what int8 loses could not be told on it any more"
    else:
        train = manifest.provenance["data"].get("train", {})
        problem = (
            f"is not the set that the network was trained on ({train.get('images', '?')} images, sha256 "
            f"{str(train.get('sha256', '?'))[:12]}): ranges of other images clip what is seen at work"
        )
    raise UsageError(f"{dataset.name} {problem}. Give the training images (--calib DIR), or --force to take these")


def _halves(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Split test images in two, every kind of defect alternately: one half searches, the other is reported."""
    seen: dict[str | None, int] = {}
    halves: tuple[list[Any], list[Any]] = ([], [])
    for sample in dataset.samples:
        count = seen.get(sample.defect, 0)
        halves[count % 2].append(sample)
        seen[sample.defect] = count + 1
    for part in halves:
        if len({sample.anomalous for sample in part}) < 2:
            raise DataError(f"{dataset.name} should hold at least two normal and two anomalous images of a kind")
    first, second = (
        dataclasses.replace(dataset, name=f"{dataset.name} ({name} half)", samples=tuple(part))
        for name, part in zip(("first", "second"), halves, strict=True)
    )
    return first, second


def _defects(dataset: Dataset) -> int:
    return sum(bool(sample.anomalous) for sample in dataset.samples)
