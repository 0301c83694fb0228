"""The reference for rotated boxes against published cases, shapely, exact rational clipping and geometry's own laws."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgekd import geometry
from edgekd.errors import UsageError
from edgekd.geometry.rotated import MAX_ANGLE, _exp_negative, sin_cos


def one(a, b, **options) -> float:
    return float(geometry.iou_rotated(np.float64([a]), np.float64([b]), **options)[0, 0])


def degrees(x, y, w, h, angle) -> tuple[float, ...]:
    return (x, y, w, h, math.radians(angle))


def corners(box) -> list[tuple[float, float]]:
    x, y, w, h, angle = (float(value) for value in box)
    c, s = math.cos(angle), math.sin(angle)
    wide, high = (c * w / 2, s * w / 2), (-s * h / 2, c * h / 2)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [(x + i * wide[0] + j * high[0], y + i * wide[1] + j * high[1]) for i, j in signs]


def rational_iou(a, b) -> float:
    """IoU of the corner polygons by clipping one with the other's edges in exact fractions."""
    clip = [(Fraction(x), Fraction(y)) for x, y in corners(a)]
    polygon = [(Fraction(x), Fraction(y)) for x, y in corners(b)]
    areas = _area(clip), _area(polygon)
    for (x0, y0), (x1, y1) in itertools.pairwise([*clip, clip[0]]):
        sides = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in polygon]
        kept = []
        for i, (point, side) in enumerate(zip(polygon, sides, strict=True)):
            before, side_before = polygon[i - 1], sides[i - 1]
            if (side >= 0) != (side_before >= 0):
                t = side_before / (side_before - side)
                kept.append(tuple(p + t * (q - p) for p, q in zip(before, point, strict=True)))
            if side >= 0:
                kept.append(point)
        polygon = kept
        if not polygon:
            return 0.0
    inter = _area(polygon)
    return float(inter / (areas[0] + areas[1] - inter))


def _area(polygon) -> Fraction:
    ring = itertools.pairwise([*polygon, polygon[0]])
    return abs(sum((x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in ring), Fraction(0))) / 2


# Reported failures of other implementations, with the true values (docs/exactness.md).
PUBLISHED = [
    ((0, 0, 180.6422271729, 136.3633728027, 0.95596486), (0, 0, 180.6422271729, 136.3633728027, 0.95596486), 1, 1e-6),
    (
        degrees(296.6620178, 458.7388306, 23.51572990, 47.67700195, 0.08795166),
        degrees(296.66201, 458.73882, 23.51573, 47.67702, 0.087951), 1, 1e-5,
    ),
    (
        degrees(2563.744629, 1436.790161, 2174.703369, 214.0950012, 115.1183472),
        degrees(2563.744629, 1436.790283, 2174.702881, 214.0949554, 115.1183548), 1, 1e-5,
    ),
    (degrees(160, 153, 230, 23, 37), degrees(190, 127, 80, 21, 46), 0, 0),
    (degrees(160, 153, 230, 23, -37), degrees(190, 127, 80, 21, -46), 0.2654929, 1e-6),
    (
        degrees(1010.5, 860.000122, 12.20655537, 48.82622528, 55.00798035),
        degrees(1022, 870.4999390, 10.81665134, 43.26660919, 56.30992889), 0, 0,
    ),
    (
        degrees(1010.5, 860.000122, 12.20655537, 48.82622528, -55.00798035),
        degrees(1022, 870.4999390, 10.81665134, 43.26660919, -56.30992889), 0.3687587, 1e-5,
    ),
    (
        (135.07, 406.72, 7.9445e-7, 1971.1, 1.7708), (151.008, 436.2173, 302.0159, 313.7347, 3.1184), 2.6e-9, 1e-7,
    ),
    (degrees(160, 153, 230, 23, 37), degrees(-1.1174e17, 1.38584e18, 1000, 1000, 1612), 0, 0),
    (degrees(5, 5, 10, 6, 55), degrees(5, 5, 10, 6, -35), 36 / 84, 1e-6),
    (degrees(0, 0, 5, 10, 30), degrees(0, 0, 10, 5, 60), 0.4058274, 1e-6),
    ((46.83, 44.03, 3.9, 1.63, 0), (46.83, 44.03, 1.63, 3.9, 1.45), 0.8548337, 1e-6),
    ((0, 0, 2, 2, 0), (0, 2, 2, 2, 0), 0, 0),
    ((0, 0, 2, 2, 0), (2, 2, 2, 2, 0), 0, 0),
    ((0, 0, 2, 2, 0), degrees(0, 0, 2, 2, 45), 0.7071068, 1e-6),
    ((0, 0, 1e-3, 1e-3, 0), (5e-4, 0, 1e-3, 1e-3, 0), 1 / 3, 1e-6),
    ((1e6, 1e6, 20, 10, 0.3), (1000005, 1e6, 20, 10, 0.3), 0.4800518, 1e-6),
    ((565, 565, 10, 10, 0), (565, 565, 10, 8.3, 0), 0.83, 1e-6),
    ((50, 50, 40, 30, 0.6), (52, 49, 10, 5, -0.4), 100 * 0.5 / 1200, 1e-6),
    (degrees(100, 100, 50, 20, 10), degrees(110, 104, 40, 30, 55), 0.4355729, 1e-6),
    ((0, 0, 4, 2, 0), degrees(1, 0.5, 5, 2, 30), 0.4465528, 1e-6),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "expected", "error"), PUBLISHED)
