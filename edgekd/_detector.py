"""`Detector`: place the image -> network -> suppress, or measure anomalous regions; whatever the chip."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from . import _anomaly, ops
from ._bundle import Bundle
from ._detections import Detections
from ._preprocess import ImageArray, decode
from ._select import choose
from ._session import PipelineSession, Request
from ._tiles import Tiling, merge, tiling
from .errors import ClosedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import PIL.Image
    from numpy.typing import NDArray
    from typing_extensions import Self

    from ._manifest import Manifest
    from ._session import Outputs, Session, SessionInfo
    from ._stream import Stream

    Image = str | Path | bytes | bytearray | NDArray[Any] | PIL.Image.Image

NOT_FOR = {"anomaly": ("conf", "iou", "classes", "tile", "overlap"), "detect": ("ungated",)}
"""Arguments of `predict` that mean nothing for a task."""
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


def load(
    path: str | Path, device: str = "auto", precision: str = "auto", *, threads: int = 0, unsafe: bool = False
) -> Detector:
    """Open a bundle, choose the best artifact that runs here, and start its engine. Prints nothing.

    Args:
        path: `model.bin`.
        device: "auto", a target ("openvino", "tflite", ...), or anybody's spelling of a device ("cpu", "cuda:0",
            "intel:npu", "GPU.0").
        precision: "auto", "fp32", "fp16" or "int8". "auto" takes int8 where its receipt says that its gates held and
            that it is faster than the others.
        threads: CPU threads of the engine; 0: the runtime's choice.
        unsafe: also take int8 without a passing receipt.

    Returns:
        A `Detector`; `det.info.reason` says why this artifact.

    Raises:
        BundleError: the file is not a sound bundle (checked before any vendor parser sees a byte).
        UsageError: the device or precision is not in the bundle; the message lists what is and what to type.
        GateError: only int8 artifacts without a passing receipt fit.
        TargetUnavailableError: nothing in the bundle can run here; the message says why, one line a candidate.
    """
    return start(Bundle.read(path), device, precision, threads, unsafe=unsafe)


def start(bundle: Bundle, device: str, precision: str, threads: int, *, unsafe: bool = False) -> Detector:
    """Return a detector that owns the bundle; arguments and errors as `load`, on which the bundle is closed."""
    try:
        choice = choose(bundle, device, precision, unsafe=unsafe)
        session = choice.target.load(bundle, choice.artifact, device=device, threads=threads)
    except BaseException:
        bundle.close()
        raise
    info = DetectorInfo(session.info, choice.reason, choice.discarded)
    return Detector(bundle.manifest, session, info, bundle)


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
        ungated: bool = False,
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
        ungated: bool = False,
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
        ungated: bool = False,
    ) -> Detections | list[Detections]:
        """Find objects, or anomalous regions. One image in, one `Detections` out; a list or tuple in, a list out.

        An anomaly network takes `max_det`, `color` and `ungated`. Its thresholds are the bundle's: `edgekd.thresholds`.

        Args:
            images: path, bytes of an image file, PIL image, or array `(H, W, 3)`, `(H, W)` or `(H, W, 4)` uint8; or a
                list of them.
            conf: keep scores above this, in [0, 1]; None: the bundle's default.
            iou: of two boxes of one class that overlap more than this, the better stays; None: the bundle's default.
            max_det: most objects or regions per image; None: the bundle's default, with tiles for each tile.
            classes: only these, by name or index; None: all.
            color: "bgr" (as OpenCV gives) or "rgb": the channel order of arrays. Files and PIL images are RGB.
            tile: side in pixels of the square windows that an image larger than that is split into; the network sees
                each by itself, and what two of them found twice is merged (see `edgekd.geometry.merge_tiles`). Every
                image of a list is looked at for itself: those no larger than a tile go the usual way. None: whole
                images.
            overlap: pixels that neighbouring tiles share; more than the longest object, or no tile may hold it whole.
                None: a fifth of `tile`.
            ungated: of an anomaly network: give regions of normal images too. They lie above the pixel threshold.

        Raises:
            ImageError: an image cannot be used (missing, broken, wrong dtype or shape); floats are refused.
            UsageError: an option is out of its range, or means nothing for the bundle's task.
            SessionError: an anomaly network gave values that are not finite.
            ClosedError: after `close`.
        """
        if self._closed:
            raise ClosedError("this detector was closed; load the bundle again: edgekd.load(...)")
        given = {"conf": conf, "iou": iou, "classes": classes, "tile": tile, "overlap": overlap, "ungated": ungated}
        self._refuse_foreign(given)
        request = self._request(conf, iou, max_det, classes)
        tiles = tiling(tile, overlap)
        items: Sequence[Any] = images if isinstance(images, (list, tuple)) else [images]
        found: list[Detections] = []
        if tiles is None:
            for start in range(0, len(items), BATCH):
                batch = items[start : start + BATCH]
                found += self._detect(_decoded(batch, color), len(batch), request, ungated=ungated)
        else:
            found = [self._detect_by_tiles(item, color, request, tiles, max_det) for item in items]
        return found if items is images else found[0]

    def stream(
        self,
        source: Any,
        *,
        queue: int = 2,
        drop: str = "auto",
        workers: int = 2,
        color: str = "bgr",
        **options: Any,
    ) -> Stream:
        """Find objects in one picture after another, reading and predicting at the same time.

            for frame, found in detector.stream("rtsp://camera/1", conf=0.4): ...

        Args:
            source: camera index; "/dev/video0"; "rtsp://..." or another network address; a GStreamer pipeline (holds
                " ! "); a video or image file; a folder or a pattern ("shots/*.png") of image files; or an iterable of
                what `predict` takes.
            queue: pictures that may wait to be predicted. More hide a reader that stutters, and are older when seen.
            drop: when the queue is full, "oldest" drops the picture that waited longest, "never" lets the reader wait;
                "auto": "oldest" for cameras and network streams, which do not wait, "never" for the rest.
            workers: pictures that are predicted at once, so that one is prepared while another is in the network.
            color: "bgr" or "rgb": the order of the frames that come out, and of the arrays of an iterable.
            **options: `conf`, `iou`, `max_det`, `classes`, `tile`, `overlap` of `predict`.

        Returns:
            An iterator over (frame, detections) in the order of the source, with the counts `dropped` and `skipped`.
            `timings_ms` has "decode" (reading the picture) and "queue" (waiting for a worker) besides those of
            `predict`. A picture that cannot be read is skipped; a camera or network stream that is lost is opened
            again; both are said in the log `edgekd.stream`. What ends the stream is raised after what came before it.

        Raises:
            UsageError: no such file, or an option out of its range.
            HostError: the source cannot be opened (raised when the first picture is asked for).
            MissingPackageError: a video or camera without OpenCV.
        """
        from ._stream import Stream  # threads and sources that `predict` does without

        def find(frame: NDArray[np.uint8]) -> Detections:
            return self.predict(frame, color=color, **options)

        return Stream(find, source, color=color, queue=queue, drop=drop, workers=workers)

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

    def _refuse_foreign(self, given: Mapping[str, object]) -> None:
        """Raise UsageError for arguments of another task."""
        task = self.manifest.task
        refused = [name for name in NOT_FOR[task] if given[name] is not None and given[name] is not False]
        if refused and task == "anomaly":
            raise UsageError(
                f"{', '.join(refused)}: for detectors only; {self.manifest.name!r} is for task anomaly, which takes "
                "max_det and ungated. To change its thresholds: edgekd thresholds model.bin"
            )
        if refused:
            raise UsageError(f"{', '.join(refused)}: for anomaly networks only; {self.manifest.name!r} finds objects")

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
        self,
        images: Iterable[tuple[ImageArray, float]],
        count: int,
        request: dict[str, Any],
        *,
        ungated: bool = False,
    ) -> list[Detections]:
        """Detect on `count` images, given with the seconds that decoding each took."""
        if isinstance(self._session, PipelineSession) and self.manifest.task == "detect":
            return self._detect_there(self._session, list(images), request)
        spec = self.manifest.input
        pixels = self._pixels(count)
        clocks, placements = [], []
        for row, (array, decode_s) in enumerate(images):
            start = time.perf_counter()
            _, placement = ops.letterbox(
                array.pixels, spec.height, spec.width,
                swap=array.swaps(spec.color), mean=spec.mean, std=spec.std, pad=spec.pad, out=pixels[row],
                stretch=self.manifest.task == "anomaly",
            )  # fmt: skip
            clocks.append((decode_s, time.perf_counter() - start))
            placements.append(placement)
        start = time.perf_counter()
        first, second = self._session.infer(pixels, self._outputs(count))
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
            timings = {"decode": 1e3 * decode_s, "pipeline": pipeline_ms, "total": 1e3 * decode_s + pipeline_ms}
            boxes = item.placement.undo(item.boxes)
            results.append(Detections(boxes, item.scores, item.labels, self.names, _size(item.placement), timings))
        return results

    def _named(self, columns: dict[str, Any], placement: ops.Placement, seconds: Sequence[float]) -> Detections:
        """Return columns with what they mean, and the milliseconds of each stage."""
        last = "suppress" if self.manifest.thresholds is None else "regions"
        names = ("decode", "letterbox", "infer", last)
        stages = {name: 1e3 * value for name, value in zip(names, seconds, strict=True)}
        timings = {**stages, "total": sum(stages.values())}
        return Detections(**columns, classes=self.names, image_size=_size(placement), timings_ms=timings)

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


def _objects(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], placement: ops.Placement, request: dict[str, Any]
) -> dict[str, Any]:
    """Return what `Detections` holds of one image's rows, by name."""
    kept, best, labels = ops.suppress(boxes, scores, **request)
    return {"boxes": placement.undo(kept), "scores": best, "labels": labels}


def _size(placement: ops.Placement) -> tuple[int, int]:
    return placement.image_height, placement.image_width


def _decoded(images: Sequence[Any], color: str) -> Iterator[tuple[ImageArray, float]]:
    """Decode images one at a time, as they are asked for; with the seconds each took."""
    for image in images:
        start = time.perf_counter()
        yield decode(image, color), time.perf_counter() - start
