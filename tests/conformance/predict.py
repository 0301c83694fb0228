"""What `predict` gives on every target, whatever the picture; and the whole suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd._bundle import Bundle
from edgekd._detector import Detector, load
from edgekd._target import load_target
from edgekd.errors import ClosedError, ImageError, SessionError, UsageError

from . import bundles
from .anomaly import AnomalyCases
from .build import BuildCases
from .concurrency import ConcurrencyCases
from .odd_pictures import PICTURES, noise
from .oriented import OrientedCases
from .session import SessionCases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd._detections import Detections

BOX_PX = 0.5
SCORE = 1e-3


def assert_sound(found: Detections, size: tuple[int, int]) -> None:
    """Check what holds for any result."""
    assert found.image_size == size
    assert found.boxes.shape == (len(found), 4)
    assert np.isfinite(found.boxes).all()
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.labels >= 0) & (found.labels < len(bundles.CLASSES))).all()
    assert (found.xyxy[:, :2] <= found.xyxy[:, 2:]).all()


def assert_same(found: Detections, expected: Detections) -> None:
    """Check that two runs found the same objects; rows of nearly equal score may come in another order."""
    assert sorted(found.labels) == sorted(expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE)
    scale = max(found.image_size) / min(bundles.HEIGHT, bundles.WIDTH)
    for box, score in zip(expected.boxes, expected.scores, strict=True):
        near = np.abs(found.boxes - box).max(axis=1) <= BOX_PX * max(scale, 1.0)
        assert (near & (np.abs(found.scores - score) <= SCORE)).any(), (box, score)


class PredictCases:
    """Inherited by every target that can run: through the detector, as users call it."""

    TARGET: str

    @pytest.fixture
    def path(self, precision: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
        return bundles.written(self.TARGET, precision, tmp_path_factory.mktemp("bundle"))

    @pytest.fixture
    def detector(self, path: Any, precision: str) -> Iterator[Detector]:
        with load(path, device=self.TARGET, precision=precision) as detector:
            yield detector

    @pytest.fixture
    def reference(self) -> Detector:
        bundle, artifact = bundles.built("reference", "fp32")[:2]
        session = load_target("reference").load(bundle, artifact)
        return Detector(bundle.manifest, session, info=None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", PICTURES)
    def test_predict_of_any_picture_agrees_with_the_reference(
        self, detector: Detector, reference: Detector, precision: str, kind: str
    ) -> None:
        picture = PICTURES[kind]()
        found = detector.predict(picture)
        expected = reference.predict(picture)
        assert_sound(found, expected.image_size)
        if precision == "fp32":
            assert_same(found, expected)

    def test_predict_of_16_bit_and_float_arrays_is_refused(self, detector: Detector) -> None:
        for dtype in (np.uint16, np.float32):
            with pytest.raises(ImageError) as caught:
                detector.predict(np.zeros((9, 9, 3), dtype))
            assert np.dtype(dtype).name in str(caught.value)

    def test_predict_of_a_list_equals_its_pictures_one_by_one(self, detector: Detector) -> None:
        pictures = [*bundles.pictures(3), noise(17, 40, 3)]
        for found, picture in zip(detector.predict(pictures), pictures, strict=True):
            assert_same(found, detector.predict(picture))

    def test_closed_detector_raises_closed_error(self, path: Any, precision: str) -> None:
        detector = load(path, device=self.TARGET, precision=precision)
        detector.close()
        detector.close()
        with pytest.raises(ClosedError):
            detector.predict(np.zeros((9, 9, 3), np.uint8))

    def test_detector_says_why_it_chose(self, detector: Detector, precision: str) -> None:
        assert detector.info.session.target == self.TARGET
        assert detector.info.session.precision == precision
        assert self.TARGET in detector.info.reason

    def test_precision_that_is_not_there_says_what_to_type(self, path: Any, precision: str) -> None:
        with pytest.raises(UsageError) as caught:
            load(path, device=self.TARGET, precision="fp16" if precision == "int8" else "int8")
        assert "edgekd build" in str(caught.value)

    def test_damaged_artifact_with_right_hashes_raises_session_error(self, precision: str, tmp_path: Any) -> None:
        bundle, artifact = bundles.built(self.TARGET, precision)[:2]
        path = tmp_path / "model.bin"
        bundles.with_contents(bundle, artifact, b"garbage" * 50).write(path)
        with pytest.raises(SessionError):
            load(path, device=self.TARGET, precision=precision)
        Bundle.read(path).close()


class RunnableTarget(BuildCases, SessionCases, PredictCases, ConcurrencyCases, OrientedCases, AnomalyCases):
    """The whole suite."""
