"""Anomaly detection behind `predict`, over a scripted session: verdict, gate, regions, mask, what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import Detections, geometry
from edgekd._detector import Detector, DetectorInfo
from edgekd._session import SessionInfo
from edgekd.errors import ImageError, SessionError, UsageError

from .conformance import bundles
from .conformance.bundles import anomaly_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

INFO = DetectorInfo(SessionInfo("scripted", "fp32", "fp32", "cpu", "none"), "only one")
SHARP = dataclasses.replace(
    anomaly_manifest().thresholds, image=1.0, pixel=0.5, low=0.5, sigma=0.0,  # type: ignore[type-var]
)  # fmt: skip


class Scripted:
    """Returns one raw map `(16, 24)` and one score for every image and keeps what it was given."""

    info = INFO.session
    parallel = 1

    def __init__(self, raw: NDArray[np.float32], score: float) -> None:
        self.raw, self.score = raw, score
        self.seen: list[NDArray[np.float32]] = []

    def infer(self, pixels: NDArray[np.float32], _out: object = None) -> tuple[NDArray[np.float32], ...]:
        self.seen.append(pixels.copy())
        batch = len(pixels)
        return np.repeat(self.raw[None, None], batch, 0), np.full(batch, self.score, np.float32)

    def close(self) -> None:
        pass


def spots(*peaks: float) -> NDArray[np.float32]:
    """Return a map with one 3x3 spot a peak, far apart."""
    raw = np.zeros((16, 24), np.float32)
    for number, peak in enumerate(peaks):
        raw[2:5, 2 + 7 * number : 5 + 7 * number] = peak
    return raw


@pytest.fixture
def inspector() -> Callable[..., Detector]:
    def make(raw: NDArray[np.float32], score: float = 2.0) -> Detector:
        manifest = dataclasses.replace(anomaly_manifest(), thresholds=SHARP)
        return Detector(manifest, Scripted(raw, score), INFO)

    return make


def blank(height: int = 160, width: int = 240) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 90, np.uint8)


def test_regions_come_back_in_pixels_of_the_image_best_first(inspector: Callable[..., Detector]) -> None:
    found = inspector(spots(0.8, 1.6, 1.1)).predict(blank())
    assert found.names == ["defect"] * 3
    np.testing.assert_allclose(found.scores, [1.0, 0.6, 0.3], atol=1e-6)  # 0.5 at 1.0, 1 at 1.5
    assert found.scores.dtype == np.float32
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    np.testing.assert_allclose(centres, [[105, 35], [175, 35], [35, 35]], atol=1)
    assert found.mask is not None
    assert found.anomaly_map is not None
    np.testing.assert_array_equal(found.mask, found.anomaly_map > 0.5)
    x1, y1, x2, y2 = found.boxes[0].astype(int)
    assert found.mask[y1:y2, x1:x2].any(axis=0).all()
    assert found.mask[y1:y2, x1:x2].any(axis=1).all()


def test_boxes_grow_with_the_image(inspector: Callable[..., Detector]) -> None:
    detector = inspector(spots(0.8, 1.6, 1.1))
    found, larger = detector.predict(blank()), detector.predict(blank(320, 480))
    np.testing.assert_allclose(larger.boxes, 2 * found.boxes, atol=2)
    assert larger.score == found.score


def test_image_is_stretched_not_letterboxed(inspector: Callable[..., Detector]) -> None:
    detector = inspector(spots())
    detector.predict(blank(500, 20))
    (pixels,) = detector._engine._session.seen  # type: ignore[attr-defined]
    assert np.ptp(pixels[0, 0]) == 0, "no grey bars"


def test_verdict_is_the_graphs_score_whatever_the_map_and_the_size(inspector: Callable[..., Detector]) -> None:
    for size in ((16, 24), (1, 1), (700, 31)):
        normal = inspector(spots(9.0), 1.0).predict(blank(*size))
        assert (normal.is_anomalous, len(normal)) == (False, 0), "at the threshold is normal"
        found = inspector(spots(), 1.25).predict(blank(*size))
        assert (found.is_anomalous, found.score01, found.score, len(found)) == (True, 0.75, 1.25, 0)


def test_gate_hides_the_regions_of_normal_images_unless_asked(inspector: Callable[..., Detector]) -> None:
    detector = inspector(spots(0.8, 0.9), 0.95)
    gated, ungated = detector.predict(blank()), detector.predict(blank(), ungated=True)
    assert (len(gated), len(ungated)) == (0, 2)
    assert gated.mask is not None
    assert not gated.mask.any()
    np.testing.assert_array_equal(gated.anomaly_map, ungated.anomaly_map)
    assert gated.is_anomalous is ungated.is_anomalous is False


def test_max_det_keeps_the_best_peaks_and_the_whole_mask(inspector: Callable[..., Detector]) -> None:
    detector = inspector(spots(0.8, 1.6, 1.1))
    found, whole = detector.predict(blank(), max_det=1), detector.predict(blank())
    np.testing.assert_array_equal(found.boxes, whole.boxes[:1])
    np.testing.assert_array_equal(found.mask, whole.mask)
    with pytest.raises(UsageError, match="max_det should be a whole number from 1"):
        detector.predict(blank(), max_det=0)


def test_speck_below_the_least_area_is_neither_box_nor_mask(inspector: Callable[..., Detector]) -> None:
    raw = np.full((16, 24), 0.45, np.float32)
    raw[8, 12] = 0.51  # above the threshold at its top alone
    found = inspector(raw).predict(blank(1600, 2400))
    assert found.anomaly_map is not None
    assert 0 < (found.anomaly_map > 0.5).sum() < 2e-4 * 1600 * 2400
    assert found.mask is not None
    assert (len(found), found.mask.any()) == (0, False)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90))
def test_any_map_gives_boxes_inside_the_image_around_what_the_mask_holds(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    raw = (rng.random((16, 24)) ** 3).astype(np.float32)
    manifest = dataclasses.replace(anomaly_manifest(), thresholds=SHARP)
    found = Detector(manifest, Scripted(raw, 2.0), INFO).predict(blank(height, width))
    assert found.mask is not None
    _, count = geometry.label(found.mask)
    assert len(found) == count
    assert ((found.boxes[:, :2] >= 0) & (found.boxes[:, 2:] <= [width, height])).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    masks = np.stack([*found._region_masks()]) if count else np.zeros((0, height, width), bool)
    np.testing.assert_array_equal(masks.sum(axis=0), found.mask)  # each pixel in one region, none left out
    doubled = Detector(manifest, Scripted(raw, 2.0), INFO).predict(blank(2 * height, 2 * width))
    assert doubled.score == found.score


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"conf": 0.0}, "conf"),
        ({"iou": 0.5, "tile": 64}, "iou, tile"),
        ({"classes": []}, "classes"),
        ({"overlap": 3}, "overlap"),
    ],
)
def test_arguments_of_detectors_are_refused(
    inspector: Callable[..., Detector], options: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError) as caught:
        inspector(spots()).predict(blank(), **options)  # type: ignore[call-overload]
    assert str(caught.value).startswith(f"{named}: for detectors only")
    assert "edgekd thresholds" in str(caught.value)


def test_ungated_is_refused_by_detectors() -> None:
    detector = Detector(bundles.manifest(), Scripted(spots(), 0.0), INFO)
    with pytest.raises(UsageError, match=r"^ungated: for anomaly networks only"):
        detector.predict(blank(), ungated=True)


@pytest.mark.parametrize(("raw", "score"), [(spots(), float("nan")), (spots(float("nan")), 0.1), (spots(), np.inf)])
def test_values_that_are_not_finite_never_pass_as_normal(
    inspector: Callable[..., Detector], raw: NDArray[np.float32], score: float
) -> None:
    with pytest.raises(SessionError, match="not finite"):
        inspector(raw, score).predict(blank())


def test_float_images_are_refused(inspector: Callable[..., Detector]) -> None:
    with pytest.raises(ImageError, match="float32"):
        inspector(spots()).predict(np.zeros((9, 9, 3), np.float32))


def test_timings_name_the_stage_that_measures_regions(inspector: Callable[..., Detector]) -> None:
    timings = inspector(spots(0.9)).predict(blank()).timings_ms
    assert set(timings) == {"decode", "letterbox", "infer", "regions", "total"}
    assert timings["total"] == pytest.approx(sum(value for name, value in timings.items() if name != "total"))


def found_in(inspector: Callable[..., Detector]) -> Detections:
    return inspector(spots(0.8, 1.6, 1.1), 1.25).predict(blank())


def test_to_dict_is_json_with_the_verdict_and_without_planes(inspector: Callable[..., Detector]) -> None:
    row = json.loads(json.dumps(found_in(inspector).to_dict()))
    assert (row["is_anomalous"], row["score"], row["score01"]) == (True, 1.25, 0.75)
    assert row["thresholds"] == {"image": 1.0, "pixel": 0.5}
    assert len(row["boxes"]) == 3
    assert not {"mask", "anomaly_map"} & set(row)


def test_to_coco_has_each_regions_own_pixels(inspector: Callable[..., Detector]) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    found = found_in(inspector)
    rows = found.to_coco(image_id=3)
    total = np.zeros(found.image_size, int)
    for row, box in zip(rows, found.boxes.tolist(), strict=True):
        pixels = tools.decode(tools.frPyObjects(row["segmentation"], *row["segmentation"]["size"]))
        ys, xs = np.nonzero(pixels)
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == box
        total += pixels
    np.testing.assert_array_equal(total, found.mask)
    assert json.loads(json.dumps(rows)) == rows


def test_regions_within_each_others_boxes_keep_their_pixels(inspector: Callable[..., Detector]) -> None:
    raw = np.zeros((16, 24), np.float32)
    raw[1:15, 2:16] = 1.0
    raw[2:14, 3:15] = 0.0  # a frame
    raw[7, 5:13] = raw[4:12, 8] = 0.9  # a cross inside it
    raw[4, 5] = 0.8  # and a speck in the box of the cross
    found = inspector(raw).predict(blank(16, 24))
    masks = [*found._region_masks()]
    assert [int(each.sum()) for each in masks] == [52, 15, 1]
    np.testing.assert_array_equal(np.sum(masks, axis=0), found.mask)


def test_to_supervision_carries_masks(inspector: Callable[..., Detector]) -> None:
    pytest.importorskip("supervision")
    found = found_in(inspector)
    theirs = found.to_supervision()
    np.testing.assert_array_equal(theirs.mask.any(axis=0), found.mask)
    assert theirs.mask.shape == (3, 160, 240)
    assert len(inspector(spots()).predict(blank()).to_supervision()) == 0


def test_rows_are_selected_and_the_image_stays(inspector: Callable[..., Detector]) -> None:
    found = found_in(inspector)
    one = found[1]
    assert (len(one), one.score, one.is_anomalous) == (1, 1.25, True)
    np.testing.assert_array_equal(one.mask, found.mask)
    assert len(one.to_coco()) == 1


def test_columns_of_the_image_come_together_fit_it_and_cannot_be_written(inspector: Callable[..., Detector]) -> None:
    found = found_in(inspector)
    with pytest.raises(UsageError, match="come together"):
        dataclasses.replace(found, mask=None)
    with pytest.raises(UsageError, match=r"mask: expected shape \(160, 240\), got \(3, 3\)"):
        dataclasses.replace(found, mask=np.zeros((3, 3), bool))
    assert found.mask is not None
    with pytest.raises(ValueError, match="read-only"):
        found.mask[0, 0] = True


def test_repr_says_the_verdict(inspector: Callable[..., Detector]) -> None:
    assert repr(found_in(inspector)) == "Detections(anomalous, score 1.25; 3 regions; image 240x160 px)"


def test_plot_heats_what_is_anomalous_and_outlines_it(inspector: Callable[..., Detector]) -> None:
    image = blank()
    drawn = found_in(inspector).plot(image, color="rgb", width=1)
    assert (image == 90).all()
    red, green, blue = drawn[35, 105].astype(int)  # the middle of the best region
    assert red > 150 > green
    assert red > blue
    assert (drawn[120:, :] == 90).all(), "nothing on what is normal"
    assert (drawn == 255).all(axis=2).any(), "an outline"
    bgr = found_in(inspector).plot(image, width=1)
    np.testing.assert_array_equal(bgr[:, :, ::-1], drawn)


def test_plot_says_the_verdict_in_red_or_green(inspector: Callable[..., Detector]) -> None:
    for score, strong in ((2.0, 0), (0.2, 1)):
        drawn = inspector(spots(), score).predict(blank()).plot(blank(), color="rgb")
        assert drawn[1, 1].argmax() == strong


def test_plot_on_another_picture_is_refused_with_both_sizes(inspector: Callable[..., Detector]) -> None:
    with pytest.raises(UsageError, match="30x20 pixels, the prediction is of one with 240x160"):
        found_in(inspector).plot(blank(20, 30))
