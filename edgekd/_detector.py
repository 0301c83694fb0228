"""`Detector`: letterbox -> network -> suppress, whatever the chip."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from . import ops
from ._bundle import Bundle
from ._detections import Detections
from ._preprocess import ImageArray, decode
from ._select import choose
from ._session import PipelineSession, Request
from ._tiles import Tiling, merge, tiling
from .errors import ClosedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    import PIL.Image
    from numpy.typing import NDArray
    from typing_extensions import Self

    from ._manifest import Manifest
    from ._session import Outputs, Session, SessionInfo

    Image = str | Path | bytes | bytearray | NDArray[Any] | PIL.Image.Image

BATCH = 8  # images or tiles letterboxed and sent to the engine at once; bounds the memory that many of them take


@dataclass(frozen=True)
class DetectorInfo:
    """What `load` chose and why.

    Attributes:
        session: target, precision, arithmetic, device and runtime that run.
        reason: one sentence saying why this artifact.
        discarded: one line for each artifact or target that was not chosen, with its reason.
    """

    session: SessionInfo
    reason: str
    discarded: tuple[str, ...] = field(default=())


def load(path: str | Path, device: str = "auto", precision: str = "auto", *, threads: int = 0) -> Detector:
    """Open a bundle, choose the best artifact that runs here, and start its engine. Prints nothing.

    Args:
        path: `model.bin`.
        device: "auto", a target ("openvino", "tflite", ...), or anybody's spelling of a device ("cpu", "cuda:0",
            "intel:npu", "GPU.0").
        precision: "auto", "fp32" or "fp16".
        threads: CPU threads of the engine; 0: the runtime's choice.

    Returns:
        A `Detector`; `det.info.reason` says why this artifact.

    Raises:
        BundleError: the file is not a sound bundle (checked before any vendor parser sees a byte).
        UsageError: the device or precision is not in the bundle; the message lists what is and what to type.
        TargetUnavailableError: nothing in the bundle can run here; the message says why, one line a candidate.
    """
    return start(Bundle.read(path), device, precision, threads)


def start(bundle: Bundle, device: str, precision: str, threads: int) -> Detector:
    """Return a detector that owns the bundle; arguments and errors as `load`, on which the bundle is closed."""
    try:
        check_detector(bundle)
        choice = choose(bundle, device, precision)
        session = choice.target.load(bundle, choice.artifact, device=device, threads=threads)
    except BaseException:
        bundle.close()
        raise
    info = DetectorInfo(session.info, choice.reason, choice.discarded)
    return Detector(bundle.manifest, session, info, bundle)


def check_detector(bundle: Bundle) -> None:
    """Raise UsageError for a bundle of another task than detection."""
    if bundle.manifest.task != "detect":
        raise UsageError(
            f"{bundle.path} is for task {bundle.manifest.task}; only detectors can be loaded, built and verified in "
            f"this version. What it can do here: edgekd eval {bundle.path} DATA"
        )


class Detector:
    """A loaded model.

    Thread-safety: `predict` may be called from any number of threads at once; `close` may be called once they are done.
    """

    def __init__(self, manifest: Manifest, session: Session, info: DetectorInfo, bundle: Bundle | None = None) -> None:
        """Compose a started session with what the manifest says; users call `edgekd.load`."""
        self.manifest = manifest
        self.info = info
        self._session = session
        self._bundle = bundle
        self._local = threading.local()
        self._closed = False

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.manifest.classes

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Sequence[int | str] | None = None,
        color: str = "bgr",
        tile: int | None = None,
        overlap: int | None = None,
    ) -> list[Detections]: ...

    @overload
    def predict(
        self,
        images: Image,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Sequence[int | str] | None = None,
        color: str = "bgr",
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Detections: ...

    def predict(
        self,
        images: Image | list[Any] | tuple[Any, ...],
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Sequence[int | str] | None = None,
        color: str = "bgr",
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Detections | list[Detections]:
        """Find objects. One image in, one `Detections` out; a list or tuple in, a list out.

        Args:
            images: path, bytes of an image file, PIL image, or array `(H, W, 3)`, `(H, W)` or `(H, W, 4)` uint8; or a
                list of them.
            conf: keep scores above this, in [0, 1]; None: the bundle's default.
            iou: of two boxes of one class that overlap more than this, the better stays; None: the bundle's default.
            max_det: most objects per image; None: the bundle's default, which with tiles holds for each tile.
            classes: only these, by name or index; None: all.
            color: "bgr" (as OpenCV gives) or "rgb": the channel order of arrays. Files and PIL images are RGB.
            tile: side in pixels of the square windows that an image larger than that is split into; the network sees
                each by itself, and what two of them found twice is merged (see `edgekd.geometry.merge_tiles`). Every
                image of a list is looked at for itself: those no larger than a tile go the usual way. None: whole
                images.
            overlap: pixels that neighbouring tiles share; more than the longest object, or no tile may hold it whole.
                None: a fifth of `tile`.

        Raises:
            ImageError: an image cannot be used (missing, broken, wrong dtype or shape); floats are refused.
            UsageError: an option is out of its range.
            ClosedError: after `close`.
        """
        if self._closed:
            raise ClosedError("this detector was closed; load the bundle again: edgekd.load(...)")
        request = self._request(conf, iou, max_det, classes)
        tiles = tiling(tile, overlap)
        items: Sequence[Any] = images if isinstance(images, (list, tuple)) else [images]
        found: list[Detections] = []
        if tiles is None:
            for start in range(0, len(items), BATCH):
                batch = items[start : start + BATCH]
                found += self._detect(_decoded(batch, color), len(batch), request)
        else:
            found = [self._detect_by_tiles(item, color, request, tiles, max_det) for item in items]
        return found if items is images else found[0]

    def warmup(self, runs: int = 3) -> None:
        """Run the whole path on a grey image, so that the first real call takes as long as the next."""
        grey = np.full((self.manifest.input.height, self.manifest.input.width, 3), 114, np.uint8)
        for _ in range(runs):
            self.predict(grey)

    def close(self) -> None:
        """Free the engine and the mapped file; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._session.close()
        if self._bundle is not None:
            self._bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        ran = self.info.session
        where = f"{ran.target} {ran.precision} on {ran.device}"
        return f"Detector({self.manifest.name!r}, {where}, {len(self.names)} classes)"

    def _request(
        self, conf: float | None, iou: float | None, max_det: int | None, classes: Sequence[int | str] | None
    ) -> dict[str, Any]:
        defaults = self.manifest.predict
        request = {
            "conf": defaults.conf if conf is None else conf,
            "iou": defaults.iou if iou is None else iou,
            "max_det": defaults.max_det if max_det is None else max_det,
        }
        for name in ("conf", "iou"):
            if not 0.0 <= request[name] <= 1.0:
                raise UsageError(f"{name} should be between 0 and 1, got {request[name]}")
        if request["max_det"] < 1:
            raise UsageError(f"max_det should be at least 1, got {max_det}")
        wanted = None if classes is None else [self._label(item) for item in classes]
        return {**request, "max_candidates": defaults.max_candidates, "classes": wanted}

    def _label(self, item: int | str) -> int:
        if isinstance(item, str):
            if item not in self.names:
                raise UsageError(f"no class {item!r}; possible: {', '.join(self.names)}")
            return self.names.index(item)
        if not 0 <= item < len(self.names):
            raise UsageError(f"no class index {item}; possible: 0 to {len(self.names) - 1}")
        return int(item)

    def _detect_by_tiles(
        self, image: Any, color: str, request: dict[str, Any], tiles: Tiling, max_det: int | None
    ) -> Detections:
        """Detect on one image, by tiles if it is larger than one; a batch of tiles at a time is in memory."""
        ((array, decode_s),) = _decoded([image], color)
        if tiles.fits(array):
            return self._detect([(array, decode_s)], 1, request)[0]
        windows = tiles.windows(array)
        found: list[Detections] = []
        for start in range(0, len(windows), BATCH):
            batch = windows[start : start + BATCH].tolist()
            crops = ((ImageArray(array.pixels[y1:y2, x1:x2], array.order), 0.0) for x1, y1, x2, y2 in batch)
            found += self._detect(crops, len(batch), request)
        height, width = array.pixels.shape[:2]
        return merge(found, windows, (height, width), decode_s=decode_s, iou=request["iou"], max_det=max_det)

    def _detect(
        self, images: Iterable[tuple[ImageArray, float]], count: int, request: dict[str, Any]
    ) -> list[Detections]:
        """Detect on `count` images, given with the seconds that decoding each took."""
        if isinstance(self._session, PipelineSession):
            return self._detect_there(self._session, list(images), request)
        spec = self.manifest.input
        pixels = self._pixels(count)
        clocks, placements = [], []
        for row, (array, decode_s) in enumerate(images):
            start = time.perf_counter()
            _, placement = ops.letterbox(
                array.pixels, spec.height, spec.width,
                swap=array.swaps(spec.color), mean=spec.mean, std=spec.std, pad=spec.pad, out=pixels[row],
            )  # fmt: skip
            clocks.append((decode_s, time.perf_counter() - start))
            placements.append(placement)
        start = time.perf_counter()
        boxes, scores = self._session.infer(pixels, self._outputs(count))
        infer = (time.perf_counter() - start) / count
        return [
            self._finish(boxes[row], scores[row], placements[row], (*clocks[row], infer), request)
            for row in range(count)
        ]

    def _detect_there(
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
            size = (item.placement.image_height, item.placement.image_width)
            timings = {"decode": 1e3 * decode_s, "pipeline": pipeline_ms, "total": 1e3 * decode_s + pipeline_ms}
            boxes = item.placement.undo(item.boxes)
            results.append(Detections(boxes, item.scores, item.labels, self.names, size, timings))
        return results

    def _finish(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        placement: ops.Placement,
        clocks: tuple[float, float, float],
        request: dict[str, Any],
    ) -> Detections:
        start = time.perf_counter()
        kept, best, labels = ops.suppress(boxes, scores, **request)
        original = placement.undo(kept)
        seconds = (*clocks, time.perf_counter() - start)
        stages = dict(
            zip(("decode", "letterbox", "infer", "suppress"), (1e3 * value for value in seconds), strict=True)
        )
        timings = {**stages, "total": sum(stages.values())}
        size = (placement.image_height, placement.image_width)
        return Detections(original, best, labels, self.names, size, timings)

    def _pixels(self, batch: int) -> NDArray[np.float32]:
        """Return this thread's network input."""
        spec = self.manifest.input
        return self._buffers("pixels", batch, [(3, spec.height, spec.width)])[0]

    def _outputs(self, batch: int) -> Outputs:
        """Return this thread's network outputs; what `suppress` makes of them is copied out."""
        return self._buffers("outputs", batch, [spec.shape for spec in self.manifest.outputs])

    def _buffers(self, name: str, batch: int, shapes: Sequence[tuple[int, ...]]) -> Outputs:
        """Return arrays of this thread, allocated once: fresh pages cost more than the letterbox itself."""
        held: Outputs | None = getattr(self._local, name, None)
        if held is None or len(held[0]) < batch:
            held = tuple(np.empty((batch, *shape), np.float32) for shape in shapes)
            setattr(self._local, name, held)
        return tuple(array[:batch] for array in held)


def _decoded(images: Sequence[Any], color: str) -> Iterator[tuple[ImageArray, float]]:
    """Decode images one at a time, as they are asked for; with the seconds each took."""
    for image in images:
        start = time.perf_counter()
        yield decode(image, color), time.perf_counter() - start
