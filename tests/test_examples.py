"""Every command of every example README, run in order from the root of a copy, with fewer steps and scenes."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import edgekd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("EDGEKD_DATA", ROOT.parent / "shared" / "data"))
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
SMALLER = (
    ("--train 600 --val 60 --test 200", "--train 16 --val 4 --test 4"),
    # Three steps leave boxes as large as the picture, which float16 moves by more than the bound; `build` refuses them.
    ("--precision fp32,fp16", "--precision fp32"),
)
FEWER_STEPS = re.compile(r"^(edgekd (?:train|distill) .*)$")


def commands(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of the fenced blocks that a reader is told to run."""
    return re.findall(r"```(sh|python)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def lines(block: str) -> list[str]:
    for full, small in SMALLER:
        block = block.replace(full, small)
    return [FEWER_STEPS.sub(r"\1 --steps 3", line) for line in block.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.parent.name)
def test_the_commands_of_an_example_work_in_order(page: Path, tmp_path: Path) -> None:
    if page.parent.name == "04_track":
        pytest.importorskip("trackers")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for language, block in commands(page):
        runs = [["sh", "-c", line] for line in lines(block)] if language == "sh" else [[sys.executable, "-c", block]]
        for command in runs:
            ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, f"{command[-1]}\n{ran.stdout}\n{ran.stderr}"
    assert list((tmp_path / "out" / "example" / "pictures").glob("*.png"))


@pytest.fixture
def track() -> ModuleType:
    """Return examples/04_track/track.py."""
    spec = importlib.util.spec_from_file_location("track", ROOT / "examples" / "04_track" / "track.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["track"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_tracks_of_two_objects_that_pass_each_other(track: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    trackers = pytest.importorskip("trackers")
    frame = np.zeros((120, 200, 3), np.uint8)

    def passing() -> Iterator[tuple[np.ndarray, edgekd.Detections]]:
        for index in range(30):
            x = 5.0 * index
            boxes = np.float32([[x, 20, x + 30, 50], [160 - x, 60, 190 - x, 100]])
            count = 0 if index < 3 else 2  # nothing to see at first
            yield (
                frame,
                edgekd.Detections(
                    boxes[:count],
                    np.float32([0.9, 0.8])[:count],
                    np.array([1, 0])[:count],
                    ("gun", "knife"),
                    (120, 200),
                ),
            )

    tracks, last, tracker_ms = track.follow(passing(), trackers.ByteTrackTracker())
    assert last is frame
    assert tracker_ms > 0
    assert [max(set(item.labels)) for item in tracks.values()] == [1, 0]
    assert all(item.frames[-1] == 29 and len(item.frames) > 20 for item in tracks.values())
    track.show(tracks, ("gun", "knife"), 5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert [line.split()[1] for line in lines[1:]] == ["knife", "gun"]
    assert all(float(line.split()[-2]) > 100 for line in lines[1:])


@pytest.mark.data
@pytest.mark.slow
def test_cars_of_a_real_video_are_followed(track: ModuleType, tmp_path: Path) -> None:
    trackers = pytest.importorskip("trackers")
    pytest.importorskip("cv2")
    weights, video = DATA / "weights" / "yolox_nano_416_coco.onnx", DATA / "smoke" / "video" / "car-detection.mp4"
    if not weights.exists() or not video.exists():
        pytest.skip(f"needs {weights} and {video}")
    names = DATA / "weights" / "coco_names_80.txt"
    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    edgekd.import_model(weights, tmp_path / "model.bin", head="yolox", classes=names, images=tmp_path / "grey.png")
    tracker = trackers.ByteTrackTracker(track_activation_threshold=0.5, high_conf_det_threshold=0.5)
    with edgekd.load(tmp_path / "model.bin") as detector, detector.stream(str(video), conf=0.1) as stream:
        tracks, _, _ = track.follow(stream, tracker)
    ways = [abs(np.subtract(item.centres[-1], item.centres[0])).max() for item in tracks.values()]
    assert sum(way > 100 for way in ways) >= 4, "cars seen from above drive through the picture"


def test_every_example_is_found() -> None:
    assert EXAMPLES
    assert all(commands(page) for page in EXAMPLES)
