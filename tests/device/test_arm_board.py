"""A board with another processor: 64-bit ARM Debian under emulation behind a real sshd; bootstrap, flash, profile.

Opt-in, as root: `tests/device/arm_root.sh ROOT`, then `EDGEKD_TEST_ARM_ROOT=ROOT`. Minutes: every instruction is
translated. What the board computes is compared with what this machine does.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd._target import load_target

from ..conformance import bundles
from .arm_board import EDGEKD, MODELS, PYTHON, ROOT, SYSTEM, WHY_SKIPPED, emulated, found_there, said, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgekd.device import SshDevice

CURRENT = f"{MODELS}/model/current/model.bin"

pytestmark = [
    pytest.mark.skipif(not ROOT, reason=WHY_SKIPPED),
    pytest.mark.skipif(load_target("tflite").probe_build() is not None, reason="LiteRT's converter is not installed"),
    pytest.mark.timeout(3000),
]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshDevice]:
    """The root, with nothing of edgekd in it."""
    shutil.rmtree(f"{ROOT}{MODELS}", ignore_errors=True)
    with emulated(tmp_path_factory.mktemp("sshd")) as device:
        yield device


def test_the_board_is_of_another_processor(board: SshDevice) -> None:
    assert said(board, "uname", "-m") == "aarch64"


def test_flash_rollback_and_predictions_on_arm(board: SshDevice, tmp_path: Path) -> None:
    old, new = (written(tmp_path / f"{name}.bin", conf=conf) for name, conf in (("old", 0.25), ("new", 0.4)))
    options: dict[str, Any] = {"root": MODELS, "watch_s": 0, "runs": 3, "max_slowdown": 1000}
    first = edgekd.flash(old, board, python=SYSTEM, bootstrap=f"{ROOT}/wheels", **options)
    assert first.steps[0].name == "bootstrap"
    assert first.changed
    pixels = bundles.pictures(1)[0]
    Image.fromarray(pixels).save(f"{ROOT}/picture.png")
    for path, report in ((old, first), (new, None)):
        if report is None:
            report = edgekd.flash(path, board, python=PYTHON, **options)
            assert report.sent_bytes <= 0.2 * report.size_bytes, "only what changed is sent"
        there = found_there(board, CURRENT, "/picture.png")
        with edgekd.load(path, device="tflite") as detector:
            here = detector.predict(pixels, color="rgb")
        assert len(here) > 3
        np.testing.assert_allclose(np.array(there["boxes"]), here.boxes, atol=0.5)
        np.testing.assert_allclose(np.array(there["scores"]), here.scores, atol=1e-3)
    edgekd.rollback(board, root=MODELS, python=PYTHON)
    state = edgekd.status(board, root=MODELS, python=PYTHON)
    assert state["whole"]
    with edgekd.load(old, device="tflite") as detector:
        assert len(found_there(board, CURRENT, "/picture.png")["scores"]) == len(detector.predict(pixels, color="rgb"))


def test_kernels_there_are_compiled_and_verify_passes(board: SshDevice) -> None:
    assert "neon" in said(board, PYTHON, "-c", "from edgekd import native; print(*native.available())")
    assert "tflite" in said(board, EDGEKD, "verify", CURRENT)


def test_profile_over_the_link_says_what_the_board_is(board: SshDevice, tmp_path: Path) -> None:
    path = written(tmp_path / "model.bin", conf=0.25)
    found = edgekd.profile(path, on=board, python=PYTHON, calls=5, layers=0)
    assert len(found.start_s) == 5
    assert "aarch64" in json.dumps(found.to_dict()["machine"])
