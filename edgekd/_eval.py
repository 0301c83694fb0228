"""`evaluate`: accuracy of a bundle, as it runs here, on annotated images."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _detector
from ._bundle import Bundle
from ._container import check_place
from ._select import start_chosen
from ._train import json_ready
from .errors import DataError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._session import SessionInfo
    from .training.data.sample import Dataset


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Accuracy of one artifact on one set.

    Attributes:
        data: name of the set.
        images: how many it has.
        objects: how many annotated objects; of an anomaly set, how many anomalous images.
        session: target, precision, arithmetic, device and runtime that ran.
        tile: side of the tiles that larger images were split into, in pixels; None: whole images.
        overlap: of the tiles, in pixels, as asked for; None: the default of `predict`.
        seconds: for the whole set, decoding of image files included.
        metrics: AP (IoU 0.50:0.95), AP50, AP75, AP_small, AP_medium, AP_large in [0, 1] or NaN, and per_class. Of
            oriented boxes: AP, AP50, AP75, the "mode" that they are in, per_class, per_class_AP50 and, where the set
            has images without objects, "background": false positives on them. Of an anomaly set: image_AUROC, image_AP,
            image_F1_max, the same of pixels, AUPRO; "aupro_rd4ad", which only compares with figures of RD4AD's code;
            "false_alarms" and "found" at the bundle's threshold; "oracle" (thresholds that the test set chose) and
            "undefined" (figure -> why it is NaN).
        page: the report that was asked for.
        dropped: what the reader left out of the set, one line each: objects of a class that the bundle does not know,
            and boxes without area.
        signature_dropped: whether figures were written into a bundle that was signed; it needs a new signature.
    """

    data: str
    images: int
    objects: int
    session: SessionInfo
    tile: int | None = None
    overlap: int | None = None
    seconds: float
    metrics: dict[str, Any]
    page: Path | None = None
    dropped: tuple[str, ...] = ()
    signature_dropped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; NaN becomes None. Empty "page", "dropped" and "signature_dropped" are left out."""
        known = dataclasses.asdict(self)
        page = known.pop("page")
        for name in ("dropped", "signature_dropped"):
            if not known[name]:
                del known[name]
        return {**known, "metrics": json_ready(self.metrics), **({} if page is None else {"page": str(page)})}


def evaluate(
    bundle: str | Path,
    data: str | Path,
    *,
    format: str = "auto",  # noqa: A002 (the recipe's name of it)
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    mode: str | None = None,
    report: str | Path | None = None,
    receipt: bool = False,
) -> EvalReport:
    """Run a bundle over annotated images and return average precision: COCO's, or DOTA's where boxes are oriented.

    Of an anomaly bundle: AUROC, AP, F1-max and AUPRO, on the split "test" unless another is named.

    Args:
        bundle: `model.bin`.
        data: the set, as a recipe's data.val names one.
        format: of the set; "auto": found out.
        split: where `data` holds several: "train", "val" or "test".
        device: as in `load`.
        precision: as in `load`.
        threads: CPU threads of the engine; 0: the runtime's choice.
        tile: as in `Detector.predict`.
        overlap: as in `Detector.predict`.
        mode: how the curve of oriented boxes becomes a number: "voc07" (11 recalls) or "area"; None: "area".
        report: HTML file to write, of an anomaly bundle: scores, figures, worst images, thresholds, teachers.
        receipt: write the figures into the bundle, with the fingerprint of the data, so that `pick` can compare it with
            others; a signature is dropped.

    Raises:
        UsageError: a mode that there is not, or any for boxes that are not oriented; tiles for an anomaly bundle; a
            report on a detector; no place for the report, or for the bundle with its receipt.
        BundleError: the file is not a sound bundle.
        DataError: the set cannot be read, or has only classes that the bundle does not know.
        TargetUnavailableError: nothing in the bundle can run here.
        MissingPackageError: pycocotools or an image package is not installed.
    """
    try:
        from .training.data.read import read
        from .training.data.records import dropped
        from .training.metrics.measure import check, limits, measure
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"evaluation needs {error.name}: pip install 'edgekd[train]'") from error
    if receipt:
        check_place(Path(bundle))  # before the hours that a large set takes
    if report is not None and Path(report).parent.is_dir():  # a missing folder is made
        check_place(Path(report))
    opened = Bundle.read(bundle)
    if opened.manifest.task == "anomaly":
        given = {"tile": tile, "overlap": overlap, "mode": mode}
        with opened:
            dataset = read(data, format, split or "test")
            found = _evaluate_anomaly(opened, dataset, device, precision, threads, given, report)
        return _receipted(Path(bundle), found, dataset, split) if receipt else found
    if report is not None:
        opened.close()
        raise UsageError(f"report: for anomaly bundles only; {bundle} is for task {opened.manifest.task}")
    with _detector.start(opened, device, precision, threads) as detector:
        dataset = read(data, format, split, detector.names)
        check(mode, dataset)  # a wrong word should not cost an evaluation
        cut = limits(dataset, oriented_boxes=detector.manifest.angle is not None)._asdict()
        began = time.monotonic()
        seen = [
            detector.predict(sample.load(), color="rgb", tile=tile, overlap=overlap, **cut)
            for sample in dataset.samples
        ]
        found = EvalReport(
            data=dataset.name,
            images=len(dataset),
            objects=sum(len(sample.labels) for sample in dataset.samples),
            session=detector.info.session,
            tile=tile,
            overlap=overlap,
            seconds=time.monotonic() - began,
            metrics=measure(seen, dataset, mode=mode),
            dropped=dropped(dataset),
        )
    return _receipted(Path(bundle), found, dataset, split) if receipt else found


def _receipted(path: Path, found: EvalReport, dataset: Dataset, split: str | None) -> EvalReport:
    """Write the figures into the bundle; its own split is "test" where the data has no other name for it."""
    from ._accuracy_receipt import write_accuracy
    from .training.resume import data_fingerprint

    dropped = write_accuracy(path, found, split or "test", data_fingerprint(dataset))
    return dataclasses.replace(found, signature_dropped=dropped)


def _evaluate_anomaly(
    bundle: Bundle,
    dataset: Dataset,
    device: str,
    precision: str,
    threads: int,
    given: Mapping[str, object],
    page: str | Path | None,
) -> EvalReport:
    from .training.anomaly.measure import figures, scored
    from .training.anomaly.report import Report, write_report

    refused = [name for name, value in given.items() if value is not None]
    if refused:
        raise UsageError(f"{', '.join(refused)}: for detectors only; {bundle.path} is for task anomaly")
    if dataset.task != "anomaly":
        raise DataError(f"{dataset.name} is a set of task {dataset.task}; {bundle.path} is for task anomaly")
    session = start_chosen(bundle, device, precision, threads=threads).session
    thresholds = bundle.manifest.thresholds
    assert thresholds is not None  # the reader has checked it
    try:
        began = time.monotonic()
        found = list(scored(session.infer, dataset.samples, bundle.manifest.input, thresholds.sigma))
        metrics = figures(found, dataset, bundle.manifest.input, thresholds)
        seconds = time.monotonic() - began
        if page is not None:
            engine = f"{session.info.target} {session.info.precision} ({session.info.device})"
            write_report(Report.of(bundle.manifest, dataset, found, metrics, engine=engine), Path(page))
        return EvalReport(
            data=dataset.name,
            images=len(dataset),
            objects=sum(bool(sample.anomalous) for sample in dataset.samples),
            session=session.info,
            seconds=seconds,
            metrics=metrics,
            page=None if page is None else Path(page),
        )
    finally:
        session.close()
