"""Baggage scans."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekd.training.data.synth import Annotations, xray
from edgekd.training.data.synth.outline import hull
from edgekd.training.data.synth.xray_clutter import COVERS, FILLING, LOOKALIKES
from edgekd.training.data.synth.xray_threats import THREATS

COUNT = 100


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, Annotations]]:
    return [xray.scene(11, index, size=160) for index in range(COUNT)]


def test_scene_when_drawn_then_boxes_lie_inside_and_have_area(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    for image, found in scenes:
        height, width = image.shape[:2]
        assert image.dtype == np.uint8
        assert 1 <= len(found.boxes) <= 4
        assert found.boxes.dtype == np.float32
        assert (found.boxes[:, :2] >= 0).all()
        assert (found.boxes[:, 2:] <= (width, height)).all()
        assert (found.boxes[:, 2:] - found.boxes[:, :2] >= 3).all()


def test_scene_when_drawn_then_classes_are_balanced(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    labels = np.concatenate([found.labels for _, found in scenes])
    share = np.bincount(labels, minlength=5) / len(labels)
    assert share.min() > 0.12
    assert share.max() < 0.30


def test_scene_when_drawn_then_some_objects_are_hidden_and_none_beyond_hope(
    scenes: list[tuple[np.ndarray, Annotations]],
) -> None:
    visibility = np.concatenate([found.visibility for _, found in scenes])
    assert (visibility < 0.35).mean() > 0.05
    assert (visibility > 0.6).mean() > 0.1
    assert visibility.min() > 0.02


def test_scene_when_drawn_then_objects_overlap_other_objects(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    overlapping = 0
    for _, found in scenes:
        for k, box in enumerate(found.boxes):
            others = np.delete(found.boxes, k, 0)
            size = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
            overlapping += bool((size > 0).all(1).any())
    assert overlapping > 10


def test_scene_when_size_is_a_side_then_the_aspect_varies_mildly(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    shapes = {image.shape[:2] for image, _ in scenes}
    assert len(shapes) > 3
    assert all(max(shape) == 160 and min(shape) >= 128 for shape in shapes)
    assert xray.scene(0, 0, size=(100, 140))[0].shape == (100, 140, 3)


def test_scene_when_opencv_uses_other_threads_then_pixels_are_the_same() -> None:
    before = cv2.getNumThreads()
    drawn = []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        drawn.append(xray.scene(3, 8)[0])
    cv2.setNumThreads(before)
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("seed", range(6))
def test_annotate_when_objects_lie_alone_then_boxes_are_hulls_of_their_shadows(seed: int) -> None:
    empty = np.zeros((2, 200, 200), np.float32)
    threats = xray._threats(np.random.default_rng(seed), empty, 0.0)
    found = xray._annotate(threats, empty)
    for threat, box in zip(threats, found.boxes, strict=True):
        alone = xray._alone(threat, empty)[1]
        touched = hull(np.exp(-alone) < 0.985)
        assert touched is not None
        assert (box[:2] >= touched[:2]).all()
        assert (box[2:] <= touched[2:]).all()
        assert np.abs(box - touched).max() <= 1  # only the antialiased rim is left out


def test_scene_when_an_object_is_taken_out_then_only_its_box_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is in the picture where its box says: without it, nothing outside its box changes but for blur."""
    attenuations: list[np.ndarray] = []
    expose = xray._expose
    monkeypatch.setattr(xray, "_expose", lambda rng, a: (attenuations.append(a.copy()), expose(rng, a))[1])
    threats: list[list[xray._Threat]] = []
    annotate = xray._annotate
    monkeypatch.setattr(xray, "_annotate", lambda t, a: (threats.append(t), annotate(t, a))[1])
    _, found = xray.scene(0, 2)
    without = attenuations[0] - xray._alone(threats[0][0], attenuations[0])
    (x0, y0), (x1, y1) = found.boxes[0].reshape(2, 2).astype(int)
    changed = np.abs(np.exp(-attenuations[0]) - np.exp(-without)).max(0)
    assert changed[y0:y1, x0:x1].max() > 0.05
    changed[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 0  # the antialiased rim
    assert changed.max() < 1e-6


@pytest.mark.parametrize(
    "family", [THREATS, LOOKALIKES, COVERS, FILLING], ids=["threats", "looks", "covers", "filling"]
)
def test_shapes_when_drawn_many_times_then_they_are_about_a_unit_long_and_vary(family: dict[str, object]) -> None:
    for name, shape in family.items():
        spans = []
        for seed in range(8):
            outlines = [part.outline for part in shape(np.random.default_rng(seed)) if not part.cut]  # type: ignore[operator]
            points = np.concatenate(outlines)
            assert np.isfinite(points).all(), name
            spans.append(np.ptp(points, axis=0))
        assert 0.3 < float(np.max(spans, axis=1).mean()) < 1.6, name
        assert float(np.std(spans, axis=0).max()) > 1e-3, name


def test_lookalikes_when_listed_then_none_is_a_class() -> None:
    assert not set(THREATS) & (set(LOOKALIKES) | set(COVERS) | set(FILLING))


def test_cover_when_laid_again_and_again_then_every_threat_still_gets_light() -> None:
    rng = np.random.default_rng(0)
    attenuation = np.full((2, 200, 200), 0.3, np.float32)
    threats = xray._threats(rng, attenuation, 0.0)
    before = attenuation.copy()
    for _ in range(60):
        xray._cover(rng, attenuation, threats)
    assert (attenuation - before).max() > 0.5
    for threat in threats:
        assert xray._light(attenuation - xray._alone(threat, attenuation), threat.shadow) > 0.119
