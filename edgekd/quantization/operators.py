"""ONNX operators as PyTorch functions, one small function each.

Functions take the node's inputs in ONNX order, after its attributes if it has any; an omitted input is None. The inputs
listed in `STATIC` (shapes, axes, limits) come as NumPy arrays, since PyTorch wants numbers there, others as tensors.
Semantics: https://onnx.ai/onnx/operators/ (opset 11 to 20; before 13, axes and sizes were attributes).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from ..errors import BuildError

if TYPE_CHECKING:
    import onnx

Attributes = Mapping[str, Any]
Static = NDArray[Any]
Operator = Callable[..., "Tensor | tuple[Tensor, ...]"]


def _window(a: Attributes, x: Tensor, kernel: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations and the pads as (top, left, bottom, right) of a sliding window."""
    if x.ndim != 4:
        raise BuildError(f"a convolution or pooling over {x.ndim - 2} axes; only images (B, C, H, W) can be translated")
    strides, dilations = list(a.get("strides", [1, 1])), list(a.get("dilations", [1, 1]))
    mode = a.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        return strides, dilations, list(a.get("pads", [0, 0, 0, 0])) if mode == "NOTSET" else [0, 0, 0, 0]
    before, after = [], []
    for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return strides, dilations, before + after


def _padded(x: Tensor, pads: list[int], value: float) -> tuple[Tensor, list[int]]:
    """Return x and symmetric pads (height, width), padding by hand what is not symmetric."""
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return x, [top, left]
    return F.pad(x, (left, right, top, bottom), value=value), [0, 0]


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, dilations, pads = _window(a, x, list(weight.shape[2:]))
    x, both = _padded(x, pads, 0.0)
    return F.conv2d(x, weight, bias, strides, both, dilations, a.get("group", 1))


def _conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if a.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in a:
        raise BuildError("ConvTranspose with auto_pad or output_shape; export it with explicit pads")
    strides, dilations, (top, left, bottom, right) = _window(a, x, list(weight.shape[2:]))
    if (top, left) != (bottom, right):
        raise BuildError("ConvTranspose with asymmetric pads; export it with symmetric ones and output_padding")
    extra = list(a.get("output_padding", [0, 0]))
    return F.conv_transpose2d(x, weight, bias, strides, (top, left), extra, a.get("group", 1), dilations)


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    strides, dilations, pads = _window(a, x, list(a["kernel_shape"]))
    x, both = _padded(x, pads, -math.inf)
    return F.max_pool2d(x, a["kernel_shape"], strides, both, dilations, ceil_mode=bool(a.get("ceil_mode", 0)))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    strides, _, (top, left, bottom, right) = _window(a, x, list(a["kernel_shape"]))
    if (top, left) != (bottom, right):
        raise BuildError("AveragePool with asymmetric pads; export it with symmetric ones")
    count = bool(a.get("count_include_pad", 0))
    return F.avg_pool2d(x, a["kernel_shape"], strides, (top, left), bool(a.get("ceil_mode", 0)), count)


def _batch_normalization(
    a: Attributes, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=a.get("epsilon", 1e-5))


