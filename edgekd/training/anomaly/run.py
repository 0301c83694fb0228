"""One whole run: hold out normal images, train on the rest, calibrate, measure, write a portable bundle."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from ... import _thresholds
from ..._bundle import Bundle
from ..._golden import add_golden
from ..._manifest import Manifest, OutputSpec
from ...errors import DataError
from ..checkpoint import write_tensors
from ..data.read import read
from ..distributed import process_group
from ..export import ANOMALY_OPERATORS, export_onnx
from ..finish import Portable, golden_images, input_spec, now, receipts, versions
from ..outcome import Outcome
from ..progress import announce
from ..resume import data_fingerprint
from ..run import choose_device
from ..seeding import switches_restored
from ..teacher import fingerprint
from .images import hold_out
from .measure import evaluate, scored
from .score import SIGMA
from .trainer import AnomalyTrainer

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..._anomaly_recipe import AnomalyRecipe
    from ..._manifest import InputSpec, Thresholds
    from ..data.sample import Dataset

OUTPUTS = ("map", "score")


def run(
    recipe: AnomalyRecipe, folder: Path, *, device: str = "auto", resume: bool = True, tensorboard: bool = False
) -> Outcome:
    """Train in `folder` and leave `model.bin` and `network.safetensors` there.

    The last step's weights are kept. Test images, where there are some, are only measured, after everything is decided.

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
        untrained = [each.name for each in trainer.network.pyramids if each.pretrained is None]
        if untrained:
            announce(f"the teacher {', '.join(untrained)} has random weights: its features know nothing of images")
        trainer.run()
        return _finish(trainer, splits, folder)


def read_splits(recipe: AnomalyRecipe) -> dict[str, Dataset]:
    """Return "train", "calibration" and, where the folder holds one, "test".

    Raises:
        DataError: a split cannot be read, is of no anomaly set, or has too few normal images.
    """
    data = recipe.data
    whole = read(data.path, data.format, "train")
    if whole.task != "anomaly":
        raise DataError(f"{data.path} is a set of task {whole.task}; anomaly detection takes train/good, test/<defect>")
    train, held = hold_out(whole, data.calibration, recipe.predict.alpha, recipe.train.seed)
    splits = {"train": train, "calibration": held}
    try:
        splits["test"] = read(data.path, data.format, "test")
    except DataError as error:
        announce(f"nothing will be measured: {error}")
    return splits


def _finish(trainer: AnomalyTrainer, splits: dict[str, Dataset], folder: Path) -> Outcome:
    recipe, network = trainer.recipe, trainer.network.eval()
    announce("exporting")
    graph = export_onnx(network, recipe.input, outputs=OUTPUTS, operators=ANOMALY_OPERATORS)
    infer, spec = Portable(graph, OUTPUTS), input_spec(recipe.input)
    thresholds = _calibrate(infer, splits["calibration"], spec, recipe)
    metrics: dict[str, dict[str, Any]] = {}
    if "test" in splits:
        announce(f"measuring {len(splits['test'])} test images")
        metrics["test"] = evaluate(infer, splits["test"], spec, thresholds)
    outcome = Outcome(folder / "model.bin", folder / "network.safetensors", metrics)
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
        provenance=_provenance(trainer, splits),
    )
    bundle = Bundle.create(manifest, {manifest.graph: graph})
    normal = golden_images(splits["calibration"])
    add_golden(bundle, [*normal, _spoilt(normal[0])], infer).write(outcome.bundle)
    return outcome


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


def _provenance(trainer: AnomalyTrainer, splits: dict[str, Dataset]) -> dict[str, Any]:
    network = trainer.network
    return {
        "network": {
            "state_sha256": fingerprint(network),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
        "teachers": [each.source for each in network.pyramids],
        "data": {name: {"images": len(each), "sha256": data_fingerprint(each)} for name, each in splits.items()},
        "seed": trainer.recipe.train.seed,
        "tools": {**versions(), "torch": torch.__version__},
    }
