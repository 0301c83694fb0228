"""Edgekd onto a board that has none: which wheels fit, what is refused before anything is written, an installation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

import edgekd
from edgekd._flash import bootstrap as bootstrapping
from edgekd._flash import install_there
from edgekd._flash.bootstrap import SOURCE, bootstrap
from edgekd._flash.wheels import choose_wheels, read_wheels
from edgekd.cli.main import main
from edgekd.device import LocalDevice
from edgekd.errors import DeviceError, UsageError

from ..wheel import write_wheel

ORIN = {"python": [3, 10], "implementation": "cpython", "machine": "aarch64", "glibc": "2.35"}
JETPACK5 = {**ORIN, "python": [3, 8], "glibc": "2.31"}
ALPINE = {**ORIN, "python": [3, 12], "machine": "x86_64", "glibc": ""}


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"wheel")
    return folder


@pytest.mark.parametrize(
    ("tags", "board", "fits"),
    [
        ("py3-none-any", ORIN, True),
        ("py2.py3-none-any", ORIN, True),
        ("py2-none-any", ORIN, False),
        ("py311-none-any", ORIN, False),
        ("cp310-abi3-linux_aarch64", ORIN, True),
        ("cp310-abi3-linux_x86_64", ORIN, False),
        ("cp311-abi3-linux_aarch64", ORIN, False),
        ("cp310-cp310-manylinux_2_28_aarch64", ORIN, True),
        ("cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64", ORIN, True),
        ("cp311-cp311-manylinux_2_28_aarch64", ORIN, False),
        ("cp310-cp310-manylinux_2_38_aarch64", ORIN, False),
        ("cp310-cp310-manylinux_2_28_aarch64", {**ORIN, "glibc": "2.27"}, False),
        ("cp310-cp310-manylinux2014_aarch64", {**ORIN, "glibc": "2.27"}, True),
        ("cp312-cp312-manylinux2014_x86_64", ALPINE, False),
        ("cp312-cp312-musllinux_1_2_x86_64", ALPINE, True),
        ("cp310-cp310-musllinux_1_2_aarch64", ORIN, False),
        ("cp310-cp310-win_amd64", ORIN, False),
        ("pp310-pypy310_pp73-manylinux2014_aarch64", ORIN, False),
    ],
)
def test_a_wheel_fits_by_its_name(tags: str, board: dict[str, Any], fits: bool, tmp_path: Path) -> None:
    (wheel,) = read_wheels(touch(tmp_path / "w", f"edgekd-0.1.0-{tags}.whl"))
    assert wheel.project == "edgekd"
    assert wheel.fits(board) is fits


def test_of_several_boards_wheels_those_that_fit_are_taken(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "w", "edgekd-0.1.0-cp310-abi3-linux_aarch64.whl", "edgekd-0.1.0-cp310-abi3-linux_x86_64.whl",
        "numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "ai_edge_litert-2.0-1-py3-none-any.whl",
    )  # fmt: skip
    chosen = choose_wheels(read_wheels(folder), ORIN, "orin")
    assert [wheel.path.name[:12] for wheel in chosen] == ["ai_edge_lite", "edgekd-0.1.0", "numpy-2.2.6-"]
    assert all("x86" not in wheel.path.name for wheel in chosen)


def test_of_two_versions_none_is_guessed(tmp_path: Path) -> None:
    names = ["edgekd-0.9.0-py3-none-any.whl", "edgekd-0.10.0-cp310-abi3-linux_aarch64.whl"]
    with pytest.raises(UsageError, match=r"two versions fit orin: edgekd-0\.10\.0.* and edgekd-0\.9\.0.*; leave one"):
        choose_wheels(read_wheels(touch(tmp_path / "w", *names)), ORIN, "orin")
    other = touch(tmp_path / "v", names[0], "edgekd-0.10.0-cp310-abi3-linux_x86_64.whl")
    (chosen,) = choose_wheels(read_wheels(other), ORIN, "orin")
    assert chosen.version == "0.9.0"


def test_wheels_for_others_and_old_pythons_are_refused(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "w", "edgekd-0.1.0-cp310-abi3-linux_aarch64.whl", "numpy-2.0-cp311-cp311-linux_aarch64.whl"
    )
    with pytest.raises(DeviceError, match=r"(?s)orin has cpython 3\.10 on aarch64 with glibc 2\.35; .*numpy-2.0-cp311"):
        choose_wheels(read_wheels(folder), ORIN, "orin")
    with pytest.raises(DeviceError, match=r"xavier has cpython 3\.8 on .*; edgekd needs CPython 3\.10 or newer"):
        choose_wheels(read_wheels(folder), JETPACK5, "xavier")


@pytest.mark.parametrize("names", [(), ("numpy-2.0-py3-none-any.whl",)])
def test_a_folder_without_edgekd_says_how_to_fill_it(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no wheel of edgekd; .*pip download"):
        read_wheels(touch(tmp_path / "w", *names))
    with pytest.raises(UsageError, match="is no name of a wheel"):
        read_wheels(touch(tmp_path / "v", "edgekd.whl"))


def test_the_command_that_fills_a_folder_is_that_of_the_page_and_names_what_edgekd_needs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/flash.md").read_text()
    command = next(line for line in page.splitlines() if line.startswith("pip download"))
    with pytest.raises(UsageError) as caught:
        read_wheels(touch(tmp_path / "wheels"))
    assert command.partition("--dest wheels ")[2] in str(caught.value)
    needed = {re.split(r"[^a-z]", line)[0] for line in requires("edgekd") or [] if "extra ==" not in line}
    assert needed <= set(command.split())


def base_python() -> str:
    """The interpreter that this environment was made from: it knows nothing of edgekd."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")


