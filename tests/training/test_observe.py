"""What a run logs about its distillation, and what it says about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from edgekd._recipe import DistillConfig, Recipe
from edgekd.training.advice import Advice
from edgekd.training.distill import Distiller, Observation
from edgekd.training.methods import Observed, Taps
from edgekd.training.observe import gradient_norms, statistics

from .test_distill import teacher_for, trained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen(ours: Tensor, theirs: Tensor, own: Tensor | None = None, **maps: dict[int, Tensor]) -> Observation:
    found = Observed({3: ours}, {name.replace("_", " "): item for name, item in maps.items()})
    return Observation("m", Taps({3: ours if own is None else own}), Taps({3: theirs}), found)


def test_correlation_is_that_of_numpy_and_skips_channels_in_which_the_teacher_is_constant() -> None:
    ours, theirs = noise(2, 3, 5, 4), noise(2, 3, 5, 4, seed=1)
    theirs[:, 2] = 7.0
    expected = [
        float(torch.corrcoef(torch.stack([ours[:, c].flatten(), theirs[:, c].flatten()]))[0, 1]) for c in (0, 1)
    ]
    assert float(statistics(seen(ours, theirs))["r.p3"]) == pytest.approx(sum(expected) / 2, abs=1e-6)
    assert float(statistics(seen(-2 * theirs + 1, theirs))["r.p3"]) == pytest.approx(-1, abs=1e-5)


def test_spread_dead_channels_and_attention() -> None:
    theirs = noise(2, 4, 6, 6)
    own = noise(2, 4, 6, 6, seed=1)
    own[:, :3] = 0.5
    figures = statistics(seen(0.25 * theirs, theirs, own, teacher_attention={3: torch.tensor([[[1.0, 9.0]]])}))
    assert float(figures["spread.p3"]) == pytest.approx(0.25, rel=1e-5)
    assert float(figures["dead.p3"]) == 0.75
    assert float(figures["attention_max.p3"]) == 9.0


def test_gradient_norms_are_exact_and_leave_the_graph() -> None:
    x = noise(3, 4).requires_grad_()
    features = {3: x * 2, 4: x.sum(dim=1) * 1e-6, 5: x + 1}
    loss = (features[3].square().sum() + features[4].sum()) / 7
    norms = gradient_norms(loss, features)
    assert float(norms["p3"]) == pytest.approx(float(2 * features[3].detach().norm() / 7), rel=1e-6)
    assert float(norms["p4"]) == pytest.approx(3**0.5 / 7, rel=1e-6)
    assert float(norms["p5"]) == 0
    loss.backward()
    assert x.grad is not None
    assert {name: float(norm) for name, norm in gradient_norms(torch.zeros(()), features).items()} == {
        "p3": 0,
        "p4": 0,
        "p5": 0,
    }


def test_log_holds_the_figures_and_observing_changes_nothing(
    small: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(steps=10, distill=(DistillConfig(method="pkd"),))
    watched = trained(recipe, tmp_path / "watched", teacher_for(recipe))
    row = json.loads((tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()[0])
    figures = {f"observed.pkd.{name}.p{level}" for name in ("r", "spread", "dead") for level in (3, 4, 5)}
    necks = {f"neck.{part}.p{level}" for part in ("detect", "distill") for level in (3, 4, 5)}
    assert figures | necks <= set(row)
    assert all(row[name] > 0 for name in necks)
    # r of the log and PKD's loss are two ways to say the same: loss = 10 (1 - r)(m - 1)/m, m = 4 images x 64 cells
    assert row["pkd.p3"] == pytest.approx(10 * (1 - row["observed.pkd.r.p3"]) * 255 / 256, abs=1e-3)

    monkeypatch.setattr("edgekd.training.trainer.LOG_EVERY", 1000)
    blind = trained(recipe, tmp_path / "blind", teacher_for(recipe))
    pairs = zip(watched.student.state_dict().values(), blind.student.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def calm(**changes: float) -> dict[str, float]:
    row = {f"observed.m.r.p{level}": 0.9 for level in (3, 4, 5)}
    row.update(
        {f"neck.distill.p{level}": 1.0 for level in (3, 4, 5)} | {f"neck.detect.p{level}": 1.0 for level in (3, 4)}
    )
    return {**row, **{name.replace("__", "."): value for name, value in changes.items()}}


RULES: list[tuple[list[dict[str, Any]], str]] = [
    (
        [{"observed__m__spread__p3": 0.8}, {"observed__m__spread__p3": 0.2}],
        r"m, P3: .* shrink \(spread 0.20 .* 0.80\).*pkd",
    ),
    ([{"observed__m__attention_max__p4": 80.0}], r"m, P4: .* peak of 80 times its mean.*raise tau"),
    ([{"observed__m__dead__p5": 0.7}], r"m, P5: 70 % of the student's channels hardly vary.*lower train.lr"),
    ([{}, {"observed__m__r__p3": 0.1, "observed__m__r__p4": 0.2}], r"m: .* correlate by 0.40 only.*raise its weight"),
    ([{"neck__distill__p3": 9.0}], r"P3 has 82 % of .*levels = \[3\]"),
    (
        [{}, {"neck__distill__p3": 10.0, "neck__distill__p4": 10.0, "neck__distill__p5": 10.0}],
        "15 times the detector's: lower",
    ),
]


@pytest.mark.parametrize(
    ("rows", "message"), RULES, ids=["shrunk", "sharp", "dead", "unlike", "concentrated", "overwhelmed"]
)
def test_each_rule_speaks_once_and_says_what_to_change(rows: list[dict[str, Any]], message: str) -> None:
    import re

    advice = Advice(100)
    steps = [10, 60][: len(rows)]
    said = [advice.read(step, calm(**row)) for step, row in zip(steps, rows, strict=True)]
    assert sum(map(len, said[:-1])) == 0
    assert len(said[-1]) == 1
    assert re.search(message, said[-1][0])
    assert advice.read(70, calm(**rows[-1])) == [] or "unlike" in message or len(rows) == 1


def test_weights_that_are_too_large_already_are_not_to_be_raised() -> None:
    unlike = {f"observed__m__r__p{level}": 0.1 for level in (3, 4, 5)}
    heavy = {f"neck__distill__p{level}": 10.0 for level in (3, 4, 5)}
    first, second = Advice(100).read(60, calm(**unlike, **heavy))
    assert first.endswith("half-way through the run (usual: 0.6): train for more steps")
    assert "lower the weights" in second


@pytest.mark.parametrize("heavy", [False, True])
def test_method_says_what_helps_better_than_weight(heavy: bool) -> None:
    options = ({}, {"mode": "sum"}, {"mode": "none"}, {"variant": "released"})
    entries = [DistillConfig(method="xfkd", options=each) for each in options]
    channels = {3: 8, 4: 8, 5: 8}
    remedies = Distiller(entries, channels, {"teacher": channels}, seed=0).remedies
    assert list(remedies) == ["xfkd", "xfkd2"]
    row = calm(observed__xfkd__r__p3=0.1, observed__xfkd3__r__p3=0.1)
    if heavy:
        row.update(calm(**{f"neck__distill__p{level}": 10.0 for level in (3, 4, 5)}))
    first, second, *_ = Advice(100, remedies).read(60, row)
    end = 'leave the teacher out of the mix (options = { mode = "none" }), or train for more steps'
    assert first.startswith("xfkd: student and teacher correlate by 0.10 only")
    assert first.endswith(end)
    assert second.startswith("xfkd3: ")
    assert second.endswith(": train for more steps" if heavy else ": raise its weight, or train for more steps")


def test_nothing_is_said_of_a_healthy_run_nor_early_of_what_needs_time() -> None:
    advice = Advice(100)
    for step in (10, 50, 100):
        assert advice.read(step, calm(observed__m__spread__p3=0.2, observed__m__dead__p3=0.1)) == []
    assert Advice(100).read(49, calm(observed__m__r__p3=0.0, observed__m__r__p4=0.0)) == []


def test_resumed_run_remembers_what_was_said_and_the_first_spread() -> None:
    first, later = calm(observed__m__spread__p3=0.9), calm(observed__m__spread__p3=0.1)
    resumed = Advice(100)
    resumed.recall([{"step": 10, **first}, {"step": 20, "warning": "something"}])
    assert len(resumed.read(30, later)) == 1
    again = Advice(100)
    again.recall([{"step": 10, **first}, {"step": 30, **later}])
    assert again.read(40, later) == []


def test_warning_reaches_stderr_and_the_log(
    small: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small(steps=10, distill=(DistillConfig(method="pkd", weight=1e4),))
    trained(recipe, tmp_path, teacher_for(recipe))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    warned = [row["warning"] for row in rows if "warning" in row]
    assert any("times the detector's" in text for text in warned)
    assert "edgekd: step 10: the distillation's gradient" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("share", "says"), [(0.97, "second teacher (share of the first: 0.97)"), (0.02, "first teacher")]
)
def test_a_fusion_that_leaves_a_teacher_out_is_warned_of_once(share: float, says: str) -> None:
    advice = Advice(100)
    assert advice.read(1, {"loss": 1.0, "gate.p2": 0.05, "gate.p3": 0.95}) == []
    (text,) = advice.read(2, {"gate.p2": 0.5, "gate.p3": share})
    assert text.startswith("gate.p3: the fusion leaves out the ")
    assert says in text
    assert advice.read(3, {"gate.p3": share}) == []
