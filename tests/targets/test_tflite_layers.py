"""Layers of a portable graph, found again in the LiteRT model that was made of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("ai_edge_quantizer")

from edgekd.targets.tflite import _build, _layers
from edgekd.targets.tflite._graph import LiteGraph
from edgekd.targets.tflite._static import constants, fix_batch

from edgekd.errors import BuildError

from ..conformance import bundles
from .tflite_int8 import build, kept, zoo


def test_weights_are_found_again_in_another_layout_turned_around_and_scaled() -> None:
    weights = np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(np.float32)
    channels = _layers.Channels.of(weights, 0)
    moved = _layers.Channels.of(weights.transpose(0, 2, 3, 1)[:, ::-1, ::-1], 0)
    assert moved.alike(channels)
    assert moved.same(channels)
    scaled = _layers.Channels.of(weights * np.array([1, -2, 3, 0.5, 1], np.float32).reshape(5, 1, 1, 1), 0)
    assert scaled.alike(channels)
    assert not scaled.same(channels)
    other = weights.copy()
    other[2, 1, 1, 1] += 0.01
    assert not _layers.Channels.of(other, 0).alike(channels)
    assert not _layers.Channels.of(weights[::-1], 0).alike(channels), "channels stay in order"


@pytest.mark.slow
def test_layers_of_every_kind_are_found_and_kept_in_floating_point() -> None:
    bundle = bundles.portable().replace(add={"graph.onnx": zoo()})
    layers = kept(bundle).layers
    assert len(layers) == 9
    assert all(layers.values()), layers
    portable = fix_batch(onnx.load_from_string(bundle.graph())).graph
    weights = constants(portable)
    shared = next(name for name in layers if weights[name].shape == (6, 6, 3, 3))
    assert len(layers[shared]) == 2, "both levels"
    for name in layers:
        graph = LiteGraph(build(bundle, (name,)))
        floats = {key for key, found in _layers.find_layers(portable, weights, graph).items() if found}
        assert floats == {name}


def test_floating_that_is_no_layer_is_named_with_those_that_are() -> None:
    with pytest.raises(BuildError, match=r"weights named nix, nox; possible: a, b"):
        _build._operators({"a": [1], "b": [2]}, frozenset(["nox", "a", "nix"]))


def test_floating_whose_weights_are_not_found_is_named() -> None:
    with pytest.raises(BuildError, match="no operator with the weights b"):
        _build._operators({"a": [1], "b": []}, frozenset(["a", "b"]))
