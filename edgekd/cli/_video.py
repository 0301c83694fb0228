"""Annotated frames as one video file, with OpenCV; and the pace of what comes in."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import edgekd

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

SUFFIX = ".mp4"
CODEC = "mp4v"  # MPEG-4 part 2: what every build of OpenCV can write
FPS = 25.0  # where the source says nothing
KEPT = (KeyboardInterrupt, BrokenPipeError)  # how who watches a camera ends it


class VideoFile:
    """A video that has its name once it is whole.

    Frames go to a temporary file beside it. That is renamed at the end, also when the end is Ctrl-C or a reader that
    went away; on an error it is removed.
    """

    def __init__(self, path: Path) -> None:
        """Begin nothing before the first frame, whose size is the video's."""
        self.path = path
        self._temporary = path.with_name(f".{path.stem}.{os.urandom(4).hex()}{path.suffix}")
        self._writer: Any = None
        self._size = (0, 0)

    def add(self, frame: NDArray[np.uint8], fps: float | None) -> None:
        """Append `(H, W, 3)` uint8 BGR.

        Raises:
            HostError: OpenCV cannot write there.
            UsageError: the frame has another size than those before.
        """
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._writer, self._size = self._opened(size, fps or FPS), size
        if size != self._size:
            raise edgekd.errors.UsageError(
                f"--save {self.path}: a picture has {size[0]}x{size[1]} pixels, those before {self._size[0]}x"
                f"{self._size[1]}; a video has one size. To save pictures, name a folder: --save DIR"
            )
        self._writer.write(frame)

    def _opened(self, size: tuple[int, int], fps: float) -> Any:
        try:
            import cv2
        except ImportError as error:
            raise edgekd.errors.MissingPackageError(
                "writing a video needs OpenCV: pip install 'edgekd[video]'"
            ) from error
        self.path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*CODEC), fps, size)
        if not writer.isOpened():
            raise edgekd.errors.HostError(f"OpenCV cannot write {self.path}: is there room, and may this user write?")
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None or issubclass(kind, KEPT):
            self._temporary.replace(self.path)
            print(f"  wrote {self.path}", file=sys.stderr)
        else:
            self._temporary.unlink(missing_ok=True)


class Pace:
    """Frames a second over the last few dozen."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=30)

    def tick(self) -> float:
        """Count a frame; return the pace, 0 before the second."""
        self._times.append(time.perf_counter())
        taken = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / taken if taken > 0 else 0.0


def with_fps(frame: NDArray[np.uint8], fps: float) -> NDArray[np.uint8]:
    """Return a copy of `(H, W, 3)` uint8 with the pace in its lower left corner, white on black."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(frame)
    font = ImageFont.load_default(size=max(12, min(frame.shape[:2]) // 24))
    pen = ImageDraw.Draw(picture)
    pen.text((6, frame.shape[0] - 6), f"{fps:.1f} fps", "white", font, anchor="ls", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)
