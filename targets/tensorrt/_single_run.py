"""An engine from pixels to detections, run here: who exported it wants to know that it finds what it should."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _device, _runtime
from ._nms_node import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Detected = tuple["NDArray[np.float32]", "NDArray[np.float32]", "NDArray[np.int64]"]


def run(plan: bytes, pixels: Sequence[NDArray[np.float32]]) -> list[Detected]:
    """Return boxes, scores and labels of each image `(1, 3, H, W)` float32, 0 to 255.

    Raises:
        SessionError: TensorRT does not take the engine, or did not run it.
    """
    tensorrt = _runtime.find()
    device = _device.open_device(0)
    try:
        with device.current(), contextlib.ExitStack() as held:
            engine = tensorrt.load(plan)
            held.callback(engine.close)
            stream = device.stream()
            held.callback(stream.free)
            arrays: dict[str, NDArray[Any]] = {
                name: np.empty((1, *shape), np.int32 if kind == "INT32" else np.float32)
                for name, (shape, kind) in engine.tensors().items()
            }
            memory = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
            for item in memory.values():
                held.callback(item.free)
            (source,) = set(arrays) - set(OUTPUTS)
            addresses = {name: item.address for name, item in memory.items()}
            context = engine.context(source, arrays[source].shape, addresses)
            held.callback(context.close)
            found = []
            for image in pixels:
                stream.upload(addresses[source], image)
                context.enqueue(stream.handle)
                for name in OUTPUTS:
                    stream.download(arrays[name], addresses[name])
                stream.synchronize()
                found.append(_kept(arrays))
            return found
    finally:
        device.close()


def _kept(arrays: dict[str, NDArray[Any]]) -> Detected:
    """Return copies of the rows that count: behind them there is padding."""
    count, boxes, scores, labels = (arrays[name] for name in OUTPUTS)
    rows = slice(int(count[0, 0]))
    return boxes[0, rows].copy(), scores[0, rows].copy(), labels[0, rows].astype(np.int64)
