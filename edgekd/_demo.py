"""`demo`: the whole way on synthetic X-ray scenes, in a few minutes on a CPU.

Distil the shipped teacher into a small student, train the same student alone on the same budget, build one bundle for
every target, predict through each that runs here, and report accuracy, size and latency.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ._build import build
from ._bundle import Bundle
from ._data import data_synth
from ._detector import load
from ._distill import distill
from ._eval import evaluate
from ._recipe import Recipe
from ._target import load_target
from ._train import train
from .errors import GateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._build import BuiltArtifact
    from .training.models import Detector

    Tell = Callable[[str], None]

ASSETS = Path("examples") / "01_distill_and_deploy"
TRAIN, VAL, TEST, SEED = 600, 60, 200, 0  # scenes
TIMED = 100  # predictions per target
PRECISIONS = ("fp32", "fp16", "int8")
MARK = ".edgekd-demo"  # in a folder that a demo made; "data" and "model.bin" are names that others use too
WRITTEN = ("report.json", "model.bin", "data", "student-alone", "student-distilled")


@dataclass(frozen=True)
class NetworkRow:
    """Accuracy of one network on the test scenes (COCO AP, last checkpoint, through `predict` in fp32)."""

    name: str
    parameters: int
    ap: float
    ap50: float
    train_s: float | None  # None: it was shipped


@dataclass(frozen=True)
class TargetRow:
    """One artifact of the bundle; latencies are of the whole `predict` on one thread, None where it cannot run here."""

    target: str
    precision: str
    size_bytes: int
    build_s: float
    compute: str | None
    p50_ms: float | None
    p90_ms: float | None
    objects: int | None  # found in the picture that every target is shown
    note: str
    picture: str | None


@dataclass(frozen=True)
class DemoReport:
    """What the demo measured."""

    bundle: str
    bundle_bytes: int
    test_scenes: int
    networks: tuple[NetworkRow, ...]
    targets: tuple[TargetRow, ...]
    total_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return dataclasses.asdict(self)


def demo(out: str | Path = "out/demo", *, assets: str | Path | None = None, progress: Tell | None = None) -> DemoReport:
    """Run the whole way and write `model.bin`, `report.json` and annotated pictures into `out`.

    Args:
        out: folder to write to: a new or an empty one, or an earlier demo's, whose files are replaced.
        assets: folder with `student.toml`, `distill.toml` and `teacher.safetensors`; None: the checkout's example 01.
        progress: told one short line a stage.

    Raises:
        UsageError: the assets are not there, or `out` is a file or holds what no demo wrote.
        MissingPackageError: a package of the extras `train` or `build` is missing.
    """
    start = time.perf_counter()
    tell = progress or (lambda _: None)
    folder, source = _prepare(Path(out)), _assets(assets)
    tell(f"drawing {TRAIN + VAL + TEST} synthetic X-ray scenes")
    data = data_synth("xray", folder / "data", train=TRAIN, val=VAL, test=TEST, seed=SEED)
    alone, taught = (_recipe(source / name, data) for name in ("student.toml", "distill.toml"))
    rows = [_teacher_row(taught, data, tell)]
    for label, recipe in (("student alone", alone), ("student distilled", taught)):
        rows.append(_student_row(label, recipe, folder / label.replace(" ", "-"), data, tell))
    bundle = folder / "model.bin"
    tell("building for every target")
    student = folder / "student-distilled" / "model.bin"
    plain = [precision for precision in PRECISIONS if precision != "int8"]
    built = build(student, targets="all", precisions=plain, out=bundle, progress=tell).artifacts
    if "int8" in PRECISIONS:
        built += _int8_artifacts(bundle, sorted({item.target for item in built}), tell)
    targets = tuple(_target_rows(bundle, built, sorted((data / "test").iterdir()), folder, tell))
    seconds = time.perf_counter() - start
    report = DemoReport(str(bundle), bundle.stat().st_size, TEST, tuple(rows), targets, seconds)
    _write(folder / "report.json", report)
    return report


def _prepare(folder: Path) -> Path:
    """Make the folder, or take out of it what an earlier demo wrote, and nothing else."""
    import shutil  # here: it loads compressors, and `import edgekd` is to be cheap

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UsageError(f"{folder} is not empty and no earlier demo made it; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    for name in WRITTEN:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return folder


def _assets(assets: str | Path | None) -> Path:
    places = [Path(assets)] if assets else [Path(__file__).resolve().parents[1] / ASSETS, Path.cwd() / ASSETS]
    for place in places:
        if (place / "teacher.safetensors").exists():
            return place
    looked = " or ".join(str(place) for place in places)
    raise UsageError(
        f"no teacher.safetensors in {looked}. The demo's teacher is not in the wheel: run it in a checkout of edgekd, "
        "or pass --assets DIR with student.toml, distill.toml and teacher.safetensors"
    )


def _recipe(file: Path, data: Path) -> Recipe:
    """Read a shipped recipe, its data replaced by the scenes just drawn."""
    recipe = Recipe.read(file)
    train_file, val_file, test_file = (str(data / f"{split}.json") for split in ("train", "val", "test"))
    return recipe.replace(data=dataclasses.replace(recipe.data, train=train_file, val=val_file, test=test_file))


def _teacher_row(recipe: Recipe, data: Path, tell: Tell) -> NetworkRow:
    """Measure the shipped teacher through torch; it is never exported."""
    from .training.data.read import read
    from .training.detector_file import load_teacher
    from .training.evaluate import evaluate as measure
    from .training.run import choose_device

    assert recipe.teacher is not None  # distill.toml has one
    tell("measuring the teacher")
    test = read(data / "test.json")
    teacher = load_teacher(recipe.teacher, recipe.input, len(test.classes))
    network = cast("Detector", teacher.network)
    found = measure(network, test, teacher.input, choose_device("cpu"))
    return NetworkRow("teacher (shipped)", _parameters(network), found["AP"], found["AP50"], None)


def _student_row(label: str, recipe: Recipe, folder: Path, data: Path, tell: Tell) -> NetworkRow:
    from .training.models import build_model

    tell(f"training: {label}, {recipe.train.steps} steps of {recipe.train.batch} images")
    start = time.perf_counter()
    (distill if recipe.distill else train)(recipe, folder)
    seconds = time.perf_counter() - start
    report = evaluate(folder / "model.bin", data / "test.json")
    parameters = _parameters(build_model(recipe.student, len(report.metrics["per_class"]), recipe.input))
    return NetworkRow(label, parameters, report.metrics["AP"], report.metrics["AP50"], seconds)


def _parameters(network: Detector) -> int:
    return sum(item.numel() for item in network.parameters())


def _int8_artifacts(bundle: Path, targets: Sequence[str], tell: Tell) -> tuple[BuiltArtifact, ...]:
    """Add int8 for each target that holds its gates; a refusal is no failure of the demo."""
    found: list[BuiltArtifact] = []
    for target in targets:
        if "int8" not in load_target(target).PRECISIONS:
            continue
        try:
            found += build(bundle, targets=[target], precisions=["int8"], progress=tell).artifacts
        except GateError as error:
            tell(str(error))
    return tuple(found)


def _target_rows(
    bundle: Path, built: Sequence[BuiltArtifact], images: list[Path], folder: Path, tell: Tell
) -> list[TargetRow]:
    """Predict through every artifact that runs here."""
    from ._select import all_artifacts

    made = {(item.target, item.precision): item for item in built}
    with Bundle.read(bundle) as opened:
        pairs = [(item.target, item.precision) for item in all_artifacts(opened)]
    rows = []
    for target, precision in pairs:
        item = made.get((target, precision))
        size, seconds = (item.size_bytes, item.build_s) if item else (0, 0.0)
        if item is not None and item.parity.status == "skipped":
            rows.append(TargetRow(target, precision, size, seconds, None, None, None, None, item.parity.reason, None))
            continue
        tell(f"predicting through {target} {precision}")
        rows.append(_run_target(bundle, target, precision, size, seconds, images, folder))
    return rows


def _run_target(
    bundle: Path, target: str, precision: str, size: int, seconds: float, images: list[Path], folder: Path
) -> TargetRow:
    import statistics

    from PIL import Image

    with load(bundle, device=target, precision=precision, threads=1) as detector:
        detector.warmup()
        taken = [detector.predict(image).timings_ms["total"] for image in (images * TIMED)[:TIMED]]
        found = detector.predict(images[0])
        compute = detector.info.session.compute
    picture = folder / f"{target}-{precision}.png"
    Image.fromarray(found.plot(images[0])).save(picture)
    p90 = statistics.quantiles(taken, n=10)[-1]
    return TargetRow(
        target, precision, size, seconds, compute, statistics.median(taken), p90, len(found), "", str(picture)
    )


def _write(path: Path, report: DemoReport) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(report.to_dict(), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
