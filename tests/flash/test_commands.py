"""`edgekd flash`, `status`, `rollback`, `guard` on this machine, with real processes, one of them killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def test_the_commands_on_this_machine(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["local", "--root", str(tmp_path), "--python", sys.executable]
    quick = ["--watch", "0", "--runs", "20", "--max-slowdown", "100"]
    assert main(["status", *where]) == 5
    assert "nothing is in service" in capsys.readouterr().out
    assert main(["flash", str(bench.old), *where, *quick]) == 0
    shown = capsys.readouterr().out
    assert "golden     ok" in shown
    assert "(100%)" in shown

    # A flash whose every process is killed in its trial.
    command = [sys.executable, "-m", "edgekd.cli.main", "flash", str(bench.new), *where, *quick, "--watch", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while (
            not (tmp_path / "model/trial.json").exists()
            or bench.predict(tmp_path / "model/current/model.bin") != (bench.seen["new"])
        ):
            assert process.poll() is None
            time.sleep(0.1)
        holder = json.loads((tmp_path / "model/lock").read_text())["pid"]
        process.kill()
        subprocess.run(["kill", "-9", str(holder)], check=True)
    assert main(["guard", "--root", str(tmp_path), "--json"]) == 0
    guarded = json.loads(capsys.readouterr().out)
    assert "an interrupted trial" in guarded["done"][0]
    assert bench.predict(guarded["model"]) == bench.seen["old"]
    assert len(list((tmp_path / "model/releases").iterdir())) == 1, "the one that failed is gone"

    # ^C in a terminal: the board, which is this machine, goes on to its end.
    go = tmp_path / "go"
    command = [*command[:-2], "--restart", f"while [ ! -e {go} ]; do sleep 0.1; done"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background ignores ^C, and hands that on
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    ) as process:
        while not (tmp_path / "model/trial.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        while process.poll() is None:  # pressed again, as people do: the first may fall between two waits
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(2)
    assert process.returncode == 130
    go.touch()
    for _ in range(600):
        if not (tmp_path / "model/trial.json").exists():
            break
        time.sleep(0.1)
    assert bench.predict(tmp_path / "model/current/model.bin") == bench.seen["new"]
    assert main(["rollback", *where, "--restart", f"touch {tmp_path}/restarted"]) == 0
    assert "until it is restarted" not in capsys.readouterr().out
    assert (tmp_path / "restarted").exists()

    assert main(["flash", str(bench.new), *where, *quick, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sent_bytes"] < report["size_bytes"]
    assert main(["rollback", *where]) == 0
    assert bench.predict(tmp_path / "model/current/model.bin") == bench.seen["old"]
    assert main(["status", *where]) == 0
    shown = capsys.readouterr().out
    assert f"{report['release'][:16]}  " in shown
    assert "rollback" in shown
    assert main(["guard", "cam1", "--unit"]) == 0
    assert "ExecStartPre=" in capsys.readouterr().out
    assert main(["flash", str(bench.new), *where, "--require", "l4t"]) == 2
    assert "--require wants FACT=VALUE" in capsys.readouterr().err


def test_guard_prints_the_path_alone_for_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = edgekd.Guarded("/m/model.bin", ("an interrupted trial was ended",))
    monkeypatch.setattr(edgekd, "guard", lambda *_, **__: found)
    assert main(["guard"]) == 0
    assert capsys.readouterr() == ("/m/model.bin\n", "an interrupted trial was ended\n")


def test_a_rollback_to_what_is_in_service_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edgekd, "rollback", lambda *_, **__: {"release": "a1", "before": "a1", "record": {}})
    assert main(["rollback", "local", "--to", "a1"]) == 0
    assert capsys.readouterr().out == "local has release a1 of model in service already\n"


def test_help_writes_a_share_with_one_percent_sign(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["flash", "--help"])
    assert "%%" not in capsys.readouterr().out
