"""Figures of anomaly detection, beside a brute force over every threshold."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UsageError
from edgekd.training.metrics.anomaly import aupro, aupro_rd4ad, measure

SIDE = 16


def brute_aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """Every score of every pixel is a threshold; components by OpenCV, unique across images."""
    parts = []
    for values, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        parts += [values[labels == part] for part in range(1, count)]
    normal = np.concatenate([values[~mask] for values, mask in zip(maps, masks, strict=True)])
    area, rate, overlap = 0.0, 0.0, 0.0
    for level in sorted({value for values in maps for value in values.ravel().tolist()}, reverse=True):
        next_rate = float((normal >= level).mean())
        next_overlap = float(np.mean([(part >= level).mean() for part in parts]))
        if next_rate > rate:
            end = min(next_rate, limit)
            at_end = overlap + (end - rate) / (next_rate - rate) * (next_overlap - overlap)
            area += (end - rate) * (overlap + at_end) / 2
        rate, overlap = next_rate, next_overlap
        if rate >= limit:
            break
    return area / limit


def scenes(seed: int, levels: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three maps with ties for few levels; masks of blobs that touch at corners, one of them empty."""
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, levels, (SIDE, SIDE)).astype(np.float32) for _ in range(3)]
    masks = [rng.random((SIDE, SIDE)) < share for share in (0.2, 0.02, 0.0)]
    masks[0][3, 3] = masks[0][4, 4] = True
    masks[1][0, 0] = True
    return maps, masks


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1 << 20]), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_equals_a_sweep_over_every_threshold(seed: int, levels: int, limit: float) -> None:
    maps, masks = scenes(seed, levels)
    assert aupro(maps, masks, limit=limit) == pytest.approx(brute_aupro(maps, masks, limit), abs=1e-9)


def test_aupro_of_a_hand_computed_case() -> None:
    """Two defects of 1 and 2 pixels, ten normal pixels. Falling threshold: the small one, a normal pixel, half of the
    large one, the rest at once. Rate 0: overlap 1/2; rate 0.1: 1/2, then 3/4; from there a line to (1, 1).
    """
    values = np.array([[9, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    mask = np.zeros((1, 13), bool)
    mask[0, [0, 7, 8]] = True
    values[0, [7, 8]] = 7.5, 0
    values[0, 1] = 0  # the second normal pixel is as low as the rest
    at_limit = 0.75 + (0.3 - 0.1) / (1 - 0.1) * 0.25
    expected = (0.1 * 0.5 + 0.2 * (0.75 + at_limit) / 2) / 0.3
    assert aupro([values], [mask]) == pytest.approx(expected, abs=1e-12)


def test_aupro_is_one_for_perfect_maps_and_half_the_limit_for_random_ones() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    mask[5:20, 5:20] = mask[40:44, 40:60] = True
    assert aupro([mask.astype(np.float32)], [mask]) == pytest.approx(1.0, abs=1e-12)
    drawn = [aupro([rng.random((64, 64), dtype=np.float32)], [mask]) for _ in range(30)]
    assert np.mean(drawn) == pytest.approx(0.15, abs=0.02)


def test_aupro_is_the_same_when_every_image_comes_twice() -> None:
    maps, masks = scenes(1, 7)
    assert aupro(maps * 2, masks * 2) == pytest.approx(aupro(maps, masks), abs=1e-12)


def test_defects_weigh_alike_whatever_their_size() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    mask[2:, 2:] = True
    values = np.zeros((8, 8), np.float32)
    values[0, 0] = 1.0  # of 37 anomalous pixels one is found, of two defects one
    assert aupro([values], [mask]) == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-12)


def brute_rd4ad(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """The steps of RD4AD's code, one threshold, one image and one defect at a time."""
    areas = []
    for values, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        if count == 1 or mask.all():
            continue
        low, high = float(values.min()), float(values.max())
        points = []
        for step in range(200):
            above = values > low + (high - low) * step / 200
            rate = above[~mask].mean()
            if rate < limit:
                points.append((rate, np.mean([above[labels == part].mean() for part in range(1, count)])))
        points.sort()
        rates, overlaps = np.array(points).reshape(-1, 2).T
        if len(rates) and rates.max() > 0:
            areas.append(np.trapezoid(overlaps, rates / rates.max()))
        else:
            areas.append(overlaps.max() if len(rates) else 0.0)
    return float(np.mean(areas))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1 << 20]), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_of_rd4ad_equals_its_steps_one_by_one(seed: int, levels: int, limit: float) -> None:
    maps, masks = scenes(seed, levels)
    assert aupro_rd4ad(maps, masks, limit=limit) == pytest.approx(brute_rd4ad(maps, masks, limit), abs=1e-9)
    truth = [mask.any() for mask in masks]
    assert measure([0.0] * 3, truth, maps, masks, limit=limit)["aupro_rd4ad"] == aupro_rd4ad(maps, masks, limit=limit)


def test_aupro_of_rd4ad_looks_at_each_anomalous_image_alone_and_rescales_its_rates() -> None:
    """Two defects of one pixel, ten normal pixels, two of them ever above the threshold: the greatest rate is 0.2.

    Falling threshold: a defect; a normal pixel (rate 0.1); the other defect; a normal pixel (rate 0.2). Over the rates
    divided by 0.2 the overlap is 1/2 up to 1/2, and 1 from there. The second image, which is normal, is not looked at.
    """
    values = np.array([[10, 7.5, 9, 8] + [0] * 8])
    mask = np.zeros((1, 12), bool)
    mask[0, [0, 3]] = True
    good, empty = np.full((1, 12), 99.0), np.zeros((1, 12), bool)
    assert aupro_rd4ad([values, good], [mask, empty]) == pytest.approx(0.5 * 0.5 + 0.5 * 1.0, abs=1e-9)
    assert aupro_rd4ad([values], [mask], limit=0.2) == pytest.approx(0.5, abs=1e-9)  # the limit itself is out
    assert aupro([values, good], [mask, empty]) == 0.0


def test_aupro_of_rd4ad_has_a_number_where_no_false_alarm_leaves_the_code_none() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    assert aupro_rd4ad([mask.astype(np.float32)], [mask]) == 1.0
    assert aupro_rd4ad([1 - mask.astype(np.float32)], [mask]) == 0.0  # every threshold has too many false alarms
    assert math.isnan(aupro_rd4ad([np.ones((2, 2))], [np.ones((2, 2), bool)]))
    with pytest.raises(UsageError, match="limit"):
        aupro_rd4ad([np.ones((2, 2))], [mask[:2, :2]], limit=0.0)


def test_measure_takes_the_folders_word_for_images_and_the_mask_for_pixels() -> None:
    empty, spot = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    spot[1, 1] = True
    maps = [np.full((4, 4), 0.1, np.float32), spot.astype(np.float32), np.full((4, 4), 0.2, np.float32)]
    found = measure([0.1, 1.0, 0.2], [False, True, True], maps, [empty, spot, empty])
    assert found["image_AUROC"] == 1.0
    assert found["image_F1_max"] == 1.0
    assert found["oracle"] == {"image": pytest.approx(0.2), "pixel": 1.0}
    assert found["pixel_AUROC"] == found["pixel_AP"] == found["AUPRO"] == 1.0
    assert found["undefined"] == {}


def test_measure_leaves_out_pixels_of_images_without_a_mask() -> None:
    mask = np.array([[True, False]])
    right, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 9.0]])
    found = measure([1.0, 0.5], [True, True], iter([right, wrong]), iter([mask, None]))
    assert found["pixel_AUROC"] == 1.0
    assert found["undefined"] == {"image_AUROC": "no normal image"}


