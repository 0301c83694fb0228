"""`Pipeline`: letterbox -> network -> suppress, or measure anomalous regions; here, or all of it in the session."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _anomaly, ops
from ._detections import Detections
from ._preprocess import ImageArray, decode
from ._session import PipelineSession, Request
from ._tiles import merge, whole
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ._manifest import Manifest
    from ._session import Outputs, Session
    from ._tiles import Tiling

NOT_FOR = {"anomaly": ("conf", "iou", "classes", "tile", "overlap"), "detect": ("ungated",)}
"""Arguments of `predict` that mean nothing for a task."""
MOST_OBJECTS = 2**31 - 1  # the kernels count in 32 bits
BATCH = 8  # images or tiles letterboxed and sent to the engine at once; bounds the memory that many of them take


class Pipeline:
    """What a manifest says is done around a session; for any number of threads, each with buffers of its own."""

    def __init__(self, manifest: Manifest) -> None:
        """Allocate nothing yet."""
        self.manifest = manifest
        self._local = threading.local()

    def run(
        self,
        session: Session,
        images: Iterable[tuple[ImageArray, float]],
        count: int,
        request: dict[str, Any],
        *,
        ungated: bool = False,
    ) -> list[Detections]:
        """Detect on `count` images, given with the seconds that decoding each took."""
        if isinstance(session, PipelineSession) and self.manifest.task == "detect":
            return self._run_there(session, list(images), request)
        spec = self.manifest.input
        pixels, bordered = self._pixels(count)
        clocks, placements = [], []
        for row, (array, decode_s) in enumerate(images):
            start = time.perf_counter()
            before, bordered[row] = bordered[row], None  # an interrupt may come before it is noted
            _, placement = ops.letterbox(
                array.pixels, spec.height, spec.width,
                swap=array.swaps(spec.color), mean=spec.mean, std=spec.std, pad=spec.pad, out=pixels[row],
                stretch=self.manifest.task == "anomaly", bordered=before,
            )  # fmt: skip
            bordered[row] = placement
            clocks.append((decode_s, time.perf_counter() - start))
            placements.append(placement)
        start = time.perf_counter()
        first, second = session.infer(pixels, self._outputs(count))
        infer = (time.perf_counter() - start) / count
        found = []
        for row, placement in enumerate(placements):
            start = time.perf_counter()
            if self.manifest.thresholds is None:
                columns = _objects(first[row], second[row], placement, request)
            else:
                columns = _anomaly.columns(
                    first[row], float(second[row]), _size(placement), self.manifest.thresholds,
                    max_regions=request["max_det"], gated=not ungated,
                )  # fmt: skip
            seconds = (*clocks[row], infer, time.perf_counter() - start)
            found.append(self._named(columns, placement, seconds))
        return found

    def run_by_tiles(
        self,
        session: Session,
        image: Any,
        color: str,
        request: dict[str, Any],
        tiles: Tiling,
        max_det: int | None,
        *,
        go_on: Callable[[], None],
    ) -> Detections:
        """Detect on one image, by tiles if it is larger than one; a batch of tiles at a time is in memory.

        `go_on` is asked before each batch, and raises where nobody wants the rest.
        """
        ((array, decode_s),) = decoded([image], color)
        if tiles.fits(array):
            return self.run(session, [(array, decode_s)], 1, request)[0]
        windows = tiles.windows(array)
        found: list[Detections] = []
        for start in range(0, len(windows), BATCH):
            go_on()
            batch = windows[start : start + BATCH].tolist()
            crops = ((ImageArray(array.pixels[y1:y2, x1:x2], array.order), 0.0) for x1, y1, x2, y2 in batch)
            found += self.run(session, crops, len(batch), request)
        height, width = array.pixels.shape[:2]
        return merge(found, windows, (height, width), decode_s=decode_s, iou=request["iou"], max_det=max_det)

    def _run_there(
        self, session: PipelineSession, images: Sequence[tuple[ImageArray, float]], request: dict[str, Any]
    ) -> list[Detections]:
        """Detect by a session that has a pipeline of its own."""
        wanted = request["classes"]
        asked = Request(**{**request, "classes": None if wanted is None else tuple(wanted)})
        start = time.perf_counter()
        frames = [(array.pixels, array.swaps(self.manifest.input.color)) for array, _ in images]
        found = session.detect(frames, asked)
        pipeline_ms = 1e3 * (time.perf_counter() - start) / len(images)
        results = []
        for item, (_, decode_s) in zip(found, images, strict=True):
            timings = {"decode": 1e3 * decode_s, "pipeline": pipeline_ms, "total": 1e3 * decode_s + pipeline_ms}
            boxes = item.placement.undo(item.boxes)
            results.append(
                Detections(boxes, item.scores, item.labels, self.manifest.classes, _size(item.placement), timings)
            )
        return results

    def _named(self, columns: dict[str, Any], placement: ops.Placement, seconds: Sequence[float]) -> Detections:
        """Return columns with what they mean, and the milliseconds of each stage."""
        last = "suppress" if self.manifest.thresholds is None else "regions"
        names = ("decode", "letterbox", "infer", last)
        stages = {name: 1e3 * value for name, value in zip(names, seconds, strict=True)}
        timings = {**stages, "total": sum(stages.values())}
        return Detections(**columns, classes=self.manifest.classes, image_size=_size(placement), timings_ms=timings)

    def _pixels(self, batch: int) -> tuple[NDArray[np.float32], list[ops.Placement | None]]:
        """Return this thread's network input, and where the image lay in each row, whose border is still there.

        Allocated once, as the outputs are: fresh pages cost more than the letterbox itself.
        """
        held: tuple[NDArray[np.float32], list[ops.Placement | None]] | None = getattr(self._local, "pixels", None)
        if held is None or len(held[0]) < batch:
            spec = self.manifest.input
            held = np.empty((batch, 3, spec.height, spec.width), np.float32), [None] * batch
            self._local.pixels = held
        return held[0][:batch], held[1]

    def _outputs(self, batch: int) -> Outputs:
        """Return this thread's network outputs; what `suppress` makes of them is copied out."""
        held: Outputs | None = getattr(self._local, "outputs", None)
        if held is None or len(held[0]) < batch:
            held = tuple(np.empty((batch, *spec.shape), np.float32) for spec in self.manifest.outputs)
            self._local.outputs = held
        return tuple(array[:batch] for array in held)


