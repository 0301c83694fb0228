"""A stand-in for `tensorrt.plugin`: what TensorRT 10.9 checks of a plugin, and how it launches one made ahead of time.

As far as its sources (python/packages/bindings_wheel/tensorrt/plugin of NVIDIA/TensorRT) and documentation say:
annotations are classes, the parameters have one order, scalars are integers, and the kernel is given the addresses of
the inputs, the scalars, the addresses of the outputs. Attributes come as the parser's arrays of one element: in the
declared type where an array was declared, else as what the declared class makes of the array.
"""

from __future__ import annotations

import ctypes
import inspect
import typing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .tensorrt_host import KERNELS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..kernels.cuda_library import CudaKernels

SERIALIZABLE = (int, float, bytes, bool, str)
SERIALIZABLE_ARRAYS = (np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_)
KINDS = {"float32": np.float32, "int32": np.int32}


def dtype_of(kind: Any) -> Any:
    """Return the type of the elements of an `NDArray[...]`, or None of another class."""
    return typing.get_args(typing.get_args(kind)[1])[0] if typing.get_origin(kind) is np.ndarray else None


def handed_over(item: Any, kind: Any) -> Any:
    """Return what a plugin is given of a node's attribute."""
    parsed = np.array([item.f], np.float32) if item.type == item.FLOAT else np.array([item.i], np.int32)
    dtype = dtype_of(kind)
    return kind(parsed) if dtype is None else parsed.astype(dtype)


class SymInt32:
    """An integer, or the side of a shape, which is one here too."""

    def __init__(self, value: Any) -> None:
        self.value = value.value if isinstance(value, SymInt32) else value
        assert isinstance(self.value, int), f"{self.value!r}: only integers"
        assert -(2**31) <= self.value < 2**31


class SymIntExprs:
    def __init__(self, values: list[SymInt32]) -> None:
        self.values = values

    @classmethod
    def from_tuple(cls, values: Any) -> SymIntExprs:
        assert all(isinstance(item, SymInt32) for item in values)
        return cls(list(values))


class KernelLaunchParams:
    grid_x: Any = 1
    block_x: Any = 1
    shared_mem: Any = 0


class TensorDesc:
    def __init__(self, shape: tuple[Any, ...], dtype: Any) -> None:
        self.shape_expr = [side if isinstance(side, SymInt32) else SymInt32(side) for side in shape]
        self.dtype = dtype


class FakePlugins:
    """`tensorrt.plugin`, and its registry."""

    TensorDesc, KernelLaunchParams, SymInt32, SymIntExprs = TensorDesc, KernelLaunchParams, SymInt32, SymIntExprs

    def __init__(self) -> None:
        self.registry: dict[str, SimpleNamespace] = {}

    @staticmethod
    def from_shape_expr(shape: tuple[Any, ...], dtype: Any) -> TensorDesc:
        return TensorDesc(shape, dtype)

    def register(self, name: str) -> Callable[..., Any]:
        def decorate(function: Any) -> Any:
            assert name not in self.registry, f"{name} is registered already"
            parameters = inspect.signature(function).parameters
            tensors = [key for key, item in parameters.items() if issubclass(item.annotation, TensorDesc)]
            attributes = {key: item.annotation for key, item in parameters.items() if key not in tensors}
            assert list(parameters) == [*tensors, *attributes], "tensors come first"
            assert all(kind in SERIALIZABLE or dtype_of(kind) in SERIALIZABLE_ARRAYS for kind in attributes.values())
            assert all(item.default is inspect.Parameter.empty for item in parameters.values())
            given = inspect.signature(function).return_annotation
            assert typing.get_origin(given) is tuple
            assert all(issubclass(item, TensorDesc) for item in typing.get_args(given))
            self.registry[name] = SimpleNamespace(
                describe=function, tensors=tensors, attributes=attributes, outputs=len(typing.get_args(given))
            )
            return function

        return decorate

    def aot_impl(self, name: str) -> Callable[..., Any]:
        def decorate(function: Any) -> Any:
            found = self.registry[name]
            signature = inspect.signature(function)
            assert list(signature.parameters) == [*found.tensors, *found.attributes, "outputs", "tactic"]
            assert all(signature.parameters[name].annotation == kind for name, kind in found.attributes.items())
            kinds = typing.get_args(signature.return_annotation)
            assert kinds == (bytes, bytes, KernelLaunchParams, SymIntExprs)
            found.implement = function
            return function

        return decorate

    def run(self, kernels: CudaKernels, node: Any, boxes: NDArray[Any], scores: NDArray[Any]) -> list[NDArray[Any]]:
        """Launch a node's kernel as TensorRT does; return its outputs, which begin as garbage."""
        values = {item.name: item for item in node.attribute}
        found = self.registry[f"{values['plugin_namespace'].s.decode()}::{node.op_type}"]
        assert values["aot"].i == 1
        given = {name: handed_over(values[name], kind) for name, kind in found.attributes.items()}
        inputs = [TensorDesc(array.shape, "float32") for array in (boxes, scores)]
        described = found.describe(*inputs, **given)
        assert len(described) == found.outputs == len(node.output)
        outputs = [np.full([side.value for side in item.shape_expr], 0x5A, KINDS[item.dtype]) for item in described]
        name, ptx, launch, extra = found.implement(*inputs, **given, outputs=described, tactic=0)
        assert name in ptx
        addresses = [array.ctypes.data for array in (boxes, scores, *outputs)]
        pointers = [ctypes.c_void_p(address) for address in addresses]
        scalars = [ctypes.c_int32(item.value) for item in extra.values]
        parameters = [*pointers[:2], *scalars, *pointers[2:]]
        table = (ctypes.c_void_p * len(parameters))(*(ctypes.addressof(item) for item in parameters))
        with KERNELS_AT_ONCE:
            status = kernels.lib.emulation_launch_block(
                name, launch.grid_x.value, launch.block_x, kernels.ffi.cast("void **", ctypes.addressof(table))
            )
        assert (status, launch.shared_mem) == (0, 0)
        return outputs
