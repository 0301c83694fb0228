"""Average precision of oriented boxes on results whose value was computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd._detections import Detections
from edgekd.errors import UsageError
from edgekd.training.data.sample import Dataset, Sample
from edgekd.training.metrics import coco
from edgekd.training.metrics.matches import match
from edgekd.training.metrics.oriented import average_precision, curve

CLASSES = ("car", "plane")
FAR = [900.0, 900.0, 10.0, 5.0, 0.0]


def image(boxes: Any, labels: list[int] | None = None, difficult: list[bool] | None = None, columns: int = 5) -> Sample:
    rows = np.array(boxes, np.float32).reshape(-1, columns)
    kinds, hard = labels or [0] * len(rows), difficult or [False] * len(rows)
    return Sample(Path("none.png"), (1000, 1000), rows, np.array(kinds, np.int64), np.array(hard, bool))


def found(boxes: Any, scores: list[float], labels: list[int] | None = None, columns: int = 5) -> Detections:
    rows = np.array(boxes, np.float32).reshape(-1, columns)
    kinds = np.array(labels or [0] * len(rows), np.int64)
    return Detections(rows, np.array(scores, np.float32), kinds, CLASSES, (1000, 1000))


def measured(results: list[Detections], *samples: Sample, mode: str = "area", task: str = "obb") -> dict[str, Any]:
    return average_precision(results, Dataset("set", task, CLASSES, samples), mode=mode)


def box(x: float, angle: float = 0.3) -> list[float]:
    return [x, 100.0, 40.0, 20.0, angle]


TOY = (
    [found([box(100), FAR], [0.9, 0.8]), found([box(100), box(300)], [0.7, 0.6]), found([FAR], [0.5])],
    [image([box(100)]), image([box(100), box(300)]), image([box(500)])],
)
"""Of 4 objects, in the order of the scores: hit, miss, hit, hit, miss.

