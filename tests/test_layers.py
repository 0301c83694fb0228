"""Who may import whom: the table of AGENTS.md, checked on the syntax tree of every file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VENDOR = {
    "torch", "onnx", "onnxruntime", "onnxslim", "openvino", "ai_edge_litert", "tflite_runtime", "litert_torch",
    "tensorrt", "tensorrt_rtx_bindings", "pycuda", "jax", "transformers",
}  # fmt: skip
LAYER_2 = {
    "errors", "geometry", "_anomaly_presets", "_anomaly_recipe", "_comparison", "_detections", "_image_input",
    "_manifest", "_receipts", "_recipe", "_thresholds",
}  # fmt: skip
LAYER_3 = {
    "_bundle",
    "_container",
    "_foreign",
    "_manifest_json",
    "_signature",
    "_strict_json",
    "_session",
    "_target",
    "native",
    "ops",
}
LAYER_4 = {
    "profiling",
    "_anomaly",
    "_box_difference",
    "_cuda_images",
    "_decisions",
    "_detector",
    "_engine",
    "_golden",
    "_page",
    "_pipeline",
    "_plot",
    "_pool",
    "_preprocess",
    "_select",
    "_sources",
    "_stream",
    "_tiles",
    "device",
}
VERBS = {
    "_train", "_distill", "_import", "_import_artifact", "_import_request", "_sidecar", "_build", "_profile", "_eval",
    "_verify", "_inspect", "_doctor", "_data", "_demo",
    "_flash", "_int8", "_selftest", "_selftest_board",
    "_serve", "_serving", "_set_thresholds", "_remote", "_profile_board", "_profile_on",
    "_profile_receipt", "_accuracies", "_accuracy_receipt", "_pick", "_export", "_export_files",
}  # fmt: skip
HTTP = {"starlette", "uvicorn"}  # of the extra `serve`
ONLY_WHEN_CALLED = {("_detections", "_plot")}  # a method that draws; the import is inside it


def _room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if relative.parts[0] == "targets":
        return "target" if len(relative.parts) > 2 else "targets"
    if relative.parts[0] == "kernels":
        return "kernels"
    return relative.parts[1].removesuffix(".py")  # a module of its own, or the package it is in


def _imports(path: Path) -> list[tuple[str, str | None, bool]]:
    """Return (top-level package, edgekd module or None, at module level) of every import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    nested = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    package = _package(path)
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*stem, item.name]) for item in node.names]
        for name in names:
            parts = name.split(".")
            inner_module = parts[1] if parts[0] == "edgekd" and len(parts) > 1 else None
            found.append((parts[0], inner_module, id(node) not in nested))
    return found


def _package(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    return ["edgekd", *parts] if parts[0] in ("targets", "kernels") else parts


FILES = sorted(
    path
    for folder in ("edgekd", "targets", "kernels")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "_native.py"
)


def _allowed(room: str) -> set[str] | None:
    """Return the edgekd modules a room may import, or None for "anything"."""
    facade = {"__init__", "__main__"}
    if room == "kernels":
        return set()
    if room in LAYER_2:
        return LAYER_2
    if room in LAYER_3:
        return LAYER_2 | LAYER_3 | {"targets", "_native"}
    if room in LAYER_4:
        return LAYER_2 | LAYER_3 | LAYER_4
    if room in ("target", "targets"):
        return LAYER_2 | LAYER_3 | {"targets", "kernels", "quantization"}
    if room == "training":
        return LAYER_2 | LAYER_3 | LAYER_4 | {"training", "quantization"}
    if room == "quantization":
        return LAYER_2 | LAYER_3 | LAYER_4 | {"quantization"}
    if room == "importing":
        return LAYER_2 | {"importing"}
    if room in VERBS:
        return LAYER_2 | LAYER_3 | LAYER_4 | VERBS | {"importing", "quantization", "training"}
    if room in facade:
        return None
    return None if room == "cli" else set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layer_table(path: Path) -> None:
    room = _room(path)
    known = (
        LAYER_2
        | LAYER_3
        | LAYER_4
        | VERBS
        | {"cli", "importing", "quantization", "training", "target", "targets", "kernels", "__init__", "__main__"}
    )
    assert room in known, f"{path} is in no layer: add it to this test and to AGENTS.md"
    allowed = _allowed(room)
    for top, module, at_module_level in _imports(path):
        where = f"{path.relative_to(ROOT)} imports {top}{'.' + module if module else ''}"
        if top in ("targets", "kernels"):
            pytest.fail(f"{where}: from the root these are second copies")
        if top == "edgekd" and module and allowed is not None and (room, module) not in ONLY_WHEN_CALLED:
            assert module in allowed or module.isupper() or module == "__version__", where
        if module in ("training", "importing", "quantization") and room in VERBS:
            assert not at_module_level, f"{where} at module level: torch or onnx would load with it"
        if module == "_serving" and room != "_serving":
            assert not at_module_level, f"{where} at module level: Starlette and Uvicorn would load with it"
        if top in HTTP:
            assert room == "_serving", f"{where}: only _serving/ knows the HTTP stack"
        if top in VENDOR and room not in ("training", "importing", "quantization", "target"):
            pytest.fail(f"{where}: vendor packages belong to targets/, training/, importing/ and quantization/")
        if top in VENDOR and room == "target":
            private = path.name.startswith("_") and path.name != "__init__.py"
            assert private or not at_module_level, f"{where}: SDKs load on first use"


def test_sessions_never_import_builders() -> None:
    for path in (ROOT / "targets").glob("*/_session.py"):
        assert "_build" not in path.read_text(encoding="utf-8"), f"{path}: a device carries only the runtime"


def test_targets_never_import_each_other() -> None:
    names = {path.name for path in (ROOT / "targets").iterdir() if path.is_dir() and not path.name.startswith("_")}
    for path in (ROOT / "targets").glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                others = names - {path.parent.name}
                assert not (node.level == 2 and node.module.split(".")[0] in others), f"{path} imports another target"
                assert not any(f"targets.{other}" in node.module for other in others), f"{path} imports another target"


def test_core_never_names_a_target() -> None:
    for path in (ROOT / "edgekd").glob("_*.py"):
        room = path.stem
        if room in LAYER_3 | LAYER_4:
            code = [
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant)
            ]
            for target in ("openvino", "tflite", "tensorrt"):
                assert target not in code, f"{path} names the target {target}"


def test_every_target_folder_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for init in (ROOT / "targets").glob("*/__init__.py"):
        assert f'"edgekd.targets.{init.parent.name}"' in text
    for init in (ROOT / "edgekd").rglob("__init__.py"):
        assert f'"{".".join(init.parent.relative_to(ROOT).parts)}"' in text


def test_the_running_package_is_this_checkout() -> None:
    import edgekd

    assert Path(edgekd.__file__).resolve().parent == ROOT / "edgekd", sys.path
