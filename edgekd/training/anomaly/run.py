"""One whole run: hold out normal images, train on the rest, calibrate, measure, write a portable bundle."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import _thresholds
from ..._anomaly_recipe import AnomalyRecipe
from ..._bundle import Bundle
from ..._golden import add_golden
from ..._manifest import GRAPH, Manifest, OutputSpec
from ...errors import BundleError, DataError, RecipeError
from ..checkpoint import write_tensors
from ..data.anomaly import is_split
from ..data.read import read
from ..distributed import process_group
from ..export import ANOMALY_OPERATORS, export_onnx
from ..finish import Portable, golden_images, input_spec, now, receipts, versions
from ..outcome import Outcome, recorded
from ..progress import announce
from ..resume import data_fingerprint
from ..run import choose_device
from ..seeding import switches_restored
from ..teacher import fingerprint
from .calibrate import MOST_CONSTANT, batchnorms
from .images import hold_out
from .measure import FIGURES, figures, scored
from .pyramid import STRIDES
from .report import PAGE, Report, write_report
from .score import SIGMA
from .shipped import FILE
from .trainer import AnomalyTrainer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..._anomaly import Scored
    from ..._manifest import InputSpec, Thresholds
    from ..data.sample import Dataset
    from .pyramid import Pyramid

OUTPUTS = ("map", "score")
ENGINE = "the portable graph on ONNX Runtime, fp32"


def run(
    recipe: AnomalyRecipe, folder: Path, *, device: str = "auto", resume: bool = True, tensorboard: bool = False
) -> Outcome:
    """Train in `folder` and leave `model.bin`, `network.safetensors` and, of test images, `report.html` there.

    The last step's weights are kept; of a run that is finished, the bundle as well, with what was built into it and the
    figures in it. Test images, where there are some, are only measured, after everything is decided.

    Raises:
        RecipeError: an impossible recipe, or `folder` holds another run.
        DataError: the data cannot be read, or has too few normal images for the thresholds.
        WeightsError: a teacher's weights do not fit.
        Interrupted: stopped, with a checkpoint written.
    """
    place = choose_device(device)
    splits = read_splits(recipe)
    with switches_restored(), process_group(place):
        trainer = AnomalyTrainer(recipe, folder, splits["train"], device=place, resume=resume, tensorboard=tensorboard)
        notes = notes_on(trainer.network.pyramids)
        for note in notes:
            announce(note)
        trainer.run()
        return _finish(trainer, splits, folder, notes)


def notes_on(teachers: Sequence[Pyramid]) -> tuple[str, ...]:
    """Return what to know of teachers before figures are believed: where they come from, features that hardly vary."""
    notes = []
    untrained = [each for each in teachers if each.pretrained is None]
    if untrained:
        fitted = {True: "BatchNorm fitted to the normal images", False: "BatchNorm never fitted"}
        listed = ", ".join(
            f"{each.name} ({fitted[each.calibrated > 0] if batchnorms(each) else 'no BatchNorm'})" for each in untrained
        )
        notes.append(
            f"untrained teacher: {listed}. Random weights know nothing of images and find simple textures at best; "
            "type --teacher-weights resnet18=FILE, or name a file in the recipe's [[teachers]]"
        )
    brought = [each.name for each in teachers if (each.pretrained or {}).get("file") == FILE.name]
    if brought:
        notes.append(
            f"teacher {', '.join(brought)} is the small one that edgekd brings along, which has learnt from drawn "
            "textures; one with ImageNet weights usually sees more: type --teacher-weights resnet18=FILE"
        )
    for each in teachers:
        high = [
            f"{share:.2f} at stride {stride}"
            for stride, share in zip(STRIDES, each.mean_shares, strict=True)
            if share > MOST_CONSTANT
        ]
        if high:
            remedy = (
                ""
                if each.calibrated or not batchnorms(each) or each.name in brought
                else "; calibrate = 'always' in its [[teachers]] may help"
            )
            notes.append(
                f"teacher {each.name} shows nearly the same everywhere: of its features' energy the mean holds "
                f"{', '.join(high)} (more than {MOST_CONSTANT:g} leaves little to see a defect by){remedy}"
            )
    return tuple(notes)


def read_splits(recipe: AnomalyRecipe) -> dict[str, Dataset]:
    """Return "train", "calibration" and, where the folder holds one, "test".

    Raises:
        DataError: a split cannot be read, is of no anomaly set, or has too few normal images; the path is that of one
            split, which every split would be read from; or a defect is among the training images.
    """
    data = recipe.data
    if is_split(Path(data.path)):
        raise DataError(f"{data.path} is one split of a category; name the category's folder: {Path(data.path).parent}")
    whole = read(data.path, data.format, "train")
    if whole.task != "anomaly":
        raise DataError(f"{data.path} is a set of task {whole.task}; anomaly detection takes train/good, test/<defect>")
    spoilt = [sample.path for sample in whole.samples if sample.anomalous]
    if spoilt:
        raise DataError(
            f"{len(spoilt)} training images are marked as anomalous ({spoilt[0]} ...); only normal ones teach"
        )
    train, held = hold_out(whole, data.calibration, recipe.predict.alpha, recipe.train.seed)
    splits = {"train": train, "calibration": held}
    try:
        splits["test"] = read(data.path, data.format, "test")
    except DataError as error:
        announce(f"nothing will be measured: {error}")
    return splits


def _finish(trainer: AnomalyTrainer, splits: dict[str, Dataset], folder: Path, notes: tuple[str, ...]) -> Outcome:
    recipe, network = trainer.recipe, trainer.network.eval()
    held = _left_by(trainer, splits, folder, notes)
    if held is not None:
        announce(f"{held.bundle} holds this very network: it stays, with what was built into it and the run's figures")
        return held
    announce("exporting")
    graph = export_onnx(
        network, recipe.input, outputs=OUTPUTS, operators=ANOMALY_OPERATORS, storage=recipe.model.storage
    )
    infer, spec = Portable(graph, OUTPUTS), input_spec(recipe.input)
    thresholds = _calibrate(infer, splits["calibration"], spec, recipe)
    metrics: dict[str, dict[str, Any]] = {}
    found: list[Scored] = []
    if "test" in splits:
        announce(f"measuring {len(splits['test'])} test images")
        found = list(scored(infer, splits["test"].samples, spec, thresholds.sigma))
        metrics["test"] = figures(found, splits["test"], spec, thresholds)
    outcome = Outcome(folder / "model.bin", folder / "network.safetensors", metrics, notes=notes)
    write_tensors(outcome.weights, network.state_dict(), {"recipe": recipe.to_dict()})
    shapes = infer.shapes(spec.height, spec.width)
    manifest = Manifest(
        name=recipe.name,
        task=recipe.task,
        classes=splits["train"].classes,
        input=spec,
        outputs=tuple(OutputSpec(name=name, kind=name, shape=size) for name, size in zip(OUTPUTS, shapes, strict=True)),
        thresholds=thresholds,
        created=now(),
        edgekd=metadata.version("edgekd"),
        receipts=receipts(splits, metrics, ()),
        recipe=recipe.to_dict(),
        provenance=_provenance(trainer, splits, notes),
    )
    images = golden_images(splits["calibration"], max(spec.height, spec.width))
    bundle = Bundle.create(manifest, {GRAPH: graph})
    add_golden(bundle, [*images, _spoilt(images[0])], infer).write(outcome.bundle)
    if not found:
        return outcome
    report = Report.of(manifest, splits["test"], found, metrics["test"], engine=ENGINE)
    write_report(report, folder / PAGE)
    return dataclasses.replace(outcome, page=folder / PAGE)


def _left_by(
    trainer: AnomalyTrainer, splits: dict[str, Dataset], folder: Path, notes: tuple[str, ...]
) -> Outcome | None:
    """Return what this run left in `folder`: None unless it is finished and its bundle holds it as it is."""
    path, weights, page = folder / "model.bin", folder / "network.safetensors", folder / PAGE
    if trainer.step < trainer.recipe.train.steps or not weights.is_file():
        return None
    try:
        with Bundle.read(path) as bundle:
            manifest = bundle.manifest
        state = manifest.provenance["network"]["state_sha256"]
        calibrated = manifest.provenance["data"]["calibration"]["sha256"]
        told = AnomalyRecipe.from_dict(manifest.recipe or {})
    except (BundleError, RecipeError, KeyError, TypeError):  # none, of another kind, or from elsewhere
        return None
    if (told, state) != (trainer.recipe, fingerprint(trainer.network)):
        return None
    if calibrated != data_fingerprint(splits["calibration"]):  # the thresholds are those of other images
        return None
    return Outcome(path, weights, recorded(manifest, FIGURES), page=page if page.is_file() else None, notes=notes)


def _spoilt(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image with its middle ninth turned into a negative: engines have to agree on defects as well."""
    spoilt, (high, wide) = image.copy(), (side // 3 for side in image.shape[:2])
    spoilt[high : 2 * high, wide : 2 * wide] ^= 255
    return spoilt


def _calibrate(infer: Portable, held: Dataset, spec: InputSpec, recipe: AnomalyRecipe) -> Thresholds:
    """Return the thresholds of the graph that is shipped, on images that it was not trained on."""
    found = list(scored(infer, held.samples, spec, SIGMA))
    return _thresholds.fit(
        [each.score for each in found],
        [each.map for each in found],
        alpha=recipe.predict.alpha,
        pixel_alpha=recipe.predict.pixel_alpha,
        sigma=SIGMA,
    )


def _provenance(trainer: AnomalyTrainer, splits: dict[str, Dataset], notes: tuple[str, ...]) -> dict[str, Any]:
    network = trainer.network
    return {
        "network": {
            "state_sha256": fingerprint(network),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
        "teachers": [each.source for each in network.pyramids],
        "notes": list(notes),
        "data": {name: {"images": len(each), "sha256": data_fingerprint(each)} for name, each in splits.items()},
        "seed": trainer.recipe.train.seed,
        "tools": {**versions(), "torch": torch.__version__},
    }
