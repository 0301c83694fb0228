"""A fleet of fake boards, some of them faulty: what is flashed, when it stops, what is reported, how it goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd._flash.fleet_file import Board, batch_size, read_fleet, stages
from edgekd.cli.main import main
from edgekd.device import FakeDevice, Fault, HostKilled
from edgekd.errors import BundleError, DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUICK: dict[str, Any] = {"watch_s": 0, "runs": 1, "max_slowdown": 1e9, "wait_s": 0}
DROP = Fault("drop", byte=1000)


class Fleet:
    """Boards by name; those without a folder are made when they are first reached."""

    def __init__(self, bench: Any, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.faults: dict[str, Fault] = {}
        self.devices: dict[str, FakeDevice] = {}
        self.opened: list[str] = []
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def open(self, name: str) -> FakeDevice:
        with self._lock:
            self.opened.append(name)
            if name not in self.devices:
                shutil.copytree(self.bench.board, self.folder / name, symlinks=True)
                self.devices[name] = self.bench.device(self.folder / name, self.faults.get(name))
                self.devices[name].name = name
            return self.devices[name]

    def served(self) -> dict[str, str]:
        return {name: self.bench.served(self.folder / name) for name in self.devices}

    def file(self, count: int, more: str = "") -> Path:
        path = self.folder / "fleet.toml"
        path.write_text("".join(f'[[board]]\ndevice = "cam-{index:02d}"\n' for index in range(1, count + 1)) + more)
        return path


@pytest.fixture
def fleet(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet(bench, tmp_path)
    monkeypatch.setattr("edgekd.device.open_device", made.open)
    return made


def states(found: edgekd.FleetReport) -> dict[str, str]:
    return {board.device: board.state for board in found.boards}


def test_fifty_boards_with_three_faulty_ones_stop_as_told_and_are_reported_exactly(fleet: Fleet) -> None:
    """Canary, then batches of 5 (10 %), 4 at once, up to the third failure: boards 4, 12 and 23 cannot be reached."""
    faulty = ("cam-04", "cam-12", "cam-23")
    fleet.faults = dict.fromkeys(faulty, DROP)
    path = fleet.file(50)
    found = edgekd.flash_fleet(fleet.bench.new, path, canary=1, batch="10%", stop_on=3, parallel=4, **QUICK)
    assert found.stages == 11  # 1, and 49 in fives
    assert found.stopped == "3 failed, --stop-on 3"
    assert not found.complete
    failed = {board.device: board.reason for board in found.boards if board.state == "failed"}
    assert set(failed) == set(faulty)
    assert all("the connection broke" in reason for reason in failed.values())
    begun = {name for name, state in states(found).items() if state != "waiting"}
    assert {f"cam-{index:02d}" for index in range(1, 24)} <= begun <= {f"cam-{index:02d}" for index in range(1, 27)}
    assert set(fleet.devices) == begun, "nobody else was even reached"
    assert found.counts == {"waiting": 50 - len(begun), "running": 0, "serves it": len(begun) - 3, "failed": 3}
    assert {name: "old" if name in faulty else "new" for name in begun} == fleet.served()
    assert json.loads(Path(f"{path}.state.json").read_text())["boards"].keys() == {
        f"cam-{index:02d} /var/lib/edgekd model" for index in range(1, 51)
    }

    # The boards are mended, and the same command goes on.
    for name in faulty:
        fleet.devices[name].repair()
    fleet.opened.clear()
    again = edgekd.flash_fleet(fleet.bench.new, path, canary=1, batch="10%", stop_on=3, parallel=4, **QUICK)
    assert again.complete
    assert again.stopped == ""
    assert again.resumed == len(begun) - 3
    assert set(fleet.opened) == {name for name in states(found) if name not in begun} | set(faulty)
    assert set(fleet.served().values()) == {"new"}


def test_a_bad_canary_stops_everything(fleet: Fleet) -> None:
    fleet.faults = {"cam-01": DROP}
    found = edgekd.flash_fleet(fleet.bench.new, fleet.file(5), **QUICK)
    assert states(found) == {"cam-01": "failed", **{f"cam-0{index}": "waiting" for index in range(2, 6)}}
    assert list(fleet.devices) == ["cam-01"]
    assert found.boards[0].step == "upload"


def test_a_file_that_changes_meanwhile_reaches_no_further_board(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    shutil.copy(fleet.bench.new, path)

    def told(board: edgekd.FleetBoard, step: edgekd.FlashStep | None) -> None:
        if step is None and board.state == "serves it":
            shutil.copy(fleet.bench.old, path)

    found = edgekd.flash_fleet(path, fleet.file(3), progress=told, **QUICK)
    assert list(states(found).values()) == ["serves it", "failed", "waiting"]
    assert "is not what it was" in found.boards[1].reason
    assert fleet.served() == {"cam-01": "new", "cam-02": "old"}


def test_stages_follow_one_another_and_no_more_run_at_once_than_allowed(fleet: Fleet) -> None:
    running: set[str] = set()
    most, order = 0, []

    def told(board: edgekd.FleetBoard, step: edgekd.FlashStep | None) -> None:
        nonlocal most
        if step is None and board.state == "running":
            running.add(board.device)
            order.append(board.stage)
        elif step is None:
            running.discard(board.device)
        most = max(most, len(running))

    found = edgekd.flash_fleet(fleet.bench.new, fleet.file(9), canary=2, batch="4", parallel=3, progress=told, **QUICK)
    assert [board.stage for board in found.boards] == [1, 1, 2, 2, 2, 2, 3, 3, 3]
    assert order == sorted(order)
    assert 1 < most <= 3
    assert found.complete
    assert all(board.changed and board.release and board.before and board.p99_ms for board in found.boards)


def test_a_killed_host_goes_on_where_it_was(fleet: Fleet) -> None:
    fleet.faults = {"cam-03": Fault("host", byte=1000)}
    path = fleet.file(6)
    with pytest.raises(HostKilled):
        edgekd.flash_fleet(fleet.bench.new, path, parallel=1, **QUICK)
    rows = json.loads(Path(f"{path}.state.json").read_text())["boards"].values()
    assert [row["state"] for row in rows] == ["serves it", "serves it", "running", "waiting", "waiting", "waiting"]
    fleet.devices["cam-03"].repair()
    fleet.opened.clear()
    found = edgekd.flash_fleet(fleet.bench.new, path, parallel=1, **QUICK)
    assert (found.complete, found.resumed) == (True, 2)
    assert set(fleet.opened) == {f"cam-0{index}" for index in range(3, 7)}


def test_a_rollout_that_came_to_its_end_asks_every_board_again(fleet: Fleet) -> None:
    path = fleet.file(2)
    edgekd.flash_fleet(fleet.bench.new, path, **QUICK)
    edgekd.rollback(fleet.devices["cam-02"])
    again = edgekd.flash_fleet(fleet.bench.new, path, **QUICK)
    assert (again.complete, again.resumed) == (True, 0)
    assert [board.changed for board in again.boards] == [False, True]
    assert fleet.served() == {"cam-01": "new", "cam-02": "new"}


def test_another_bundle_is_another_rollout(fleet: Fleet) -> None:
    path = fleet.file(2)
    edgekd.flash_fleet(fleet.bench.new, path, **QUICK)
    back = edgekd.flash_fleet(fleet.bench.old, path, allow_downgrade=True, **QUICK)
    assert (back.resumed, back.complete) == (0, True)
    assert set(fleet.served().values()) == {"old"}


def test_two_rollouts_of_one_fleet_exclude_each_other(fleet: Fleet) -> None:
    path = fleet.file(3)
    seen: list[Exception] = []

    def told(_board: edgekd.FleetBoard, _step: edgekd.FlashStep | None) -> None:
        if not seen:
            with pytest.raises(DeviceError, match="another flash is in progress") as raised:
                edgekd.flash_fleet(fleet.bench.new, path, **QUICK)
            seen.append(raised.value)

    assert edgekd.flash_fleet(fleet.bench.new, path, progress=told, **QUICK).complete
    assert seen


def test_boards_may_differ(fleet: Fleet) -> None:
    more = '[[board]]\ndevice = "cam-02"\nname = "other"\nroot = "/opt/models"\nhealth = "false"\n'
    path = fleet.file(1, more + '[defaults]\nname = "cam"\n')
    found = edgekd.flash_fleet(fleet.bench.new, path, stop_on=2, **QUICK)
    first, second = found.boards
    assert (first.name, first.root, first.state) == ("cam", "/var/lib/edgekd", "serves it")
    assert (second.name, second.root, second.state) == ("other", "/opt/models", "failed")
    assert "health command" in second.reason
    assert fleet.bench.predict(fleet.folder / "cam-01/var/lib/edgekd/cam/current/model.bin") == fleet.bench.seen["new"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should name 1 to 10000 boards"),
        ("[[board]]\n", "board 1 should have device"),
        ("[[board]]\ndevice = 3\n", "board 1 should have device"),
        ("[[board]]\ndevice = 'a b'\n", "is no device"),
        ("[[board]]\ndevice = 'a'\ncolour = 'red'\n", "board 1: unknown colour; possible: name, root, python"),
        ("boards = []\n", "unknown boards; possible: defaults, board"),
        ("[[board]]\ndevice = 'a'\n[defaults]\ndevice = 'b'\n", r"\[defaults\]: unknown device"),
        ("[[board]]\ndevice = 'a'\nroot = 7\n", "root should be a text, got 7"),
        ("[[board]]\ndevice = 'a'\nbuild = 'openvino'\n", "build should be a list of texts"),
        ("[[board]]\ndevice = 'a'\nrequire = {l4t = 36}\n", "require should be a table of texts"),
        ("[[board]]\ndevice = 'a'\n[[board]]\ndevice = 'a'\n", "names a twice with the same root and name"),
        ("[[board]\n", "is no TOML"),
        ("board = 1", "should name 1 to"),
        ("defaults = 1\n[[board]]\ndevice = 'a'\n", "defaults should be a table"),
    ],
)
def test_a_wrong_fleet_file_is_refused(text: str, message: str, bench: Any, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        edgekd.flash_fleet(bench.new, tmp_path / "fleet.toml")
    assert not (tmp_path / "fleet.toml.state.json").exists()


def test_what_no_rollout_could_do_is_refused_before_a_board_is_reached(fleet: Fleet, tmp_path: Path) -> None:
    path = fleet.file(3)
    for wrong, message in (
        ({"canary": -1}, "canary should be at least 0"),
        ({"stop_on": 0}, "stop_on should be at least 1"),
        ({"parallel": 0}, "parallel should be at least 1"),
        ({"batch": "0"}, "--batch 0"),
        ({"batch": "101%"}, "--batch 101%"),
        ({"batch": "some"}, "--batch some"),
        ({"runs": 0}, "runs should be a number from 1"),
        ({"max_p99_ms": float("nan")}, "max_p99_ms should be"),
    ):
        with pytest.raises(UsageError, match=message):
            edgekd.flash_fleet(fleet.bench.new, path, **wrong)
    with pytest.raises(TypeError, match="colour"):
        edgekd.flash_fleet(fleet.bench.new, path, colour="red")
    with pytest.raises(BundleError):
        edgekd.flash_fleet(tmp_path / "none.bin", path)
    with pytest.raises(UsageError, match="cannot read the fleet file"):
        edgekd.flash_fleet(fleet.bench.new, tmp_path / "none.toml")
    (tmp_path / "state.json").write_text("my diary")
    with pytest.raises(UsageError, match="is no state of a rollout"):
        edgekd.flash_fleet(fleet.bench.new, path, state=tmp_path / "state.json")
    assert (tmp_path / "state.json").read_text() == "my diary"
    assert fleet.opened == []


def test_a_fleet_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(
        "[defaults]\nrequire = {l4t = '36.4'}\n[[board]]\ndevice = 'a@b'\nbuild = ['openvino:fp16']\n"
    )
    assert read_fleet(tmp_path / "f.toml") == (
        Board("a@b", {"require": {"l4t": "36.4"}, "build": ["openvino:fp16"]}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("boards", "canary", "batch", "sizes"),
    [
        (50, 1, "10%", [1, *[5] * 9, 4]),
        (3, 0, "2", [2, 1]),
        (2, 5, "1", [2]),
        (7, 2, "100%", [2, 5]),
        (1, 1, "1%", [1]),
    ],
)
def test_stages_cover_every_board_once(boards: int, canary: int, batch: str, sizes: Sequence[int]) -> None:
    plan = stages(boards, canary, batch_size(batch, boards))
    assert [len(stage) for stage in plan] == sizes
    assert [index for stage in plan for index in stage] == list(range(boards))


def test_the_command_prints_a_line_a_board_and_what_is_left(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.faults = {"cam-02": DROP}
    words = ["flash", str(fleet.bench.new), "--fleet", str(fleet.file(3)), "--watch", "0", "--runs", "1"]
    words += ["--max-slowdown", "1e9", "--wait", "0"]
    assert main(words) == 3
    shown = capsys.readouterr().out
    assert shown.startswith("stage 1\nok      cam-01  release ")
    assert "FAILED  cam-02  cam-02: the connection broke" in shown
    assert "3 boards in 3 stages" in shown
    assert "1 waiting, 1 serves it, 1 failed" in shown
    assert "stopped: 1 failed, --stop-on 1. To go on: mend the boards, and give the same command again" in shown
    assert "\033" not in shown
    fleet.devices["cam-02"].repair()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed"] == 1


def test_a_terminal_gets_a_table_that_is_drawn_anew(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    words = ["flash", str(fleet.bench.new), "--fleet", str(fleet.file(2)), "--watch", "0", "--runs", "1"]
    assert main([*words, "--max-slowdown", "1e9"]) == 0
    shown = capsys.readouterr().out
    assert "0 serve it, 0 failed, 1 running\n  cam-01  begun\n" in shown
    assert "\033[2A\033[J" in shown
    assert shown.rstrip().endswith("2 serve it")


def test_options_that_do_not_go_together_are_refused(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([], "which board?"),
        (["user@board", "--fleet", "f.toml"], "--fleet names the boards: leave user@board out"),
        (["user@board", "--canary", "2", "--stop-on", "3"], "--canary, --stop-on: for a fleet only"),
    ):
        assert main(["flash", str(bench.new), *words]) == 2
        assert message in capsys.readouterr().err


def _until(check: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not check():
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_a_host_that_dies_by_sigkill_goes_on(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes: this machine plays three boards; the host is killed while the second is in its watch."""
    roots = [tmp_path / f"board{index}" for index in range(3)]
    fleet_file = tmp_path / "fleet.toml"
    fleet_file.write_text("".join(f'[[board]]\ndevice = "local"\nroot = "{root}"\n' for root in roots))
    words = ["flash", str(bench.new), "--fleet", str(fleet_file), "--python", sys.executable, "--runs", "5"]
    command = [sys.executable, "-m", "edgekd.cli.main", *words, "--watch", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        _until((roots[1] / "model/trial.json").exists, process)
        process.send_signal(signal.SIGKILL)
    state = json.loads(Path(f"{fleet_file}.state.json").read_text())["boards"]
    assert [row["state"] for row in state.values()] == ["serves it", "running", "waiting"]
    assert main([*words, "--watch", "0", "--json"]) == 0  # waits for the board, which goes on by itself
    found = json.loads(capsys.readouterr().out)
    assert (found["complete"], found["resumed"]) == (True, 1)
    for root in roots:
        assert bench.predict(root / "model/current/model.bin") == bench.seen["new"]