def test_published_cases(a, b, expected, error) -> None:
    for dtype in (np.float32, np.float64):
        value = one(a, b, dtype=dtype)
        assert value == pytest.approx(expected, abs=error)
        assert 0 <= value <= 1
        assert one(b, a, dtype=dtype) == value


sizes = st.one_of(st.floats(4, 800), st.sampled_from([4.0, 10.0, 800.0]))
angles = st.one_of(st.floats(-math.pi / 2, math.pi / 2), st.sampled_from([0.0, math.pi / 4, math.pi / 2, -math.pi / 2]))
centres = st.one_of(st.floats(0, 1024), st.sampled_from([0.0, 512.0]))
rectangles = st.tuples(centres, centres, sizes, sizes, angles).map(lambda box: tuple(float(v) for v in np.float32(box)))


@st.composite
def pairs(draw) -> tuple:
    """Two boxes: anywhere, near each other, or copies moved by next to nothing, which is what breaks others."""
    a = draw(rectangles)
    kind = draw(st.sampled_from(["any", "near", "copy"]))
    if kind == "any":
        return a, draw(rectangles)
    if kind == "near":
        b = draw(rectangles)
        return a, (a[0] + draw(st.floats(-50, 50)), a[1] + draw(st.floats(-50, 50)), *b[2:])
    jitter = draw(st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-2]))
    return a, tuple(float(np.float32(v * (1 + jitter * draw(st.floats(-1, 1))))) for v in a)


@settings(max_examples=400, deadline=None)
@given(pairs())
def test_any_pair_has_the_area_of_exact_clipping(pair) -> None:
    a, b = (np.float64(np.float32(box)) for box in pair)
    truth = rational_iou(a, b)
    assert one(a, b) == pytest.approx(truth, abs=1e-5)
    assert one(a, b, dtype=np.float64) == pytest.approx(truth, abs=1e-11)


@settings(max_examples=300, deadline=None)
@given(pairs())
def test_laws_of_any_pair(pair) -> None:
    a, b = pair
    value = one(a, b)
    assert 0 <= value <= 1
    assert one(b, a) == value
    x, y, w, h, angle = b
    wide = one(a, b, dtype=np.float64)  # float32 cannot write the other angles of a rectangle down exactly
    for same in ((x, y, w, h, angle + math.pi), (x, y, h, w, angle + math.pi / 2), (x, y, h, w, angle - math.pi / 2)):
        assert one(a, same, dtype=np.float64) == pytest.approx(wide, abs=1e-11)
    mirrored = [(-box[0], *box[1:4], -box[4]) for box in pair]
    assert one(*mirrored) == pytest.approx(value, abs=2e-5)
    scaled = [(*(8 * v for v in box[:4]), box[4]) for box in pair]  # a power of two changes no rounding
    assert one(*scaled) == value


