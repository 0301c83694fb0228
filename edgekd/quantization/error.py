"""How far an int8 graph's outputs are from the float graph's, and which layers do it: one number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import geometry
from .calibrate import start
from .region import int8_region, layers_of
from .write import quantized_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .._manifest import Manifest
    from .._session import Outputs
    from .calibrate import Ranges
    from .graph import FloatGraph
    from .region import Region

ROWS = 100  # of an image: those that the float network scores best


def run_graph(graph: bytes, manifest: Manifest, images: NDArray[np.float32]) -> list[Outputs]:
    """Return a graph's outputs for each of `(K, 3, H, W)` images, by ONNX Runtime on the CPU.

    Raises:
        BuildError: ONNX Runtime refuses the graph.
    """
    session = start(graph)
    names = [spec.name for spec in manifest.outputs]
    return [tuple(session.run(names, {manifest.input.name: image[None]})) for image in images]


def output_error(reference: Sequence[Outputs], other: Sequence[Outputs], manifest: Manifest) -> float:
    """Return the mean error of int8 outputs; 0 for equal ones, infinite if one is not finite.

    Of detectors, over the `ROWS` best rows of each image, weighed by the float score: the difference of the best
    class's score, and that of the box in units of its side. Of anomaly networks: the differences of score and map, each
    in units of the spread of the float ones.
    """
    if not finite_alike(reference, other):  # in rows that are not looked at as well
        return float("inf")
    measure = _map_error if manifest.thresholds is not None else _row_error
    oriented = manifest.angle is not None
    errors = [measure(first, second, oriented) for first, second in zip(reference, other, strict=True)]
    if manifest.thresholds is not None:
        scores = np.array([[float(item[1][0]) for item in run] for run in (reference, other)])
        errors.append(float(np.abs(scores[0] - scores[1]).mean() / max(scores[0].std(), 1e-3 * abs(scores[0]).max())))
    mean = float(np.mean(errors))
    return mean if np.isfinite(mean) else float("inf")


def finite_alike(reference: Sequence[Outputs], other: Sequence[Outputs]) -> bool:
    """Whether everything is finite that is finite in the float outputs."""
    return all(
        bool((np.isfinite(item) | ~np.isfinite(known)).all())
        for first, second in zip(reference, other, strict=True)
        for known, item in zip(first, second, strict=True)
    )


def _row_error(reference: Outputs, other: Outputs, oriented: bool) -> float:
    boxes, scores = reference[0][0], reference[1][0]
    others, other_scores = other[0][0], other[1][0]
    labels = scores.argmax(axis=1)
    best = scores[np.arange(len(labels)), labels]
    rows = np.argsort(-best, kind="stable")[:ROWS]
    weights = best[rows].astype(np.float64) + 1e-9
    shift = np.abs(other_scores[rows, labels[rows]].astype(np.float64) - best[rows])
    if oriented:
        moved = geometry.box_distances(boxes[rows], others[rows])
        sides = np.sqrt(np.maximum(boxes[rows, 2] * boxes[rows, 3], 1.0))
    else:
        moved = np.abs(boxes[rows].astype(np.float64) - others[rows]).max(axis=1)
        spans = boxes[rows, 2:] - boxes[rows, :2]
        sides = np.sqrt(np.maximum(spans[:, 0] * spans[:, 1], 1.0))
    return float((weights * (shift + moved / sides)).sum() / weights.sum())


def _map_error(reference: Outputs, other: Outputs, oriented: bool) -> float:
    del oriented
    spread = max(float(reference[0].std()), 1e-6)
    return float(np.abs(reference[0].astype(np.float64) - other[0]).mean()) / spread


def choose_estimator(
    graph: FloatGraph, ranges: Ranges, manifest: Manifest, images: NDArray[np.float32], names: Sequence[str]
) -> tuple[str, dict[str, float]]:
    """Return the range estimator whose int8 graph errs least, and the error of each.

    Args:
        graph: the float graph.
        ranges: of its sources.
        manifest: of the network.
        images: `(K, 3, H, W)` to compare on.
        names: estimators to try, in order of preference.
    """
    region = int8_region(graph)
    reference = run_graph(graph.model.SerializeToString(), manifest, images)
    errors = {}
    for name in names:
        candidate = quantized_graph(graph, region, ranges.scales(region, name))
        errors[name] = output_error(reference, run_graph(candidate, manifest, images), manifest)
    return min(errors, key=lambda name: errors[name]), errors


def sensitivity(
    graph: FloatGraph,
    scales: Callable[[Region], Mapping[str, float]],
    manifest: Manifest,
    images: NDArray[np.float32],
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Return what each layer costs: the error of a graph in which it alone is int8, by its weight's name.

    Args:
        graph: the float graph.
        scales: returns the scale of each source of a region.
        manifest: of the network.
        images: `(K, 3, H, W)` to compare on.
        progress: told now and then.
    """
    layers = layers_of(graph)
    names = {layer.weight for layer in layers}
    reference = run_graph(graph.model.SerializeToString(), manifest, images)
    found = {}
    for index, layer in enumerate(layers):
        if index % 10 == 0:
            progress(f"sensitivity: layer {index + 1} of {len(layers)}")
        region = int8_region(graph, names - {layer.weight})
        alone = quantized_graph(graph, region, scales(region))
        found[layer.weight] = output_error(reference, run_graph(alone, manifest, images), manifest)
    return found
