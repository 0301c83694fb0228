"""The quantizer process: `python -m edgekd.targets.tflite._quantize FOLDER`.

Reads `float.tflite` and `request.json` in FOLDER, and `pixels.npy` if int8 is asked for without ranges; writes
`model.tflite` and `answer.json` (`ranges`, or `error`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager

from edgekd.errors import BuildError

from ._graph import LiteGraph, tensor_name
from ._ranges import measure
from ._region import int8_region

if TYPE_CHECKING:
    from ._ranges import Range
    from ._region import Region

EVERY = qtyping.TFLOperationName.ALL_SUPPORTED


def halve_weights(model: bytes) -> bytes:
    """Return the model with the weights of convolutions and matrix products stored as float16 behind a DEQUANTIZE."""
    recipe = recipe_manager.RecipeManager()
    recipe.add_weight_only_config(
        regex=".*",
        operation_name=EVERY,
        num_bits=16,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    return bytes(quantizer.Quantizer(bytearray(model), recipe.get_quantization_recipe()).quantize().quantized_model)


def weights_to_int8(model: bytes, operators: list[int]) -> bytes:
    """Return the model with the weights of some operators stored as int8, one scale a channel, behind a DEQUANTIZE.

    Raises:
        BuildError: there are none.
    """
    if not operators:
        raise BuildError("no layer of the LiteRT model was found in the portable graph; build --precision fp32")
    graph = LiteGraph(model)
    work = quantizer.Quantizer(bytearray(graph.serialize()))
    work.add_weight_only_config(_written_by(graph, tuple(operators)), EVERY, num_bits=8)
    small = LiteGraph(work.quantize(None).quantized_model)
    small.share_constants()
    return small.serialize()


def calibrate(model: bytes, pixels: Any) -> dict[int, Range]:
    """Return the range of every tensor that can be int8, whichever layers stay in floating point.

    Args:
        model: the float model.
        pixels: `(K, 3, H, W)` float32, K >= 1.
    """
    region = int8_region(LiteGraph(model))
    return measure(model, pixels, sorted(tensor for held in region.sources.values() for tensor in held))


def quantize(model: bytes, floating: list[int], ranges: dict[int, Range]) -> bytes:
    """Return the int8 model, float32 in and out.

    Args:
        model: the float model.
        floating: operators that stay in floating point.
        ranges: what `calibrate` found.

    Raises:
        BuildError: no layer is left that could be int8.
    """
    graph = LiteGraph(model)
    region = int8_region(graph, floating)
    if not region.static and not region.last:
        raise BuildError("no layer is left in int8; build this artifact with --precision fp32")
    work = quantizer.Quantizer(bytearray(graph.serialize()))
    if region.static:
        work.add_static_config(_written_by(graph, region.static), EVERY, activation_num_bits=8, weight_num_bits=8)
    if region.last:
        work.add_dynamic_config(_written_by(graph, region.last), EVERY, num_bits=8)
    small = LiteGraph(work.quantize(_scales(region, ranges) or None).quantized_model)
    small.share_constants()
    return small.serialize()


def _written_by(graph: LiteGraph, operators: tuple[int, ...]) -> str:
    """Return the expression that selects operators, by the name of what they write."""
    return f"^(?:{'|'.join(tensor_name(graph.outputs[index][0]) for index in operators)});"


def _scales(region: Region, ranges: dict[int, Range]) -> dict[str, dict[str, Any]]:
    """Return the range of every int8 tensor: of those that share a scale, the union."""
    found = {}
    for name, tensors in region.groups.items():
        lows, highs = zip(*(ranges[tensor] for tensor in region.sources[name]), strict=True)
        limits = {"min": np.array([min(lows)], np.float32), "max": np.array([max(highs)], np.float32)}
        found.update({tensor_name(tensor): dict(limits) for tensor in tensors})
    return found


def answer(folder: Path) -> dict[str, Any]:
    """Do what `request.json` asks; return what `answer.json` is to hold."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    model = (folder / "float.tflite").read_bytes()
    if request["precision"] == "fp16":
        (folder / "model.tflite").write_bytes(halve_weights(model))
        return {}
    try:
        if request["precision"] == "w8a32":
            (folder / "model.tflite").write_bytes(weights_to_int8(model, request["operators"]))
            return {}
        if request["ranges"] is None:
            ranges = calibrate(model, np.load(folder / "pixels.npy", mmap_mode="r"))
        else:
            ranges = {int(tensor): (low, high) for tensor, (low, high) in request["ranges"].items()}
        (folder / "model.tflite").write_bytes(quantize(model, request["floating"], ranges))
    except BuildError as error:
        return {"error": str(error)}
    return {"ranges": ranges}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "answer.json").write_text(json.dumps(answer(place)), encoding="utf-8")
