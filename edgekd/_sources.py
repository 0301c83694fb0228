"""`open_source`: pictures one after another, from files, folders, videos, cameras, network streams or any iterable.

Files and folders are read with Pillow, moving pictures with OpenCV (the extra `video`). What cannot be read is said and
passed over; what moves and breaks off is opened again.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._preprocess import IMAGE_SUFFIXES, decode, images_in
from .errors import HostError, ImageError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event

    from numpy.typing import NDArray

_LIVE_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://", "http://", "https://")
BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # between attempts to open a lost source again; then the last one


class Frame(NamedTuple):
    """One picture: `(H, W, 3)` uint8 in the order asked for, where it comes from, and the time reading it took.

    The arrays of an iterable come out as they were: `(H, W, 1)` of a grey one, `(H, W, 4)` with alpha.
    `fps` is the pace of its source in pictures a second; None: it has none, or does not say.
    """

    pixels: NDArray[np.uint8]
    name: str
    read_ms: float
    fps: float | None = None


class Broken(NamedTuple):
    """A picture that could not be read, or a source that was lost for a while, and why."""

    name: str
    reason: str


class Source(NamedTuple):
    """Pictures, and whether they come at a pace of their own, so that who is late must drop some."""

    frames: Generator[Frame | Broken, None, None]
    live: bool


def open_source(source: Any, color: str, stop: Event) -> Source:
    """Return the pictures of a source, which is opened when the first is asked for.

    Args:
        source: camera index; "/dev/video0"; "rtsp://..." or another network address; a GStreamer pipeline (with
            " ! "); a video or image file; a folder or a pattern of image files; or an iterable of what `predict` takes.
        color: "bgr" or "rgb": the order of the arrays that come out, and of those that an iterable gives.
        stop: ends the wait between attempts to open a lost source.

    Raises:
        UsageError: there is no such file, no image in the folder, nothing is known of this type, or it is one picture,
            whose rows or bytes would be taken for pictures.
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return Source(_moving(source, f"camera {source}", color, stop, live=True), live=True)
    if isinstance(source, (str, Path)):
        return _named(str(source), color, stop)
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise UsageError(f"{type(source).__name__} are one picture; a stream takes several: [image]")
    if isinstance(source, np.ndarray) and source.ndim < 4:
        raise UsageError(f"an array of shape {source.shape} is one picture; a stream takes several: [image]")
    if isinstance(source, Iterable):
        return Source(_pictures(source, color), live=False)
    raise UsageError(
        f"cannot stream from {type(source).__name__}; possible: camera index, path, folder, pattern, address, iterable"
    )


def _named(text: str, color: str, stop: Event) -> Source:
    if text.startswith(_LIVE_SCHEMES) or text.startswith("/dev/video") or " ! " in text:
        return Source(_moving(text, text, color, stop, live=True), live=True)
    path = Path(text)
    if path.is_dir():
        return Source(_pictures(images_in(path), color), live=False)
    if glob.has_magic(text) and not path.exists():
        matching = glob.glob(text)  # noqa: PTH207 - absolute patterns too
        files = sorted(Path(item) for item in matching if Path(item).suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise UsageError(f"no image matches {text} (looked for {', '.join(IMAGE_SUFFIXES)})")
        return Source(_pictures(files, color), live=False)
    if not path.exists():
        raise UsageError(f"no file, folder or camera at {text}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Source(_pictures([path], color), live=False)
    return Source(_moving(text, text, color, stop, live=False), live=False)


def _pictures(items: Iterable[Any], color: str) -> Generator[Frame | Broken, None, None]:
    for index, item in enumerate(items):
        name = str(item) if isinstance(item, (str, Path)) else f"item {index}"
        start = time.perf_counter()
        try:
            pixels, order = decode(item, color)
        except ImageError as error:
            yield Broken(name, str(error))
            continue
        if not isinstance(item, np.ndarray):
            pixels = _ordered(pixels, order, color)
        yield Frame(pixels, name, 1e3 * (time.perf_counter() - start))


def _ordered(pixels: NDArray[np.uint8], order: str, color: str) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` in the order asked for."""
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, ::-1]) if order != color else pixels


def _moving(
    spec: int | str, name: str, color: str, stop: Event, *, live: bool
) -> Generator[Frame | Broken, None, None]:
    """Yield the pictures of a video or, for as long as nobody stops, of a camera or network stream."""
    capture = _opened(spec)
    if capture is None:
        raise HostError(f"OpenCV cannot open {name}{_why(spec)}")
    attempts = count = 0
    try:
        while not stop.is_set():
            start = time.perf_counter()
            pixels = None
            if capture is not None:
                good, pixels = capture.read()
                pixels = pixels if good else None
            if pixels is not None:
                attempts, count = 0, count + 1
                read_ms = 1e3 * (time.perf_counter() - start)
                yield Frame(_ordered(pixels, "bgr", color), f"{name} #{count - 1}", read_ms, _pace(capture))
                continue
            if not live:
                return
            if capture is not None:
                capture.release()
                capture = None
            wait = BACK_OFF_S[min(attempts, len(BACK_OFF_S) - 1)]
            attempts += 1
            yield Broken(name, f"no picture; opening it again in {wait:g} s (attempt {attempts})")
            if stop.wait(wait):
                return  # a camera that is opened now would be taken from who comes next
            capture = _opened(spec)
    finally:
        if capture is not None:
            capture.release()


def _opened(spec: int | str) -> Any:
    """Return OpenCV's capture, or None if it cannot open the source."""
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError("videos and cameras need OpenCV: pip install 'edgekd[video]'") from error
    capture = cv2.VideoCapture(spec, cv2.CAP_GSTREAMER if isinstance(spec, str) and " ! " in spec else cv2.CAP_ANY)
    if capture.isOpened():
        return capture
    capture.release()
    return None


def _pace(capture: Any) -> float | None:
    """Return the frames a second that a source says it has; some say 0, and some live ones the ticks of their clock."""
    import cv2

    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0.1 <= fps <= 1000 else None


def _why(spec: int | str) -> str:
    import cv2

    if isinstance(spec, str) and " ! " in spec and "GStreamer:                   NO" in cv2.getBuildInformation():
        return ": this build of OpenCV has no GStreamer (that of JetPack has: python3-opencv)"
    if isinstance(spec, int) or spec.startswith("/dev/"):
        return ": is it plugged in, and may this user read it (group video)?"
    return ""
