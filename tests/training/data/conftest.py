"""Fixtures of the data tests: picture files, and the real data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a noise image `(height, width)` below the test's folder."""

    def write(name: str, width: int = 64, height: int = 48, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes a text file below the test's folder."""

    def text(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    return text


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Return a function that gives the folder of a real data set, or skips naming it."""

    def folder(name: str) -> Path:
        path = Path(os.environ.get("EDGEKD_DATA", ROOT.parent / "shared" / "data")) / name
        if not path.is_dir():
            pytest.skip(f"the data set {name} is not at {path}")
        return path

    return folder
