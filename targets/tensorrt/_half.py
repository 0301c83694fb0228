"""float32 ONNX -> float16 up to the last heavy layers, with explicit casts, which a strongly typed network keeps to.

The decode tail (exponentials, pixels in the hundreds) stays float32: float16 has 11 significant bits, so at 512 pixels
its steps are half a pixel.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BuildError
from edgekd.quantization.graph import fold_constants

HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LARGEST = float(np.finfo(np.float16).max)
RESIZE_FLOATS = (1, 2)  # roi and scales of Resize are float32 whatever the image's type is


def halve(data: bytes, *, emulate: bool = False) -> bytes:
    """Return the graph with float16 weights and activations up to the head's last convolutions, float32 in and out.

    Args:
        data: ONNX, float32.
        emulate: keep every operator in float32, but round what goes in and out of it to float16, overflow included:
            for a runtime that widens whole chains of float16 operators and would round only at their ends.

    Raises:
        BuildError: nothing to halve, a constant beyond float16's range, or types that do not work out.
    """
    model = onnx.load_from_string(data)
    fold_constants(model.graph)
    halving = _Halving(model, emulate=emulate)
    if not halving.trunk:
        raise BuildError(f"the graph has no {', '.join(HEAVY)} of several output channels: nothing to make float16")
    halving.rewrite()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"the graph does not type-check in float16: {error}") from error
    return bytes(model.SerializeToString())


class _Halving:
    """One rewrite. The float16 twin of tensor `x` is `x_half`; the tail keeps its names, through casts back."""

    def __init__(self, model: onnx.ModelProto, *, emulate: bool) -> None:
        self.emulate = emulate
        self.graph = model.graph
        self.floats = _float_tensors(model)
        self.weights = {item.name: item for item in self.graph.initializer}
        self.inputs = {item.name for item in self.graph.input} - set(self.weights)
        self.trunk = self._trunk()
        self.nodes: list[onnx.NodeProto] = []
        self.twins: set[str] = set()

    def rewrite(self) -> None:
        """Replace the graph's nodes and weights."""
        nodes = list(enumerate(self.graph.node))
        wanted = {item.name for item in self.graph.output}
        wanted |= {name for index, node in nodes if index not in self.trunk for name in node.input}
        for index, node in nodes:
            if index not in self.trunk:
                self.nodes.append(node)
                continue
            self._halve_node(node)
            for name in node.output:
                if name in self.floats and name in wanted:
                    self.nodes.append(_cast(f"{name}_half", name, TensorProto.FLOAT))
        used = {name for node in self.nodes for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)

    def _halve_node(self, node: onnx.NodeProto) -> None:
        half = onnx.NodeProto()
        half.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name in self.floats and not (node.op_type == "Resize" and position in RESIZE_FLOATS):
                half.input[position] = self._twin(name)
        self.nodes.append(half)
        for position, name in enumerate(node.output):
            if name in self.floats:
                half.output[position] = f"{name}_exact" if self.emulate else f"{name}_half"
                self.nodes += self._rounding(f"{name}_exact", f"{name}_half") if self.emulate else []
        for item in () if self.emulate else half.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
                item.i = TensorProto.FLOAT16
            if node.op_type == "ConstantOfShape" and item.t.data_type == TensorProto.FLOAT:
                item.t.CopyFrom(self._half_tensor(item.t, item.t.name))

    def _twin(self, name: str) -> str:
        """Return the float16 twin's name; make it where no node of the trunk does."""
        twin = f"{name}_half"
        if twin not in self.twins:
            self.twins.add(twin)
            if name in self.weights:
                self.graph.initializer.append(self._half_tensor(self.weights[name], twin))
            elif name in self.inputs:
                self.nodes += self._rounding(name, twin)
        return twin

    def _rounding(self, name: str, twin: str) -> list[onnx.NodeProto]:
        """Return the nodes that make `twin` of a float32 tensor."""
        if not self.emulate:
            return [_cast(name, twin, TensorProto.FLOAT16)]
        return [_cast(name, f"{twin}_16", TensorProto.FLOAT16), _cast(f"{twin}_16", twin, TensorProto.FLOAT)]

    def _half_tensor(self, tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
        values = numpy_helper.to_array(tensor)
        finite = values[np.isfinite(values)]
        if finite.size and float(np.abs(finite).max()) > LARGEST:
            raise BuildError(
                f"{tensor.name!r} holds {np.abs(finite).max():.3g}; float16 ends at {LARGEST:.0f}: build fp32"
            )
        half = values.astype(np.float16)
        return numpy_helper.from_array(half.astype(np.float32) if self.emulate else half, name)

    def _trunk(self) -> set[int]:
        """Return the indices of the heavy nodes and of all that they depend on."""
        maker = {name: index for index, node in enumerate(self.graph.node) for name in node.output}
        found: set[int] = set()
        waiting = [index for index, node in enumerate(self.graph.node) if self._is_heavy(node)]
        while waiting:
            index = waiting.pop()
            if index not in found:
                found.add(index)
                waiting += [maker[name] for name in self.graph.node[index].input if name in maker]
        return found

    def _is_heavy(self, node: onnx.NodeProto) -> bool:
        """Whether the node is a layer of several output channels.

        A layer of one output channel is the expectation over a distribution of box edges, part of the decode tail
        (Li et al., NeurIPS 2020, eq. 3), or too small to matter.
        """
        if node.op_type not in HEAVY:
            return False
        weight = next((self.weights[name] for name in node.input[:2] if name in self.weights), None)
        if weight is None:  # attention: a product of two activations
            return True
        dims = list(weight.dims)
        if node.op_type in ("Conv", "ConvTranspose"):
            group = next((item.i for item in node.attribute if item.name == "group"), 1)
            return bool((dims[0] if node.op_type == "Conv" else dims[1] * group) > 1)
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return len(dims) > 1 and bool(dims[-2 if transposed else -1] > 1)


def _cast(source: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"cast_{result}", to=kind)


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 tensors.

    Raises:
        BuildError: ONNX's type inference failed.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise BuildError(f"ONNX cannot infer the graph's types: {error}") from error
    typed = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.value_info, *graph.output)}
    typed |= {item.name: item.data_type for item in graph.initializer}
    return {name for name, kind in typed.items() if kind == TensorProto.FLOAT}
