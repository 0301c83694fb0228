"""The fuzzer of benchmarks/ in small: nothing bad is found, and what would be bad is called so."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd._bundle import Bundle

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fuzz_bundle")


def test_a_few_hundred_mutated_files_are_refused_or_sound(fuzz: ModuleType) -> None:
    report = fuzz.run(1_000_000, 360)
    assert report["bad"] == []
    assert sum(report["outcomes"].values()) == 360
    assert {"CorruptBundleError", "NotABundleError", "BundleVersionError", "original"} <= set(report["outcomes"])


@pytest.mark.parametrize(
    ("broken", "outcome"),
    [(KeyError("x"), "BAD: KeyError"), (RecursionError("x"), "BAD: RecursionError"), (TimeoutError(), "BAD: hung")],
)
def test_anything_but_a_bundle_error_is_bad(
    fuzz: ModuleType, broken: Exception, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> Bundle:
        raise broken

    monkeypatch.setattr(Bundle, "read", read)
    assert fuzz.outcome(tmp_path / "x", b"data", b"data").startswith(outcome)


def test_a_reader_that_believes_everything_is_caught(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fuzz.Mutators().whole
    (tmp_path / "original").write_bytes(original)
    believed = Bundle.read(tmp_path / "original")
    monkeypatch.setattr(Bundle, "read", lambda _: believed)
    assert fuzz.outcome(tmp_path / "x", original[:-1] + b"\0", original) == "BAD: not what would be written"
