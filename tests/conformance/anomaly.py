"""What every target does with an anomaly network: a map `(B, 1, h, w)` and a score `(B,)`."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from edgekd._detector import load
from edgekd._target import load_target
from edgekd._verify import MAP_TOLERANCES, MapTolerance, check_artifact, golden_samples

from . import bundles
from .odd_pictures import PICTURES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgekd._detections import Detections
    from edgekd._detector import Detector

GROWTH_BYTES = 32 << 20
INT8 = MapTolerance(0.03, 0.1)  # between an int8 engine and the int8 graph on ONNX Runtime: values round another way
BATCH = 1e-5  # between an image alone and among others


def assert_sound(found: Detections, size: tuple[int, int]) -> None:
    """Check what holds for any result."""
    height, width = size
    assert found.image_size == size
    assert found.mask is not None
    assert found.anomaly_map is not None
    assert found.thresholds is not None
    assert found.score01 is not None
    assert (found.mask.shape, found.mask.dtype) == (size, np.bool_)
    assert (found.anomaly_map.shape, found.anomaly_map.dtype) == (size, np.float32)
    assert np.isfinite(found.anomaly_map).all()
    assert (found.score01 > 0.5) == found.is_anomalous
    assert not (found.mask & (found.anomaly_map <= np.float32(found.thresholds.pixel))).any()
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.names) <= {"defect"}
    assert ((found.boxes >= 0) & (found.boxes <= [width, height, width, height])).all()
    for box in found.boxes.astype(int).tolist():
        assert found.mask[box[1] : box[3], box[0] : box[2]].any()
    assert bool(len(found)) == bool(found.mask.any())


class AnomalyCases:
    """Inherited by every target that can run."""

    TARGET: str

    @pytest.fixture
    def inspector(self, precision: str, tmp_path: Path) -> Iterator[Detector]:
        path = bundles.written(self.TARGET, precision, tmp_path, anomaly=True)
        with load(path, device=self.TARGET, precision=precision, threads=1) as detector:
            yield detector

    def test_anomaly_golden_set_passes(self, precision: str) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision, anomaly=True)[:2]
        scores = [float(outputs[1][0]) for _, outputs in golden_samples(bundle)]
        assert min(scores) < bundles.IMAGE_THRESHOLD < max(scores), "a golden set of one verdict shows nothing"
        report = check_artifact(bundle, artifact, golden_samples(bundle))
        assert report.status == "passed", report
        assert report.decisions is not None
        assert report.decisions.same == len(scores)
        assert report.map_difference is not None
        if precision in MAP_TOLERANCES:
            assert report.map_difference <= MAP_TOLERANCES[precision].map

    def test_maps_and_scores_do_not_depend_on_the_rest_of_the_batch(self, precision: str) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision, anomaly=True)[:2]
        pixels = bundles.pixels(8)
        with contextlib.closing(load_target(self.TARGET).load(bundle, artifact, threads=1)) as session:
            maps, scores = session.infer(pixels)
            assert (maps.shape, scores.shape) == ((8, 1, 16, 24), (8,))
            backwards = session.infer(np.ascontiguousarray(pixels[::-1]))
            for row in range(8):
                alone = session.infer(pixels[row : row + 1])
                np.testing.assert_allclose(maps[row], alone[0][0], atol=BATCH)
                np.testing.assert_allclose(scores[row], alone[1][0], atol=BATCH)
                np.testing.assert_allclose(scores[row], backwards[1][7 - row], atol=BATCH)

    @pytest.mark.parametrize("kind", PICTURES)
    def test_anomalies_in_any_picture_agree_with_the_reference(
        self, inspector: Detector, precision: str, kind: str, tmp_path: Path
    ) -> None:
        picture = PICTURES[kind]()
        found = inspector.predict(picture, ungated=True)
        bundles.oracle(precision, anomaly=True).write(tmp_path / "oracle.bin")
        with load(tmp_path / "oracle.bin", device="reference") as reference:
            expected = reference.predict(picture, ungated=True)
        assert_sound(found, expected.image_size)
        bound = MAP_TOLERANCES.get(precision, INT8)
        assert found.score == pytest.approx(expected.score, abs=bound.score)
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=bound.map)
        gated = inspector.predict(picture)
        assert gated.score == pytest.approx(found.score, abs=BATCH)
        assert_sound(gated, expected.image_size)
        assert len(gated) == (len(found) if found.is_anomalous else 0)

    def test_memory_stays_level_over_many_large_pictures(self, inspector: Detector) -> None:
        picture = np.zeros((1080, 1920, 3), np.uint8)
        inspector.predict(picture)
        before = psutil.Process().memory_info().rss
        for _ in range(20):
            inspector.predict(picture, ungated=True)
        gc.collect()
        assert psutil.Process().memory_info().rss - before < GROWTH_BYTES, "a map and a mask of it are 10 MB"

    def test_list_of_pictures_equals_its_pictures_one_by_one(self, inspector: Detector) -> None:
        pictures = bundles.pictures(9)
        found = inspector.predict(pictures)
        assert {each.is_anomalous for each in found} == {True, False}
        for each, picture in zip(found, pictures, strict=True):
            alone = inspector.predict(picture)
            assert each.score == pytest.approx(alone.score, abs=BATCH)
            np.testing.assert_allclose(each.anomaly_map, alone.anomaly_map, atol=BATCH)
            np.testing.assert_array_equal(each.boxes, alone.boxes)