def test_measure_without_a_defect_says_why_there_is_no_figure() -> None:
    found = measure([0.5], [False], [np.zeros((2, 2))], [np.zeros((2, 2), bool)])
    undefined = {"image_AUROC", "image_AP", "image_F1_max", "pixel_AUROC", "pixel_AP", "pixel_F1_max", "AUPRO"}
    undefined.add("aupro_rd4ad")
    assert {name for name, value in found.items() if isinstance(value, float) and math.isnan(value)} == undefined
    assert set(found["undefined"]) == undefined
    assert found["undefined"]["AUPRO"] == "no anomalous pixel"
    assert found["undefined"]["image_AP"] == "no anomalous image"


def test_measure_when_nothing_but_defect_pixels_then_only_areas_are_undefined() -> None:
    found = measure([0.5], [True], [np.zeros((2, 2))], [np.ones((2, 2), bool)])
    assert found["undefined"] == dict.fromkeys(("pixel_AUROC", "AUPRO", "aupro_rd4ad"), "no normal pixel") | {
        "image_AUROC": "no normal image"
    }
    assert found["pixel_AP"] == 1.0


def test_measure_when_all_scores_are_equal_then_it_is_chance() -> None:
    mask = np.array([[True, False, False, False]])
    found = measure([1.0, 1.0], [True, False], [np.ones((1, 4)), np.ones((1, 4))], [mask, np.zeros((1, 4), bool)])
    assert found["image_AUROC"] == found["pixel_AUROC"] == 0.5
    assert found["pixel_AP"] == 1 / 8
    assert found["AUPRO"] == pytest.approx(0.15)


def test_measure_refuses_what_does_not_fit() -> None:
    ones, none = np.ones((2, 2)), np.zeros((2, 2), bool)
    with pytest.raises(UsageError, match="equal lengths"):
        measure([1.0, 2.0], [True], [ones], [none])
    with pytest.raises(UsageError, match="differ in number"):
        measure([1.0], [True], [ones, ones], [none])
    with pytest.raises(UsageError, match="each of 2 images, got 1"):
        measure([1.0, 2.0], [True, False], [ones], [none])
    with pytest.raises(UsageError, match=r"map and mask 0: expected one \(h, w\)"):
        measure([1.0], [True], [ones], [np.zeros((2, 3), bool)])
    with pytest.raises(UsageError, match="NaN"):
        measure([1.0], [True], [ones * math.nan], [none])
