"""Ranges from calibration images: what ONNX Runtime gives for the inner tensors, over all images."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import BuildError, UsageError
from edgekd.quantization import FloatGraph, int8_region, measure_ranges
from edgekd.quantization.calibrate import SAMPLED, start
from edgekd.quantization.ranges import BINS, LEVELS

from ..conformance.detectors import Graph, detector
from .graphs import model, noise, run


def joined() -> tuple[bytes, str, str]:
    """A Concat of a small and a large tensor before a layer."""
    g = Graph(0)
    one = g.op("Relu", g.conv("images", 3, 4))
    two = g.op("Mul", g.conv("images", 3, 4), g.constant(np.array(50, np.float32)))
    out = g.conv(g.op("Concat", one, two, axis=1), 8, 4)
    return model(g, out), one, two


def test_histograms_are_those_of_the_tensors_over_all_images() -> None:
    data, one, two = joined()
    pixels = noise(5)
    graph = FloatGraph(data)
    ranges = measure_ranges(graph, int8_region(graph), pixels)
    assert set(ranges.histograms) == {"images", one, two}
    tapped = FloatGraph(data).model
    for name in (one, two):
        tapped.graph.output.add().name = name
    tensors = dict(zip((one, two), run(tapped.SerializeToString(), pixels, [one, two]), strict=True))
    for name, values in {**tensors, "images": pixels}.items():
        found = ranges.histograms[name]
        assert found.largest == pytest.approx(np.abs(values).max(), rel=1e-6)
        assert found.counts.sum() == values.size
        expected, _ = np.histogram(np.abs(values), BINS, (0, found.largest))
        assert np.abs(np.cumsum(found.counts) - np.cumsum(expected)).max() < 20, "but for what lies at a bin's edge"


def test_scales_of_what_is_concatenated_are_the_larger() -> None:
    data, one, two = joined()
    graph = FloatGraph(data)
    region = int8_region(graph)
    ranges = measure_ranges(graph, region, noise(3))
    scales = ranges.scales(region, "minmax")
    assert scales[one] == scales[two] == ranges.histograms[two].largest / LEVELS
    assert scales["images"] == ranges.histograms["images"].largest / LEVELS
    with pytest.raises(UsageError, match="no range estimator"):
        ranges.scales(region, "mean")


def test_ranges_serve_every_smaller_region() -> None:
    graph = FloatGraph(detector())
    whole = int8_region(graph)
    ranges = measure_ranges(graph, whole, noise(2, (3, 64, 96)))
    for layer in whole.layers:
        for floating in ({layer.weight}, {item.weight for item in whole.layers} - {layer.weight}):
            region = int8_region(graph, floating)
            assert set(ranges.scales(region, "mse")) == set(region.sources)


def test_the_largest_value_counts_even_where_a_tensor_is_sampled() -> None:
    g = Graph(0)
    out = g.conv("images", 3, 2)
    side = 128
    assert 3 * side * side > SAMPLED
    pixels = np.ones((1, 3, side, side), np.float32)
    pixels[0, 0, 0, 1] = -77
    graph = FloatGraph(model(g, out, shape=(3, side, side)))
    found = measure_ranges(graph, int8_region(graph), pixels).histograms["images"]
    assert found.largest == 77
    assert 0 < found.counts.sum() <= 2 * SAMPLED


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("last", [False, True])
def test_tensor_that_is_not_finite_is_named(bad: float, last: bool) -> None:
    data, one, _ = joined()
    pixels = noise(3)
    pixels[2 if last else 0, 0, 5, 5] = bad
    graph = FloatGraph(data)
    with pytest.raises(BuildError, match="does not compute there"):
        measure_ranges(graph, int8_region(graph), pixels)
    assert one


def test_tensor_that_is_always_zero_gets_a_scale() -> None:
    g = Graph(0)
    dead = g.op("Mul", g.conv("images", 3, 4), g.constant(np.array(0, np.float32)))
    graph = FloatGraph(model(g, g.conv(dead, 4, 4)))
    region = int8_region(graph)
    assert measure_ranges(graph, region, noise(2)).scales(region, "mse")[dead] == 1 / LEVELS


def test_tensor_of_tiny_values_is_measured() -> None:
    g = Graph(0)
    graph = FloatGraph(model(g, g.conv("images", 3, 4)))
    pixels = noise(2) * np.float32(1e-38)
    found = measure_ranges(graph, int8_region(graph), pixels).histograms["images"]
    assert found.largest == np.abs(pixels).max()
    assert found.counts.sum() == pixels.size
    assert found.counts[-1] > 0


def test_graph_that_reads_only_the_image_is_calibrated() -> None:
    g = Graph(0)
    graph = FloatGraph(model(g, g.conv("images", 3, 4)))
    assert set(measure_ranges(graph, int8_region(graph), noise(2)).histograms) == {"images"}


def test_progress_is_told_once_a_pass() -> None:
    data, *_ = joined()
    graph, lines = FloatGraph(data), []
    measure_ranges(graph, int8_region(graph), noise(4), lines.append)
    assert lines == [
        "calibration: 4 images, largest values of 3 tensors",
        "calibration: 4 images, histograms",
    ]


def test_graph_that_onnx_runtime_refuses_is_a_build_error() -> None:
    with pytest.raises(BuildError, match="ONNX Runtime cannot run the graph"):
        start(b"garbage")
