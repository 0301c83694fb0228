"""False positives on background and at equal recall."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgekd._detections import Detections
from edgekd.errors import UsageError
from edgekd.training.data.sample import Dataset, Sample
from edgekd.training.metrics.background import at_equal_recall, at_recall, background_false_positives

CLASSES = ("car", "plane")
SIZE = (1000, 1000)


def sample(*objects: tuple[float, int], difficult: bool = False) -> Sample:
    boxes = np.array([[x, 50, 40, 20, 0.3] for x, _ in objects], np.float32).reshape(-1, 5)
    labels = np.array([label for _, label in objects], np.int64)
    return Sample(Path("none.png"), SIZE, boxes, labels, np.full(len(boxes), difficult))


def found(*rows: tuple[float, int, float]) -> Detections:
    boxes = np.array([[x, 50, 40, 20, 0.3] for x, _, _ in rows], np.float32).reshape(-1, 5)
    scores, labels = np.array([score for *_, score in rows], np.float32), np.array([k for _, k, _ in rows], np.int64)
    return Detections(boxes, scores, labels, CLASSES, SIZE)


TRUTH = Dataset("set", "obb", CLASSES, (sample((100, 0), (300, 1)), sample(), sample(), sample((100, 1))))
CLEAN = [found((100, 0, 0.9), (300, 1, 0.5)), found((100, 0, 0.2)), found(), found((100, 1, 0.8))]
NOISY = [found((100, 0, 0.9), (300, 1, 0.3)), found((100, 0, 0.6), (300, 1, 0.4)), found((9, 0, 0.4)), found()]


def test_detections_on_images_without_objects_are_counted_from_the_confidence_on() -> None:
    assert background_false_positives(NOISY, TRUTH, 0.4) == 1.5
    assert background_false_positives(NOISY, TRUTH, 0.41) == 0.5
    assert background_false_positives(CLEAN, TRUTH, 0.25) == 0


def test_image_of_difficult_objects_alone_is_no_background() -> None:
    hard = Dataset("set", "obb", CLASSES, (sample((100, 0), difficult=True),))
    assert math.isnan(background_false_positives([found((500, 0, 0.9))], hard, 0.1))


def test_point_at_a_recall_has_the_highest_confidence_that_reaches_it() -> None:
    point = at_recall(CLEAN, TRUTH, 2 / 3)
    assert (point.confidence, point.recall) == (pytest.approx(0.8), pytest.approx(2 / 3))
    assert point.false_positives == point.background_false_positives == 0
    point = at_recall(NOISY, TRUTH, 0.5)  # 2 of 3 objects: 0.3 lets 3 false ones through, over 4 images
    assert (point.confidence, point.recall) == (pytest.approx(0.3), pytest.approx(2 / 3))
    assert (point.false_positives, point.background_false_positives) == (0.75, 1.5)


def test_two_detectors_meet_at_the_recall_that_both_reach() -> None:
    clean, noisy = at_equal_recall(CLEAN, NOISY, TRUTH)
    assert clean.recall == noisy.recall == pytest.approx(2 / 3)
    assert (clean.background_false_positives, noisy.background_false_positives) == (0, 1.5)
    clean, noisy = at_equal_recall(CLEAN, NOISY, TRUTH, recall=0.2)
    assert (clean.confidence, noisy.confidence) == (pytest.approx(0.9), pytest.approx(0.9))
    with pytest.raises(UsageError, match=r"recall 1 is not reached; possible here: 0 to 0.666667"):
        at_equal_recall(CLEAN, NOISY, TRUTH, recall=1)


def test_no_object_has_no_recall() -> None:
    with pytest.raises(UsageError, match="no object that counts"):
        at_recall([found()], Dataset("set", "obb", CLASSES, (sample(),)), 0.5)


def test_recall_of_nothing_reports_nothing() -> None:
    point = at_recall(NOISY, TRUTH, 0.0)
    assert (point.recall, point.false_positives, point.background_false_positives) == (0, 0, 0)
