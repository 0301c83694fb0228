"""Networks that put out what a test wants, as ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Network = Callable[..., Path]

NAMES = ("red", "green", "blue")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Return a writer of networks that put out given arrays `(1, ...)`, plus `weight` times the mean of the image."""

    def write(
        outputs: dict[str, NDArray[np.float32]],
        *,
        shape: tuple[int | str, ...] = (1, 3, 64, 64),
        kind: int = TensorProto.FLOAT,
        opset: int = 17,
        weight: float = 0.0,
        extra: tuple[onnx.NodeProto, ...] = (),
    ) -> Path:
        half = kind == TensorProto.FLOAT16
        nodes = [  # (images, ...) -> (images, 1, 1)
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Transpose", ["pooled"], ["turned"], perm=[0, 2, 3, 1]),
            helper.make_node("GlobalAveragePool", ["turned"], ["whole"]),
            helper.make_node("Reshape", ["whole", "flat"], ["mean"]),
        ]
        nodes.append(helper.make_node("Mul", ["mean", "weight"], ["light"]))
        constants = [numpy_helper.from_array(np.array(weight, np.float16 if half else np.float32), "weight")]
        constants.append(numpy_helper.from_array(np.array([0, 1, 1]), "flat"))
        infos = []
        for name, array in outputs.items():
            value = array.astype(np.float16 if half else np.float32)
            constants.append(numpy_helper.from_array(value, f"{name}_value"))
            nodes.append(helper.make_node("Add", [f"{name}_value", "light"], [name]))
            infos.append(helper.make_tensor_value_info(name, kind, [shape[0], *array.shape[1:]]))
        image = helper.make_tensor_value_info("input", kind, list(shape))
        graph = helper.make_graph([*nodes, *extra], "net", [image], infos, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write
