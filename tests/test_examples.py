"""Every command of every example README, run in order from the root of a copy, with fewer steps and scenes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
SMALLER = (
    ("--train 600 --val 60 --test 200", "--train 16 --val 4 --test 4"),
    # Three steps leave boxes as large as the picture, which float16 moves by more than the bound; `build` refuses them.
    ("--precision fp32,fp16", "--precision fp32"),
)
FEWER_STEPS = re.compile(r"^(edgekd (?:train|distill) .*)$")


def commands(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of the fenced blocks that a reader is told to run."""
    return re.findall(r"```(sh|python)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def lines(block: str) -> list[str]:
    for full, small in SMALLER:
        block = block.replace(full, small)
    return [FEWER_STEPS.sub(r"\1 --steps 3", line) for line in block.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.parent.name)
def test_the_commands_of_an_example_work_in_order(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for language, block in commands(page):
        runs = [["sh", "-c", line] for line in lines(block)] if language == "sh" else [[sys.executable, "-c", block]]
        for command in runs:
            ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, f"{command[-1]}\n{ran.stdout}\n{ran.stderr}"
    assert list((tmp_path / "out" / "example" / "pictures").glob("*.png"))


def test_every_example_is_found() -> None:
    assert EXAMPLES
    assert all(commands(page) for page in EXAMPLES)
