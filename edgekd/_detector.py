"""`load` and `Detector`: a started engine, and what users ask of it, from any number of threads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ._bundle import Bundle
from ._engine import Engine, cache_folder
from ._pipeline import BATCH, Pipeline, checked_request, decoded, refuse_foreign
from ._select import start_chosen
from ._tiles import tiling
from .errors import BundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    import PIL.Image
    from numpy.typing import NDArray
    from typing_extensions import Self

    from ._detections import Detections
    from ._manifest import Manifest
    from ._session import Session, SessionInfo
    from ._stream import Stream

    Image = str | Path | bytes | bytearray | NDArray[Any] | PIL.Image.Image


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
    path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    *,
    threads: int = 0,
    mode: str = "latency",
    cache: str | Path | None = None,
    unsafe: bool = False,
) -> Detector:
    """Open a bundle, choose the best artifact that runs here, and start its engine. Prints nothing.

    Args:
        path: `model.bin`.
        device: "auto", a target ("openvino", "tflite", ...), or anybody's spelling of a device ("cpu", "cuda:0",
            "intel:npu", "GPU.0").
        precision: "auto", "fp32", "fp16" or "int8". "auto" takes int8 where its receipt says that its gates held and
            that it is faster than the others.
        threads: CPU threads of the engine; 0: the runtime's choice.
        mode: "latency": a call gets all threads of the engine; "throughput": calls that come at once share them, which
            answers more of them in a second, each one later.
        cache: a folder, made if need be, in which a target keeps what it compiled, so that the next load is faster
            (OpenVINO; TensorRT's engines too). Who can write there chooses what is loaded. What is damaged or does not
            fit is compiled again; where nothing can be written nothing is kept. None: no such folder.
        unsafe: also take int8 without a passing receipt.

    Returns:
        A `Detector`; `det.info.reason` says why this artifact.

    Raises:
        BundleError: the file is not a sound bundle (checked before any vendor parser sees a byte).
        UsageError: the device or precision is not in the bundle; the message lists what is and what to type. Or the
            folder cannot be a cache, or `threads` is no number of threads.
        GateError: only int8 artifacts without a passing receipt fit.
        TargetUnavailableError: nothing in the bundle can run here; the message says why, one line a candidate.
    """
    return start(Bundle.read(path), device, precision, threads, mode, cache, unsafe=unsafe)


def start(
    bundle: Bundle,
    device: str,
    precision: str,
    threads: int,
    mode: str = "latency",
    cache: str | Path | None = None,
    *,
    unsafe: bool = False,
) -> Detector:
    """Return a detector that owns the bundle; arguments and errors as `load`, on which the bundle is closed."""
    try:
        folder = cache_folder(cache, bundle)
        choice, session, restart = start_chosen(
            bundle, device, precision, threads=threads, mode=mode, cache=folder, unsafe=unsafe
        )
    except BaseException:
        bundle.close()
        raise
    info = DetectorInfo(session.info, choice.reason, choice.discarded)
    made_by = (device, precision, threads, mode, cache)
    return Detector(bundle.manifest, session, info, bundle, restart=restart, made_by=made_by)


class Detector:
    """A loaded model.

    Thread-safety: every method may be called from any number of threads at once; `close` lets the calls that run
    finish, those by tiles no further than their batch, and whoever waits or comes later gets a ClosedError.

    Processes: pickled, it is opened again where it arrives. After a fork the child opens an engine of its own when it
    first predicts, or gets a SessionError where the runtime does not survive that (OpenVINO); the parent's is left
    alone.
    """

    def __init__(
        self,
        manifest: Manifest,
        session: Session,
        info: DetectorInfo,
        bundle: Bundle | None = None,
        *,
        restart: Callable[[], Session] | None = None,
        made_by: tuple[Any, ...] = (),
    ) -> None:
        """Compose a started session with what the manifest says; users call `edgekd.load`.

        Args:
            manifest: of the bundle.
            session: started, and owned from now on.
            info: of what was chosen.
            bundle: owned from now on, if given.
            restart: starts another such session, in the child of a fork.
            made_by: arguments of `start` behind the bundle, for another process.
        """
        self.manifest = manifest
        self.info = info
        self._engine = Engine(session, restart)
        self._pipeline = Pipeline(manifest)
        self._bundle = bundle
        self._made_by = made_by

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
                image of a list is looked at for itself: those no larger than a tile go the usual way. At most 4096
                windows an image. None: whole images.
            overlap: pixels that neighbouring tiles share; more than the longest object, or no tile may hold it whole.
                None: a fifth of `tile`.
            ungated: of an anomaly network: give regions of normal images too. They lie above the pixel threshold.

        Raises:
            ImageError: an image cannot be used (missing, broken, wrong dtype or shape); floats are refused.
            UsageError: an option is out of its range, or means nothing for the bundle's task.
            SessionError: an anomaly network gave values that are not finite.
            ClosedError: after `close`; with tiles also when it comes between two batches of them.
        """
        given = {"conf": conf, "iou": iou, "classes": classes, "tile": tile, "overlap": overlap, "ungated": ungated}
        refuse_foreign(self.manifest, given)
        request = checked_request(self.manifest, conf, iou, max_det, classes)
        tiles = tiling(tile, overlap)
        items: Sequence[Any] = images if isinstance(images, (list, tuple)) else [images]
        found: list[Detections] = []
        with self._engine.use() as session:
            if tiles is None:
                for start in range(0, len(items), BATCH):
                    batch = items[start : start + BATCH]
                    found += self._pipeline.run(session, decoded(batch, color), len(batch), request, ungated=ungated)
            else:
                found = [
                    self._pipeline.run_by_tiles(
                        session, item, color, request, tiles, max_det, go_on=self._engine.check_wanted
                    )
                    for item in items
                ]
        return found if items is images else found[0]

    def submit(self, images: Any, *, timeout_ms: float | None = None, **options: Any) -> Future[Any]:
        """Call `predict` in another thread, and return at once.

        As many calls run at once as the engine is worth, and one more, whose picture is prepared meanwhile. When twice
        as many wait, this waits for a place.

        Args:
            images: as `predict`.
            timeout_ms: until the result, waiting included. Then the future raises DeadlineError; a call that waits
                gives its place away, one that runs keeps its thread until the engine is done, by tiles with a batch of
                them. None: as long as it takes.
            **options: as `predict`.

        Returns:
            The future of what `predict` returns or raises. `cancel()` takes a call that waits out of the queue; a call
            that waits when the detector is closed ends in ClosedError.

        Raises:
            UsageError: `timeout_ms` is no positive number.
            ClosedError: after `close`.
        """
        return self._engine.pool().submit(partial(self.predict, images, **options), timeout_ms)

    async def apredict(self, images: Any, *, timeout_ms: float | None = None, **options: Any) -> Any:
        """Call `predict` in another thread, and await its result; for asyncio.

        Args:
            images: as `predict`.
            timeout_ms: as `submit`.
            **options: as `predict`.

        Returns:
            What `predict` returns. A task that is cancelled takes its call out of the queue.

        Raises:
            DeadlineError: no result within `timeout_ms`.
            EdgekdError: as `predict` and `submit`.
        """
        import asyncio

        work = partial(self.predict, images, **options)
        return await asyncio.wrap_future(self._engine.pool().submit(work, timeout_ms, bounded=False))

    def stream(
        self,
        source: Any,
        *,
        queue: int = 2,
        drop: str = "auto",
        workers: int | None = None,
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
            workers: pictures that are predicted at once; None: as many as the engine is worth, and one that is prepared
                meanwhile.
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

        if workers is None:
            workers = self._engine.workers()
        return Stream(find, source, color=color, queue=queue, drop=drop, workers=workers)

    @property
    def waiting(self) -> int:
        """Calls of `submit` and `apredict` that no thread has taken yet."""
        return self._engine.waiting

    def warmup(self, runs: int = 3) -> None:
        """Run the whole path on a golden image of the bundle, else on grey, so that the first call is like the next."""
        spec = self.manifest.input
        image: Any = np.full((2 * spec.height, 2 * spec.width, 3), 114, np.uint8)  # larger, so that it is resized
        if self._bundle is not None and self.manifest.golden:
            image = bytes(self._bundle.chunk(self.manifest.golden[0].image))
        for _ in range(runs):
            self.predict(image)

    def close(self) -> None:
        """Free the engine and the mapped file, once the calls that run have ended; a second call does nothing.

        Calls that wait for their turn end in ClosedError, and so do those by tiles after the batch that runs.
        """
        if self._engine.close() and self._bundle is not None:
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

    def __reduce__(self) -> tuple[Any, ...]:
        if self._bundle is None or self._bundle.path is None or not self._made_by:
            raise UsageError("only a detector that edgekd.load opened from a file can go to another process")
        path = Path(os.path.abspath(self._bundle.path))  # noqa: PTH100 - resolve() would follow links
        return _reopen, (path, self._bundle.digest, self._made_by)


def _reopen(path: Path, digest: str, made_by: tuple[Any, ...]) -> Detector:
    """Open a pickled detector again: the same file, with the same contents."""
    bundle = Bundle.read(path)
    if bundle.digest != digest:
        bundle.close()
        raise BundleError(f"{path} is another bundle than when the detector was pickled; load it anew")
    return start(bundle, *made_by)
