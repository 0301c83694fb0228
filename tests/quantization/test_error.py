"""How far an int8 graph is off, in one number, and which layers do it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.quantization import FloatGraph, int8_region, layers_of, measure_ranges
from edgekd.quantization.error import ROWS, choose_estimator, output_error, run_graph, sensitivity

from ..conformance import bundles
from ..conformance.detectors import detector

BOXES = bundles.portable()
TURNED = bundles.portable(oriented=True)
MAPS = bundles.portable(anomaly=True)
ALL = [BOXES, TURNED, MAPS]
IDS = ["boxes", "turned", "maps"]


def outputs(bundle: object, count: int = 2) -> list[tuple[np.ndarray, ...]]:
    return run_graph(bundle.graph(), bundle.manifest, bundles.pixels(count))  # type: ignore[attr-defined]


def bent(runs: list[tuple[np.ndarray, ...]], which: int, bend: object) -> list[tuple[np.ndarray, ...]]:
    """Return copies of outputs, one kind of them changed by a function."""
    copies = [tuple(item.copy() for item in run) for run in runs]
    return [
        tuple(bend(item) if index == which else item for index, item in enumerate(run))  # type: ignore[operator]
        for run in copies
    ]


@pytest.mark.parametrize("bundle", ALL, ids=IDS)
def test_equal_outputs_err_by_nothing(bundle: object) -> None:
    runs = outputs(bundle)
    assert output_error(runs, bent(runs, 0, lambda item: item), bundle.manifest) == 0.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bundle", ALL, ids=IDS)
def test_outputs_that_are_not_finite_err_without_bound(bundle: object, which: int) -> None:
    runs = outputs(bundle)
    for bad in (np.nan, np.inf):
        for place in (0, -1):

            def spoil(item: np.ndarray, bad: float = bad, place: int = place) -> np.ndarray:
                item.reshape(-1)[place] = bad
                return item

            assert output_error(runs, bent(runs, which, spoil), bundle.manifest) == float("inf")  # type: ignore[attr-defined]


@pytest.mark.parametrize(("bundle", "which"), [(BOXES, 1), (TURNED, 1), (MAPS, 0), (MAPS, 1)])
def test_error_grows_with_the_difference(bundle: object, which: int) -> None:
    runs = outputs(bundle)
    manifest = bundle.manifest  # type: ignore[attr-defined]
    found = [
        output_error(runs, bent(runs, which, lambda item, by=by: item + np.float32(by)), manifest)
        for by in (1e-3, 1e-2, 1e-1)
    ]
    assert 0 < found[0] < found[1] < found[2]
    if which == 1 and manifest.thresholds is None:
        assert found[1] == pytest.approx(1e-2, rel=1e-3), "scores in their own unit"


def test_boxes_count_in_units_of_their_sides() -> None:
    runs = outputs(BOXES, 1)
    boxes, scores = runs[0][0][0], runs[0][1][0]
    best = scores.max(axis=1)
    rows = np.argsort(-best, kind="stable")[:ROWS]
    sides = np.sqrt(np.maximum(np.prod(boxes[rows, 2:] - boxes[rows, :2], axis=1), 1))
    expected = float((best[rows] * 2 / sides).sum() / best[rows].sum())
    moved = bent(runs, 0, lambda item: item + np.float32(2))
    assert output_error(runs, moved, BOXES.manifest) == pytest.approx(expected, rel=1e-4)


def test_rows_that_nobody_sees_do_not_count() -> None:
    runs = outputs(BOXES, 1)
    best = runs[0][1][0].max(axis=1)
    least = int(best.argmin())
    assert len(best) > 90
    many = [tuple(np.concatenate([item, item], axis=1) for item in runs[0])]  # above ROWS

    def lift(item: np.ndarray) -> np.ndarray:
        item[0, least] += 50
        return item

    assert output_error(many, bent(many, 0, lift), BOXES.manifest) == 0.0


def test_rectangles_written_another_way_err_by_nothing() -> None:
    def other_way(item: np.ndarray) -> np.ndarray:
        item[..., [2, 3]] = item[..., [3, 2]]
        item[..., 4] += np.pi / 2
        return item

    runs = outputs(TURNED)
    assert output_error(runs, bent(runs, 0, other_way), TURNED.manifest) < 1e-4


def outlier() -> tuple[FloatGraph, str]:
    """A detector one of whose layers writes a channel 1000 times as large as the others, which the next evens out."""
    model = onnx.load_from_string(detector(seed=3))
    stored = {item.name: item for item in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    deep, mixed = convolutions[1], convolutions[2]  # depthwise, then 1x1 that reads nothing else
    values = {name: numpy_helper.to_array(stored[name]).copy() for name in (*deep.input[1:], mixed.input[1])}
    values[deep.input[1]][0] *= 1000
    values[deep.input[2]][0] *= 1000
    values[mixed.input[1]][:, 0] /= 1000
    for name, value in values.items():
        stored[name].CopyFrom(numpy_helper.from_array(value, name))
    return FloatGraph(model.SerializeToString()), mixed.input[1]


def test_layer_that_reads_an_outlier_channel_is_the_most_sensitive() -> None:
    graph, culprit = outlier()
    pixels = bundles.pixels(4)
    ranges = measure_ranges(graph, int8_region(graph), pixels)
    lines: list[str] = []
    found = sensitivity(graph, lambda part: ranges.scales(part, "minmax"), BOXES.manifest, pixels, lines.append)
    assert set(found) == {layer.weight for layer in layers_of(graph)}
    order = sorted(found, key=lambda name: -found[name])
    assert order[0] == culprit
    assert found[order[0]] > 3 * found[order[1]]
    assert lines[0] == f"sensitivity: layer 1 of {len(found)}"


def test_best_estimator_is_the_one_that_errs_least() -> None:
    graph = FloatGraph(BOXES.graph())
    calibrated, seen = bundles.pixels(4), bundles.pixels(3, seed=9)
    calibrated[0, 0, 0, 0] = 400  # a hot pixel: min-max gives it the whole range
    ranges = measure_ranges(graph, int8_region(graph), calibrated)
    best, errors = choose_estimator(graph, ranges, BOXES.manifest, seen, ("minmax", "mse", "percentile"))
    assert set(errors) == {"minmax", "mse", "percentile"}
    assert errors[best] == min(errors.values())
    assert best != "minmax"
    assert errors["minmax"] > 2 * errors[best]


def test_of_equal_estimators_the_first_is_taken() -> None:
    graph = FloatGraph(BOXES.graph())
    ranges = measure_ranges(graph, int8_region(graph), bundles.pixels(2))
    assert choose_estimator(graph, ranges, BOXES.manifest, bundles.pixels(1), ("minmax", "minmax"))[0] == "minmax"
