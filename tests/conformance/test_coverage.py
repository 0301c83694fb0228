"""The suite names no target but the reference that it compares with, and every target inherits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd._target import load_target, target_names

HERE = Path(__file__).parent
ORACLE = "reference"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_suite_names_no_target(path: Path) -> None:
    text = path.read_text(encoding="utf-8").lower()
    assert [name for name in target_names() if name != ORACLE and name in text] == []


@pytest.mark.parametrize("name", target_names())
def test_every_target_inherits_the_suite(name: str) -> None:
    text = (HERE.parent / "targets" / f"test_{name}.py").read_text(encoding="utf-8")
    assert f'    TARGET = "{name}"' in text
    assert "(RunnableTarget)" in text or "(BuildOnlyCases)" in text


def test_device_spellings_of_targets_are_said_in_their_readme() -> None:
    for name in target_names():
        target = load_target(name)
        text = (HERE.parents[1] / "targets" / name / "README.md").read_text(encoding="utf-8")
        missing = [device for device in target.DEVICES if f"`{device.replace('*', '0')}`" not in text]
        assert missing == [], f"{name}: {missing}"
        assert all(precision in text for precision in target.PRECISIONS)
