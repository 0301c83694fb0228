"""`edgekd distill`: what its own options pass on, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import edgekd
from edgekd.cli.main import main

FIGURES = {"AP": 0.25, "AP50": 0.5, "AP75": 0.1, "AP_small": float("nan"), "AP_medium": 0.3, "AP_large": 0.2}
ROWS = (
    edgekd.Comparison(metric="AP", split="val", seeds=(0, 1), alone=(0.101, 0.099), distilled=(0.25, 0.252)),
    edgekd.Comparison(metric="AP50", split="val", seeds=(0, 1), alone=(0.4, 0.5), distilled=(0.5, 0.4)),
    edgekd.Comparison(metric="AP", split="te\x1bst", seeds=(4,), alone=(0.2,), distilled=(0.1,)),
)
RECEIPT = ["distill", "r.toml", "--out", "o", "--receipt"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the verb was called with; it returns a report with three comparisons."""
    options: dict[str, Any] = {}

    def called(_recipe: str, _out: str, **given: Any) -> edgekd.TrainReport:
        options.update(given)
        return edgekd.TrainReport(
            folder=Path("o"),
            bundle=Path("o/model.bin"),
            weights=Path("o/student.safetensors"),
            steps=5,
            seconds=1.0,
            metrics={"val": FIGURES},
            comparisons=ROWS,
            page=Path("o/explain/index.html") if given.get("explain") else None,
        )

    monkeypatch.setattr(edgekd, "distill", called)
    return options


def test_receipt_and_seeds_are_passed_on_where_given(asked: dict[str, Any]) -> None:
    assert main([*RECEIPT, "--seeds", "0,1,5"]) == 0
    assert (asked["receipt"], asked["seeds"]) == (True, (0, 1, 5))
    asked.clear()
    assert main(["distill", "r.toml", "--out", "o"]) == 0
    assert asked.keys() == {"seed", "steps", "device", "resume", "tensorboard"}
    asked.clear()
    assert main(["distill", "r.toml", "--out", "o", "--qat", "tensorrt"]) == 0
    assert asked["qat"] == "tensorrt"


def test_page_is_asked_for_and_named(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "r.toml", "--out", "o", "--explain"]) == 0
    assert asked["explain"] == 4
    assert "  o/explain/index.html\n" in capsys.readouterr().out
    assert main(["distill", "r.toml", "--out", "o", "--explain", "9", "--json"]) == 0
    assert asked["explain"] == 9
    assert json.loads(capsys.readouterr().out)["page"] == "o/explain/index.html"
    assert main(["distill", "r.toml", "--out", "o", "--json"]) == 0
    assert "page" not in json.loads(capsys.readouterr().out)


def test_table_says_what_the_gains_are_worth(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RECEIPT) == 0
    lines = capsys.readouterr().out.splitlines()
    (first,) = [line for line in lines if line.startswith("val    AP ")]
    words = "val AP 10.0 ± 0.1 25.1 ± 0.1 +15.1 ± 0.3 (SE 0.2) better by more than two standard errors"
    assert " ".join(first.split()) == words
    (second,) = [line for line in lines if line.startswith("val    AP50 ")]
    assert second.endswith("+0.0 ± 14.1 (SE 10.0)  within the noise")
    assert any("over 2 seeds (0, 1)" in line for line in lines)
    assert any(line.endswith("in 30 % of comparisons of 2 seeds") for line in lines)
    (third,) = [line for line in lines if line.startswith("te\\u001bst")]
    assert " ".join(third.split()) == "te\\u001bst AP 20.0 10.0 -10.0 one seed: no verdict"
    assert "in %, seed 4 alone: no spread is known, so nothing is proved; --seeds takes more" in lines


def test_json_holds_the_comparisons_and_nothing_else_is_printed(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RECEIPT, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["comparisons"] == [each.to_dict() for each in ROWS]


def test_other_ranks_are_silent(
    asked: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(RECEIPT) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (["--receipt"], "--receipt"),
        (["--receipt", "--seeds", "3,4", "--seed", "3"], "--seed 3 --receipt --seeds 3,4"),
        (["--explain"], "--explain 4"),
        (["--cache", "c", "--qat", "openvino"], "--cache c --qat openvino"),
        ([], "o"),
    ],
)
def test_interrupted_run_says_how_to_go_on(
    given: list[str], back: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(edgekd, "distill", stopped)
    assert main(["distill", "r.toml", "--out", "o", *given]) == 130
    assert capsys.readouterr().err.endswith(f"{back}\n")


@pytest.mark.parametrize("text", ["a,b", "0,,1", "", "0 1"])
def test_seeds_that_are_no_numbers_are_refused_with_an_example(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*RECEIPT, "--seeds", text])
    assert stop.value.code == 2
    assert "argument --seeds: invalid list of numbers like 0,1,2 value" in capsys.readouterr().err


def test_seeds_without_a_receipt_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        'name = "r"\n[data]\ntrain = "t"\nval = "v"\n[student]\nbackbone = "csp-tiny"\n'
        '[teacher]\nbackbone = "resnet18"\nweights = "w.npz"\n[[distill]]\nmethod = "pkd"\n'
    )
    assert main(["distill", str(path), "--out", str(tmp_path / "o"), "--seeds", "0,1"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "--receipt" in printed.err
