"""Flash, rollback, status and guard on a fake board: what is sent, what is refused and why, what is kept."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import edgekd
from edgekd import Bundle
from edgekd._flash import check as checking
from edgekd._flash import facts, host
from edgekd._flash.board import MOST_NAMED, program
from edgekd.device import FakeDevice, Fault
from edgekd.device.process import LINE_BYTES
from edgekd.errors import BundleError, DeviceError, GateError, HostError, SignatureError, UsageError

from ..conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "edgekd._flash.board"
FAST: dict[str, Any] = {"watch_s": 0, "runs": 1, "max_slowdown": 1e9, "wait_s": 0}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def models(board: FakeDevice) -> Path:
    return board.folder / "var/lib/edgekd"


def journal(board: FakeDevice) -> list[tuple[str, str]]:
    lines = (models(board) / "model/journal.jsonl").read_text().splitlines()
    return [(entry["step"], entry["state"]) for entry in map(json.loads, lines)]


def test_a_flash_says_what_it_did_and_the_board_serves_it(bench: Any, board: FakeDevice) -> None:
    report = edgekd.flash(bench.new, board, **FAST)
    assert report.changed
    assert report.before != report.release
    assert [step.name for step in report.steps] == [
        "preflight", "upload", "assemble", "verify", "golden", "latency", "arm", "switch", "watch", "commit"
    ]  # fmt: skip
    assert {step.state for step in report.steps} == {"ok"}
    assert report.record["check"]["samples_ms"]
    assert report.model == "/var/lib/edgekd/model/current/model.bin"
    assert bench.served(board.folder) == "new"
    json.dumps(report.to_dict())
    assert not (models(board) / "model/trial.json").exists()
    assert list((models(board) / "model/incoming").iterdir()) == []


def test_what_is_in_service_already_is_left_alone(bench: Any, board: FakeDevice) -> None:
    before = journal(board)
    report = edgekd.flash(bench.old, board, **FAST)
    assert not report.changed
    assert report.sent_bytes == 0
    assert journal(board) == before


def test_a_slightly_changed_bundle_sends_little(bench: Any, board: FakeDevice, tmp_path: Path) -> None:
    """Chunks follow the contents: bytes inserted into a member, and a new member, cost little more than themselves."""
    rng = np.random.default_rng(0)
    weights = rng.bytes(1_000_000)
    with Bundle.read(bench.old) as bundle:
        bundle.replace(add={"weights.raw": weights}).write(tmp_path / "a.bin")
        changed = weights[:400_000] + b"inserted" + weights[400_000:]
        manifest = dataclasses.replace(bundle.manifest, created="2026-11-03T08:00:00Z")
        bundle.replace(manifest, add={"weights.raw": changed, "notes.txt": b"new"}).write(tmp_path / "b.bin")
    edgekd.flash(tmp_path / "a.bin", board, **FAST)
    report = edgekd.flash(tmp_path / "b.bin", board, **FAST)
    assert 0 < report.sent_bytes < 0.2 * report.size_bytes


def test_an_upload_goes_on_where_it_broke_off(bench: Any, board: FakeDevice) -> None:
    board.fault = Fault("drop", byte=60_000)
    with pytest.raises(DeviceError, match="connection broke"):
        edgekd.flash(bench.new, board, **FAST)
    board.repair()
    sent = edgekd.flash(bench.new, board, **FAST).sent_bytes
    assert sent < 0.6 * bench.new.stat().st_size


def test_rollback_returns_and_returns_again(bench: Any, board: FakeDevice) -> None:
    first = edgekd.flash(bench.new, board, **FAST)
    assert edgekd.rollback(board)["release"] == first.before
    assert bench.served(board.folder) == "old"
    assert edgekd.rollback(board, to=first.release[:8])["release"] == first.release
    assert bench.served(board.folder) == "new"
    with pytest.raises(BundleError, match="release feed of model is not here or damaged; whole ones: "):
        edgekd.rollback(board, to="feed")
    with pytest.raises(DeviceError, match="nothing was ever flashed as other"):
        edgekd.rollback(board, name="other")


def test_rollback_to_a_damaged_release_is_refused(bench: Any, board: FakeDevice) -> None:
    before = edgekd.flash(bench.new, board, **FAST).before
    file = models(board) / f"model/releases/{before}/model.bin"
    file.write_bytes(file.read_bytes()[:-9] + b"otherwise")
    with pytest.raises(BundleError, match="damaged"):
        edgekd.rollback(board)
    assert bench.served(board.folder) == "new"


def test_status_changes_nothing_and_says_all(bench: Any, board: FakeDevice) -> None:
    operations = board.disk.operations
    found = edgekd.status(board)
    assert board.disk.operations == operations
    assert found["whole"]
    assert found["in_service"]["release"] == found["releases"][0]["release"]
    assert "chunks" not in found["in_service"]
    assert (found["trial"], found["flashing"], found["keys"], found["previous"]) == (None, None, {}, None)
    assert not edgekd.status(board, name="other")["whole"]


def test_a_downgrade_is_refused_unless_asked_for(bench: Any, board: FakeDevice) -> None:
    edgekd.flash(bench.new, board, **FAST)
    with pytest.raises(UsageError, match=r"2026-11-01T08:00:00Z, before the one in service.*--allow-downgrade"):
        edgekd.flash(bench.old, board, **FAST)
    assert bench.served(board.folder) == "new"
    edgekd.flash(bench.old, board, allow_downgrade=True, **FAST)
    assert bench.served(board.folder) == "old"


def test_where_keys_are_set_only_their_signatures_pass(bench: Any, board: FakeDevice, tmp_path: Path) -> None:
    keys = models(board) / "keys"
    keys.mkdir()
    (keys / "ci.pem").write_bytes(PEM)
    with pytest.raises(SignatureError, match=r"verify: .* is not signed"):
        edgekd.flash(bench.new, board, **FAST)
    with Bundle.read(bench.new) as bundle:
        bundle.sign(bytes(32)).write(tmp_path / "foreign.bin")
        bundle.sign(KEY.private_bytes_raw()).write(tmp_path / "signed.bin")
    with pytest.raises(SignatureError, match="is signed by key"):
        edgekd.flash(tmp_path / "foreign.bin", board, **FAST)
    assert bench.served(board.folder) == "old"
    assert journal(board)[-1] == ("verify", "failed")
    report = edgekd.flash(tmp_path / "signed.bin", board, **FAST)
    assert report.record["signed_by"] in edgekd.status(board)["keys"].values()
    (keys / "broken.pem").write_bytes(b"not a key")  # closed, not open
    with pytest.raises(SignatureError, match=r"broken\.pem cannot be used as an allowed key"):
        edgekd.flash(bench.old, board, allow_downgrade=True, **FAST)


def test_fact_sm_is_what_a_requirement_says_and_the_drivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts._cuda_images, "capabilities", lambda: (87,))
    assert facts.facts(tmp_path)["sm"] == "87"
    monkeypatch.setattr(facts._cuda_images, "capabilities", lambda: ())
    assert facts.facts(tmp_path)["sm"] is None


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ({"l4t": "36.4"}, "l4t is 35.4.1, 36.4 was required"),
        ({"l4t": "35.4.10"}, "l4t is 35.4.1, 35.4.10 was required"),
        ({"sm": "87"}, "sm is .*, 87 was required"),
        ({"colour": "red"}, "knows no 'colour'; possible: board, "),
    ],
)
def test_a_board_without_a_required_fact_is_refused_before_a_byte_is_sent(
    bench: Any, board: FakeDevice, require: dict[str, str], message: str
) -> None:
    (board.folder / "etc").mkdir()
    (board.folder / "etc/nv_tegra_release").write_text("# R35 (release), REVISION: 4.1, GCID: 33958178\n")
    with pytest.raises(DeviceError, match=message):
        edgekd.flash(bench.new, board, require=require, **FAST)
    assert list((models(board) / "model/incoming").iterdir()) == []
    edgekd.flash(bench.new, board, require={"l4t": "35.4"}, **FAST)


def test_room_memory_and_runtime_are_checked_first(
    bench: Any, board: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(*_: Any) -> dict[str, Any]:
        return {**real(models(board)), "disk_free_bytes": 1 << 20, "ram_available_bytes": 1 << 20, "writable": False,
                "targets": {"reference": "pip install onnxruntime"}}  # fmt: skip

    from edgekd._flash.facts import facts as real

    monkeypatch.setattr("edgekd._flash.board.facts", poor)
    with pytest.raises(DeviceError) as raised:
        edgekd.flash(bench.new, board, **FAST)
    for part in (
        "1 MiB free on its disk, 16 MiB are needed",
        "1 MiB of memory",
        "cannot be written",
        "reference: pip install",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("skew_s", [-4e8, 4e8])
def test_no_clock_decides_anything(
    bench: Any, board: FakeDevice, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr("edgekd._flash.facts.time.time", lambda: real() + skew_s)
    monkeypatch.setattr("edgekd._flash.host.time.time", real, raising=False)
    report = edgekd.flash(bench.new, board, **FAST)
    assert report.changed


def failing(board: FakeDevice, error: Exception) -> None:
    """Let the next golden test fail."""

    def check(*_: Any) -> checking.Checked:
        raise error

    board.modules[MODULE] = program(check)


def test_a_bundle_that_decides_otherwise_is_not_served_and_the_reason_is_kept(
    bench: Any, board: FakeDevice, tmp_path: Path
) -> None:
    with Bundle.read(bench.new) as new, Bundle.read(bench.old) as old:
        new.replace(add={"graph.onnx": old.graph()}).write(tmp_path / "wrong.bin")
    with pytest.raises(GateError, match=r"golden: golden test, reference fp32: .*what was in service stays"):
        edgekd.flash(tmp_path / "wrong.bin", board, **FAST)
    assert bench.served(board.folder) == "old"
    last = edgekd.status(board)["journal"][-1]
    assert (last["step"], last["state"]) == ("golden", "failed")
    assert "scores differ" in last["detail"]
    assert edgekd.status(board)["releases"] == [edgekd.status(board)["in_service"]]


def test_times_are_compared_with_the_limit_and_with_the_version_in_service(bench: Any, board: FakeDevice) -> None:
    def check(path: Path, runs: int) -> checking.Checked:
        is_old = path.read_bytes() == bench.old.read_bytes()
        return checking.Checked("reference", "fp32", "fp32", 1, 5, 0, (10.0 if is_old else 16.0,) * runs)

    board.modules[MODULE] = program(check)
    quick = {**FAST, "max_slowdown": 0.5}
    with pytest.raises(GateError, match=r"p99 16.00 ms of 1 runs: more than --max-p99 15 ms"):
        edgekd.flash(bench.new, board, max_p99_ms=15, **quick)
    with pytest.raises(GateError, match=r"slower than the version in service \(p50 10.00 ms\) by more than 50%"):
        edgekd.flash(bench.new, board, **quick)
    assert bench.served(board.folder) == "old"
    edgekd.flash(bench.new, board, max_p99_ms=16, **{**quick, "max_slowdown": 0.6})


@pytest.mark.parametrize(("slow", "taken"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_version_is_slower_only_if_it_is_so_in_each_of_three_looks(
    bench: Any, board: FakeDevice, slow: int, taken: bool
) -> None:
    looks: list[str] = []

    def check(path: Path, runs: int) -> checking.Checked:
        looks.append("old" if path.read_bytes() == bench.old.read_bytes() else "new")
        late = looks[-1] == "new" and looks.count("new") <= slow
        return checking.Checked("reference", "fp32", "fp32", 1, 5, 0, (16.0 if late else 10.0,) * runs)

    board.modules[MODULE] = program(check)
    if taken:
        edgekd.flash(bench.new, board, **{**FAST, "max_slowdown": 0.5})
    else:
        with pytest.raises(GateError, match="by more than 50%, 3 times out of 3; --max-slowdown allows more"):
            edgekd.flash(bench.new, board, **{**FAST, "max_slowdown": 0.5})
    assert bench.served(board.folder) == ("new" if taken else "old")
    assert looks == ["new", "old"] * min(slow + 1, 3), "in turn, and no more often than needed"


def test_commands_that_fail_take_the_new_version_back_and_are_not_quoted(bench: Any, board: FakeDevice) -> None:
    for options in ({"restart": "false # token=s3cret"}, {"health": "exit 3 # token=s3cret"}):
        with pytest.raises(GateError, match="command ended with status") as raised:
            edgekd.flash(bench.new, board, **FAST, **options)
        assert bench.served(board.folder) == "old"
        assert "s3cret" not in str(raised.value) + (models(board) / "model/journal.jsonl").read_text()


def test_a_service_that_starts_again_and_again_ends_the_trial(bench: Any, board: FakeDevice) -> None:
    root = str(models(board))
    started = []

    def crash() -> None:
        while not (models(board) / "model/trial.json").exists():
            time.sleep(0.01)
        started.extend(edgekd.guard(root=root).done for _ in range(3))

    thread = threading.Thread(target=crash)
    thread.start()
    with pytest.raises(GateError, match=r"the service started \d times within 20 s: it crashes"):
        edgekd.flash(bench.new, board, **{**FAST, "watch_s": 20})
    thread.join()
    assert ("a flash is in progress: this start was counted",) in started
    assert bench.served(board.folder) == "old"


def test_guard_says_what_to_load_or_that_there_is_nothing(bench: Any, board: FakeDevice) -> None:
    found = edgekd.guard(root=str(models(board)))
    assert bench.predict(found.model) == bench.seen["old"]
    assert found.done == ()
    with pytest.raises(DeviceError, match=r"nothing is in service as other .* --name other"):
        edgekd.guard("other", root=str(models(board)))
    assert "ExecStartPre=" in edgekd.guard_unit("cam1")
    assert "guard --root /var/lib/edgekd cam1" in edgekd.guard_unit("cam1")


def test_guard_leaves_a_release_that_was_damaged_on_the_disk(bench: Any, board: FakeDevice) -> None:
    now = edgekd.flash(bench.new, board, **FAST).release
    file = models(board) / f"model/releases/{now}/model.bin"
    file.write_bytes(file.read_bytes()[:-9] + b"otherwise")
    (line,) = edgekd.guard(root=str(models(board))).done
    assert f"release {now} is damaged" in line
    assert bench.served(board.folder) == "old"


def test_two_writers_exclude_each_other_and_a_dead_one_does_not_count(bench: Any, board: FakeDevice) -> None:
    lock = models(board) / "model/lock"
    handle = os.open(lock, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.ftruncate(handle, 0)
    os.pwrite(handle, b'{"pid": 7, "who": "ann@desk"}', 0)
    assert edgekd.status(board)["flashing"] == "ann@desk, process 7"
    with pytest.raises(DeviceError, match=r"another flash is in progress \(ann@desk, process 7\)"):
        edgekd.flash(bench.new, board, **FAST)
    os.close(handle)  # as when its holder dies
    edgekd.flash(bench.new, board, **FAST)


def test_flashes_at_the_same_time_all_end_and_one_version_is_served(bench: Any, board: FakeDevice) -> None:
    results: list[str] = []

    def one(path: Path) -> None:
        device = FakeDevice(board.folder, board.modules)
        report = edgekd.flash(path, device, **{**FAST, "wait_s": 30}, allow_downgrade=True)
        results.append(report.release)

    threads = [threading.Thread(target=one, args=(path,)) for path in (bench.new, bench.old, bench.new)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert bench.served(board.folder) in ("old", "new")
    assert edgekd.status(board)["whole"]


def test_old_releases_go_and_the_one_before_stays(bench: Any, board: FakeDevice, tmp_path: Path) -> None:
    names = []
    with Bundle.read(bench.old) as bundle:
        for day in range(2, 6):
            manifest = dataclasses.replace(bundle.manifest, created=f"2026-11-0{day}T08:00:00Z")
            bundle.replace(manifest).write(tmp_path / "next.bin")
            names.append(edgekd.flash(tmp_path / "next.bin", board, **FAST, keep=3).release)
    found = edgekd.status(board)
    assert {item["release"] for item in found["releases"]} == set(names[-3:])
    with Bundle.read(bench.old) as bundle:
        manifest = dataclasses.replace(bundle.manifest, created="2026-11-07T08:00:00Z")
        bundle.replace(manifest).write(tmp_path / "next.bin")
    last = edgekd.flash(tmp_path / "next.bin", board, **FAST, quota_bytes=1).release
    assert {item["release"] for item in edgekd.status(board)["releases"]} == {last, names[-1]}


def test_an_artifact_is_built_on_the_board(bench: Any, board: FakeDevice) -> None:
    pytest.importorskip("openvino")
    report = edgekd.flash(bench.new, board, build=["openvino"], **FAST)
    assert report.record["check"]["target"] == "openvino"
    assert "build" in [step.name for step in report.steps]
    begun: list[str] = []
    with pytest.raises(DeviceError, match=r"--build coral: its edgekd has no such target; possible: .*openvino"):
        edgekd.flash(bench.new, board, build=["coral"], progress=lambda step: begun.append(step.name), **FAST)
    assert set(begun) == {"preflight"}, "nothing was sent"
    assert edgekd.status(board)["in_service"]["release"] == report.release


def test_a_board_without_edgekd_is_told_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho 'No module named edgekd' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(DeviceError, match=r"has no edgekd of this version .*--python"):
        edgekd.status("local", python=str(tmp_path / "python"))
    with pytest.raises(HostError, match="cannot start"):
        edgekd.status("local", python="/there/is/none")


@pytest.mark.parametrize("name", ["", "keys", "../up", "a/b", "-x", "x" * 65])
def test_names_that_are_no_folder_are_refused(board: FakeDevice, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a model"):
        edgekd.status(board, name=name)
    with pytest.raises(UsageError, match="absolute path"):
        edgekd.status(board, root="relative")


def test_a_model_that_crashes_its_process_fails_its_golden_test(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(crash))
    with pytest.raises(GateError, match="crashed in its golden test: the process ended by SIGSEGV"):
        checking.check_apart(bench.new, 1)


def test_anomaly_bundles_are_flashed_too(board: FakeDevice, tmp_path: Path) -> None:
    bundles.portable(anomaly=True).write(tmp_path / "model.bin")
    report = edgekd.flash(tmp_path / "model.bin", board, name="parts", **FAST)
    golden = next(step for step in report.steps if step.name == "golden")
    assert golden.detail.startswith("reference fp32: 3 decisions on 3 images")


def test_percentiles_are_samples() -> None:
    found = checking.Checked("t", "p", "c", 1, 1, 0, tuple(float(item) for item in range(100, 0, -1)))
    assert (found.percentile(0.5), found.percentile(0.99), found.percentile(1.0)) == (50.0, 99.0, 100.0)
    assert checking.Checked("t", "p", "c", 1, 1, 0, (7.0,)).percentile(0.99) == 7.0


def test_a_file_with_more_chunks_than_one_answer_names_is_asked_for_in_parts(
    bench: Any, board: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 70 * MOST_NAMED < LINE_BYTES, "an answer is one line"
    with Bundle.read(bench.old) as bundle:
        bundle.replace(add={"weights.raw": np.random.default_rng(0).bytes(400_000)}).write(tmp_path / "large.bin")
    monkeypatch.setattr("edgekd._flash.board.MOST_NAMED", 3)
    report = edgekd.flash(tmp_path / "large.bin", board, **FAST)
    (upload,) = [step for step in report.steps if step.name == "upload"]
    assert "once more" not in upload.detail
    assert report.sent_bytes > 390_000
    assert edgekd.status(board)["whole"]


def test_what_failed_its_trial_is_not_kept_and_never_comes_into_service(
    bench: Any, board: FakeDevice, tmp_path: Path
) -> None:
    (old,) = edgekd.status(board)["releases"]
    for note in (b"a", b"b"):
        with Bundle.read(bench.new) as bundle:
            bundle.replace(add={"note": note}).write(tmp_path / "refused.bin")
        with pytest.raises(GateError, match="health"):
            edgekd.flash(tmp_path / "refused.bin", board, health="false", **FAST)
        assert edgekd.status(board)["releases"] == [old]
    edgekd.flash(bench.new, board, **FAST)
    with pytest.raises(
        GateError, match="health"
    ):  # one that was in service before stays, whatever becomes of its trial
        edgekd.flash(bench.old, board, health="false", allow_downgrade=True, **FAST)
    assert old["release"] in [item["release"] for item in edgekd.status(board)["releases"]]


def test_a_damaged_release_is_not_replaced_by_one_that_was_never_in_service(bench: Any, board: FakeDevice) -> None:
    store = models(board) / "model"
    now = edgekd.status(board)["in_service"]["release"]
    shutil.copytree(store / "releases" / now, store / "releases/0123")  # whole, and nothing is known of it
    model = store / "releases" / now / "model.bin"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(DeviceError, match="nothing is in service"):
        edgekd.guard(root=str(models(board)))
    (store / "journal.jsonl").unlink()
    (store / "current").symlink_to(f"releases/{now}")
    assert edgekd.guard(root=str(models(board))).done == (f"release {now} is damaged: back to 0123",)


def test_a_board_that_serves_the_file_needs_no_room_for_it(
    bench: Any, board: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    size, real = bench.new.stat().st_size, host.preflight

    def preflight(*arguments: Any) -> str:
        asked.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(host, "preflight", preflight)
    for path in (bench.old, bench.new, bench.new):
        edgekd.flash(path, board, **FAST)
    edgekd.flash(bench.new, board, build=["openvino"], **FAST)  # another release of the same file, put together anew
    assert asked == [0, size, 0, size]


def test_another_file_than_was_meant_is_not_sent(bench: Any, board: FakeDevice) -> None:
    digest = hashlib.sha256(bench.new.read_bytes()).hexdigest()
    with pytest.raises(
        UsageError, match=f"is not what it was: its SHA-256 is [0-9a-f]+, not {digest}; nothing was sent"
    ):
        edgekd.flash(bench.old, board, sha256=digest, **FAST)
    assert edgekd.flash(bench.new, board, sha256=digest, **FAST).changed


def test_a_rollback_restarts_the_service(bench: Any, board: FakeDevice, tmp_path: Path) -> None:
    edgekd.flash(bench.new, board, **FAST)
    now = edgekd.status(board)["previous"]
    log = tmp_path / "restarts"
    restart = f"readlink {models(board)}/model/current >> {log}"
    assert edgekd.rollback(board, restart=restart)["release"] == now
    assert log.read_text() == f"releases/{now}\n"
    with pytest.raises(GateError, match=r"release [0-9a-f]+ is in service again, but the restart command ended with"):
        edgekd.rollback(board, restart="exit 3 # token=s3cret")
    assert bench.served(board.folder) == "new"


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"max_p99_ms": float("nan")}, {"max_slowdown": -0.1}, {"keep": 0}])
def test_limits_that_no_gate_could_hold_are_refused(bench: Any, board: FakeDevice, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} should be a number from"):
        edgekd.flash(bench.new, board, **{**FAST, **wrong})
    assert edgekd.status(board)["previous"] is None


def test_the_upload_says_how_far_it_is(bench: Any, board: FakeDevice) -> None:
    steps: list[edgekd.FlashStep] = []
    edgekd.flash(bench.new, board, **FAST, progress=steps.append)
    running = [step.detail for step in steps if step.state == "running"]
    assert running[0].startswith("0 % of ")
    assert len(running) > 3
