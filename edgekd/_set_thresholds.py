"""`thresholds`: show or change what an anomaly bundle calls anomalous, without building anything anew."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._anomaly import scored
from ._anomaly_recipe import ALPHA, PIXEL_ALPHA
from ._bundle import Bundle
from ._container import check_place
from ._preprocess import decode, images_in
from ._select import start_chosen
from ._thresholds import fit, image_threshold, moved, pixel_threshold
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._manifest import Manifest, Thresholds
    from ._session import SessionInfo

RESTS_ON_IT = ("found", "false_alarms")  # receipts that the image threshold decides
MOST = 1e9  # of a threshold, as in the manifest


@dataclass(frozen=True)
class ThresholdsReport:
    """What `thresholds` found and did.

    Attributes:
        path: the bundle that was written, or only read.
        before: the thresholds it had.
        after: those it has now; the same where nothing was asked for.
        written: whether a file was written.
        session: what scored the images; None without images.
        receipts_dropped: figures that held at the threshold before, and no longer; those of artifacts that were judged
            by their decisions at it, with their target.
        judge_again: commands that judge these artifacts at the thresholds of now; until then int8 does not run, and
            what exceeds the golden set's bound fails `verify`.
        signature_dropped: whether the bundle was signed; new contents need a new signature.
    """

    path: str
    before: Thresholds
    after: Thresholds
    written: bool = False
    session: SessionInfo | None = None
    receipts_dropped: tuple[str, ...] = ()
    judge_again: tuple[str, ...] = ()
    signature_dropped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return dataclasses.asdict(self)


def thresholds(
    path: str | Path,
    *,
    data: str | Path | None = None,
    alpha: float | None = None,
    pixel_alpha: float | None = None,
    image: float | None = None,
    pixel: float | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> ThresholdsReport:
    """Fit the thresholds of an anomaly bundle to a folder of normal images, or set them by hand, or only return them.

    Graph, artifacts and golden set stay as they are; the file is replaced whole or not at all. Receipts stay but for
    those that the image threshold decides where it changes: `found`, `false_alarms`, and those of int8 and of other
    artifacts that were judged on images. A signature is dropped.

    Args:
        path: `model.bin`.
        data: a folder of normal images that the network was *not* trained on: the promise of alpha rests on that.
        alpha: with `data`: expected share of false alarms among normal images, at most; None: the bundle's.
        pixel_alpha: with `data`: share of their pixels above the pixel threshold; None: the bundle's.
        image: the image threshold, set by hand; calibrated scores move along with it.
        pixel: the pixel threshold, set by hand.
        out: the file to write; None: `path` is replaced.
        device: as in `load`: what scores the images.
        precision: as in `load`.
        threads: CPU threads of the engine; 0: the runtime's choice.

    Raises:
        BundleError: not a sound bundle.
        UsageError: a detector's bundle; arguments that exclude each other or are out of range; too few images for
            alpha (the message says how many it takes).
        ImageError: the folder has no image, or one that cannot be used.
        TargetUnavailableError: nothing in the bundle can run here.
    """
    fitted = {"alpha": alpha, "pixel_alpha": pixel_alpha}
    by_hand = {name: value for name, value in (("image", image), ("pixel", pixel)) if value is not None}
    _check(data, fitted, by_hand)
    if data is not None or by_hand or out is not None:
        check_place(Path(out or path))
    with Bundle.read(path) as bundle:
        before = bundle.manifest.thresholds
        if before is None:
            raise UsageError(f"{path} finds objects and has no thresholds; `predict` takes conf for each call")
        if data is None and not by_hand:
            if out is not None:
                raise UsageError("nothing to write: give data, image or pixel")
            return ThresholdsReport(str(path), before, before)
        session = None
        if data is None:
            after = moved(before, **by_hand)
        else:
            after, session = _fitted(bundle, Path(data), fitted, (device, precision, threads))
        fallen = _fallen(bundle.manifest.receipts, before, after)
        manifest = _changed(bundle.manifest, after, fallen, data, session)
        destination = Path(path if out is None else out)
        bundle.replace(manifest).write(destination)
        return ThresholdsReport(
            str(destination), before, after, written=True, session=session,
            receipts_dropped=tuple(map(_name, fallen)), judge_again=_commands(destination, fallen),
            signature_dropped=bundle.signature is not None,
        )  # fmt: skip


def _check(data: str | Path | None, fitted: dict[str, float | None], by_hand: dict[str, float]) -> None:
    """Refuse arguments that exclude each other, before anything is read."""
    shares = [name for name, value in fitted.items() if value is not None]
    if data is None and shares:
        raise UsageError(
            f"{', '.join(shares)}: thresholds are fitted to normal images; name their folder: data (--data)"
        )
    if data is not None and by_hand:
        raise UsageError(f"{', '.join(by_hand)}: set by hand, or fitted to data; not both at once")
    for name, value in by_hand.items():
        if not (math.isfinite(value) and abs(value) <= MOST):
            raise UsageError(f"{name} should be a number of at most {MOST:g}, got {value}")


def _fitted(
    bundle: Bundle, folder: Path, asked: dict[str, float | None], where: tuple[str, str, int]
) -> tuple[Thresholds, SessionInfo]:
    """Return thresholds fitted to the images of a folder, and what scored them."""
    before, defaults = bundle.manifest.thresholds, {"alpha": ALPHA, "pixel_alpha": PIXEL_ALPHA}
    assert before is not None
    shares = {name: value for name, value in asked.items() if value is not None}
    kept = {name: value for name in defaults if (value := getattr(before, name)) is not None}
    shares = {**defaults, **kept, **shares}
    images = images_in(folder)
    image_threshold([0.0] * len(images), shares["alpha"])  # too few, or no share: said before hours of scoring
    pixel_threshold([0.0], shares["pixel_alpha"])
    device, precision, threads = where
    with contextlib.closing(start_chosen(bundle, device, precision, threads=threads).session) as session:
        found = list(scored(session.infer, map(decode, images), bundle.manifest.input, before.sigma))
        info = session.info
    scores, maps = [score for score, _ in found], [values.ravel() for _, values in found]
    return fit(scores, maps, sigma=before.sigma, **shares), info


def _fallen(receipts: Sequence[dict[str, Any]], before: Thresholds, after: Thresholds) -> list[dict[str, Any]]:
    """Return the receipts that do not hold at other thresholds.

    Gates look at decisions at the image threshold and at calibrated scores, which `low` scales as well.
    """
    if (before.image, before.low) == (after.image, after.low):
        return []
    return [row for row in receipts if row["what"] in RESTS_ON_IT or _judged(row)]


def _judged(row: dict[str, Any]) -> bool:
    return "quantization" in row or "judgement" in row


def _name(row: dict[str, Any]) -> str:
    return f"{row['what']} of {row['target']}" if _judged(row) else str(row["what"])


def _commands(path: Path, fallen: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return what to type so that artifacts are judged again, one command a precision."""
    targets: dict[str, list[str]] = {}
    for row in filter(_judged, fallen):
        targets.setdefault("int8" if "quantization" in row else row["precision"], []).append(row["target"])
    return tuple(
        f"edgekd build {path} --target {','.join(names)} --precision {precision} "
        + ("--calib DATA" if precision == "int8" else "--val DATA")
        for precision, names in targets.items()
    )


def _changed(
    manifest: Manifest,
    after: Thresholds,
    fallen: Sequence[dict[str, Any]],
    data: str | Path | None,
    session: SessionInfo | None,
) -> Manifest:
    """Return the manifest with other thresholds and where they come from, and without the receipts that fell."""
    receipts = tuple(row for row in manifest.receipts if row not in fallen)
    origin = {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "from": "set by hand" if data is None else f"fitted to the folder {Path(data).resolve().name}",
        "scored_by": f"{session.target} {session.precision}, computing in {session.compute}" if session else None,
    }
    provenance = {**manifest.provenance, "thresholds": origin}
    return dataclasses.replace(manifest, thresholds=after, receipts=receipts, provenance=provenance)
