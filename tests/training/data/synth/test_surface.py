"""Inspected surfaces."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekd.training.data.synth import Annotations, surface

SIZE = 128
TEST = 7 * 20  # two of each defect and eight flawless images a category


@pytest.fixture(scope="module")
def tested() -> list[tuple[np.ndarray, Annotations]]:
    return [surface.scene(1, index, split="test", size=SIZE) for index in range(TEST)]


def flawless(index: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(surface, "defect_of", lambda _index: "good")
        image, found = surface.scene(1, index, split="test", size=SIZE)
    assert found.mask is not None
    assert not found.mask.any()
    return image


def test_scene_when_defective_then_it_equals_its_flawless_self_outside_the_mask(
    tested: list[tuple[np.ndarray, Annotations]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for index in range(0, TEST, 3):
        image, found = tested[index]
        changed = (image != flawless(index, monkeypatch)).any(-1)
        assert found.mask is not None
        if found.defect == "good":
            assert not changed.any()
            continue
        assert not (changed & ~found.mask).any()
        kept.append((changed & found.mask).sum() / found.mask.sum())
    assert min(kept) > 0.5
    assert float(np.mean(kept)) > 0.9


def test_scene_when_defective_then_the_area_is_spread_over_two_decades(
    tested: list[tuple[np.ndarray, Annotations]],
) -> None:
    area = np.array([found.mask.mean() for _, found in tested if found.mask is not None and found.mask.any()])
    assert area.min() >= surface.SMALLEST * 0.5  # a closed gap or a clipped pixel may cross the target
    assert area.max() <= surface.LARGEST
    quarters = np.histogram(np.log(area), 3, (np.log(2e-4), np.log(0.05)))[0] / len(area)
    assert quarters.min() > 0.1


def test_scene_when_defective_then_a_third_is_faint_and_some_have_several_parts(
    tested: list[tuple[np.ndarray, Annotations]],
) -> None:
    defective = [found for _, found in tested if found.defect != "good"]
    assert all(found.contrast is not None and np.isfinite(found.contrast) for found in defective)
    assert np.mean([found.contrast < 1.5 for found in defective if found.contrast is not None]) >= 1 / 3
    parts = [cv2.connectedComponents(found.mask.astype(np.uint8), connectivity=8)[0] - 1 for found in defective]  # type: ignore[union-attr]
    assert np.mean([2 <= count <= 4 for count in parts]) > 0.1
    assert np.mean([count == 1 for count in parts]) > 0.3


def test_scene_when_tested_then_two_of_five_are_flawless_and_each_category_has_each_defect(
    tested: list[tuple[np.ndarray, Annotations]],
) -> None:
    pairs = [(found.category, found.defect) for _, found in tested]
    assert sum(defect == "good" for _, defect in pairs) == TEST * 2 // 5
    assert {pair for pair in pairs if pair[1] != "good"} == {
        (category, defect) for category in surface.CATEGORIES for defect in surface.DEFECTS
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_scene_when_not_for_testing_then_it_is_flawless(split: str) -> None:
    for index in range(14):
        _, found = surface.scene(0, index, split=split, size=64)
        assert found.defect == "good"
        assert found.category == surface.CATEGORIES[index % 7]
        assert found.mask is not None
        assert not found.mask.any()


def test_scene_when_flawless_then_images_of_a_category_vary_but_look_alike() -> None:
    for place, category in enumerate(surface.CATEGORIES):
        images = [surface.scene(0, place + 7 * k, size=SIZE)[0].astype(np.float32) for k in range(4)]
        other = surface.scene(0, (place + 1) % 7, size=SIZE)[0].astype(np.float32)
        assert np.abs(images[0] - images[1]).mean() > 3, category
        means = np.array([image.mean((0, 1)) for image in images])
        assert np.ptp(means, axis=0).max() < 60, category
        assert np.abs(other.mean((0, 1)) - means.mean(0)).max() > 3, category


def test_scene_when_the_seed_differs_then_the_specimen_does_too() -> None:
    first, second = (surface.scene(seed, 1, size=SIZE)[0].mean((0, 1)) for seed in (0, 1))
    assert np.abs(first - second).max() > 2


def test_scene_when_shifted_then_only_test_images_vary_more() -> None:
    def spread(split: str, shift: float) -> float:
        means = [surface.scene(0, 7 * k, split=split, size=64, shift=shift)[0].mean() for k in range(24)]
        return float(np.std(means))

    assert spread("test", 4.0) > 1.5 * spread("test", 0.0)
    assert spread("train", 4.0) == spread("train", 0.0)


def test_scene_when_rigid_then_defects_lie_on_the_part(tested: list[tuple[np.ndarray, Annotations]]) -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    for _, found in tested[6::7]:
        assert found.category == "part"
        if found.mask is not None and found.mask.any():
            radius = np.hypot(rows, columns)[found.mask]
            assert radius.max() < 0.49 * SIZE
