"""An int8 graph at an int8 graph's size: its float32 weights are kept as the int8 that they are, and put back exactly.

TensorRT's parser gets float32 weights in front of QuantizeLinear (`_pairs.py`), four times what they say. The packed
form is the graph with these weights blanked, and for each its place, int8 values and scales; `unpack` needs NumPy alone
and gives the same bytes again. zlib around all of it:

    8 bytes    length of the JSON, little endian
    JSON       a list of {offset: in the graph, shape, axis}
    int8       the weights, one after another
    float32    their scales, likewise
    graph      with zeros where the weights go
"""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NAME = "model.onnx.packed"
MOST_BYTES = 4 << 30  # of an unpacked graph; protobuf itself ends at 2 GiB
_LENGTH_BYTES = 8


def pack(graph: bytes) -> bytes:
    """Return the packed form of a graph; what is no pair of int8 weights stays as it is.

    Args:
        graph: what `pair_weights` returned.
    """
    blank = bytearray(graph)
    places: list[dict[str, Any]] = []
    whole, scales = [], []
    for values, scale, axis in _weights(graph):
        raw = values.tobytes()
        offset = graph.find(raw)
        with np.errstate(divide="ignore", invalid="ignore"):  # a channel of zeros has the scale 0
            ints = np.nan_to_num(np.rint(values / _along(scale, axis, values.ndim))).clip(-128, 127).astype(np.int8)
        if offset < 0 or _restored(ints, scale, axis).tobytes() != raw:
            continue
        blank[offset : offset + len(raw)] = bytes(len(raw))
        places.append({"offset": offset, "shape": list(values.shape), "axis": axis})
        whole.append(ints.tobytes())
        scales.append(scale.tobytes())
    head = json.dumps(places).encode()
    parts = (len(head).to_bytes(_LENGTH_BYTES, "little"), head, *whole, *scales, bytes(blank))
    packed = zlib.compress(b"".join(parts), 9)
    assert unpack(packed) == graph
    return packed


def unpack(packed: bytes) -> bytes:
    """Return the graph, byte for byte.

    Raises:
        SessionError: these are no such bytes.
    """
    try:
        return _unpack(packed)
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SessionError(
            f"{NAME} is damaged: {error}. Build it again: edgekd build model.bin --target tensorrt"
        ) from None


def _unpack(packed: bytes) -> bytes:
    inflating = zlib.decompressobj()
    data = inflating.decompress(packed, MOST_BYTES)
    if not inflating.eof:
        raise ValueError("it ends early, or is too large")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    places = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    sizes = [math.prod(place["shape"]) for place in places]
    counts = [place["shape"][place["axis"]] if place["shape"] else 1 for place in places]
    at = _LENGTH_BYTES + length
    ints = np.frombuffer(data, np.int8, sum(sizes), at)
    scales = np.frombuffer(data, np.float32, sum(counts), at + len(ints))
    graph = bytearray(data[at + len(ints) + scales.nbytes :])
    done, used = 0, 0
    for place, size, count in zip(places, sizes, counts, strict=True):
        offset = place["offset"]
        values = ints[done : done + size].reshape(place["shape"])
        raw = _restored(values, scales[used : used + count], place["axis"]).tobytes()
        if not 0 <= offset <= len(graph) - len(raw):
            raise ValueError("weights lie outside the graph")
        graph[offset : offset + len(raw)] = raw
        done, used = done + size, used + count
    return bytes(graph)


def _weights(graph: bytes) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], int]]:
    """Yield weights that are quantized along an axis, with its scales: `(shape)` float32, `(shape[axis],)` float32."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(graph).graph
    stored = {item.name: item for item in model.initializer}
    for node in model.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in stored and stored[node.input[0]].HasField("raw_data"):
            values = numpy_helper.to_array(stored[node.input[0]])
            scale = numpy_helper.to_array(stored[node.input[1]]).reshape(-1)
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1) % max(1, values.ndim)
            if values.ndim and scale.size == 1:
                scale = np.repeat(scale, values.shape[axis])
            if values.dtype == np.float32 and values.size and (not values.ndim or scale.size == values.shape[axis]):
                yield values, scale, axis


def _restored(ints: NDArray[np.int8], scale: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return what `pair_weights` wrote: the product in float32."""
    product: NDArray[np.float32] = (ints.astype(np.float32) * _along(scale, axis, ints.ndim)).astype(np.float32)
    return product


def _along(scale: NDArray[np.float32], axis: int, ndim: int) -> NDArray[np.float32]:
    return scale.reshape([-1 if item == axis else 1 for item in range(ndim)] if ndim else ())