@settings(max_examples=300, deadline=None)
@given(pairs(), st.floats(1e-3, 50), st.booleans())
def test_boxes_that_stand_apart_overlap_by_exactly_0(pair, gap, along_the_side) -> None:
    a, b = pair
    c, s = math.cos(a[4]), math.sin(a[4])
    across = (c, s) if along_the_side else (-s, c)
    reach = math.hypot(b[2], b[3]) / 2 + a[2 if along_the_side else 3] / 2 + gap
    moved = (a[0] + reach * across[0], a[1] + reach * across[1], *b[2:])
    assert one(a, moved) == 0
    assert one(a, moved, dtype=np.float64) == 0


@settings(max_examples=200, deadline=None)
@given(rectangles, st.floats(0.1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_a_box_within_another_has_the_ratio_of_areas(box, shrink, across, along) -> None:
    x, y, w, h, angle = box
    room_w, room_h = (1 - shrink) * w / 2.01 * across, (1 - shrink) * h / 2.01 * along
    c, s = math.cos(angle), math.sin(angle)
    inner = (x + c * room_w - s * room_h, y + s * room_w + c * room_h, shrink * w, shrink * h, angle)
    assume(shrink < 0.99)
    assert one(box, inner) == pytest.approx(shrink * shrink, abs=2e-5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30)), max_size=8))
def test_upright_boxes_have_the_upright_overlap(rows) -> None:
    boxes = np.float32(rows).reshape(-1, 4)
    xyxy = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    flat = np.concatenate([boxes, np.zeros((len(boxes), 1), np.float32)], axis=1)
    turned = np.concatenate([boxes[:, [0, 1, 3, 2]], np.full((len(boxes), 1), np.pi / 2, np.float32)], axis=1)
    expected = geometry.iou(xyxy, xyxy)
    assert np.allclose(geometry.iou_rotated(flat, flat), expected, atol=1e-6)
    assert np.allclose(geometry.iou_rotated(turned, flat), expected, atol=1e-5)


@pytest.mark.parametrize("at", [0, 1e3, 1e5])
def test_a_common_shift_changes_little(at) -> None:
    rng = np.random.default_rng(0)
    boxes = np.float32(np.column_stack([rng.integers(0, 400, (60, 2)), rng.uniform(10, 90, (60, 2)), rng.random(60)]))
    moved = boxes + np.float32([at, -at, 0, 0, 0])  # whole pixels: the shift itself loses nothing
    assert np.abs(geometry.iou_rotated(moved, moved) - geometry.iou_rotated(boxes, boxes)).max() <= 1e-6


HOSTILE = [np.nan, np.inf, -np.inf, -1.0, 0.0, 3e38, 1e-40, 2.0 * MAX_ANGLE]


@pytest.mark.parametrize("metric", geometry.METRICS)
def test_hostile_numbers_overlap_nothing_or_something_between_0_and_1(metric) -> None:
    rows = [[10, 10, 20, 10, 0.3]]
    for column, value in itertools.product(range(5), HOSTILE):
        rows.append([10, 10, 20, 10, 0.3])
        rows[-1][column] = value
    boxes = np.float32(rows)
    values = geometry.iou_rotated(boxes, boxes, metric=metric)
    assert ((values >= 0) & (values <= 1)).all()
    assert np.array_equal(values, values.T)
    w, h, angle = boxes[:, 2:].astype(np.float64).T
    counts = np.isfinite(boxes).all(1) & (w > 0) & (h > 0) & (np.abs(angle) <= MAX_ANGLE)
    assert (values[~counts] == 0).all()
    assert values[0, 0] > 0.999


