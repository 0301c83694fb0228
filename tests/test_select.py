"""Which artifact `load` takes, and what it says when there is none; targets are stand-ins with names of their own."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgekd import _select
from edgekd._manifest import Artifact
from edgekd.errors import GateError, TargetUnavailableError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Callable


def _target(rank: int, devices: tuple[str, ...], problem: str | None = None, portable: bool = False) -> SimpleNamespace:
    return SimpleNamespace(RANK=rank, DEVICES=devices, PORTABLE=portable, probe=lambda: problem)


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    named = {
        "alpha": _target(10, ("gpu", "gpu.*"), "no GPU here: pip install alpha"),
        "beta": _target(20, ("cpu", "beta:cpu")),
        "gamma": _target(30, ("cpu",)),
        "plain": _target(90, ("cpu",), portable=True),
    }
    monkeypatch.setattr(_select, "target_names", lambda: tuple(named))
    monkeypatch.setattr(_select, "load_target", named.__getitem__)
    return named


def _bundle(*pairs: tuple[str, str]) -> SimpleNamespace:
    artifacts = tuple(Artifact(target=target, precision=precision, files={}) for target, precision in pairs)
    return SimpleNamespace(manifest=dataclasses.replace(bundles.manifest(), artifacts=artifacts), path="model.bin")


FULL = (("gamma", "fp32"), ("beta", "fp16"), ("beta", "fp32"), ("alpha", "fp16"))


def _chosen(bundle: SimpleNamespace, device: str = "auto", precision: str = "auto") -> tuple[str, str]:
    choice = _select.choose(bundle, device, precision)  # type: ignore[arg-type]
    return choice.artifact.target, choice.artifact.precision


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("auto", "auto", ("beta", "fp32")),  # alpha ranks first but cannot run
        ("auto", "fp16", ("beta", "fp16")),
        ("gamma", "auto", ("gamma", "fp32")),
        ("CPU", "auto", ("beta", "fp32")),
        ("BETA:CPU", "auto", ("beta", "fp32")),
        ("plain", "auto", ("plain", "fp32")),
    ],
)
def test_choice_follows_rank_precision_and_spelling(
    targets: dict[str, SimpleNamespace], device: str, precision: str, expected: tuple[str, str]
) -> None:
    assert _chosen(_bundle(*FULL), device, precision) == expected


def test_choice_prefers_the_lowest_rank_that_runs(targets: dict[str, SimpleNamespace]) -> None:
    targets["alpha"].probe = lambda: None
    assert _chosen(_bundle(*FULL)) == ("alpha", "fp16")


def test_a_bundle_without_artifacts_runs_on_the_portable_target(targets: dict[str, SimpleNamespace]) -> None:
    assert _chosen(_bundle()) == ("plain", "fp32")


def test_choice_lists_everything_it_did_not_take_with_its_reason(targets: dict[str, SimpleNamespace]) -> None:
    choice = _select.choose(_bundle(*FULL), "auto", "auto")  # type: ignore[arg-type]
    assert len(choice.discarded) == len(FULL)  # and the portable one, less the chosen one
    assert any("alpha fp16: no GPU here: pip install alpha" in line for line in choice.discarded)
    assert "beta fp32" in choice.reason


def test_device_that_cannot_run_says_why_and_what_to_type(targets: dict[str, SimpleNamespace]) -> None:
    with pytest.raises(TargetUnavailableError, match="no GPU here: pip install alpha"):
        _chosen(_bundle(*FULL), "gpu.1")


def test_device_whose_artifact_is_missing_says_how_to_build_it(targets: dict[str, SimpleNamespace]) -> None:
    with pytest.raises(UsageError, match=r"device='gpu' means alpha.*edgekd build model.bin --target alpha"):
        _chosen(_bundle(("beta", "fp32")), "gpu")


def test_precision_that_is_missing_says_what_there_is_and_how_to_add_it(targets: dict[str, SimpleNamespace]) -> None:
    with pytest.raises(UsageError, match=r"no int8 artifact.*gamma fp32.*--target gamma --precision int8"):
        _chosen(_bundle(*FULL), "gamma", "int8")


def test_unknown_device_lists_every_spelling(targets: dict[str, SimpleNamespace]) -> None:
    with pytest.raises(UsageError, match=r"no device 'toaster'; possible: alpha, auto, beta, beta:cpu"):
        _chosen(_bundle(*FULL), "toaster")


def _loads(problem: str | None) -> Callable[..., object]:
    def load(*_: object, **options: object) -> object:
        if problem is not None:
            raise ImportError(problem)
        return options

    return load


def test_target_whose_package_cannot_be_imported_is_passed_over_and_said(targets: dict[str, SimpleNamespace]) -> None:
    targets["beta"].load = _loads("libgone.so: cannot open shared object file")
    targets["gamma"].load = _loads(None)
    choice, session, start = _select.start_chosen(_bundle(*FULL), "auto", "auto", threads=2)  # type: ignore[arg-type]
    assert choice.artifact.target == "gamma"
    assert session == start() == {"device": "auto", "threads": 2, "mode": "latency", "cache": None}
    why = "a package that is installed cannot be imported: libgone.so: cannot open shared object file"
    assert f"beta fp32: {why}" in choice.discarded
    assert f"beta fp16: {why}" in choice.discarded


def test_without_another_target_it_cannot_run_here(targets: dict[str, SimpleNamespace]) -> None:
    targets["beta"].load = _loads("libgone.so: cannot open shared object file")
    with pytest.raises(TargetUnavailableError, match=r"device='beta':(.|\n)*beta fp32: .* libgone\.so: cannot"):
        _select.start_chosen(_bundle(*FULL), "beta", "auto")  # type: ignore[arg-type]


def _int8(target: str, *, passed: bool = True, speed_up: float | None = 2.0) -> dict[str, object]:
    race = {"rival": None if speed_up is None else "fp16", "speed_up": speed_up, "faster": (speed_up or 0) > 1.03}
    return {"what": "int8 AP drop", "value": 0.3, "unit": "points", "target": target,
            "quantization": {"passed": passed, "race": race}}  # fmt: skip


def _choose(pairs: tuple[tuple[str, str], ...], *receipts: dict[str, object], **options: object) -> _select.Choice:
    bundle = _bundle(*pairs)
    bundle.manifest = dataclasses.replace(bundle.manifest, receipts=receipts)
    return _select.choose(bundle, "auto", "auto", **options)  # type: ignore[arg-type]


WITH_INT8 = (("beta", "fp32"), ("beta", "int8"), ("beta", "fp16"))


def test_int8_goes_first_where_it_was_faster(targets: dict[str, SimpleNamespace]) -> None:
    choice = _choose(WITH_INT8, _int8("beta"))
    assert choice.artifact.precision == "int8"
    assert choice.reason.endswith("; when measured it lost 0.3 points, 2.0 times as fast as fp16")


def test_int8_that_did_better_than_the_float_network_gained(targets: dict[str, SimpleNamespace]) -> None:
    choice = _choose(WITH_INT8, {**_int8("beta"), "value": -0.1666})
    assert choice.reason.endswith("; when measured it gained 0.17 points, 2.0 times as fast as fp16")


@pytest.mark.parametrize(
    ("speed_up", "why"),
    [(0.7, "not faster than fp16 when measured (0.70 times its speed)"),
     (None, "its speed has not been measured on this target")],
)  # fmt: skip
def test_int8_goes_last_where_it_was_not_and_says_why(
    targets: dict[str, SimpleNamespace], speed_up: float | None, why: str
) -> None:
    choice = _choose(WITH_INT8, _int8("beta", speed_up=speed_up))
    assert choice.artifact.precision == "fp32"
    assert f"beta int8: {why}" in choice.discarded
    later = _choose((("beta", "int8"), ("gamma", "fp16")), _int8("beta", speed_up=speed_up))
    found = (later.artifact.target, later.artifact.precision)
    assert found == (("beta", "int8") if speed_up is None else ("gamma", "fp16")), "slower: behind a later rank as well"
    assert speed_up is None or f"beta int8: {why}" in later.discarded
    targets["plain"].probe = lambda: "no interpreter"
    alone = _choose((("beta", "int8"),), _int8("beta", speed_up=speed_up))
    assert (alone.artifact.target, alone.artifact.precision) == ("beta", "int8"), "there is nothing else"


def test_weights_of_8_bits_are_taken_where_they_are_asked_for_or_nothing_else_runs(
    targets: dict[str, SimpleNamespace],
) -> None:
    small = (("beta", "w8a32"),)
    assert _chosen(_bundle(*small)) == ("plain", "fp32")
    assert _chosen(_bundle(*small, ("gamma", "fp16"))) == ("gamma", "fp16")
    assert "beta w8a32: only where it is asked for (precision='w8a32')" in _choose(small).discarded
    assert _chosen(_bundle(*small), precision="w8a32") == ("beta", "w8a32")
    assert _chosen(_bundle(*small), device="beta") == ("beta", "w8a32")
    both = _choose((*small, ("gamma", "int8")), _int8("gamma"))
    assert (both.artifact.target, both.artifact.precision) == ("gamma", "int8"), (
        "int8 that was faster is no last resort"
    )
    targets["plain"].probe = lambda: "no interpreter"
    assert _chosen(_bundle(*small)) == ("beta", "w8a32")


def test_asked_for_int8_is_taken_by_rank_whatever_its_speed(targets: dict[str, SimpleNamespace]) -> None:
    bundle = _bundle(("gamma", "int8"), ("beta", "int8"))
    receipts = (_int8("beta", speed_up=0.7), _int8("gamma"))
    bundle.manifest = dataclasses.replace(bundle.manifest, receipts=receipts)
    assert _chosen(bundle, precision="int8") == ("beta", "int8")


@pytest.mark.parametrize("receipts", [(), (_int8("beta", passed=False),), (_int8("gamma"),)])
def test_int8_without_a_passing_receipt_of_its_target_is_not_taken(
    targets: dict[str, SimpleNamespace], receipts: tuple[dict[str, object], ...]
) -> None:
    choice = _choose(WITH_INT8, *receipts)
    assert choice.artifact.precision == "fp32"
    assert any(line.startswith("beta int8 ") for line in choice.discarded)
    assert _choose((("beta", "int8"),), *receipts).artifact.target == "plain"
    assert _choose(WITH_INT8, *receipts, unsafe=True).artifact.precision == "fp32"
    bundle = _bundle(("beta", "int8"))
    bundle.manifest = dataclasses.replace(bundle.manifest, receipts=receipts)
    with pytest.raises(GateError, match=r"model\.bin --target beta --precision int8 --calib DIR.*unsafe=True"):
        _select.choose(bundle, "beta", "int8")  # type: ignore[arg-type]
    unsafe = _select.choose(bundle, "beta", "int8", unsafe=True)  # type: ignore[arg-type]
    assert unsafe.artifact.precision == "int8"
    failed = bool(receipts) and receipts[0]["target"] == "beta"
    assert ("; when measured it failed its gates: it lost" if failed else "; it has no receipt") in unsafe.reason
