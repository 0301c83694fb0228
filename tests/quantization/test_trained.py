"""`qat.json`: written so that it reads back the same, refused where it does not fit the bundle's graph."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekd._bundle import Bundle
from edgekd.errors import BundleError, CorruptBundleError
from edgekd.quantization import int8_region, trained_scales
from edgekd.quantization.graph import FloatGraph
from edgekd.quantization.trained import CHUNK, trained_chunk

from ..conformance.bundles import manifest
from ..conformance.detectors import Graph, detector

GRAPH = detector(64, 96)
REGION = int8_region(FloatGraph(GRAPH))


def scales() -> dict[str, float]:
    """One float32 number a root, none of which a decimal of few digits can hold."""
    roots = sorted(set(REGION.sources.values()))
    values = np.exp(np.random.default_rng(0).normal(-4, 2, len(roots))).astype(np.float32)
    return {name: float(values[roots.index(root)]) for name, root in REGION.sources.items()}


def bundle(content: bytes | None = None, floating: tuple[str, ...] = ()) -> Bundle:
    told = dataclasses.replace(manifest(64, 96), provenance={"qat": {"chunk": CHUNK, "target": "openvino"}})
    data = trained_chunk("openvino", scales(), floating) if content is None else content
    return Bundle.create(told, {"graph.onnx": GRAPH, CHUNK: data})


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(trained_chunk("openvino", scales())), **changes}).encode()


def test_scales_read_back_to_the_bit(tmp_path: Any) -> None:
    bundle().write(tmp_path / "model.bin")
    with Bundle.read(tmp_path / "model.bin") as held:
        assert trained_scales(held) == (scales(), frozenset())


def test_the_chunk_is_canonical() -> None:
    shuffled = dict(sorted(scales().items(), reverse=True))
    assert trained_chunk("openvino", shuffled) == trained_chunk("openvino", scales())
    assert trained_chunk("openvino", scales(), ("b", "a")) == trained_chunk("openvino", scales(), ("a", "b"))


def test_it_stays_when_a_bundle_is_replaced() -> None:
    held = bundle()
    other = held.replace(dataclasses.replace(held.manifest, name="other"), {"more.txt": b"x"})
    assert trained_scales(other) == (scales(), frozenset())


def test_layers_that_stay_floating_have_no_scales_of_their_own() -> None:
    last = REGION.layers[-1].weight
    region = int8_region(FloatGraph(GRAPH), {last})
    fewer = {name: value for name, value in scales().items() if name in region.sources}
    for name, root in region.sources.items():
        fewer[name] = fewer[root]
    held = bundle(trained_chunk("openvino", fewer, (last,)))
    assert trained_scales(held) == (fewer, frozenset({last}))


@pytest.mark.parametrize("provenance", [{}, {"qat": {"target": "tflite"}}, {"qat": "x"}])
def test_a_bundle_without_scales_has_none(provenance: dict[str, Any]) -> None:
    told = dataclasses.replace(manifest(64, 96), provenance=provenance)
    assert trained_scales(Bundle.create(told, {"graph.onnx": GRAPH})) is None


def test_a_chunk_that_is_named_has_to_be_there() -> None:
    told = dataclasses.replace(manifest(64, 96), provenance={"qat": {"chunk": CHUNK, "target": "openvino"}})
    with pytest.raises(BundleError, match=r"provenance.qat.chunk names the chunk 'qat.json', which is not"):
        Bundle.create(told, {"graph.onnx": GRAPH})
    with pytest.raises(BundleError, match="which is not in the bundle"):
        bundle().replace(drop=[CHUNK])


@pytest.mark.parametrize("name", [7, "../x", None])
def test_a_name_that_no_chunk_can_have_is_refused(name: object) -> None:
    told = dataclasses.replace(manifest(64, 96), provenance={"qat": {"chunk": name}})
    with pytest.raises(BundleError, match=r"provenance\.qat\.chunk should be the name of a chunk"):
        Bundle.create(told, {"graph.onnx": GRAPH})


FIRST = sorted(REGION.sources)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "qat.json: this is no strict JSON"),
        (changed(grammar="int4"), "qat.json.grammar should be"),
        (changed(more=1), "unknown key 'more'"),
        (changed(scales={**scales(), FIRST: 0.0}), "should be a float32 number above 0, got 0.0"),
        (changed(scales={**scales(), FIRST: 0.1}), "should be a float32 number above 0, got 0.1"),
        (changed(scales={**scales(), FIRST: -1.0}), "a number from 0"),
        (changed(scales={k: v for k, v in scales().items() if k != FIRST}), f"lacks {FIRST}; the graph was changed"),
        (changed(scales={**scales(), "strange": 1.0}), "has strange, which nothing reads"),
        (changed(floating=["nowhere.weight"]), "floating that the graph lacks: nowhere.weight"),
        (changed(floating=["a", "a"]), "names 'a' 2 times"),
    ],
)
def test_what_does_not_fit_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(CorruptBundleError, match=message):
        trained_scales(bundle(content))


def test_sources_that_share_a_scale_have_one() -> None:
    made = Graph(0)
    parts = [made.op("Relu", made.conv("images", 3, 4)) for _ in range(2)]
    joined = made.op("Concat", *parts, axis=1)
    outputs = [made.op("Relu", made.conv(joined, 8, 4), name=name) for name in ("boxes", "scores")]
    shapes = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 4, 8, 8]) for name in outputs}
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, 8, 8])
    graph = helper.make_graph(made.nodes, "joined", [image], list(shapes.values()), made.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = dataclasses.replace(manifest(64, 96), provenance={"qat": {"chunk": CHUNK}})

    def held(values: dict[str, float]) -> Bundle:
        chunks = {"graph.onnx": model.SerializeToString(), CHUNK: trained_chunk("openvino", values)}
        return Bundle.create(told, chunks)

    equal = {"images": 0.5, parts[0]: 0.25, parts[1]: 0.25}
    assert trained_scales(held(equal)) == (equal, frozenset())
    with pytest.raises(CorruptBundleError, match="share a scale, got"):
        trained_scales(held({**equal, parts[1]: 0.125}))
