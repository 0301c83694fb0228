"""A board with another processor: 64-bit ARM Debian under emulation behind a real sshd; bootstrap, flash, profile.

Opt-in, as root: `tests/device/arm_root.sh ROOT`, then `EDGEKD_TEST_ARM_ROOT=ROOT`. Minutes: every instruction is
translated. What the board computes is compared with what this machine does.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd._target import load_target

from ..conformance import bundles
from .sshd import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgekd.device import SshDevice

ROOT = os.environ.get("EDGEKD_TEST_ARM_ROOT", "")
MODELS, SYSTEM = "/var/lib/edgekd", "/usr/bin/python3"
PYTHON, EDGEKD = (f"{MODELS}/.runtime/current/bin/{name}" for name in ("python", "edgekd"))
CURRENT = f"{MODELS}/model/current/model.bin"

pytestmark = [
    pytest.mark.skipif(not ROOT, reason="opt-in: EDGEKD_TEST_ARM_ROOT=FOLDER that tests/device/arm_root.sh made"),
    pytest.mark.skipif(load_target("tflite").probe_build() is not None, reason="LiteRT's converter is not installed"),
    pytest.mark.timeout(3000),
]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshDevice]:
    """The root behind sshd: every command runs in it, with a /proc and /dev of its own."""
    shutil.rmtree(f"{ROOT}{MODELS}", ignore_errors=True)
    folder = tmp_path_factory.mktemp("sshd")
    enter = folder / "enter.sh"
    enter.write_text(
        f"#!/bin/sh\nexec unshare --mount sh -c 'mount -t proc proc {ROOT}/proc && mount --rbind /dev {ROOT}/dev && "
        f"cd / && exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "
        f'chroot {ROOT} /bin/sh -c "$SSH_ORIGINAL_COMMAND"\'\n'
    )
    enter.chmod(0o755)
    with served(folder, configuration=f"ForceCommand {enter}\n") as device:
        yield device


def written(folder: Path, name: str, *, conf: float) -> Path:
    """Return a bundle with LiteRT artifacts; another threshold makes another bundle."""
    import dataclasses

    bundle = bundles.built("tflite", "fp32").bundle
    manifest = bundle.manifest
    predict = dataclasses.replace(manifest.predict, conf=conf)
    bundle.replace(dataclasses.replace(manifest, predict=predict)).write(folder / name)
    return folder / name


def said(board: SshDevice, *command: str) -> str:
    lines: list[str] = []
    done = board.run(command, listen=lines.append)
    assert done.code == 0, done.errors
    return "\n".join(lines)


def found_there(board: SshDevice, picture: str) -> Any:
    return json.loads(said(board, EDGEKD, "predict", CURRENT, picture, "--json").splitlines()[-1])


def test_the_board_is_of_another_processor(board: SshDevice) -> None:
    assert said(board, "uname", "-m") == "aarch64"


def test_flash_rollback_and_predictions_on_arm(board: SshDevice, tmp_path: Path) -> None:
    old, new = (written(tmp_path, f"{name}.bin", conf=conf) for name, conf in (("old", 0.25), ("new", 0.4)))
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
        there = found_there(board, "/picture.png")
        with edgekd.load(path, device="tflite") as detector:
            here = detector.predict(pixels, color="rgb")
        assert len(here) > 3
        np.testing.assert_allclose(np.array(there["boxes"]), here.boxes, atol=0.5)
        np.testing.assert_allclose(np.array(there["scores"]), here.scores, atol=1e-3)
    edgekd.rollback(board, root=MODELS, python=PYTHON)
    state = edgekd.status(board, root=MODELS, python=PYTHON)
    assert state["whole"]
    with edgekd.load(old, device="tflite") as detector:
        assert len(found_there(board, "/picture.png")["scores"]) == len(detector.predict(pixels, color="rgb"))


def test_kernels_there_are_compiled_and_verify_passes(board: SshDevice) -> None:
    assert "neon" in said(board, PYTHON, "-c", "from edgekd import native; print(*native.available())")
    assert "tflite" in said(board, EDGEKD, "verify", CURRENT)


def test_profile_over_the_link_says_what_the_board_is(board: SshDevice, tmp_path: Path) -> None:
    path = written(tmp_path, "model.bin", conf=0.25)
    found = edgekd.profile(path, on=board, python=PYTHON, calls=5, layers=0)
    assert len(found.start_s) == 5
    assert "aarch64" in json.dumps(found.to_dict()["machine"])
