"""`edgekd predict` on videos, patterns and cameras: what is printed, saved and left behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd.cli import _video
from edgekd.cli.main import main

from ..conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path

cv2 = pytest.importorskip("cv2")
FRAMES, FPS = 12, 10.0


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    return str(path)


def clip(path: Path, frames: int = FRAMES) -> Path:
    """Write a video of 120x90 pixels."""
    pictures = bundles.pictures(3)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (120, 90))
    for index in range(frames):
        writer.write(pictures[index % 3])
    writer.release()
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return clip(tmp_path / "clip.avi")


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_video_gives_one_json_a_frame_in_order(model: str, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", model, str(video), "--json", "lines", "--conf", "0.01"]) == 0
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [row["image"] for row in rows] == [f"{video} #{index}" for index in range(FRAMES)]
    assert all(row["image_size"] == [90, 120] and row["boxes"] for row in rows)
    assert f"{FRAMES} pictures in " in shown.err
    assert "0 dropped, 0 skipped" in shown.err


def test_saved_video_is_never_the_one_that_is_read(model: str, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = video.read_bytes()
    clip = video.rename(video.with_suffix(".mp4"))
    assert main(["predict", model, str(clip), "--save", str(clip)]) == 2
    assert "is read from there; name another place" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_saved_video_has_every_frame_annotated_at_the_pace_of_the_source(
    model: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "found.mp4"
    assert (
        main(["predict", model, str(video), "--save", str(out), "--show-fps", "--conf", "0.01", "--max-det", "2"]) == 0
    )
    shown = capsys.readouterr()
    assert shown.out.count("120x90 px") == FRAMES
    assert f"wrote {out}" in shown.err
    assert " fps" in shown.err
    assert [item.name for item in out.parent.iterdir()] == ["found.mp4"]
    saved, plain = frames_of(out), frames_of(video)
    assert len(saved) == FRAMES
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FPS) == pytest.approx(FPS)
    changed = np.abs(saved[0].astype(int) - plain[0]).max(axis=2) > 60
    assert 0.02 < changed.mean() < 0.9, "boxes are drawn, and the picture is still there"
    assert saved[0][-14:, 8:60].max() > 230, "the pace, in white, in the lower left corner"


def test_pattern_and_folder_of_pictures_become_files_or_a_video(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for index, picture in enumerate(bundles.pictures()):
        Image.fromarray(picture).save(shots / f"{index}.png")
    (shots / "3.png").write_bytes(b"no picture")
    assert main(["predict", model, str(shots / "*.png"), "--save", str(tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert [json.loads(row)["image"] for row in shown.out.splitlines()] == [str(shots / f"{i}.png") for i in range(3)]
    assert "1 skipped" in shown.err
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == [f"{i:06d}.png" for i in range(3)]
    (shots / "3.png").unlink()
    assert main(["predict", model, str(shots), "--save", str(tmp_path / "all.mp4")]) == 0
    assert len(frames_of(tmp_path / "all.mp4")) == 3


def test_pictures_of_two_sizes_are_no_video_and_nothing_is_left(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for index, size in enumerate([(32, 24), (48, 24)]):
        Image.new("RGB", size).save(shots / f"{index}.png")
    out = tmp_path / "out" / "all.mp4"
    assert main(["predict", model, str(shots), "--save", str(out)]) == 2
    assert "a picture has 48x24 pixels, those before 32x24; a video has one size" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def test_camera_number_is_a_camera(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class NoCamera:
        def isOpened(self) -> bool:
            return False

        def release(self) -> None:
            """Nothing was opened."""

    monkeypatch.setattr(cv2, "VideoCapture", lambda spec, _api: asked.append(spec) or NoCamera())
    assert main(["predict", model, "3"]) == 4
    assert asked == [3]


def test_error_in_the_middle_leaves_the_video_that_was_there(
    model: str, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.mp4"
    out.write_bytes(b"before")
    added = _video.VideoFile.add

    def fail(self: _video.VideoFile, frame: np.ndarray, fps: float | None) -> None:
        added(self, frame, fps)
        raise OSError("no space left on device")

    monkeypatch.setattr(_video.VideoFile, "add", fail)
    with pytest.raises(OSError, match="no space left"):
        main(["predict", model, str(video), "--save", str(out)])
    assert out.read_bytes() == b"before"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["clip.avi", "found.mp4", "model.bin"]


def run(words: list[str], **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgekd.cli.main", "predict", *words]
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    options["env"] = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_ctrl_c_ends_with_130_and_a_whole_video(model: str, tmp_path: Path) -> None:
    long, out = clip(tmp_path / "long.avi", 3000), tmp_path / "found.mp4"
    process = run([model, str(long), "--save", str(out), "--json"])
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert 4 <= len(frames_of(out)) < 3000
    assert all(json.loads(line)["boxes"] is not None for line in (*lines, *output.splitlines())), "lines are whole"
    assert not [item for item in tmp_path.iterdir() if item.name.startswith(".")]


def test_reader_that_goes_away_ends_it_without_a_word(model: str, tmp_path: Path) -> None:
    long, out = clip(tmp_path / "long.avi", 3000), tmp_path / "found.mp4"
    process = run([model, str(long), "--save", str(out), "--json", "lines"])
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert first["image"].endswith(" #0")
    assert 1 <= len(frames_of(out)) < 3000


def test_lines_come_with_the_frames_not_at_the_end(model: str, video: Path) -> None:
    """The second source keeps OpenCV waiting: the lines of the first are there meanwhile."""
    process = run([model, str(video), "udp://127.0.0.1:9", "--json", "--max-det", "1"])
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(FRAMES)]
        time.sleep(1)
        assert process.poll() is None, "it waits"
        assert all(len(line) < 600 for line in lines), "longer ones would fill the buffer by themselves"
    finally:
        process.kill()
        process.communicate(timeout=60)
