"""Of processes that start one bundle at once one builds: real processes, and a fake TensorRT that waits for a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the lock is flock's")
STARTS = """
import os, pathlib, sys, time
from types import SimpleNamespace
sys.path.append({root!r})
from edgekd._bundle import Bundle
from edgekd.targets.tensorrt import _engines
from tests.targets import tensorrt_fake

path, go, cache = sys.argv[1:4]
fake = tensorrt_fake.FakeTensorRT()
build = tensorrt_fake.FakeBuilder.build_serialized_network

def waits(self, network, config):
    print("building", flush=True)
    while not os.path.exists(go):
        time.sleep(0.02)
    return build(self, network, config)

tensorrt_fake.FakeBuilder.build_serialized_network = waits
device = SimpleNamespace(capability=87, name="Orin", multiprocessors=8)
with Bundle.read(path) as bundle:
    opened = _engines.open_engine(
        fake.found(), device, bundle, bundle.manifest.artifacts[0], "",
        None if cache == "-" else pathlib.Path(cache), lambda line: print(line, flush=True),
    )
opened.engine.close()
print("builds", fake.builds, flush=True)
"""


class Starting:
    """A process that starts the bundle; its lines are read as they come."""

    def __init__(self, script: Path, path: Path, go: Path, cache: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, script, path, go, cache], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []

    def until(self, start: str) -> str:
        """Return the first line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(start):
                return line.rstrip()
        assert self.process.stderr is not None
        raise AssertionError(f"no line {start!r} in {self.lines}\n{self.process.stderr.read()}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return bundles.written("tensorrt", "fp32", tmp_path)


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


@pytest.fixture
def starting(path: Path, go: Path, tmp_path: Path) -> Iterator[Callable[..., Starting]]:
    script = tmp_path / "starts.py"
    script.write_text(STARTS.format(root=str(ROOT)))
    started: list[Starting] = []

    def start(cache: str = "-") -> Starting:
        started.append(Starting(script, path, go, cache))
        return started[-1]

    yield start
    for item in started:
        item.process.kill()
        item.process.communicate()


def test_start_when_another_process_builds_then_it_waits_and_takes_the_finished_engine(
    starting: Callable[..., Starting], path: Path, go: Path
) -> None:
    first = starting()
    first.until("building")
    second = starting()
    told = second.until("waits for")
    assert told == f"waits for process {first.process.pid}, which builds the fp32 engine of {path}"
    go.touch()
    assert (first.until("builds"), second.until("builds")) == ("builds 1", "builds 0")
    assert sum(line.startswith("waits") for line in second.lines) == 1
    assert (first.process.wait(), second.process.wait()) == (0, 0)


def test_start_when_the_builder_is_killed_then_the_one_that_waits_builds(
    starting: Callable[..., Starting], go: Path
) -> None:
    first = starting()
    first.until("building")
    second = starting()
    second.until("waits for")
    os.kill(first.process.pid, signal.SIGKILL)
    second.until("building")
    go.touch()
    assert second.until("builds") == "builds 1"


def test_start_when_no_lock_can_be_had_then_it_builds_all_the_same(
    starting: Callable[..., Starting], go: Path, tmp_path: Path
) -> None:
    """A folder has the lock's name: like a read-only file system, which a test by root cannot have."""
    (tmp_path / "cache" / "build.lock").mkdir(parents=True)
    go.touch()
    start = starting(str(tmp_path / "cache"))
    assert "another process may build at the same time" in start.until(str(tmp_path / "cache" / "build.lock"))
    assert start.until("builds") == "builds 1"
    assert list((tmp_path / "cache").glob("fp32-*.engine"))


def test_start_when_an_engine_is_kept_then_nobody_is_waited_for(
    starting: Callable[..., Starting], path: Path, go: Path
) -> None:
    import fcntl

    go.touch()
    starting().until("builds 1")
    lock = path.with_name(f"{path.name}.engines") / "build.lock"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start = starting()
        assert start.until("builds") == "builds 0"
        assert not any(line.startswith("waits") for line in start.lines)
