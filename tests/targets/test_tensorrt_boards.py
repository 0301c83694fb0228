"""Boards: the TOML files are sound, and a board is recognised from the files that one has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from edgekd.targets.tensorrt import _boards

from edgekd import _cuda_images
from edgekd._target import load_target

ROOT = Path(__file__).resolve().parents[2]
NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
RELEASE = (
    "# R{} (release), REVISION: {}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
)
PACKAGE = "Package: libnvinfer{}\nStatus: install ok {}\nArchitecture: arm64\nVersion: {}\n\n"


def root(folder: Path, model: str = "", release: str = "", packages: str = "") -> Path:
    for name, text in ((_boards.MODEL, model), (_boards.RELEASE, release), (_boards.PACKAGES, packages)):
        if text:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder


def test_boards_are_sound() -> None:
    assert [item.name for item in _boards.boards()] == ["agx-orin", "agx-thor", "orin-nano", "orin-nx", "xavier-nx"]
    for board in _boards.boards():
        assert board.capability in _cuda_images.architectures()
        assert board.releases
        assert list(board.ram_gib) == sorted(board.ram_gib)
        newest = [tuple(int(part) for part in item.l4t.split(".")) for item in board.releases]
        assert len(set(newest)) == len(newest)
        for release in board.releases:
            assert re.fullmatch(r"\d+\.\d+(\.\d+)?", release.tensorrt)


@pytest.mark.parametrize(
    ("model", "release", "board", "jetpack"),
    [
        (f"{NANO}\0", RELEASE.format(36, "4.3"), "orin-nano", "6.1 to 6.2.1"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0", RELEASE.format(36, "3.0"), "orin-nx", "6.0"),
        ("Jetson AGX Orin Developer Kit\0", RELEASE.format(39, "2.0"), "agx-orin", "7.2"),
        ("NVIDIA Jetson Xavier NX Developer Kit\0", RELEASE.format(35, "4.1"), "xavier-nx", "5.1"),
        ("NVIDIA Jetson AGX Thor Developer Kit\0", RELEASE.format(38, "2.0"), "agx-thor", "7.0 to 7.1"),
    ],
)
def test_board_is_recognised(tmp_path: Path, model: str, release: str, board: str, jetpack: str) -> None:
    found = _boards.machine(root(tmp_path, model, release, PACKAGE.format(10, "installed", "10.3.0.30-1+cuda12.5")))
    assert found is not None
    assert found.board is not None
    assert found.release is not None
    assert (found.board.name, found.release.jetpack, found.tensorrt) == (board, jetpack, "10.3.0.30")


def test_board_with_everything_has_two_lines(tmp_path: Path) -> None:
    held = root(tmp_path, NANO, RELEASE.format(36, "4.3"), PACKAGE.format(10, "installed", "1:10.3.0.30-1+cuda12.5"))
    assert load_target("tensorrt").board(held) == (  # type: ignore[attr-defined]
        "Jetson Orin Nano (Super), L4T 36.4.3, SM87, 0 DLA, 4/8 GiB",
        "JetPack 6.1 to 6.2.1: TensorRT 10.3.0, CUDA 12.6, Python 3.10",
    )


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ("", "sudo apt-get install nvidia-jetpack"),
        (PACKAGE.format(10, "deinstall ok config-files", "10.3.0.30-1"), "sudo apt-get install nvidia-jetpack"),
        (PACKAGE.format(8, "installed", "8.6.2.3-1+cuda12.2"), "TensorRT 8.6.2.3 is installed, which is not"),
        ("Package: libnvinfer-bin\nStatus: install ok installed\nVersion: 1-1\n", "nvidia-jetpack"),
    ],
)
def test_missing_or_strange_tensorrt_is_said(tmp_path: Path, packages: str, said: str) -> None:
    found = _boards.machine(root(tmp_path, NANO, RELEASE.format(36, "4.3"), packages))
    assert found is not None
    assert said in found.lines()[-1]


def test_unknown_board_and_release_are_said(tmp_path: Path) -> None:
    found = _boards.machine(root(tmp_path / "a", "NVIDIA Jetson TX2", RELEASE.format(32, "7.1")))
    assert found is not None
    assert found.lines() == ("NVIDIA Jetson TX2, L4T 32.7.1: no board that edgekd has a file for",)
    found = _boards.machine(root(tmp_path / "b", NANO, RELEASE.format(36, "41.1")))
    assert found is not None
    assert "L4T 36.41.1 is not one that edgekd knows on it; known: 39.2 (JetPack 7.2), 36.4" in found.lines()[1]
    found = _boards.machine(root(tmp_path / "c", NANO, "garbage"))
    assert found is not None
    assert found.l4t == ""


def test_board_in_a_container_without_its_device_tree_is_a_jetson(tmp_path: Path) -> None:
    found = _boards.machine(root(tmp_path, "", RELEASE.format(36, "4.3")))
    assert found is not None
    assert found.lines() == (
        "a Jetson, L4T 36.4.3; its device tree does not show, as in a container: run doctor outside",
    )


def test_other_machines_are_no_board(tmp_path: Path) -> None:
    assert _boards.machine(tmp_path) is None
    assert _boards.machine(root(tmp_path, "Raspberry Pi 5 Model B")) is None
    assert load_target("tensorrt").board(tmp_path) == ()  # type: ignore[attr-defined]


def test_l4t_without_a_release_file_is_empty(tmp_path: Path) -> None:
    assert _boards.l4t(tmp_path) == _boards.device_tree_model(tmp_path) == ""
    assert _boards.device_tree_model(root(tmp_path, f"{NANO}\0")) == NANO
    assert _boards.l4t(root(tmp_path, release=RELEASE.format(36, "4.3"))) == "36.4.3"


def test_table_of_the_guide_is_that_of_the_files() -> None:
    page = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    table = page.split("<!-- boards: ")[1].split("<!-- /boards -->")[0].split("\n", 3)[3].strip()
    rows = [
        f"| {board.title} | {board.capability} | {'/'.join(map(str, board.ram_gib))} | {board.dla} | "
        f"{', '.join(board.power_modes)} | {'; '.join(f'{each.jetpack}: {each.tensorrt}' for each in board.releases)} |"
        for board in _boards.boards()
    ]
    assert table.splitlines() == rows
