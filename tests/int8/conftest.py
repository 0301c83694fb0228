"""A bundle that knows its sets, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from . import sets

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle


class Trained(NamedTuple):
    """A bundle as training leaves it, and the folder of its sets."""

    bundle: Bundle
    folder: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The colour detector with its sets."""
    bundle = sets.coloured()
    folder = sets.write_set(tmp_path_factory.mktemp("colours"), bundle)
    return Trained(sets.with_origin(bundle, folder), folder)


@pytest.fixture
def path(trained: Trained, tmp_path: Path) -> Path:
    """The bundle as a file."""
    trained.bundle.write(tmp_path / "model.bin")
    return tmp_path / "model.bin"