def test_shapes_without_boxes() -> None:
    none, some = np.zeros((0, 5)), np.ones((3, 5))
    assert geometry.iou_rotated(none, some).shape == (0, 3)
    assert geometry.iou_rotated(some, none).shape == (3, 0)
    assert geometry.nms_rotated(none, np.zeros(0), 0.5).tolist() == []


def test_sine_and_cosine_are_right_to_the_last_bits() -> None:
    angle = np.concatenate([np.linspace(-9, 9, 20001), np.arange(-8, 9) * np.pi / 4, [MAX_ANGLE, -MAX_ANGLE, 1e5]])
    sine, cosine = sin_cos(angle)
    assert np.abs(sine - np.sin(angle)).max() < 1e-15
    assert np.abs(cosine - np.cos(angle)).max() < 1e-15
    assert [float(v) for v in sin_cos(np.nextafter(MAX_ANGLE, np.inf))] == [0.0, 1.0]
    assert [float(v) for v in sin_cos(np.nan)] == [0.0, 1.0]


def test_exponential_is_right_to_the_last_bits() -> None:
    x = np.linspace(0, 86.9, 50001).astype(np.float32)
    assert np.abs(_exp_negative(x) / np.exp(-x.astype(np.float64)) - 1).max() < 3e-7
    assert _exp_negative(np.float32([87, 1e9, np.inf, np.nan])).tolist() == [0, 0, 0, 0]


def gaussian_iou(a, b) -> float:
    """ProbIoU by the textbook, in float64 with matrices."""
    means, covariances = [], []
    for x, y, w, h, angle in (a, b):
        c, s = math.cos(angle), math.sin(angle)
        turn = np.array([[c, -s], [s, c]])
        means.append(np.array([x, y]))
        covariances.append(turn @ np.diag([w * w / 12, h * h / 12]) @ turn.T)
    mean = (covariances[0] + covariances[1]) / 2
    gap = means[1] - means[0]
    determinants = [np.linalg.det(c) for c in (*covariances, mean)]
    distance = gap @ np.linalg.solve(mean, gap) / 8
    distance += math.log(determinants[2] / math.sqrt(determinants[0] * determinants[1])) / 2
    return 1 - math.sqrt(max(1 - math.exp(-distance), 0))


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_probiou_is_that_of_the_textbook(pair) -> None:
    a, b = (tuple(np.float64(np.float32(box))) for box in pair)
    # Near 1 the root turns an error of 1e-7 into one of 3e-4.
    assert one(a, b, metric="probiou") == pytest.approx(gaussian_iou(a, b), abs=1e-3)


def test_probiou_of_published_cases() -> None:
    assert one((0, 0, 4, 2, 0), degrees(1, 0.5, 5, 2, 30), metric="probiou") == pytest.approx(0.5736083, abs=1e-6)
    assert one((0, 0, 100, 20, 0), degrees(0, 0, 100, 20, 90), metric="probiou") == pytest.approx(0.216, abs=1e-3)
    assert one((0, 0, 100, 20, 0), (30, 0, 100, 20, 0), metric="probiou") == pytest.approx(0.645, abs=1e-3)


@pytest.mark.parametrize(
    ("boxes", "options", "message"),
    [
        (np.zeros((2, 4)), {}, r"expected shape \(N, 5\), got \(2, 4\)"),
        (np.zeros((2, 5)), {"metric": "giou"}, "no metric 'giou'; possible: iou, probiou"),
        (np.zeros((2, 5)), {"dtype": np.float16}, "expected float32 or float64, got .*float16"),
        (np.zeros((2, 5)), {"metric": "probiou", "dtype": np.float64}, "possible in float64: iou"),
    ],
)
def test_wrong_arguments_say_what_they_got(boxes, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        geometry.iou_rotated(boxes, boxes, **options)