@pytest.mark.slow
def test_a_bare_board_is_flashed_and_the_second_time_nothing_is_installed(
    bench: Any, wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board"
    words = ["flash", str(bench.old), "local", "--root", str(board), "--python", base_python(), "--watch", "0"]
    words += ["--runs", "5", "--max-slowdown", "100"]
    assert main(words) == 5, "it has no edgekd"
    assert "has no edgekd" in capsys.readouterr().err
    assert main([*words, "--bootstrap", str(wheels)]) == 0
    shown = capsys.readouterr().out
    assert "bootstrap  ok" in shown
    assert "bytes of wheels sent" in shown
    assert bench.predict(board / "model/current/model.bin") == bench.seen["old"]
    python = str(board / ".runtime/current/bin/python")
    assert edgekd.status("local", root=str(board), python=python)["whole"]
    words[1] = str(bench.new)
    assert main([*words, "--bootstrap", str(wheels)]) == 0
    assert f"{python}: there already" in capsys.readouterr().out
    assert bench.predict(board / "model/current/model.bin") == bench.seen["new"]


@pytest.mark.slow
def test_wheels_that_do_not_install_leave_what_was_there(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "board"
    first = bootstrap(LocalDevice(), wheels, str(root), base_python())
    assert (first.known, first.version) == (False, edgekd.__version__)
    before = (root / ".runtime/current").readlink()
    broken = tmp_path / "broken"
    write_wheel(broken, "edgekd", "0.1.1", {"edgekd/__init__.py": ""}, requires=("there-is-no-such-thing>=1",))
    with pytest.raises(DeviceError, match=r"local: pip failed: ERROR: .*there-is-no-such-thing"):
        bootstrap(LocalDevice(), broken, str(root), base_python())
    empty = tmp_path / "empty"
    write_wheel(empty, "edgekd", "0.1.2", {"edgekd/__init__.py": "raise RuntimeError('broken')\n"})
    with pytest.raises(DeviceError, match=r"local: edgekd failed: RuntimeError: broken"):
        bootstrap(LocalDevice(), empty, str(root), base_python())
    assert (root / ".runtime/current").readlink() == before
    with monkeypatch.context() as patch:
        patch.setattr("edgekd._flash.bootstrap.ROOM", 1 << 50)  # nothing is installed, so none is needed
        assert bootstrap(LocalDevice(), wheels, str(root), base_python()).known
    again = tmp_path / "again"
    shutil.copytree(wheels, again)
    write_wheel(again, "more", "1.0", {"more.py": ""})
    assert not bootstrap(LocalDevice(), again, str(root), base_python()).known
    kept = {path.name for path in (root / ".runtime").iterdir() if path.is_dir() and not path.is_symlink()}
    assert kept == {str(before), str((root / ".runtime/current").readlink())}, "this one and the one before"


def test_what_does_not_fit_is_refused_before_anything_is_written(
    bench: Any, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "board"
    foreign = touch(tmp_path / "foreign", "edgekd-0.1.0-cp310-abi3-linux_riscv64.whl")
    where: dict[str, Any] = {"root": str(root), "python": base_python()}
    with pytest.raises(DeviceError, match=r"(?s)local has cpython .*nothing was written there:\n  edgekd-0.1.0-cp310"):
        edgekd.flash(bench.old, "local", **where, bootstrap=foreign)
    with pytest.raises(UsageError, match="no wheel of edgekd"):
        edgekd.flash(bench.old, "local", **where, bootstrap=tmp_path / "none")
    monkeypatch.setattr("edgekd._flash.bootstrap.ROOM", 1 << 50)
    with pytest.raises(DeviceError, match="MiB free on its disk"):
        edgekd.flash(bench.old, "local", **where, bootstrap=wheels)
    with pytest.raises(DeviceError, match=r"local: --root should be an absolute path"):
        edgekd.flash(bench.old, "local", root="here", python=base_python(), bootstrap=wheels)
    assert not root.exists()


def test_the_boards_part_reads_on_python_3_8_and_uses_the_standard_library_alone() -> None:
    import ast

    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = {
        item
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for item in ([node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert {str(name).split(".")[0] for name in imported} <= sys.stdlib_module_names
    assert len(SOURCE.read_text()) < 16_000, "it travels as a word of a command"


def test_a_python_without_pip_takes_pips_own_wheel_or_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = install_there.importlib.util.find_spec
    monkeypatch.setattr(
        install_there.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name)
    )
    request = {"root": str(tmp_path), "id": "x", "wheels": ["edgekd-0.1.0-py3-none-any.whl"]}
    install_there.prepare(request)
    assert install_there.main(["install", json.dumps(request)]) == 5
    assert "has no ensurepip: put pip's wheel into the folder" in capsys.readouterr().out
    ran: list[list[str]] = []

    def run(command: list[str], _what: str, _new: Path) -> str:
        ran.append(command)
        return "0.1.0\n"

    monkeypatch.setattr(install_there, "_run", run)
    request["wheels"] = ["edgekd-0.1.0-py3-none-any.whl", "pip-24.0-py3-none-any.whl"]
    assert install_there.install(request)["version"] == "0.1.0"
    assert ran[0][1] == str(tmp_path / ".runtime/x.wheels/pip-24.0-py3-none-any.whl/pip")
    assert ran[0][-1].endswith("edgekd-0.1.0-py3-none-any.whl")


def test_wheels_that_arrived_in_an_interrupted_attempt_are_not_sent_again(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, "more", "1.0", {"more.py": ""})
    real, sent = bootstrapping._ask, []

    def ask(device: Any, python: str, verb: str, **fields: Any) -> dict[str, Any]:
        return {"python": "there", "version": "0.1.0"} if verb == "install" else real(device, python, verb, **fields)

    class Cut(LocalDevice):
        def put(self, source: Path, path: str) -> None:
            if sent:
                raise DeviceError("local: the connection broke")
            sent.append(source.name)
            super().put(source, path)

    monkeypatch.setattr(bootstrapping, "_ask", ask)
    with pytest.raises(DeviceError, match="connection broke"):
        bootstrap(Cut(), wheels, str(tmp_path / "board"), base_python())
    assert sent == ["edgekd-0.1.0-py3-none-any.whl"]
    more = wheels / "more-1.0-py3-none-any.whl"
    assert bootstrap(LocalDevice(), wheels, str(tmp_path / "board"), base_python()).sent_bytes == more.stat().st_size


WHEELS = os.environ.get("EDGEKD_TEST_WHEELS", "")


@pytest.mark.skipif(not WHEELS, reason="opt-in: EDGEKD_TEST_WHEELS=FOLDER with wheels of edgekd, NumPy, a runtime ...")
def test_real_wheels_on_a_bare_python(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # not this checkout, which the board's Python would import from
    report = edgekd.flash(
        bench.old, "local", root=str(tmp_path / "board"), python=base_python(), bootstrap=WHEELS, watch_s=0, runs=5
    )
    assert report.changed
    python = tmp_path / "board/.runtime/current/bin/python"
    where = subprocess.run(
        [python, "-c", "import edgekd; print(edgekd.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path / "board"))
