"""Whatever goes wrong, whenever: the board serves the old or the new version, and the next flash needs no help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgekd.device import Disk, Fault

if TYPE_CHECKING:
    from pathlib import Path


LAST = 30  # changes to the disk, from before the switch to the end


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_a_death_at_any_change_to_the_disk_leaves_old_or_new(bench: Any, kind: str, tmp_path: Path) -> None:
    ended, taken_back = [], False
    for operation in range(bench.operations):
        result = bench.trial(tmp_path / "trial", Fault(kind, operation=operation), seed=operation)
        assert not result["bad"], result
        ended.append(result["served"])
        taken_back |= (result["served"], result["started"]) == ("new", "old")
    assert taken_back  # what died in its trial
    assert ended[0] == "old"
    assert ended[-1] == "new"
    assert ended.index("new") > bench.operations // 2  # nothing changes before the tests have passed


def test_faults_of_every_kind_at_random_bytes_leave_old_or_new(bench: Any, tmp_path: Path) -> None:
    seen = set()
    for number in range(500, 560):
        fault = bench.fault(number)
        result = bench.trial(tmp_path / "trial", fault, number)
        assert not result["bad"], result
        seen.add((fault.kind, result["served"]))
    assert {("kill", "old"), ("power", "old"), ("full", "old"), ("drop", "old"), ("host", "old")} <= seen
    assert {kind for kind, _ in seen} == {"kill", "power", "full", "drop", "corrupt", "host"}


def test_a_disk_that_fills_up_at_the_end_fails_the_flash_or_changes_nothing(bench: Any, tmp_path: Path) -> None:
    ended = set()
    for operation in range(bench.operations - LAST, bench.operations):
        result = bench.trial(tmp_path / "trial", Fault("full", operation=operation), seed=0)
        assert not result["bad"], result
        ended.add((result["ended"], result["served"]))
    assert ended == {("DeviceError", "old"), ("success", "new")}


def test_a_switch_in_two_steps_would_be_found(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Disk, path: Path, target: str) -> None:
        self.remove(path)
        self._symlink(target, path)
        self._sync_folder(path.parent)

    monkeypatch.setattr(Disk, "link", careless)
    bad = [
        bench.trial(tmp_path / "trial", Fault("kill", operation=operation), seed=0)["bad"]
        for operation in range(bench.operations - LAST, bench.operations)
    ]
    assert any("BAD" in line for lines in bad for line in lines)


def test_an_attempt_that_is_not_noted_would_be_found(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd._flash.transaction.arm", lambda *_: None)
    assert ("new", "old") not in {
        (result["served"], result["started"])
        for operation in range(bench.operations - LAST, bench.operations)
        for result in [bench.trial(tmp_path / "trial", Fault("kill", operation=operation), seed=0)]
    }
