"""The reference against independent oracles: exact fractions, float64, OpenCV, and the definition itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import geometry, ops
from edgekd.errors import UsageError

sides = st.integers(1, 200)


@given(sides, sides, sides, sides)
def test_place_keeps_the_aspect_and_touches_two_borders(h, w, height, width) -> None:
    placement, new_height, new_width = geometry.place(h, w, height, width)
    scale = min(Fraction(width, w), Fraction(height, h))
    assert new_width == max(1, int(w * scale + Fraction(1, 2)))
    assert new_height == max(1, int(h * scale + Fraction(1, 2)))
    assert new_width == width or new_height == height
    assert 0 <= (width - new_width) - 2 * placement.left <= 1
    assert 0 <= (height - new_height) - 2 * placement.top <= 1


@given(sides, sides)
def test_taps_lie_within_half_a_step_of_the_exact_position(source, target) -> None:
    first, second, weight = geometry.taps(source, target)
    for x in range(target):
        exact = Fraction((2 * x + 1) * source - target, 2 * target)
        exact = min(max(exact, Fraction(0)), Fraction(source - 1))
        assert abs(Fraction(int(first[x])) + Fraction(int(weight[x]), 2048) - exact) <= Fraction(1, 4096)
        assert second[x] == min(first[x] + 1, source - 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 9))
def test_resize_is_within_rounding_of_float64_bilinear(h, w, height, width, seed) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 1), np.uint8)
    exact = _bilinear(image[:, :, 0].astype(np.float64), height, width)
    # Half a level from rounding, and at most 1/4096 of the full range along each axis from the weights.
    assert np.abs(geometry.resize(image, height, width)[:, :, 0] - exact).max() <= 0.5 + 2 * 255 / 4096 + 1e-9


def _bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    for axis, size in ((0, height), (1, width)):
        source = image.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
        low = np.floor(position).astype(int)
        weight = (position - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, source - 1)
        image = image.take(low, axis) * (1 - weight) + image.take(high, axis) * weight
    return image


@pytest.mark.parametrize(
    "size", [(1080, 1920, 360, 640), (480, 640, 240, 320), (1000, 800, 640, 512), (90, 70, 333, 222)]
)
def test_resize_is_within_one_level_of_opencv(size) -> None:
    cv2 = pytest.importorskip("cv2")
    h, w, height, width = size
    image = np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
    theirs = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(geometry.resize(image, height, width).astype(int) - theirs).max() <= 1


def test_letterbox_places_orders_and_normalises() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :, 0], image[:, :, 2] = 10, 30
    planes, placement = geometry.letterbox(image, 4, 4, swap=True, mean=(5, 0, 0), std=(2, 1, 4), pad=114)
    assert (placement.left, placement.top, placement.scale_x, placement.scale_y) == (0, 1, 1.0, 1.0)
    assert (planes[:, 1:3] == np.float32([(30 - 5) / 2, 0, 10 / 4])[:, None, None]).all()
    assert (planes[:, [0, 3]] == np.float32([(114 - 5) / 2, 114, 114 / 4])[:, None, None]).all()


def test_letterbox_of_grey_fills_three_channels_and_alpha_is_ignored() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (7, 9, 1), np.uint8)
    options = {"swap": False, "mean": (1, 2, 3), "std": (4, 5, 6)}
    three, _ = geometry.letterbox(np.repeat(grey, 3, axis=2), 16, 16, **options)
    four, _ = geometry.letterbox(np.concatenate([np.repeat(grey, 3, axis=2), 255 - grey], axis=2), 16, 16, **options)
    np.testing.assert_array_equal(geometry.letterbox(grey, 16, 16, **options)[0], three)
    np.testing.assert_array_equal(four, three)


def test_value_table_says_what_each_level_becomes() -> None:
    normal = {"mean": (0, 100, 255), "std": (1, 2, 0.5)}
    table = geometry.value_table(**normal, dtype=np.float32)
    assert (table.shape, table.dtype) == ((3, 256), np.float32)
    assert table[:, 101].tolist() == [101, 0.5, -308]
    assert geometry.value_table(**normal, dtype=np.float16)[:, 101].tolist() == [101, 0.5, -308]
    quantized = geometry.value_table(**normal, dtype=np.int8, scale=2, zero_point=-4)
    assert quantized[:, 101].tolist() == [46, -4, -128]  # 50.5 goes to 50, 0.25 to 0, -154 below the range
    assert quantized[:, 103].tolist() == [48, -3, -128]  # 51.5 goes to 52, 0.75 to 1
    assert geometry.value_table((0,) * 3, (1,) * 3, np.uint8).tolist() == [list(range(256))] * 3


def test_value_table_of_halves_reaches_infinity_and_subnormals() -> None:
    large = geometry.value_table((0,) * 3, (1 / 1024, 1 / 256, 2.0**31), np.float16)
    assert large[0, [63, 64]].tolist() == [64512, float("inf")]
    assert large[1, 255] == 65280
    assert large[2, [1, 63, 64, 65, 191, 192]].tolist() == [0, 0, 0, 2.0**-24, 2.0**-24, 2.0**-23]


@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)), ((0, 128, 128), (0, 0, 0)), ((235, 128, 128), (255, 255, 255)),
        ((255, 128, 128), (255, 255, 255)), ((81, 90, 240), (254, 0, 0)), ((145, 54, 34), (0, 255, 1)),
        ((41, 240, 110), (0, 0, 255)), ((126, 128, 128), (128, 128, 128)),
    ],
)  # fmt: skip
def test_yuv_to_rgb_of_known_colours(yuv, rgb) -> None:
    y, u, v = (np.full((1,), value, np.uint8) for value in yuv)
    assert geometry.yuv_to_rgb(y, u, v).tolist() == [list(rgb)]


def test_yuv_to_rgb_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    steps = [*range(0, 256, 5), 127, 128, 129]
    u, v = (grid.ravel().astype(np.uint8) for grid in np.meshgrid(steps, steps))
    y = np.arange(256, dtype=np.uint8)
    frame = np.zeros((len(u), 256, 2), np.uint8)
    frame[:, :, 0], frame[:, 0::2, 1], frame[:, 1::2, 1] = y, u[:, None], v[:, None]
    ours = geometry.decode_frame(frame, "yuyv")
    assert np.abs(ours.astype(int) - cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV)).max() <= 1
    nv12 = np.random.default_rng(0).integers(0, 256, (120, 60), np.uint8)
    ours = geometry.decode_frame(nv12, "nv12")
    assert np.abs(ours.astype(int) - cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12)).max() <= 1


@given(sides, sides, sides, sides, st.integers(0, 9))
def test_undo_inverts_the_placement(h, w, height, width, seed) -> None:
    placement, _, _ = geometry.place(h, w, height, width)
    corners = np.random.default_rng(seed).random((5, 2, 2)) * [w, h]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    scale, offset = [placement.scale_x, placement.scale_y] * 2, [placement.left, placement.top] * 2
    network = (boxes * scale + offset).astype(np.float32)
    np.testing.assert_allclose(placement.undo(network), boxes, rtol=1e-5, atol=2e-5 * max(1.0, 1 / min(scale)) * 200)


def test_undo_clips_to_the_image_and_returns_a_new_array() -> None:
    placement, _, _ = geometry.place(100, 200, 50, 50)
    boxes = np.float32([[-10, -10, 90, 90]])
    assert placement.undo(boxes).tolist() == [[0, 0, 200, 100]]
    assert boxes.tolist() == [[-10, -10, 90, 90]]
    assert placement.undo(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_undo_of_oriented_boxes_maps_their_corners() -> None:
    placement, _, _ = geometry.place(999, 555, 320, 640)
    scale, offset = [placement.scale_x, placement.scale_y], [placement.left, placement.top]
    boxes = np.float32([[300, 500, 80, 30, 0.4], [100, 200, 50, 50, -1.2], [10, 20, 40, 5, 1.5]])
    original = np.float32(placement.undo(boxes))
    expected = (geometry.xywhr_to_corners(boxes) - offset) / scale
    np.testing.assert_allclose(geometry.xywhr_to_corners(original), expected, atol=0.5)
    assert (original[:, 2] >= original[:, 3]).all()
    assert ((original[:, 4] >= -np.pi / 2) & (original[:, 4] < np.pi / 2)).all()


RECTANGLES = st.tuples(
    st.floats(-50, 700), st.floats(-50, 700), st.floats(1, 300), st.floats(1, 300), st.floats(-np.pi / 2, np.pi / 2),
)  # fmt: skip


@given(RECTANGLES, st.integers(-3, 4))
def test_distance_of_one_rectangle_written_two_ways_is_nothing(box, turns) -> None:
    x, y, w, h, r = box
    other = [x, y, *((h, w) if turns % 2 else (w, h)), r + turns * np.pi / 2]
    assert geometry.box_distances([box], [other])[0] < 1e-3
    assert geometry.box_distances([other], [box])[0] < 1e-3


@given(RECTANGLES, st.floats(-2, 2), st.floats(-2, 2), st.integers(-3, 4))
def test_distance_of_a_moved_rectangle_is_the_larger_step(box, dx, dy, turns) -> None:
    x, y, w, h, r = box
    other = [x + dx, y + dy, *((h, w) if turns % 2 else (w, h)), r + turns * np.pi / 2]
    distance = geometry.box_distances([box], [other])[0]
    assert distance <= max(abs(dx), abs(dy)) + 1e-3
    if min(w, h) > 8:  # in one that is thinner than twice the step another corner may come nearer
        assert distance == pytest.approx(max(abs(dx), abs(dy)), abs=1e-3)


@given(RECTANGLES, st.floats(-0.2, 0.2))
def test_distance_of_a_turned_rectangle_is_that_of_its_corners(box, turn) -> None:
    x, y, w, h, r = box
    distance = geometry.box_distances([box], [[x, y, w, h, r + turn]])[0]
    chord = 2 * np.sin(abs(turn) / 2) * np.hypot(w, h) / 2
    assert distance <= chord + 1e-3
    if min(w, h) > max(w, h) / 4:
        assert distance >= chord / np.sqrt(2) - 1e-3


def test_distance_of_upright_boxes_is_that_of_their_coordinates_in_either_layout() -> None:
    boxes, others = np.float32([[10, 20, 30, 60]]), np.float32([[11, 18.5, 30, 60]])
    turned = [np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2], [[0]]], axis=1) for b in (boxes, others)]
    assert geometry.box_distances(boxes, others).tolist() == [1.5]
    assert geometry.box_distances(*turned).tolist() == [1.5]


def test_distance_of_what_is_not_finite_is_not_a_number_and_nothing_warns() -> None:
    boxes = np.float32([[0, 0, 4, 2, 0]] * 3)
    others = np.float32([[0, 0, 4, 2, np.nan], [0, 0, np.inf, 2, 0], [0, 0, 4, 2, np.inf]])
    assert not np.isfinite(geometry.box_distances(boxes, others)).any()
    assert geometry.box_distances(np.empty((0, 5)), np.empty((0, 5))).shape == (0,)


def test_undo_of_corners_is_that_of_each_point() -> None:
    placement, _, _ = geometry.place(100, 200, 64, 64)
    corners = geometry.xyxy_to_corners(np.float32([[10, 20, 30, 40], [60, 15, 70, 20]]))
    original = placement.undo(corners)
    assert original.shape == (2, 4, 2)
    points = (corners.reshape(-1, 2) - [placement.left, placement.top]) / [placement.scale_x, placement.scale_y]
    np.testing.assert_allclose(original.reshape(-1, 2), points, rtol=1e-6)
    assert original.max() > 200, "not clipped: a corner may lie outside"


def test_undo_of_a_shape_that_is_no_box_says_so() -> None:
    with pytest.raises(UsageError, match=r"\(2, 6\)"):
        geometry.place(9, 9, 9, 9)[0].undo(np.zeros((2, 6), np.float32))


def test_corners_go_clockwise_on_the_image_from_the_top_left() -> None:
    corners = geometry.xyxy_to_corners([[1, 2, 5, 8]])
    assert corners.tolist() == [[[1, 2], [5, 2], [5, 8], [1, 8]]]
    np.testing.assert_allclose(geometry.xywhr_to_corners([[3, 5, 4, 6, 0]]), corners)


def test_corners_of_a_quarter_turn_clockwise_start_at_the_top_right() -> None:
    corners = geometry.xywhr_to_corners([[0, 0, 4, 2, np.pi / 2]])[0]
    np.testing.assert_allclose(corners, [[1, -2], [1, 2], [-1, 2], [-1, -2]], atol=1e-6)


boxes = st.tuples(*[st.integers(0, 60)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)


@given(boxes, boxes)
def test_iou_equals_exact_fractions(a, b) -> None:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    exact = Fraction(inter, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
    ours = geometry.iou([a], [b])[0, 0]
    assert ours == np.float32(exact.numerator) / np.float32(exact.denominator)
    assert ours == geometry.iou([b], [a])[0, 0]


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 5),
        (0, 0, -1, 5),
        (5, 5, 0, 0),
        (np.nan, 0, 5, 5),
        (0, 0, np.inf, 5),
        (-np.inf, 0, 5, 5),
        (-3e38, 0, 3e38, 1),
    ],
)
def test_a_box_that_does_not_count_overlaps_nothing_and_is_never_kept(box) -> None:
    boxes = np.float32([box, (0, 0, 5, 5)])
    assert geometry.iou(boxes, boxes).tolist() == [[0, 0], [0, 1]]
    assert geometry.nms(boxes, np.float32([0.9, 0.1]), 0.0).tolist() == [1]


@settings(max_examples=100, deadline=None)
@given(st.lists(boxes, max_size=30), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(0, 9))
def test_nms_satisfies_its_definition(rows, iou, seed) -> None:
    rng = np.random.default_rng(seed)
    array = np.array(rows, np.float32).reshape(-1, 4)
    scores, labels = rng.integers(0, 5, len(rows)).astype(np.float32) / 4, rng.integers(0, 2, len(rows))
    keep = geometry.nms(array, scores, iou, labels).tolist()
    rank = {int(i): place for place, i in enumerate(np.lexsort((np.arange(len(rows)), -scores)))}
    assert keep == sorted(keep, key=rank.__getitem__)
    overlap = geometry.iou(array, array)
    for i in range(len(rows)):
        rivals = [j for j in keep if rank[j] < rank[i] and labels[i] == labels[j] and overlap[i, j] > np.float32(iou)]
        assert (i in keep) == (not rivals)


def test_suppress_is_candidates_then_nms_then_a_cut() -> None:
    boxes = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10], [80, 80, 90, 90]])
    scores = np.float32([[0.9, 0.1], [0.8, 0.1], [0.3, 0.7], [0.1, 0.6], [0.2, 0.2]])
    kept, best, labels = geometry.suppress(boxes, scores, conf=0.25, iou=0.5, max_det=9, max_candidates=9, classes=None)
    assert (labels.tolist(), best.tolist()) == ([0, 1, 1], np.float32([0.9, 0.7, 0.6]).tolist())
    np.testing.assert_array_equal(kept, boxes[[0, 2, 3]])
    fewer = geometry.suppress(boxes, scores, conf=0.25, iou=0.5, max_det=1, max_candidates=9, classes=[1])
    np.testing.assert_array_equal(fewer[0], boxes[[2]])


@pytest.mark.parametrize("size", [(3, 7), (16, 16), (40, 9), (1, 1)])
def test_stretched_image_fills_the_canvas_and_boxes_come_back(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    plain = {"swap": False, "mean": (0, 0, 0), "std": (1, 1, 1), "stretch": True}
    values, placement = geometry.letterbox(image, 12, 20, **plain)
    np.testing.assert_array_equal(values, geometry.resize(image, 12, 20).transpose(2, 0, 1))
    whole = placement.undo(np.array([[0, 0, 20, 12]], np.float32))
    np.testing.assert_allclose(whole, [[0, 0, size[1], size[0]]], rtol=1e-6)
    same, twin = ops.letterbox(image, 12, 20, **plain)
    np.testing.assert_array_equal(same, values)
    assert twin == placement


@pytest.mark.parametrize("shape", [(4, 5), (8,), (2, 2, 4), (0,)])
def test_boxes_when_they_have_another_shape_then_the_reference_refuses_them_too(shape) -> None:
    wrong, right = np.zeros(shape, np.float32), np.zeros((1, 4), np.float32)
    for call in (
        lambda: geometry.iou(wrong, right),
        lambda: geometry.iou(right, wrong),
        lambda: geometry.xyxy_to_corners(wrong),
        lambda: geometry.xywhr_to_corners(wrong.reshape(-1, 4)),
    ):
        with pytest.raises(UsageError, match="expected shape"):
            call()
