"""The wheel: one top-level name, the kernels' sources, every target, small; and constraints that pin torch."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        source = ROOT / name
        if name and source.is_file() and not name.startswith(("benchmarks/", "tests/", "docs/")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_is_abi3_and_small(wheel: zipfile.ZipFile) -> None:
    name = Path(wheel.filename or "").name
    assert "-cp310-abi3-" in name
    assert Path(wheel.filename or "").stat().st_size <= 10 * 2**20


def test_wheel_has_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"edgekd"}


def test_wheel_holds_kernels_targets_and_no_weights_but_the_teacher_of_textures(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "edgekd/_native.abi3.so" in names
    assert "edgekd/py.typed" in names
    assert "edgekd/bundle.schema.json" in names
    assert {f"edgekd/_serving/overlay.{kind}" for kind in ("html", "js", "css")} <= names
    for file in (ROOT / "kernels").iterdir():
        if file.suffix in (".h", ".cc", ".cu"):
            assert f"edgekd/kernels/{file.name}" in names
    for target in ("openvino", "reference", "tensorrt", "tflite"):
        assert f"edgekd/targets/{target}/__init__.py" in names
    weights = [name for name in names if name.endswith((".safetensors", ".npz", ".onnx", ".bin"))]
    assert weights == ["edgekd/training/anomaly/textures.safetensors"]


def test_every_python_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for file in (ROOT / "edgekd").rglob("*.py"):
        assert str(file.relative_to(ROOT)) in names
    for file in (ROOT / "targets").rglob("*.py"):
        assert f"edgekd/{file.relative_to(ROOT)}" in names


def test_constraints_pin_every_direct_requirement() -> None:
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    assert "torch" in pinned
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text[text.index("[project.optional-dependencies]") : text.index("[project.scripts]")]
    wanted = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'"([A-Za-z0-9_.-]+?)(?:[><=;].*?)?"', block)}
    unpinned = wanted - pinned - {"pycuda"}  # pycuda is for aarch64 boards only
    assert not {name for name in unpinned if not name.startswith(("x86", "aarch"))}