recall     1/4  1/4  2/4  3/4  3/4
precision  1    1/2  2/3  3/4  3/5, so the best from there on: 1 up to 1/4, 3/4 up to 3/4, then 0
"""


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("area", 0.25 * 1 + 0.25 * 0.75 + 0.25 * 0.75),  # 0.625
        ("voc07", (3 * 1 + 5 * 0.75 + 3 * 0) / 11),  # recalls 0 .. 0.2, 0.3 .. 0.7, 0.8 .. 1: 0.6136
    ],
)
def test_toy_of_five_boxes_has_the_value_computed_by_hand(mode: str, expected: float) -> None:
    metrics = measured(*TOY[:1], *TOY[1], mode=mode)
    assert metrics["mode"] == mode
    for name in ("AP", "AP50", "AP75"):
        assert metrics[name] == pytest.approx(expected)
    assert metrics["per_class"]["car"] == pytest.approx(expected) == metrics["per_class_AP50"]["car"]


def test_class_without_objects_is_left_out_of_the_mean_though_it_has_detections() -> None:
    results = [found([box(100), box(300)], [0.9, 0.8], [0, 1])]
    metrics = measured(results, image([box(100)]))
    assert metrics["AP"] == 1
    assert math.isnan(metrics["per_class"]["plane"])
    assert math.isnan(measured([found([], [])], image([]))["AP"])
    hard_only = measured(results, image([box(100), box(300)], [0, 1], [False, True]))
    assert hard_only["AP"] == 1
    assert math.isnan(hard_only["per_class_AP50"]["plane"])


def test_recall_of_three_in_ten_reaches_the_fourth_of_eleven_points() -> None:
    boxes = [box(90 * k) for k in range(10)]
    assert measured([found(boxes[:3], [0.9, 0.8, 0.7])], image(boxes), mode="voc07")["AP50"] == pytest.approx(4 / 11)


def test_threshold_is_strict_and_iou_decides_at_how_many_of_ten() -> None:
    half = found([[100, 100, 40, 10, 0]], [0.9])  # exactly half of 40 x 20
    assert measured([half], image([box(100, 0.0)]))["AP50"] == 0
    narrow = found([[100, 100, 40, 13, 0.3]], [0.9])  # 0.65: above 0.50 0.55 0.60, not above 0.65 in float64
    metrics = measured([narrow], image([box(100)]))
    assert metrics["AP50"] == 1
    assert metrics["AP75"] == 0
    assert metrics["AP"] in (pytest.approx(0.3), pytest.approx(0.4))


def test_angle_matters_where_hulls_are_equal() -> None:
    truth, crossed = [100.0, 100.0, 80.0, 10.0, math.pi / 4], [100.0, 100.0, 80.0, 10.0, -math.pi / 4]
    assert measured([found([crossed], [0.9])], image([truth]))["AP50"] == 0
    by_hull = coco.average_precision([found([crossed], [0.9])], Dataset("s", "obb", CLASSES, (image([truth]),)))
    assert by_hull["AP50"] == pytest.approx(1)


def test_same_rectangle_by_other_parameters_is_a_hit() -> None:
    other = [100.0, 100.0, 20.0, 40.0, 0.3 - math.pi / 2]
    assert measured([found([other], [0.9])], image([box(100)]))["AP"] == 1


def test_detection_on_an_image_without_objects_is_a_false_positive() -> None:
    results = [found([box(100)], [0.9]), found([box(100)], [0.8])]
    assert measured(results, image([]), image([box(100)]))["AP50"] == pytest.approx(0.5)


def test_second_detection_of_an_object_is_a_false_positive_whichever_comes_first_in_the_file() -> None:
    both = [found([box(101), box(100), box(300)], [0.9, 0.95, 0.8])]
    assert measured(both, image([box(100), box(300)]))["AP50"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_difficult_objects_count_neither_for_nor_against_however_often_they_are_found() -> None:
    results = [found([box(300), box(301), box(100)], [0.9, 0.85, 0.8])]
    assert measured(results, image([box(100), box(300)], difficult=[False, True]))["AP50"] == 1
    assert measured([found([box(100)], [0.8])], image([box(100), box(300)], difficult=[False, True]))["AP50"] == 1
    below = found([[300, 100, 40, 9, 0.3], box(100)], [0.9, 0.8])  # 0.45 of the difficult object: a miss
    assert measured([below], image([box(100), box(300)], difficult=[False, True]))["AP50"] == pytest.approx(0.5)


def test_taken_object_is_a_false_positive_though_another_is_free() -> None:
    """Both detections overlap the first object most. COCO gives the second one the other object; DOTA does not."""
    truth = [[100, 100, 100, 10, 0], [110, 100, 100, 10, 0]]
    results = [found([truth[0], [102, 100, 100, 10, 0]], [0.9, 0.8])]
    assert measured(results, image(truth))["AP50"] == pytest.approx(0.5)
    upright = Dataset("s", "obb", CLASSES, (image(truth),))
    assert coco.average_precision(results, upright)["AP50"] == pytest.approx(1)


def test_equal_scores_enter_together_so_their_order_does_not_matter() -> None:
    for boxes in ([box(100), FAR], [FAR, box(100)]):
        assert measured([found(boxes, [0.9, 0.9])], image([box(100)]))["AP50"] == pytest.approx(0.5)
    twins = [found([box(100), box(101), box(300)], [0.9, 0.9, 0.5])]  # one of the two is the hit
    assert measured(twins, image([box(100), box(300)]))["AP50"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 2 / 3)


def crowd(seed: int, *, upright: bool = False) -> tuple[list[Detections], list[Sample]]:
    """20 images of objects 100 px apart, detections jittered, missed, doubled and invented, scores in steps of 0.1."""
    rng = np.random.default_rng(seed)
    results, samples = [], []
    for _ in range(20):
        n = int(rng.integers(0, 8))
        centres = rng.permutation(81)[:n]
        truth = np.stack([100.0 + centres % 9 * 100, 100.0 + centres // 9 * 100, *rng.uniform(20, 60, (2, n))], axis=1)
        truth = np.concatenate([truth, rng.uniform(-1.5, 1.5, (n, 1)) * (not upright)], axis=1)
        labels = rng.integers(0, 2, n)
        rows = np.concatenate([np.repeat(np.arange(n), rng.integers(0, 3, n)), np.arange(n)[:1]]).astype(int)
        moved = truth[rows] + rng.normal(0, 3, (len(rows), 5)) * (1, 1, 1, 1, 0)
        if upright:
            truth, moved = (
                np.concatenate([b[:, :2] - b[:, 2:4] / 2, b[:, :2] + b[:, 2:4] / 2], 1) for b in (truth, moved)
            )
        scores = rng.integers(1, 10, len(rows)) / 10
        columns = 4 if upright else 5
        samples.append(image(truth, labels.tolist(), (rng.random(n) < 0.1 * (not upright)).tolist(), columns))
        results.append(found(moved, scores.tolist(), labels[rows].tolist(), columns))
    return results, samples


@pytest.mark.parametrize("mode", ["voc07", "area"])
def test_order_of_files_and_of_rows_changes_nothing(mode: str) -> None:
    results, samples = crowd(0)
    first = measured(results, *samples, mode=mode)
    assert 0.2 < first["AP50"] < 0.95
    for seed in range(5):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(samples))
        shuffled = [results[k][rng.permutation(len(results[k]))] for k in order]
        assert measured(shuffled, *(samples[k] for k in order), mode=mode) == first


@pytest.mark.parametrize("seed", range(6))
def test_upright_boxes_have_cocos_value_where_the_rules_agree(seed: int) -> None:
    """No difficult object, none near another, no equal scores, at most 100 detections an image: then the matches are
    COCO's, and its value is our curve read at 101 recalls, compared in floating point. (It takes IoU >= 0.5 where we
    take more; none is equal here.)
    """
    results, samples = crowd(seed, upright=True)
    rng, total = np.random.default_rng(seed), sum(map(len, results))
    unique = iter(rng.permutation(total) / total)
    results = [
        Detections(
            r.boxes, np.array([next(unique) for _ in range(len(r))], np.float32), r.labels, CLASSES, (1000, 1000)
        )
        for r in results
    ]
    dataset = Dataset("set", "detect", CLASSES, tuple(samples))
    theirs = coco.average_precision(results, dataset)["AP50"]
    ours = []
    for each in match(results, dataset):
        hits, best = curve(each, 0.5)
        ours.append(
            np.mean([best[hits / each.positives >= recall].max(initial=0.0) for recall in np.linspace(0, 1, 101)])
        )
    assert np.mean(ours) == pytest.approx(theirs, abs=1e-9)
    assert average_precision(results, dataset)["AP50"] == pytest.approx(theirs, abs=0.02)


def test_ten_thousand_detections_of_a_class_are_measured_without_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.uniform(0, 5000, (500, 2)), rng.uniform(10, 60, (500, 2)), np.zeros((500, 1))], axis=1)
    rows = np.repeat(truth, 20, axis=0) + rng.normal(0, 2, (10_000, 5))
    metrics = measured([found(rows, rng.random(10_000).tolist())], image(truth))
    assert 0 < metrics["AP50"] < 1


def test_detections_are_matched_in_pieces_as_they_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.training.metrics import matches

    results, samples = crowd(3)
    whole = measured(results, *samples)
    monkeypatch.setattr(matches, "PAIRS", 1)
    assert measured(results, *samples) == whole


def test_wrong_lengths_classes_and_modes_raise() -> None:
    with pytest.raises(UsageError, match="1 results for 2 images"):
        measured([found([], [])], image([]), image([]))
    with pytest.raises(UsageError, match=r"no mode 'voc12' .* possible: voc07, area"):
        measured([found([], [])], image([]), mode="voc12")
    with pytest.raises(UsageError, match="classes car, plane, but other was read with plane, car"):
        average_precision([found([], [])], Dataset("other", "obb", ("plane", "car"), (image([]),)))
