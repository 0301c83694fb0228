"""Large images by tiles: every object once, whole, where an untiled pass sees it, whatever the seams cut."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import Detections, geometry
from edgekd._detector import BATCH, Detector, DetectorInfo
from edgekd._manifest import ANGLE, InputSpec, Manifest, OutputSpec, Suppression
from edgekd._preprocess import MAX_SIDE, ImageArray
from edgekd._session import SessionInfo
from edgekd._tiles import MAX_WINDOWS, Tiling, merge, tiling
from edgekd.errors import ClosedError, DeadlineError, ImageError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

INFO = DetectorInfo(SessionInfo("colours", "fp32", "fp32", "cpu", "none"), "only one")
TILE, OVERLAP, LONGEST = 96, 40, 34
ROWS = 64
STAGES = ["decode", "letterbox", "infer", "suppress", "merge", "total"]


class ColourSession:
    """Finds regions of one colour exactly, and trusts small ones most: pieces at seams outscore whole objects."""

    info = INFO.session
    parallel = 1

    def __init__(self, *, oriented: bool) -> None:
        self.oriented = oriented
        self.batches: list[int] = []

    def infer(self, pixels: NDArray[np.float32], _out: object = None) -> tuple[NDArray[np.float32], ...]:
        self.batches.append(len(pixels))
        boxes = np.zeros((len(pixels), ROWS, 5 if self.oriented else 4), np.float32)
        scores = np.zeros((len(pixels), ROWS, 2), np.float32)
        for image, planes in enumerate(pixels):
            codes = planes[0]  # 0: background, 114: padding
            for row, code in enumerate(item for item in np.unique(codes) if item not in (0, 114)):
                y, x = np.nonzero(codes == code)
                boxes[image, row], fill = self._box(x, y)
                scores[image, row, int(code) % 2] = (1 - 1e-4 * len(x)) if fill > 0.78 else 0.1  # tips are no objects
        return boxes, scores

    def _box(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[Any, float]:
        if not self.oriented:
            return (x.min(), y.min(), x.max() + 1, y.max() + 1), 1.0
        corners = np.concatenate([np.stack([x + dx, y + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
        (cx, cy), (w, h), degrees = cv2.minAreaRect(corners.astype(np.float32))
        return (cx, cy, w, h, np.deg2rad(degrees)), len(x) / (w * h)

    def close(self) -> None:
        """Nothing is held."""


def detector(size: int = TILE, *, oriented: bool = False) -> tuple[Detector, ColourSession]:
    columns, layout = (5, "xywhr") if oriented else (4, "xyxy")
    manifest = Manifest(
        name="colours",
        task="detect",
        classes=("even", "odd"),
        input=InputSpec(height=size, width=size, color="rgb"),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(ROWS, columns), layout=layout),
            OutputSpec(name="scores", kind="scores", shape=(ROWS, 2), activation="sigmoid"),
        ),
        angle=ANGLE if oriented else None,
    )
    session = ColourSession(oriented=oriented)
    return Detector(manifest, session, INFO), session


def scene(seed: int, height: int, width: int, *, oriented: bool) -> NDArray[np.uint8]:
    """Return a picture with one object somewhere in every cell of 60 pixels, no side longer than `LONGEST`."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.uint8)
    code = 0
    for top in range(0, height - 59, 60):
        for left in range(0, width - 59, 60):
            code += 1 + (code + 1 == 114)
            x, y = left + rng.uniform(18, 42), top + rng.uniform(18, 42)
            w, h = rng.uniform(18, LONGEST - 6), rng.uniform(12, 18)
            angle = rng.uniform(-np.pi / 2, np.pi / 2) if oriented else rng.choice([0, np.pi / 2])
            corners = geometry.xywhr_to_corners([[x, y, w, h, angle]])[0]
            cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], code)
    return np.repeat(image[:, :, None], 3, axis=2)


def assert_same_objects(found: Detections, expected: Detections, within: float) -> None:
    assert len(found) == len(expected) > 0
    assert (np.diff(found.scores) <= 0).all()
    for box, label in zip(expected.boxes, expected.labels, strict=True):
        near = geometry.box_distances(found.boxes, np.repeat(box[None], len(found), 0)) <= within
        assert (near & (found.labels == label)).sum() == 1, box


