"""Run calibration images through the float graph and keep a histogram of every tensor that becomes int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from ..errors import BuildError
from .ranges import BINS, LEVELS, Histogram, threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from .graph import FloatGraph
    from .region import Region

SAMPLED = 1 << 15  # values of a tensor and image that enter its histogram; the largest is taken over all


@dataclass(frozen=True)
class Ranges:
    """Histograms of the tensors that become int8, by name; and of the image, whose range is known."""

    histograms: Mapping[str, Histogram]

    def scales(self, region: Region, estimator: str) -> dict[str, float]:
        """Return the scale of every source of a region; those that share one get the largest.

        Raises:
            UsageError: no such estimator.
        """
        wanted: dict[str, float] = {}
        for name, root in region.sources.items():
            step = threshold(self.histograms[name], estimator) / LEVELS
            wanted[root] = max(wanted.get(root, 0.0), step)
        return {name: wanted[root] for name, root in region.sources.items()}


def measure_ranges(
    graph: FloatGraph, region: Region, images: NDArray[np.float32], progress: Callable[[str], None] = lambda _: None
) -> Ranges:
    """Return the ranges of a region's sources.

    Args:
        graph: the float graph.
        region: of all layers; regions with fewer have no other sources.
        images: `(K, 3, H, W)` float32, K >= 1, as the network sees them.
        progress: told one line a pass.

    Raises:
        BuildError: ONNX Runtime cannot run the graph, or a tensor is not finite.
    """
    names = [name for name in region.sources if name != graph.image]
    run = _Taps(graph, names)
    progress(f"calibration: {len(images)} images, largest values of {len(names) + 1} tensors")
    largest = dict.fromkeys((graph.image, *names), 0.0)
    for name, values in run(images):
        largest[name] = float(np.maximum(largest[name], np.abs(values).max(initial=0.0)))  # a NaN stays
    for name, value in largest.items():
        if not np.isfinite(value):
            raise BuildError(f"calibration: {name!r} is {value} for some image; the network does not compute there")
    progress(f"calibration: {len(images)} images, histograms")
    counts = {name: np.zeros(BINS) for name in largest}
    for name, values in run(images):
        if largest[name] > 0:
            counts[name] += _binned(values, largest[name])
    return Ranges({name: Histogram(counts[name], largest[name]) for name in largest})


def measure_limits(graph: FloatGraph, region: Region, images: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of each source of a region; arguments and errors as `measure_ranges`."""
    found = dict.fromkeys(region.sources, (np.inf, -np.inf))
    for name, values in _Taps(graph, [name for name in region.sources if name != graph.image])(images):
        if name in found:  # the image too comes by, quantized or not
            low, high = found[name]
            found[name] = (min(low, float(values.min())), max(high, float(values.max())))
    for name, limits in found.items():
        if not np.isfinite(limits).all():
            raise BuildError(
                f"calibration: {name!r} reaches {limits} for some image; the network does not compute there"
            )
    return found


class _Taps:
    """The float graph with inner tensors as outputs."""

    def __init__(self, graph: FloatGraph, names: list[str]) -> None:
        self.image, self.names = graph.image, names
        tapped = onnx.ModelProto()
        tapped.CopyFrom(graph.model)
        del tapped.graph.output[:]
        tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names or graph.outputs)
        self.session = start(tapped.SerializeToString())
        self.one_image = self.session.get_inputs()[0].shape[0] == 1

    def __call__(self, images: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for index in range(len(images)):
            image = images[index : index + 1]
            yield self.image, image
            if self.names:
                yield from zip(self.names, self.session.run(self.names, {self.image: image}), strict=True)


def start(graph: bytes) -> onnxruntime.InferenceSession:
    """Start ONNX Runtime on a graph, quietly.

    Raises:
        BuildError: it refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise BuildError(f"ONNX Runtime cannot run the graph: {error}") from error


def _binned(values: NDArray[np.float32], largest: float) -> NDArray[np.float64]:
    """Return how many of the tensor's magnitudes lie in each bin; of large tensors, of evenly spread ones."""
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // SAMPLED)]
    bins = np.minimum((np.abs(flat) / np.float32(largest) * BINS).astype(np.int64), BINS - 1)
    return np.bincount(bins, minlength=BINS).astype(np.float64)
