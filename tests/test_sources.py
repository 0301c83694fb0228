"""Pictures from every kind of source."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edgekd import _sources
from edgekd._sources import Broken, Frame, open_source
from edgekd.errors import HostError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RED = (200, 10, 30)


def read(source: Any, color: str = "bgr") -> list[Frame | Broken]:
    return list(open_source(source, color, threading.Event()).frames)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write three pictures, one of them broken, and a text file."""
    Image.new("RGB", (8, 6), RED).save(tmp_path / "b.png")
    Image.new("L", (8, 6), 77).save(tmp_path / "a.png")
    (tmp_path / "c.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "*", "[abc].*"])
def test_folders_and_patterns_come_in_order_and_broken_files_are_said(folder: Path, pattern: str) -> None:
    grey, red, broken = read(str(folder / pattern) if pattern else folder)
    assert isinstance(grey, Frame)
    assert isinstance(red, Frame)
    assert isinstance(broken, Broken)
    assert [Path(item.name).name for item in (grey, red, broken)] == ["a.png", "b.png", "c.jpg"]
    assert grey.pixels.shape == (6, 8, 3)
    assert red.pixels[0, 0].tolist() == [30, 10, 200]
    assert "c.jpg" in broken.reason


def test_files_come_in_the_order_asked_for(folder: Path) -> None:
    (frame,) = read(folder / "b.png", "rgb")
    assert isinstance(frame, Frame)
    assert frame.pixels[0, 0].tolist() == list(RED)


def test_a_file_with_brackets_in_its_name_is_a_file(folder: Path) -> None:
    (folder / "b.png").rename(folder / "b[1].png")
    assert len(read(str(folder / "b[1].png"))) == 1


def test_iterables_give_what_predict_takes(folder: Path) -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    frames = read(iter([array, folder / "b.png", (folder / "b.png").read_bytes(), np.zeros((4, 5)), "absent.png"]))
    assert [type(item) for item in frames] == [Frame, Frame, Frame, Broken, Broken]
    assert frames[0].pixels is array or np.shares_memory(frames[0].pixels, array)  # type: ignore[union-attr]
    assert [item.name for item in frames][::2] == ["item 0", "item 2", "absent.png"]


@pytest.mark.parametrize("wrong", [3.5, None, True])
def test_other_types_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="cannot stream from"):
        read(wrong)


@pytest.mark.parametrize(
    "one", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8), b"\x89PNG", bytearray(b"\x89PNG")]
)
def test_one_picture_is_not_taken_for_many(one: Any) -> None:
    with pytest.raises(UsageError, match=r"one picture; a stream takes several: \[image\]"):
        read(one)
    assert len(read([one])) == 1
    assert len(read(np.zeros((2, 4, 5, 3), np.uint8))) == 2


@pytest.mark.parametrize(("shape", "comes_out"), [((4, 5), (4, 5, 1)), ((4, 5, 1), (4, 5, 1)), ((4, 5, 4), (4, 5, 4))])
def test_arrays_come_out_as_they_were(shape: tuple[int, ...], comes_out: tuple[int, ...]) -> None:
    (frame,) = read([np.zeros(shape, np.uint8)])
    assert isinstance(frame, Frame)
    assert frame.pixels.shape == comes_out


def test_missing_files_and_empty_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file, folder or camera at .*absent\.mp4"):
        read(tmp_path / "absent.mp4")
    with pytest.raises(UsageError, match="no image in"):
        read(tmp_path)
    with pytest.raises(UsageError, match="no image matches"):
        read(str(tmp_path / "*.png"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Write ten pictures, each with its number as its brightness."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 24))
    for index in range(10):
        frame = np.full((24, 32, 3), 20 * index, np.uint8)
        frame[:, :, 0] = 250  # blue
        writer.write(frame)
    writer.release()
    return path


def test_videos_give_every_picture_in_order(video: Path) -> None:
    frames = read(video)
    assert all(isinstance(item, Frame) for item in frames)
    levels = [float(item.pixels[:, :, 2].mean()) for item in frames]  # type: ignore[union-attr]
    np.testing.assert_allclose(levels, 20.0 * np.arange(10), atol=6)
    assert frames[3].name.endswith("clip.avi #3")
    (first, *_) = read(video, "rgb")
    assert isinstance(first, Frame)
    assert first.pixels[0, 0, 2] > 200


def test_files_that_are_no_video_are_said(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(HostError, match=r"cannot open .*clip\.mp4"):
        read(path)


class Camera:
    """OpenCV's capture as it behaves when the network comes and goes."""

    def __init__(self, script: list[str]) -> None:
        self.script, self.opened, self.released = script, 0, 0

    def __call__(self, _spec: Any, _api: int) -> Camera:
        self.opened += 1
        self.good = self.script.pop(0) == "open"
        return self

    def isOpened(self) -> bool:
        return self.good

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        if self.script and self.script[0] == "picture":
            self.script.pop(0)
            return True, np.zeros((4, 6, 3), np.uint8)
        return False, None

    def get(self, _property: int) -> float:
        return 90_000.0  # what some RTSP cameras call their pace: the ticks of their clock

    def release(self) -> None:
        self.released += 1


def test_camera_is_not_opened_again_once_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(["open", "picture", "shut", "open"])
    stop = threading.Event()
    monkeypatch.setattr(cv2, "VideoCapture", camera)
    frames = open_source(0, "bgr", stop).frames
    assert [type(next(frames)) for _ in range(2)] == [Frame, Broken]
    stop.set()
    assert list(frames) == []
    assert (camera.opened, camera.released) == (1, 1)


@pytest.mark.parametrize("source", [0, "/dev/video7", "rtsp://host/1", "v4l2src ! appsink"])
def test_a_lost_stream_is_opened_again(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(["open", "picture", "shut", "shut", "open", "picture", "picture", "shut"])
    waits: list[float] = []
    stop = threading.Event()

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 4:
            stop.set()
        return False

    monkeypatch.setattr(cv2, "VideoCapture", camera)
    monkeypatch.setattr(stop, "wait", wait)
    opened = open_source(source, "bgr", stop)
    assert opened.live
    found = list(opened.frames)
    kinds = [type(item).__name__ for item in found]
    assert kinds == ["Frame", "Broken", "Broken", "Broken", "Frame", "Frame", "Broken"]
    assert waits == [0.5, 1.0, 2.0, 0.5]  # the wait grows, and starts anew after a picture
    assert "opening it again in 0.5 s (attempt 1)" in found[1].reason  # type: ignore[union-attr]
    assert camera.released >= camera.opened - 1


def test_a_camera_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera(["shut"]))
    with pytest.raises(HostError, match="cannot open camera 0: is it plugged in"):
        read(0)
    monkeypatch.setattr(cv2, "VideoCapture", Camera(["shut"]))
    with pytest.raises(HostError, match=r"cannot open v4l2src ! appsink: this build of OpenCV has no GStreamer"):
        read("v4l2src ! appsink")


def test_without_opencv_it_says_what_to_install(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingPackageError, match=r"edgekd\[video\]"):
        read(video)


def test_the_waits_grow_to_half_a_minute() -> None:
    assert list(_sources.BACK_OFF_S) == sorted(_sources.BACK_OFF_S)
    assert _sources.BACK_OFF_S[-1] == 30