@pytest.mark.parametrize("oriented", [False, True], ids=["upright", "oriented"])
@given(st.integers(0, 1 << 32), st.integers(100, 330), st.integers(60, 330), st.integers(LONGEST + 2, 70))
@settings(max_examples=40, deadline=None)
def test_tiles_find_what_an_untiled_pass_finds_each_object_once(
    oriented: bool, seed: int, height: int, width: int, overlap: int
) -> None:
    image = scene(seed, height, width, oriented=oriented)
    found = detector(oriented=oriented)[0].predict(image, tile=TILE, overlap=overlap)
    whole = detector(max(height, width), oriented=oriented)[0].predict(image)
    assert found.image_size == whole.image_size == (height, width)
    assert len(whole) == (height // 60) * (width // 60)
    assert_same_objects(found, whole, 1e-3)


def test_without_overlap_objects_are_cut_so_the_test_above_can_fail() -> None:
    image = scene(3, 300, 300, oriented=False)
    whole = detector(300)[0].predict(image)
    assert len(detector()[0].predict(image, tile=TILE, overlap=0)) > len(whole)


def test_tiles_larger_than_the_network_are_scaled_and_undone() -> None:
    image = np.zeros((400, 300, 3), np.uint8)
    image[300:340, 200:280] = 9
    (found,) = detector()[0].predict(image, tile=2 * TILE, overlap=100)
    np.testing.assert_allclose(found.boxes, [[200, 300, 280, 340]], atol=3)


@pytest.mark.parametrize(("height", "width", "tiles"), [(96, 96, 1), (97, 96, 2), (40, 96, 1), (300, 30, 5)])
def test_images_no_larger_than_a_tile_go_the_usual_way(height: int, width: int, tiles: int) -> None:
    made, session = detector()
    found = made.predict(np.zeros((height, width, 3), np.uint8), tile=TILE, overlap=OVERLAP)
    assert sum(session.batches) == tiles
    assert list(found.timings_ms) == (STAGES if tiles > 1 else [name for name in STAGES if name != "merge"])
    assert found.boxes.shape == (0, 4)


def test_no_more_than_a_batch_of_tiles_is_in_the_network_at_once() -> None:
    made, session = detector()
    made.predict(np.zeros((400, 400, 3), np.uint8), tile=TILE, overlap=OVERLAP)
    count = len(geometry.windows(400, 400, TILE, OVERLAP))
    assert count > 2 * BATCH
    assert sum(session.batches) == count
    assert max(session.batches) == BATCH


def test_images_of_a_list_are_looked_at_one_by_one() -> None:
    large, small = scene(1, 250, 200, oriented=False), scene(2, 90, 90, oriented=False)
    made = detector()[0]
    found = made.predict([large, small, large], tile=TILE, overlap=OVERLAP)
    for item, image in zip(found, (large, small, large), strict=True):
        np.testing.assert_array_equal(item.boxes, made.predict(image, tile=TILE, overlap=OVERLAP).boxes)
    np.testing.assert_array_equal(found[1].boxes, made.predict(small).boxes)
    assert made.predict([], tile=TILE) == []


def test_timings_add_up_over_tiles() -> None:
    timings = detector()[0].predict(scene(1, 250, 200, oriented=False), tile=TILE).timings_ms
    assert list(timings) == STAGES
    assert timings["total"] == pytest.approx(sum(timings[name] for name in STAGES[:-1]))
    assert all(timings[name] > 0 for name in STAGES)


def test_options_hold_for_the_image() -> None:
    image = scene(4, 300, 300, oriented=True)
    made = detector(oriented=True)[0]
    every = made.predict(image, tile=TILE, overlap=OVERLAP)
    assert len(made.predict(image, tile=TILE, overlap=OVERLAP, max_det=3)) == 3
    np.testing.assert_array_equal(made.predict(image, tile=TILE, overlap=OVERLAP, max_det=3).boxes, every[:3].boxes)
    assert set(made.predict(image, tile=TILE, overlap=OVERLAP, classes=["odd"]).names) == {"odd"}
    assert len(made.predict(image, tile=TILE, overlap=OVERLAP, conf=1.0)) == 0
    assert len(made.predict(image, tile=TILE, overlap=70, iou=1.0)) > len(every), "doubles at seams stay"


def test_bundles_default_of_max_det_holds_for_each_tile() -> None:
    image = scene(4, 300, 300, oriented=False)
    made = detector()[0]
    made.manifest = dataclasses.replace(made.manifest, predict=Suppression(max_det=4))
    assert len(made.predict(image, tile=TILE, overlap=OVERLAP)) > 4
    assert len(made.predict(image, tile=TILE, overlap=OVERLAP, max_det=4)) == 4
    assert len(made.predict(image)) <= 4


def test_colour_order_and_alpha_of_large_arrays_are_those_of_small_ones() -> None:
    image = scene(5, 250, 250, oriented=False)
    image[:, :, 1:] = 0  # only the first channel counts, and that is red
    made = detector()[0]
    assert len(made.predict(image, tile=TILE, color="rgb")) == len(made.predict(image[:, :, ::-1], tile=TILE)) > 0
    with_alpha = np.concatenate([image, np.full((250, 250, 1), 7, np.uint8)], axis=2)
    assert len(made.predict(with_alpha, tile=TILE, color="rgb")) == len(made.predict(image, tile=TILE, color="rgb"))
    with pytest.raises(ImageError, match="float"):
        made.predict(image.astype(np.float32), tile=TILE)


WRONG = [
    ({"tile": 0}, "tile should be a whole number of pixels, at least 1, got 0"),
    ({"tile": -1024}, "at least 1, got -1024"),
    ({"tile": 10.0}, r"tile should be a whole number of pixels, at least 1, got 10\.0"),
    ({"tile": True}, "got True"),
    ({"tile": 64, "overlap": 64}, "overlap should be a whole number of pixels, 0 to tile - 1 = 63, got 64"),
    ({"tile": 64, "overlap": 200}, "0 to tile - 1 = 63, got 200"),
    ({"tile": 64, "overlap": -1}, "got -1"),
    ({"tile": 64, "overlap": 0.2}, r"got 0\.2"),
    ({"overlap": 200}, "overlap=200 is between tiles; give their side as well, for example tile=1024"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_tiles_that_make_no_sense_are_refused_before_anything_runs(options: dict[str, Any], words: str) -> None:
    made, session = detector()
    for images in (np.zeros((10, 10, 3), np.uint8), []):
        with pytest.raises(UsageError, match=words):
            made.predict(images, **options)
    assert session.batches == []


@pytest.mark.parametrize(("tile", "overlap", "count"), [(1, None, 4_000_000), (64, 63, 1937**2)])
def test_windows_without_number_are_refused_before_they_are_made(tile: int, overlap: int | None, count: int) -> None:
    made, session = detector()
    with pytest.raises(UsageError, match=rf"2000x2000 pixels into {count} windows, of at most 4096; .*tile=1024"):
        made.predict(np.zeros((2000, 2000, 3), np.uint8), tile=tile, overlap=overlap)
    assert session.batches == []


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 130), st.data())
@settings(deadline=None)
def test_windows_are_counted_as_they_are_made(height: int, width: int, tile: int, data: st.DataObject) -> None:
    asked = Tiling(tile, data.draw(st.integers(0, tile - 1)))
    image = ImageArray(np.zeros((height, width, 1), np.uint8), "rgb")
    count = len(geometry.windows(height, width, asked.tile, asked.overlap))
    if count <= MAX_WINDOWS:
        assert len(asked.windows(image)) == count
    else:
        with pytest.raises(UsageError, match=f"into {count} windows"):
            asked.windows(image)


def test_largest_image_by_tiles_of_640_pixels_is_not_refused() -> None:
    image = ImageArray(np.broadcast_to(np.uint8(0), (MAX_SIDE, MAX_SIDE, 3)), "rgb")
    assert len(Tiling(640, 128).windows(image)) == MAX_WINDOWS


def test_call_by_tiles_when_its_time_is_over_then_its_thread_is_free_after_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, session = detector()
    infer, over = session.infer, threading.Event()

    def late(pixels: NDArray[np.float32], out: object = None) -> tuple[NDArray[np.float32], ...]:
        assert over.wait(10)
        return infer(pixels, out)

    monkeypatch.setattr(session, "infer", late)
    large = np.zeros((1000, 1000, 3), np.uint8)
    future = made.submit(large, timeout_ms=20, tile=TILE, overlap=OVERLAP)
    with pytest.raises(DeadlineError, match="within timeout_ms=20"):
        future.result(10)
    over.set()
    assert len(made.submit(large[:90, :90]).result(10)) == 0
    made.close()  # waits for what still runs
    assert sum(session.batches) <= BATCH + 1


def test_close_amid_many_tiles_waits_for_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made, session = detector()
    closing = threading.Thread(target=made.close)
    real = session.infer

    def infer(*words: Any) -> tuple[NDArray[np.float32], ...]:
        closing.start()
        while not made._engine._closed:
            time.sleep(0.001)
        return real(*words)

    monkeypatch.setattr(session, "infer", infer)
    with pytest.raises(ClosedError, match="load the bundle again"):
        made.predict(np.zeros((400, 400, 3), np.uint8), tile=TILE, overlap=OVERLAP)
    closing.join(10)
    assert not closing.is_alive()
    assert session.batches == [BATCH]


def test_overlap_is_a_fifth_unless_it_is_said() -> None:
    assert tiling(1024, None) == Tiling(1024, 204)
    assert tiling(np.int64(1024), np.int64(200)) == Tiling(1024, 200)
    assert tiling(1, None) == Tiling(1, 0)
    assert tiling(None, None) is None


def test_merge_moves_only_places_not_sides_or_angles() -> None:
    window = np.array([[0, 0, 50, 50], [30, 40, 80, 90]])
    turned = np.float32([[10, 12, 8, 4, 0.5]])
    parts = [Detections(turned, np.float32([score]), np.array([0]), ("a",), (50, 50), dict.fromkeys(STAGES, 1.0))
             for score in (0.5, 0.9)]  # fmt: skip
    found = merge(parts, window, (90, 80), decode_s=0.002, iou=0.5, max_det=None)
    np.testing.assert_allclose(found.boxes, [[40, 52, 8, 4, 0.5], [10, 12, 8, 4, 0.5]], rtol=1e-6)
    assert found.timings_ms["decode"] == 2.0
    assert found.timings_ms["infer"] == 2.0
    assert parts[0].boxes.tolist() == turned.tolist()


def test_image_fits_by_its_longer_side() -> None:
    assert Tiling(100, 20).fits(ImageArray(np.zeros((100, 3, 3), np.uint8), "rgb"))
    assert not Tiling(100, 20).fits(ImageArray(np.zeros((3, 101, 3), np.uint8), "rgb"))