def _layer_normalization(a: Attributes, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    shape = x.shape[a.get("axis", -1) % x.ndim :]
    return F.layer_norm(x, shape, scale, shift, a.get("epsilon", 1e-5))


def _clip(x: Tensor, low: Static | None = None, high: Static | None = None) -> Tensor:
    limits = (None if low is None else float(low), None if high is None else float(high))
    return x if limits == (None, None) else torch.clamp(x, *limits)


def _pad(a: Attributes, x: Tensor, pads: Static, value: Static | None = None, axes: Static | None = None) -> Tensor:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(a.get("mode", "constant"))
    if mode is None:
        raise BuildError(f"Pad with mode {a['mode']!r}; possible: constant, reflect, edge")
    around = [(0, 0)] * x.ndim
    for position, axis in enumerate(range(x.ndim) if axes is None else axes):
        around[int(axis)] = (int(pads[position]), int(pads[len(pads) // 2 + position]))
    backwards = [amount for pair in reversed(around) for amount in pair]  # as torch wants them: last axis first
    if mode == "constant":
        return F.pad(x, backwards, value=0.0 if value is None else float(value))
    if any(backwards[4:]):
        raise BuildError(f"Pad with mode {a['mode']!r} over batch or channels; only height and width can be translated")
    return F.pad(x, backwards[:4], mode=mode)


def _resize(
    a: Attributes, x: Tensor, _roi: Static | None = None, scales: Static | None = None, sizes: Static | None = None
) -> Tensor:
    mode, transform = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    if sizes is not None and len(sizes):
        size = [int(item) for item in sizes[-2:]]
    elif scales is not None and len(scales):
        size = [math.floor(length * float(scale)) for length, scale in zip(x.shape[2:], scales[-2:], strict=True)]
    else:
        raise BuildError("Resize without scales or sizes")
    if mode == "nearest":
        whole = all(new % old == 0 for new, old in zip(size, x.shape[2:], strict=True))
        if not whole and (transform, a.get("nearest_mode")) != ("asymmetric", "floor"):
            raise BuildError(
                f"Resize nearest by a fraction with {transform}/{a.get('nearest_mode')}; use asymmetric/floor"
            )
        return F.interpolate(x, size=size, mode="nearest")
    if mode != "linear" or transform not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise BuildError(
            f"Resize with {mode}/{transform}; possible: nearest, or linear with half_pixel or align_corners"
        )
    return F.interpolate(x, size=size, mode="bilinear", align_corners=transform == "align_corners")


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    block = a["blocksize"]
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, block, block, channels // block**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(a: Attributes, x: Tensor) -> Tensor:
    block = a["blocksize"]
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // block, block, width // block, block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * block**2, height // block, width // block)


def _reshape(a: Attributes, x: Tensor, shape: Static) -> Tensor:
    keep = not a.get("allowzero", 0)
    return x.reshape([x.shape[axis] if size == 0 and keep else int(size) for axis, size in enumerate(shape)])


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]) if axis else 1, -1)


def _squeeze(a: Attributes, x: Tensor, axes: Static | None = None) -> Tensor:
    listed = a.get("axes") if axes is None else axes
    return x.squeeze() if listed is None else x.squeeze(tuple(int(axis) for axis in listed))


def _unsqueeze(a: Attributes, x: Tensor, axes: Static | None = None) -> Tensor:
    listed = a["axes"] if axes is None else axes
    for axis in sorted(int(item) % (x.ndim + len(listed)) for item in listed):
        x = x.unsqueeze(axis)
    return x


def _slice(x: Tensor, starts: Static, ends: Static, axes: Static | None = None, steps: Static | None = None) -> Tensor:
    index: list[slice] = [slice(None)] * x.ndim
    for position, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = 1 if steps is None else int(steps[position])
        if step < 1:
            raise BuildError(f"Slice with step {step}; only positive steps can be translated")
        index[position if axes is None else int(axes[position])] = slice(int(start), int(end), step)
    return x[tuple(index)]


def _split(a: Attributes, x: Tensor, sizes: Static | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    if sizes is None and "split" not in a:
        return tuple(torch.split(x, math.ceil(x.shape[axis] / a["outputs"]), axis))
    return tuple(torch.split(x, [int(size) for size in (a["split"] if sizes is None else sizes)], axis))


def _gather(a: Attributes, x: Tensor, indices: Static) -> Tensor:
    axis = a.get("axis", 0)
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    if indices.ndim > 1:
        raise BuildError(f"Gather with {indices.ndim}-dimensional indices; only scalars and lists can be translated")
    return torch.cat([x.narrow(axis, int(index) % x.shape[axis], 1) for index in indices], axis)


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def reduce(a: Attributes, x: Tensor, axes: Static | None = None) -> Tensor:
        listed = a.get("axes", range(x.ndim)) if axes is None else axes
        return function(x, [int(axis) for axis in listed], bool(a.get("keepdims", 1)))

    return reduce


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = (x.t() if a.get("transA", 0) else x), (weight.t() if a.get("transB", 0) else weight)
    product: Tensor = a.get("alpha", 1.0) * (x @ weight)
    return product if bias is None else product + a.get("beta", 1.0) * bias


def _hard_sigmoid(a: Attributes, x: Tensor) -> Tensor:
    return torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0)


def _cast(a: Attributes, x: Tensor) -> Tensor:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool}
    if a["to"] not in kinds:
        raise BuildError(f"Cast to ONNX type {a['to']}; possible: float32 (1), int32 (6), int64 (7), bool (9)")
    return x.to(kinds[a["to"]])


def _expand(x: Tensor, shape: Static) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(int(size) for size in shape)))


def _gelu(a: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=a.get("approximate", "none"))


def _of_one_rank(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return an operator whose order of inputs matters, for inputs of one rank.

    Behind a convolution, where it changes the layout, litert-torch 0.10 takes `1 - x` of a scalar for `x - 1`, and the
    quotient `1 / x` for `x / 1`.
    """

    def apply(first: Tensor, second: Tensor) -> Tensor:
        missing = second.ndim - first.ndim
        return function(first.reshape((1,) * missing + tuple(first.shape)) if missing > 0 else first, second)

    return apply


def _each(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return the operator of any number of inputs that applies a function of two from the left."""
    return lambda first, *rest: functools.reduce(function, rest, first)


PLAIN: dict[str, Operator] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Clip": _clip,
    "Cos": torch.cos,
    "Div": _of_one_rank(torch.div),
    "Dropout": lambda x, *_: x,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Expand": _expand,
    "Floor": torch.floor,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax((2, 3), keepdim=True),
    "Greater": torch.gt,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "Less": torch.lt,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Max": _each(torch.maximum),
    "Min": _each(torch.minimum),
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Pow": _of_one_rank(torch.pow),
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Slice": _slice,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Sub": _of_one_rank(torch.sub),
    "Tanh": torch.tanh,
    "Where": torch.where,
}
"""Functions of the inputs alone."""

WITH_ATTRIBUTES: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concat": lambda a, *inputs: torch.cat(inputs, a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": lambda a, x: x.permute(a.get("perm", tuple(reversed(range(x.ndim))))),
    "Unsqueeze": _unsqueeze,
}
"""Functions of the node's attributes, then the inputs."""

SUPPORTED = tuple(sorted({*PLAIN, *WITH_ATTRIBUTES}))

STATIC: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "Expand": (1,),
    "Gather": (1,),
    "Pad": (1, 2, 3),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
"""Positions of the inputs that must be constants of the graph."""


def bind(node: onnx.NodeProto) -> Operator:
    """Return the function of a node's inputs, its attributes bound; its operator is one of `SUPPORTED`."""
    if node.op_type in PLAIN:
        return PLAIN[node.op_type]
    plain: dict[str, Any] = {"outputs": len(node.output)}  # Split may say its number of parts in no other way
    for item in node.attribute:
        value = helper.get_attribute_value(item)
        plain[item.name] = value.decode() if isinstance(value, bytes) else value
    return functools.partial(WITH_ATTRIBUTES[node.op_type], plain)
