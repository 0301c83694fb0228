"""The command line: commands are found, errors are one line with their exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgekd
from edgekd.cli import main as cli


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_and_its_own_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (Path(cli.__file__).parent / f"{command}.py").exists()
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: edgekd" in shown
    if command not in ("data", "keys"):  # their sub-commands have it
        assert "--json" in shown


def test_unknown_command_and_flag_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["flsh"], ["predict", "--cnf", "1"], []):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("m.bin a.png b.png", (["a.png", "b.png"], None)),
        ("m.bin --json a.png b.png", (["a.png", "b.png"], "lines")),
        ("--json m.bin a.png", (["a.png"], "lines")),
        ("m.bin a.png --json", (["a.png"], "lines")),
        ("m.bin a.png --json --conf 0.5", (["a.png"], "lines")),
        ("m.bin --json lines a.png", (["a.png"], "lines")),
        ("m.bin a.png --json lines", (["a.png"], "lines")),
        ("m.bin --json=lines a.png", (["a.png"], "lines")),
        ("m.bin --json 0", (["0"], "lines")),
        ("m.bin --json -- a.png --json", (["a.png", "--json"], "lines")),
    ],
)
def test_an_option_with_an_optional_value_leaves_the_next_word_alone(
    words: str, expected: tuple[list[str], str | None]
) -> None:
    args = cli.parser().parse_args(["predict", *words.split()])
    assert (args.bundle, args.sources, args.json) == ("m.bin", *expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("--explain r.toml", 4), ("--explain 9 r.toml", 9), ("r.toml --explain", 4), ("r.toml", 0)],
)
def test_explain_takes_a_number_and_no_recipe(words: str, expected: int) -> None:
    args = cli.parser().parse_args(["distill", "--out", "o", *words.split()])
    assert (args.recipe, args.explain) == ("r.toml", expected)


def test_an_error_is_one_line_on_stderr_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.bin"
    assert cli.main(["inspect", str(missing)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("edgekd inspect: ")
    assert str(missing) in shown.err
    assert "Traceback" not in shown.err


def test_traceback_is_shown_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--traceback", "inspect", str(tmp_path / "none.bin")]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [edgekd.errors.GateError, edgekd.errors.HostError, edgekd.errors.DeviceError])
def test_each_kind_of_error_returns_its_own_code(
    kind: type[edgekd.errors.EdgekdError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("because")

    monkeypatch.setattr(edgekd, "inspect", fail)
    assert cli.main(["inspect", "x"]) == kind.exit_code


def test_interrupt_returns_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(edgekd, "inspect", stop)
    assert cli.main(["inspect", "x"]) == 130


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"edgekd {edgekd.__version__}\n"


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "edgekd", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"edgekd {edgekd.__version__}"
