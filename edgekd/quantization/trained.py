"""Scales of activations that training found, kept in a bundle: `qat.json`, named by `manifest.provenance["qat"]`.

With them `quantized_graph(FloatGraph(bundle.graph()), int8_region(..., floating), scales)` is, to the bit, the network
that was trained: weights are rounded by the same rule there and here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from .._strict_json import MAX_BYTES, Table, choice, distinct, many, mapping, number, parse_json, text
from ..errors import BuildError, CorruptBundleError
from .graph import FloatGraph
from .region import int8_region

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .._bundle import Bundle
    from .region import Region

CHUNK = "qat.json"
GRAMMAR = "int8-symmetric"  # the only one whose scales the graph of `quantized_graph` can take
_WORD = r"[a-z][a-z0-9_]*"
_MAX_NAME, _MAX_SCALE = 512, 1e30
_MAX_LAYERS = 65_536


def trained_chunk(target: str, scales: Mapping[str, float], floating: Collection[str] = ()) -> bytes:
    """Return the chunk as canonical JSON: sorted keys, numbers that read back as the same float32.

    Args:
        target: for which the network was trained.
        scales: of each source of the region; float32 numbers.
        floating: weights of the layers that stay in floating point.

    Raises:
        BuildError: the chunk would be too large to be read again.
    """
    content = {
        "target": target,
        "grammar": GRAMMAR,
        "scales": {name: float(np.float32(value)) for name, value in scales.items()},
        "floating": sorted(floating),
    }
    data = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if len(data) > MAX_BYTES:
        raise BuildError(f"the scales of {len(scales)} tensors take {len(data)} bytes; at most {MAX_BYTES} are read")
    return data


def trained_scales(bundle: Bundle) -> tuple[dict[str, float], frozenset[str]] | None:
    """Return the scales a bundle was trained with, and the layers that stay in floating point; None: it has none.

    Returns:
        Source tensor -> scale (a float32 number above 0), for every source of
        `int8_region(FloatGraph(bundle.graph()), floating)`; and the weights that name the floating layers.

    Raises:
        CorruptBundleError: the chunk is damaged, or does not belong to the bundle's graph; the message says what to do.
        BuildError: the portable graph is no sound ONNX.
    """
    named = bundle.manifest.provenance.get("qat")
    if not isinstance(named, dict) or "chunk" not in named:
        return None
    chunk = str(named["chunk"])
    scales, floating = _read(bytes(bundle.chunk(chunk)), chunk)
    graph = FloatGraph(bundle.graph())
    lost = sorted(set(floating) - set(graph.weights))
    if lost:
        raise CorruptBundleError(f"{chunk} keeps layers floating that the graph lacks: {_few(lost)}; {_REMEDY}")
    _check(scales, int8_region(graph, floating), chunk)
    return scales, frozenset(floating)


_REMEDY = "the graph was changed after training: train again with `edgekd distill --qat`, or build without the chunk"


def _read(data: bytes, where: str) -> tuple[dict[str, float], tuple[str, ...]]:
    try:
        keys = Table(parse_json(data), where)
    except CorruptBundleError as error:
        raise CorruptBundleError(f"{where}: {error}") from error
    keys.take("target", text(32, _WORD))
    keys.take("grammar", choice(GRAMMAR))
    scales = keys.take("scales", mapping(text(_MAX_NAME), number(0, _MAX_SCALE)))
    floating = keys.take("floating", distinct(many(text(_MAX_NAME), 0, _MAX_LAYERS)))
    keys.close()
    for name, value in scales.items():
        if not value > 0 or float(np.float32(value)) != value:
            raise CorruptBundleError(f"{where}.scales.{name} should be a float32 number above 0, got {value}")
    return scales, floating


def _check(scales: Mapping[str, float], region: Region, where: str) -> None:
    """Check that there is a scale for each source and no other, and one value where sources share it."""
    lacking, strange = sorted(set(region.sources) - set(scales)), sorted(set(scales) - set(region.sources))
    if lacking or strange:
        said = [f"lacks {_few(lacking)}"] * bool(lacking) + [f"has {_few(strange)}, which nothing reads"] * bool(
            strange
        )
        raise CorruptBundleError(f"{where}.scales does not fit the bundle's graph: it {' and '.join(said)}; {_REMEDY}")
    for name, root in region.sources.items():
        if scales[name] != scales[root]:
            raise CorruptBundleError(
                f"{where}.scales: {name} and {root} share a scale, got {scales[name]} and {scales[root]}"
            )


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
