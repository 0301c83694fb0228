"""An engine with our suppression inside, as the fake TensorRT runs it: the network on ONNX Runtime, then our kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from .tensorrt_fake import FLOAT, NamedEngine
from .tensorrt_host import view

if TYPE_CHECKING:
    from .tensorrt_fake import FakeTensorRT

INT32 = SimpleNamespace(name="INT32")


class SingleEngine(NamedEngine):
    """Tensors by name; the whole numbers are INT32."""

    def __init__(self, fake: FakeTensorRT, graph: bytes) -> None:
        model = onnx.load_from_string(graph)
        outputs = list(model.graph.output)
        (self._node,) = [item for item in model.graph.node if item.domain]
        model.graph.node.remove(self._node)
        del model.graph.output[:]
        model.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self._node.input
        )
        super().__init__(
            fake, onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        )
        self.names = [self.names[0], *(item.name for item in outputs)]
        self.shapes = [
            self.shapes[0],
            *((-1, *(side.dim_value for side in item.type.tensor_type.shape.dim[1:])) for item in outputs),
        ]
        self._kinds = {item.name: item.type.tensor_type.elem_type for item in outputs}

    def get_tensor_dtype(self, name: str) -> Any:
        return INT32 if self._kinds.get(name) == TensorProto.INT32 else FLOAT

    def _run(self, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        pixels = view(addresses[self.names[0]], shape, np.float32)
        boxes, scores = self.session.run(None, {self.names[0]: pixels})
        found = self.fake.module.plugin.run(self.fake.kernels, self._node, boxes, scores)
        for name, array in zip(self.names[1:], found, strict=False):  # behind them the workspace
            view(addresses[name], array.shape, array.dtype)[...] = array