def _objects(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], placement: ops.Placement, request: dict[str, Any]
) -> dict[str, Any]:
    """Return what `Detections` holds of one image's rows, by name."""
    kept, best, labels = ops.suppress(boxes, scores, **request)
    return {"boxes": placement.undo(kept), "scores": best, "labels": labels}


def _size(placement: ops.Placement) -> tuple[int, int]:
    return placement.image_height, placement.image_width


def decoded(images: Sequence[Any], color: str) -> Iterator[tuple[ImageArray, float]]:
    """Decode images one at a time, as they are asked for; with the seconds each took."""
    for image in images:
        start = time.perf_counter()
        yield decode(image, color), time.perf_counter() - start


def refuse_foreign(manifest: Manifest, given: Mapping[str, object]) -> None:
    """Raise UsageError for arguments of another task."""
    refused = [name for name in NOT_FOR[manifest.task] if given[name] is not None and given[name] is not False]
    if refused and manifest.task == "anomaly":
        raise UsageError(
            f"{', '.join(refused)}: for detectors only; {manifest.name!r} is for task anomaly, which takes "
            "max_det and ungated. To change its thresholds: edgekd thresholds model.bin"
        )
    if refused:
        raise UsageError(f"{', '.join(refused)}: for anomaly networks only; {manifest.name!r} finds objects")


def checked_request(
    manifest: Manifest,
    conf: float | None,
    iou: float | None,
    max_det: int | None,
    classes: Sequence[int | str] | None,
) -> dict[str, Any]:
    """Return what a call asks for, with the bundle's defaults; UsageError: a value out of its range."""
    defaults = manifest.predict
    request = {
        "conf": defaults.conf if conf is None else conf,
        "iou": defaults.iou if iou is None else iou,
        "max_det": defaults.max_det if max_det is None else max_det,
    }
    for name in ("conf", "iou"):
        if not 0.0 <= request[name] <= 1.0:
            raise UsageError(f"{name} should be between 0 and 1, got {request[name]}")
    if not whole(request["max_det"]) or not 1 <= request["max_det"] <= MOST_OBJECTS:
        raise UsageError(f"max_det should be a whole number from 1 to {MOST_OBJECTS}, got {max_det!r}")
    wanted = None if classes is None else [_label(manifest.classes, item) for item in classes]
    return {**request, "max_candidates": defaults.max_candidates, "classes": wanted}


def _label(names: Sequence[str], item: int | str) -> int:
    if isinstance(item, str):
        if item not in names:
            raise UsageError(f"no class {item!r}; possible: {', '.join(names)}")
        return list(names).index(item)
    if not whole(item) or not 0 <= item < len(names):
        raise UsageError(f"no class index {item}; possible: 0 to {len(names) - 1}")
    return int(item)
