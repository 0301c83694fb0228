"""What every target does with a network whose boxes are turned: `(B, N, 5)` xywhr."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd import geometry
from edgekd._detector import load
from edgekd._target import load_target
from edgekd._verify import TOLERANCES, check_artifact, golden_samples

from . import bundles

if TYPE_CHECKING:
    from pathlib import Path

CORNER_PX = 0.5
SCORE = 1e-3


class OrientedCases:
    """Inherited by every target that can run."""

    TARGET: str

    def test_oriented_outputs_have_the_manifests_shapes_and_follow_the_angle_convention(self, precision: str) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision, oriented=True)[:2]
        with contextlib.closing(load_target(self.TARGET).load(bundle, artifact, threads=1)) as session:
            boxes, scores = session.infer(bundles.pixels(2))
        assert [boxes.shape[1:], scores.shape[1:]] == [spec.shape for spec in bundle.manifest.outputs]
        assert boxes.shape[2] == 5
        assert (boxes[..., 2] >= boxes[..., 3]).all()
        assert (np.abs(boxes[..., 4]) < np.pi / 2 + 1e-3).all()
        assert np.abs(boxes[..., 4]).max() > 1.5, "angles near the wrap are what the comparison has to bear"

    def test_oriented_golden_set_passes(self, precision: str) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision, oriented=True)[:2]
        report = check_artifact(bundle, artifact, golden_samples(bundle))
        assert report.status == "passed", report
        assert report.decisions is not None
        assert report.decisions.reference > 10, "a golden set in which nothing is found shows nothing"
        assert report.box_difference_px is not None
        if precision in TOLERANCES:
            assert report.box_difference_px <= TOLERANCES[precision].box_px

    def test_oriented_predict_agrees_with_the_reference(self, precision: str, tmp_path: Path) -> None:
        path = bundles.written(self.TARGET, precision, tmp_path, oriented=True)
        oracle = bundles.written("reference", "fp32", tmp_path, oriented=True)
        pictures = bundles.pictures(3)
        with load(path, device=self.TARGET, precision=precision) as detector, load(oracle) as reference:
            for found, expected in zip(detector.predict(pictures), reference.predict(pictures), strict=True):
                assert found.boxes.shape == (len(found), 5)
                assert len(found) > 3
                assert (found.boxes[:, 2] >= found.boxes[:, 3]).all()
                if precision != "fp32":
                    continue
                np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE)
                for box in expected.boxes:  # rows of nearly equal score may come in another order
                    copies = np.repeat(box[None], len(found), 0)
                    assert geometry.box_distances(found.boxes, copies).min() <= CORNER_PX * 120 / 96

    @pytest.mark.parametrize("tile", [50, 64])
    def test_oriented_predict_by_tiles_stays_inside_the_picture(
        self, precision: str, tile: int, tmp_path: Path
    ) -> None:
        path = bundles.written(self.TARGET, precision, tmp_path, oriented=True)
        with load(path, device=self.TARGET, precision=precision) as detector:
            found = detector.predict(bundles.pictures(1)[0], tile=tile)
        assert found.image_size == (90, 120)
        assert (found.boxes[:, 0] > tile).any(), "nothing from the tiles on the right"
        assert ((found.boxes[:, :2] > -tile) & (found.boxes[:, :2] < [120 + tile, 90 + tile])).all()
