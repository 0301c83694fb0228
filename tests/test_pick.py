"""`pick` on bundles whose receipts know their accuracy and whose latency is set: what is chosen, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd import Budget, _pick
from edgekd.cli.main import main
from edgekd.errors import TargetUnavailableError, UsageError

from .conformance import bundles
from .profiling.test_record import Balanced, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = {"val": {"images": 50, "sha256": "ab" * 32}, "test": {"images": 80, "sha256": "cd" * 32}}


def receipt(value: float, split: str = "val", what: str = "AP", **more: Any) -> dict[str, Any]:
    return {"what": what, "value": value, "split": split, "images": 50, **more}


def write(name: str, *receipts: dict[str, Any], data: Any = DATA, anomaly: bool = False, oriented: bool = False) -> str:
    bundle = bundles.portable(anomaly=anomaly, oriented=oriented)
    manifest = dataclasses.replace(bundle.manifest, receipts=receipts, provenance={"data": data})
    bundle.replace(manifest).write(name)
    return name


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small, middle, large; each step is slower and more accurate."""
    monkeypatch.chdir(tmp_path)
    rows = {"small.bin": 0.31, "middle.bin": 0.4, "large.bin": 0.52}
    return [write(name, receipt(value), receipt(value - 0.01, "test")) for name, value in rows.items()]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Sets what each bundle takes; a list is all its samples, an error is raised."""

    def set_times(**latency: Any) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def profile(path: Path, **options: Any) -> Any:
            asked.append({"path": str(path), **options})
            given = latency[Path(path).stem]
            if isinstance(given, Exception):
                raise given
            return profile_of(given if isinstance(given, list) else [float(given)] * 100)

        monkeypatch.setattr(_pick, "profile", profile)
        return asked

    return set_times


def test_the_most_accurate_that_holds_is_chosen(three: list[str], timed: Any) -> None:
    asked = timed(small=3, middle=7.5, large=20)
    found = edgekd.pick(three, "8 ms p99", calls=50, device="cpu")
    assert found.chosen == "middle.bin"
    assert [item.path for item in found.candidates] == ["large.bin", "middle.bin", "small.bin"]
    assert [item.holds for item in found.candidates] == [False, True, True]
    assert {item.front for item in found.candidates} == {True}
    assert (found.metric, found.split, found.data_sha256) == ("AP", "test", "cd" * 32)
    assert found.candidates[0].accuracy.value == 0.51
    assert {(row["calls"], row["device"], row["layers"]) for row in asked} == {(50, "cpu", 0)}
    json.dumps(found.to_dict())


def test_the_budget_is_held_by_the_figure_it_names(three: list[str], timed: Any) -> None:
    spiky = [5.0] * 95 + [50.0] * 5
    timed(small=3, middle=spiky, large=spiky)
    assert edgekd.pick(three, "8 ms p99").chosen == "small.bin"
    assert edgekd.pick(three, "8 ms p50").chosen == "large.bin"
    assert edgekd.pick(three, "0.05 s max").chosen == "large.bin"
    assert edgekd.pick(three, "0.049 s max").chosen == "small.bin"


def test_interval_that_reaches_over_the_budget_is_said(three: list[str], timed: Any, capsys: Any) -> None:
    wide = [5.0, 6.0, 7.0, 9.0] * 50  # its median is 6.5 ms, and might be 7
    timed(small=3, middle=wide, large=20)
    found = edgekd.pick(three, "6.6 ms p50", report="page.html")
    assert found.chosen == "middle.bin"
    chosen = next(item for item in found.candidates if item.path == "middle.bin")
    assert chosen.interval_ms is not None
    assert chosen.interval_ms[0] < 6.5 < chosen.interval_ms[1]
    assert (chosen.holds, chosen.surely) == (True, False)
    assert "Not surely: the 95 % interval of its figure is" in Path("page.html").read_text()
    assert main(["pick", "--budget", "6.6 ms p50", *three]) == 0
    said = capsys.readouterr().out
    assert "may hold, front <- chosen" in said
    assert "middle.bin holds 6.6 ms p50 as measured, but its 95 % interval is" in said
    for budget in ("20 ms p50", "20 ms max"):
        assert all(item.surely for item in edgekd.pick(three, budget).candidates)


def test_who_is_beaten_in_both_is_not_on_the_front(three: list[str], timed: Any) -> None:
    timed(small=9, middle=7.5, large=7.5)
    found = edgekd.pick(three, "8 ms p99")
    assert {item.path: item.front for item in found.candidates} == {
        "large.bin": True, "middle.bin": False, "small.bin": False,
    }  # fmt: skip
    assert found.chosen == "large.bin"


def test_where_none_holds_it_says_by_how_much(three: list[str], timed: Any, capsys: Any) -> None:
    timed(small=10, middle=12, large=20)
    found = edgekd.pick(three, "8 ms p99")
    assert (found.chosen, found.closest, found.over_ms) == (None, "small.bin", pytest.approx(2))
    assert main(["pick", *three, "--budget", "8 ms p99", "--report", "pick.html"]) == 3
    shown = capsys.readouterr().out
    assert "none holds 8 ms p99: small.bin is the fastest, 2.00 ms (25%) above it" in shown
    page = Path("pick.html").read_text()
    assert "None holds 8 ms p99: the fastest, <b>small.bin</b>, is 2.00 ms above it." in page


def test_one_that_does_not_run_there_is_left_out(three: list[str], timed: Any, capsys: Any) -> None:
    timed(small=3, middle=TargetUnavailableError("nothing in middle.bin can run here"), large=20)
    assert main(["pick", *three, "--budget", "8 ms p99"]) == 0
    shown = capsys.readouterr().out
    assert "small.bin   30.0 %  3.00 ms" in shown
    assert "not measured: middle.bin: nothing in middle.bin can run here" in shown
    timed(**dict.fromkeys(("small", "middle", "large"), TargetUnavailableError("no runtime")))
    with pytest.raises(TargetUnavailableError, match=r"(?s)none of the bundles runs there:.*large.bin: no runtime"):
        edgekd.pick(three, "8 ms p99")


def test_an_invalid_run_is_said(three: list[str], timed: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(_pick, "profile", lambda *_, **__: profile_of([3.0] * 9, problems=["it throttled"]))
    assert main(["pick", *three, "--budget", "8 ms p99", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"][0]["problems"] == ["it throttled"]
    assert main(["pick", *three, "--budget", "8 ms p99", "--report", "pick.html"]) == 0
    assert "INVALID: large.bin: it throttled" in capsys.readouterr().out
    page = Path("pick.html").read_text()
    assert "INVALID: large.bin: it throttled." in page
    assert "Its run was disturbed" in page


@pytest.mark.parametrize("text", ["", "8", "8 ms", "8 p99", "8 ms p95", "0 ms p99", "-8 ms p99", "8 us p99", "fast"])
def test_a_budget_is_a_time_and_a_figure(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time, its unit"):
        Budget.parse(text)


def test_a_budget_may_be_in_seconds() -> None:
    assert str(Budget.parse(" 0.5s  max")) == "500 ms max"


def test_a_page_that_cannot_be_written_costs_no_measurement(three: list[str], timed: Any, tmp_path: Path) -> None:
    asked = timed(small=1, foreign=1, own=1)
    with pytest.raises(UsageError, match="there is no folder"):
        edgekd.pick(three, "8 ms p99", split="val", report=tmp_path / "none" / "page.html")
    assert asked == []


def test_accuracies_of_different_data_are_not_compared(three: list[str], timed: Any) -> None:
    asked = timed(small=1)
    other = write("other.bin", receipt(0.9), data={"val": {"images": 50, "sha256": "ef" * 32}})
    with pytest.raises(UsageError, match=r"(?s)different data.*small\.bin: AP 0\.310 on val abab.*other\.bin: .* efef"):
        edgekd.pick([three[0], other], "8 ms p99")
    assert asked == [], "nothing is measured for nothing"


def test_what_is_missing_is_named(three: list[str], timed: Any) -> None:
    timed(small=1, foreign=1, own=1, bare=1)
    bare = write("bare.bin")
    with pytest.raises(UsageError, match=r"bare\.bin has no accuracy in its receipts"):
        edgekd.pick([three[0], bare], "8 ms p99", split="val")
    with pytest.raises(UsageError, match=r"small\.bin has no AP75 on val; it has: AP on val, AP on test"):
        edgekd.pick(three[:1], "8 ms p99", metric="AP75", split="val")
    lone = write("lone.bin", receipt(0.5, "train"))
    with pytest.raises(UsageError, match=r"(?s)no AP of one split in common:.*lone\.bin: train"):
        edgekd.pick([three[0], lone], "8 ms p99")
    nameless = [write(name, receipt(0.5), data=None) for name in ("foreign.bin", "own.bin")]
    with pytest.raises(UsageError, match="do not say which data"):
        edgekd.pick(nameless, "8 ms p99")
    parts = write("parts.bin", receipt(0.9, "test", "image_AUROC"), receipt(0.2, "test", "false_alarms"), anomaly=True)
    with pytest.raises(UsageError, match=r"different tasks .*parts\.bin: anomaly"):
        edgekd.pick([three[0], parts], "8 ms p99")
    with pytest.raises(
        UsageError, match="of false_alarms less is better; name a --metric of which more is, as AP or image"
    ):
        edgekd.pick([parts], "8 ms p99", metric="false_alarms")


def test_comparisons_and_latencies_are_no_accuracy(three: list[str], timed: Any) -> None:
    """A receipt of distillation repeats AP for other runs; one of a profile has no split."""
    timed(a=1, b=1)
    latency = {"what": "latency_p50", "value": 0.5, "unit": "ms"}
    compared = edgekd.Comparison(metric="AP", split="val", seeds=(0,), alone=(0.1,), distilled=(0.9,))
    a = write("a.bin", receipt(0.5), {**compared.to_dict(), "what": "AP"}, latency)
    assert edgekd.pick([a], "8 ms p99").candidates[0].accuracy.value == 0.5


def test_the_latest_figure_and_its_own_fingerprint_count(three: list[str], timed: Any) -> None:
    timed(a=1, b=1)
    a = write("a.bin", receipt(0.5), receipt(0.55, data_sha256="ee" * 32), receipt(0.6, data_sha256="ee" * 32))
    b = write("b.bin", receipt(0.4, data_sha256="ee" * 32), data=None)
    found = edgekd.pick([a, b], "8 ms p99")
    assert (found.candidates[0].accuracy.value, found.data_sha256) == (0.6, "ee" * 32)


def test_figures_by_tiles_do_not_count(three: list[str], timed: Any) -> None:
    """Whole images are timed; tiles take many calls each."""
    timed(a=1, b=1)
    a = write("a.bin", receipt(0.3, tile=None), receipt(0.55, tile=640))
    b = write("b.bin", receipt(0.5))
    assert edgekd.pick([a, b], "8 ms p99").chosen == b
    only = write("a.bin", receipt(0.55, tile=640))
    with pytest.raises(UsageError, match=r"a\.bin has no accuracy in its receipts \(by tiles does not count"):
        edgekd.pick([only, b], "8 ms p99", split="val")


def test_the_figure_of_the_artifact_that_ran_counts(three: list[str], timed: Any) -> None:
    timed(a=1)  # on openvino fp32
    rows = {
        "exact": receipt(0.1, target="openvino", precision="fp32"),
        "elsewhere": receipt(0.2, target="reference", precision="fp32"),
        "trained": receipt(0.3),
        "int8": receipt(0.4, target="openvino", precision="int8"),
    }
    for names, best in (("exact elsewhere trained int8", 0.1), ("trained elsewhere int8", 0.2), ("trained int8", 0.3),
                        ("int8", 0.4)):  # fmt: skip
        a = write("a.bin", *(rows[name] for name in names.split()))
        assert edgekd.pick([a], "8 ms p99").candidates[0].accuracy.value == best, names
    timed(a=TargetUnavailableError("no chip"), b=1)
    a, b = write("a.bin", *rows.values()), write("b.bin", receipt(0.9))
    assert edgekd.pick([a, b], "8 ms p99").candidates[1].accuracy.value == 0.4, "nothing ran: the latest"


def test_figures_of_different_modes_are_not_compared(three: list[str], timed: Any) -> None:
    timed(a=1, b=1)
    a = write("a.bin", receipt(0.5, mode="voc07"), oriented=True)
    b = write("b.bin", receipt(0.4), oriented=True)  # of a training, or an evaluation that did not say: "area"
    with pytest.raises(UsageError, match=r"(?s)in different modes, .*a\.bin: AP 0\.500 .*, mode voc07.*, mode area"):
        edgekd.pick([a, b], "8 ms p99")
    a = write("a.bin", receipt(0.3, mode="area"), receipt(0.5, mode="voc07"), oriented=True)
    assert edgekd.pick([a, b], "8 ms p99").chosen == b
    assert {item.accuracy.mode for item in edgekd.pick([a, b], "8 ms p99").candidates} == {"area"}


def test_of_several_data_those_count_that_all_have_a_figure_of(three: list[str], timed: Any) -> None:
    timed(a=1, b=1)
    a = write("a.bin", receipt(0.5, "shop"), receipt(0.6, "shop", data_sha256="ee" * 32), data={})
    b = write(
        "b.bin", receipt(0.4, "shop", data_sha256="ee" * 32), receipt(0.9, "shop", data_sha256="ff" * 32), data={}
    )
    found = edgekd.pick([a, b], "8 ms p99")
    assert [item.accuracy.value for item in found.candidates] == [0.6, 0.4]
    assert found.split == "shop"


def test_the_page_is_whole(three: list[str], timed: Any) -> None:
    timed(small=3, middle=7.5, large=20)
    edgekd.pick(three, "8 ms p99", report="pick.html")
    page = Path("pick.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    assert page.count("<circle") == 3
    assert 'class="chosen" cx=' in page
    assert "budget 8 ms p99" in page
    assert "<b>middle.bin</b> is the most accurate that holds 8 ms p99." in page
    assert "http" not in page.replace("http-equiv", "")


def test_real_bundles_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names = [write("a.bin", receipt(0.5)), write("b.bin", receipt(0.6))]
    assert main(["pick", *names, "--budget", "5 s p99", "--calls", "3"]) == 0
    assert "<- chosen" in capsys.readouterr().out
    assert main(["pick", "a.bin", "a.bin", "--budget", "1 ms p1"]) == 2
