"""A flash over a real sshd that meets a fault at every step: the emulated ARM board serves the old version or the new.

Opt-in as test_arm_board.py; about an hour. Which version is served is told by prediction on the board. What cannot be
had here is tried on the fake board: power cuts, flipped bits, a clock of its own.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from PIL import Image

import edgekd
from edgekd._target import load_target
from edgekd.errors import DeviceError

from ..conformance import bundles
from .arm_board import (
    EDGEKD,
    MODELS,
    PYTHON,
    ROOT,
    SESSION,
    SYSTEM,
    WHY_SKIPPED,
    emulated,
    found_there,
    kill_all,
    said,
    wait_until_idle,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd.device import SshDevice

STEPS = ("upload", "assemble", "verify", "golden", "latency", "arm", "switch", "watch", "commit")
ALONE = STEPS[1:]  # the board needs no host for these
QUICK: dict[str, Any] = {"root": MODELS, "runs": 3, "max_slowdown": 1000, "allow_downgrade": True}
THRESHOLDS = {"a": 0.25, "b": 0.4}  # versions that see different things
HOST = """
import json, sys
import edgekd
from edgekd.device import SshDevice
options = json.loads(sys.argv[3])
edgekd.flash(sys.argv[1], SshDevice("loop", options=("-F", sys.argv[2])), **options,
             progress=lambda step: print(step.name, step.state, flush=True))
"""

pytestmark = [
    pytest.mark.skipif(not ROOT, reason=WHY_SKIPPED),
    pytest.mark.skipif(load_target("tflite").probe_build() is not None, reason="LiteRT's converter is not installed"),
    pytest.mark.timeout(3000),
]


class Emulated:
    """The board, the two versions that take turns on it, and a host that may be killed."""

    def __init__(self, device: SshDevice, folder: Path) -> None:
        """Install edgekd there and put the first version into service."""
        self.device, self.folder = device, folder
        self._count = itertools.count()
        pixels = bundles.pictures(1)[0]
        Image.fromarray(pixels).save(f"{ROOT}/picture.png")
        self.seen: dict[int, str] = {}
        for version, conf in THRESHOLDS.items():
            with edgekd.load(written(folder / "probe.bin", conf=conf), device="tflite") as detector:
                self.seen[len(detector.predict(pixels, color="rgb"))] = version
        assert len(self.seen) == len(THRESHOLDS)
        first = self.bundle("a")
        edgekd.flash(first, device, python=SYSTEM, bootstrap=f"{ROOT}/wheels", watch_s=0, **QUICK)
        self.serving = "a"

    def bundle(self, version: str) -> Path:
        """Write a bundle that was never sent before."""
        number = next(self._count)
        return written(self.folder / f"{number}.bin", conf=THRESHOLDS[version], name=f"{version}{number}")

    def flash(self, path: Path, **options: Any) -> edgekd.FlashReport:
        return edgekd.flash(path, self.device, python=PYTHON, watch_s=0, **{**QUICK, **options})

    def served(self, name: str = "model") -> str:
        """Return the version that the board serves, by what it sees."""
        found = found_there(self.device, f"{MODELS}/{name}/current/model.bin", "/picture.png")
        return self.seen[len(found["scores"])]

    def guarded(self) -> str:
        """Return the version after a service has started, as its unit lets the guard do."""
        said(self.device, EDGEKD, "guard", "model", "--root", MODELS)
        return self.served()

    def flash_and(self, path: Path, step: str, act: Any) -> None:
        """Flash from a host of its own, and do something to it when a step begins."""
        options = json.dumps({**QUICK, "python": PYTHON, "watch_s": 3})
        config = self.device._ssh[self.device._ssh.index("-F") + 1]
        command = [sys.executable, "-c", HOST, str(path), config, options]
        met = False
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as host:
            assert host.stdout is not None
            for line in host.stdout:
                if not met and line.split() in ([step, "begun"], [step, "running"]):
                    met = True
                    act(host)
        assert met, f"the flash never came to {step}"
        wait_until_idle()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    for each in Path(f"{ROOT}{MODELS}").glob("[!.]*"):  # what was installed there may stay
        shutil.rmtree(each)
    folder = tmp_path_factory.mktemp("sshd")
    with emulated(folder) as device:
        yield Emulated(device, folder)


def kill_host(host: subprocess.Popen[str]) -> None:
    children = psutil.Process(host.pid).children(recursive=True)
    for each in (host, *children):  # its ssh goes with it, as on a machine that is switched off
        each.kill()


def kill_programs(_host: subprocess.Popen[str]) -> None:
    kill_all()


def drop_link(_host: subprocess.Popen[str]) -> None:
    server = next(each for each in psutil.Process().children() if each.name() == SESSION)
    for session in server.children(recursive=True):
        if session.name() == SESSION:
            session.kill()


FAULTS = {"host killed": kill_host, "programs killed": kill_programs, "link dropped": drop_link}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_at_any_step_leaves_old_or_new(board: Emulated, step: str, fault: str) -> None:
    old = board.serving
    new = "b" if old == "a" else "a"
    path = board.bundle(new)
    board.flash_and(path, step, FAULTS[fault])
    at_once, started = board.served(), board.guarded()
    assert at_once in (old, new)
    assert started in (old, new)
    if fault != "programs killed" and step in ALONE:
        assert (at_once, started) == (new, new), "the board goes on alone"
    board.flash(path)
    assert board.served() == new
    board.serving = new
    state = edgekd.status(board.device, root=MODELS, python=PYTHON)
    assert state["whole"]


@pytest.mark.parametrize("share", [0.0, 0.7], ids=["no room for chunks", "no room for the file"])
def test_a_full_disk_keeps_the_old_version(board: Emulated, share: float) -> None:
    first, second = board.bundle("a"), board.bundle("b")
    folder = Path(f"{ROOT}{MODELS}/full")
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        board.flash(first, name="full")
        room = shutil.disk_usage(folder).used + int(share * first.stat().st_size) + 4096
        subprocess.run(["mount", "-o", f"remount,size={room}", str(folder)], check=True)
        with pytest.raises(DeviceError, match="No space left"):
            board.flash(second, name="full")
        assert board.served("full") == "a"
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        board.flash(second, name="full")
        assert board.served("full") == "b"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_another_l4t_is_refused_before_a_byte_is_sent(board: Emulated) -> None:
    release = Path(f"{ROOT}/etc/nv_tegra_release")
    release.write_text("# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref, EABI: aarch64, DATE: none\n")
    try:
        with pytest.raises(DeviceError, match=r"l4t is 35\.4\.1, 36\.4 was required"):
            board.flash(board.bundle("b"), require={"l4t": "36.4"})
    finally:
        release.unlink()
    assert board.served() == board.serving


def test_two_writers_take_turns(board: Emulated) -> None:
    paths = {version: board.bundle(version) for version in THRESHOLDS}
    reports: dict[str, edgekd.FlashReport] = {}

    def write(version: str) -> None:
        reports[version] = board.flash(paths[version], wait_s=600)

    writers = [threading.Thread(target=write, args=(version,)) for version in paths]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(reports) == set(paths), "both ended well"
    board.serving = board.served()
    state = edgekd.status(board.device, root=MODELS, python=PYTHON)
    assert state["whole"]
    assert state["in_service"]["release"] == reports[board.serving].release
