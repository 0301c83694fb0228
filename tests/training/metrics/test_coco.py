"""Average precision on results whose value is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgekd._detections import Detections
from edgekd.errors import UsageError
from edgekd.training.data.sample import Dataset, Sample
from edgekd.training.metrics import oriented
from edgekd.training.metrics.coco import FIGURES, average_precision

CLASSES = ("cat", "dog")


def sample(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Sample:
    return Sample(
        Path("none.png"),
        (400, 300),
        np.array(boxes, np.float32).reshape(len(boxes), -1 if boxes else 4),
        np.array(labels, np.int64),
        np.array(difficult or [False] * len(boxes), bool),
    )


def dataset(*samples: Sample) -> Dataset:
    return Dataset("set", "detect", CLASSES, samples)


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    shaped = np.array(boxes, np.float32).reshape(len(boxes), -1 if boxes else 4)
    return Detections(shaped, np.array(scores, np.float32), np.array(labels, np.int64), CLASSES, (300, 400))


BOX = [10.0, 20.0, 60.0, 80.0]  # 3000 px²: medium


def test_exact_boxes_give_one_and_absent_sizes_nan() -> None:
    metrics = average_precision([found([BOX], [0.9], [0])], dataset(sample([BOX], [0])))
    assert [metrics[name] for name in ("AP", "AP50", "AP75", "AP_medium")] == pytest.approx([1] * 4)
    assert math.isnan(metrics["AP_small"])
    assert math.isnan(metrics["AP_large"])
    assert metrics["per_class"]["cat"] == pytest.approx(1)
    assert math.isnan(metrics["per_class"]["dog"])


def test_no_detections_give_zero() -> None:
    metrics = average_precision([found([], [], [])], dataset(sample([BOX], [0])))
    assert metrics["AP"] == metrics["AP50"] == 0


def test_iou_of_eight_tenths_counts_at_seven_thresholds_of_ten() -> None:
    narrow = [10.0, 20.0, 50.5, 80.0]  # 0.81 of the width: above .50 .55 .60 .65 .70 .75 .80
    metrics = average_precision([found([narrow], [0.9], [0])], dataset(sample([BOX], [0])))
    assert metrics["AP"] == pytest.approx(0.7)
    assert metrics["AP50"] == pytest.approx(1) == metrics["AP75"]


def test_wrong_label_does_not_match() -> None:
    metrics = average_precision([found([BOX], [0.9], [1])], dataset(sample([BOX], [0])))
    assert metrics["AP50"] == 0


def test_better_scored_false_positive_halves_precision() -> None:
    elsewhere = [200.0, 100.0, 250.0, 160.0]
    results = found([elsewhere, BOX], [0.9, 0.8], [0, 0])
    assert average_precision([results], dataset(sample([BOX], [0])))["AP50"] == pytest.approx(0.5)


def test_detection_on_a_difficult_object_counts_neither_for_nor_against() -> None:
    hard = [200.0, 100.0, 250.0, 160.0]
    truth = dataset(sample([BOX, hard], [0, 0], [False, True]))
    both = average_precision([found([hard, BOX], [0.9, 0.8], [0, 0])], truth)
    easy_only = average_precision([found([BOX], [0.8], [0])], truth)
    assert both["AP50"] == pytest.approx(1) == easy_only["AP50"]


def test_every_detection_on_a_difficult_object_is_ignored_as_oriented_sets_have_it() -> None:
    hard = [200.0, 100.0, 250.0, 160.0]
    truth = dataset(sample([BOX, hard], [0, 0], [False, True]))
    results = found([hard, [200.0, 101.0, 250.0, 160.0], BOX], [0.9, 0.85, 0.8], [0, 0, 0])
    assert average_precision([results], truth)["AP50"] == pytest.approx(1)
    assert oriented.average_precision([results], truth)["AP50"] == pytest.approx(1)


def test_detection_inside_a_difficult_object_is_none_of_it_unless_that_is_a_crowd() -> None:
    large, inside = [100.0, 0.0, 300.0, 200.0], [[110.0, 10.0, 150.0, 60.0], [200.0, 20.0, 240.0, 80.0]]
    results = found([*inside, BOX], [0.9, 0.85, 0.8], [0, 0, 0])
    plain = sample([BOX, large], [0, 0], [False, True])
    assert average_precision([results], dataset(plain))["AP50"] == pytest.approx(1 / 3)
    crowd = dataclasses.replace(plain, crowd=np.array([False, True]))
    assert average_precision([results], dataset(crowd))["AP50"] == pytest.approx(1)


def test_crowds_are_counted_as_pycocotools_counts_them() -> None:
    rng = np.random.default_rng(0)
    samples, results, entries = [], [], []
    for image in range(12):
        corners = rng.uniform(0, 200, (6, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 150, (6, 2))], axis=1).astype(np.float32)
        labels, crowd = rng.integers(0, 2, 6), rng.random(6) < 0.3
        samples.append(Sample(Path("a"), (400, 400), boxes, labels, crowd, crowd=crowd))
        shaken = np.repeat(boxes, 3, axis=0) + rng.normal(0, 4, (18, 4)).astype(np.float32)
        scores = rng.random(18).astype(np.float32)
        results.append(Detections(shaken, scores, np.repeat(labels, 3), CLASSES, (400, 400)))
        for box, label, many in zip(boxes.astype(float), labels, crowd, strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            row = {"id": len(entries) + 1, "image_id": image, "category_id": int(label), "iscrowd": int(many)}
            entries.append({**row, "bbox": [box[0], box[1], width, height], "area": width * height})
    theirs = COCO()
    theirs.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(12)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES)],
        "annotations": entries,
    }
    theirs.createIndex()
    rows = [row for image, each in enumerate(results) for row in each.to_coco(image)]
    run = COCOeval(theirs, theirs.loadRes(rows), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    ours = average_precision(results, dataset(*samples))
    assert [ours[name] for name in FIGURES] == pytest.approx(run.stats[:6].tolist())
    blind = average_precision(results, dataset(*(dataclasses.replace(each, crowd=None) for each in samples)))
    assert blind["AP"] < ours["AP"]


def test_sizes_are_told_apart() -> None:
    small, large = [0.0, 0.0, 20.0, 20.0], [100.0, 50.0, 250.0, 200.0]
    truth = dataset(sample([small, large], [0, 0]))
    metrics = average_precision([found([large], [0.9], [0])], truth)
    assert metrics["AP_small"] == 0
    assert metrics["AP_large"] == pytest.approx(1)
    assert math.isnan(metrics["AP_medium"])


def test_oriented_boxes_are_compared_by_their_hulls() -> None:
    oriented = [35.0, 50.0, 60.0, 50.0, -math.pi / 2]  # stands upright: the hull is BOX
    metrics = average_precision([found([oriented], [0.9], [0])], dataset(sample([BOX], [0])))
    assert metrics["AP75"] == pytest.approx(1)
    metrics = average_precision([found([BOX], [0.9], [0])], dataset(sample([oriented], [0])))
    assert metrics["AP75"] == pytest.approx(1)


def test_one_result_per_image_is_required() -> None:
    with pytest.raises(UsageError, match="1 results for 2 images"):
        average_precision([found([], [], [])], dataset(sample([BOX], [0]), sample([], [])))


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    average_precision([found([BOX], [0.9], [0])], dataset(sample([BOX], [0])))
    assert capsys.readouterr().out == ""
