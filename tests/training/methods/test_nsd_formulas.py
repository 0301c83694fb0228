"""NSD's terms, prior by prior in float64 from their formulas, against the method."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import Tensor

from edgekd.training.methods.nsd import NSD

from .test_nsd import CHANNELS, HEADS, SIDES, identities, scene_of, taps_of

if TYPE_CHECKING:
    from edgekd.training.methods import Scene, Taps

IMAGES = 2
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "log": {"sample": "both", "pixel_foreground": 3.0},
    "positives": {"sample": "positives", "box_sample": "positives", "pixel_background": 0.0, "pixel_foreground": 3.0},
    "nontarget": {"sample": "nontarget", "box_sample": "both", "box_reduction": "positives"},
    "no ignored": {"include_ignored": False, "normaliser": "sampled", "box_angle": False},
    "weighted": {"sample": "nontarget", "include_ignored": False, "score_weight": 0.7, "pixel_levels": (1.0, 2.0, 0.0)},
    "compat": {"pixel_mode": "nsd_compat", "pixel_foreground": 3.0, "warmup": 0.0, "temperature": 2.0, "beta": 3.0},
    "few": {"logit_weight": 0.0, "box_weight": 0.0, "pixel_background": 0.0, "score_weight": 1.0},
}
CASES = [
    (name, options) for name in HEADS for options in OPTIONS if "obb" in name or options in {"default", "weighted"}
]


class Place(NamedTuple):
    level: int
    image: int
    row: int
    column: int
    anchor: int


def said(taps: Taps, part: str, count: int, at: Place) -> Tensor:
    """Return the `count` numbers of one prior: channels are anchor by anchor."""
    cell = getattr(taps.head, part)[at.level][at.image, :, at.row, at.column]
    return cell[at.anchor * count : (at.anchor + 1) * count].double()


def kl(ours: Tensor, theirs: Tensor, temperature: float, without: int | None) -> float:
    kept = [i for i in range(len(ours)) if i != without]
    p, q = (theirs[kept] / temperature).softmax(0), (ours[kept] / temperature).softmax(0)
    return float((p * (p.log() - q.log())).sum())


def turn(scene: Scene, image: int, row: int) -> int:
    """Return the class of a box's encoded angle: its turn from upright, folded into a quarter."""
    folded = (float(scene.boxes[image][row, 4]) + math.pi / 4) % (math.pi / 2)
    return min(29, int(folded / math.radians(3)))


def boxes_apart(name: str, pair: tuple[Taps, Taps], at: Place, angle: bool) -> tuple[float, int]:
    """Return the sum of the differences of one prior's numbers, and how many there are."""
    s, t = (said(taps, "regression", 4, at) for taps in pair)
    apart = float((s - t).abs().sum())
    if not angle or name not in {"retina-obb", "dense-obb"}:
        return apart, 4
    s, t = (said(taps, "angle", 1, at) for taps in pair)
    if name == "dense-obb":
        s, t = math.pi * s.sigmoid(), math.pi * t.sigmoid()
    return apart + float((s - t).abs()), 5


def soft_terms(built: NSD, pair: tuple[Taps, Taps], at: Place, label: int, angle: int | None) -> dict[str, float]:
    """Return the divergences of one prior; `label` and `angle`: what a positive learns, below 0 for others."""
    left_out = [which if built.sample == "nontarget" and label >= 0 else None for which in (label, angle)]
    s, t = (said(taps, "logits", 3, at) for taps in pair)
    p, q = t.sigmoid(), s.sigmoid()
    relative = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    terms = {"logit": kl(s, t, built.temperature, left_out[0]), "score": float(relative.sum())}
    if angle is not None:
        s, t = (said(taps, "angle", 30, at) for taps in pair)
        terms["angle"] = kl(s, t, built.temperature, left_out[1])
    return terms


def counts(sample: str, label: int, built: NSD) -> bool:
    if label == -2 and not built.include_ignored:
        return False
    return sample in {"both", "nontarget"} or (sample == "positives") == (label >= 0)


def slow_pixel(built: NSD, pair: tuple[Taps, Taps], level: int, labels: Tensor) -> float:
    """Return the pixel term; labels `(B, H, W, A)`."""
    squared = (pair[0].features[3 + level] - pair[1].features[3 + level]).double().square().sum(dim=1)
    anchors, total = labels.shape[3], 0.0
    for sample, weight in (("negatives", built.pixel_background), ("positives", built.pixel_foreground)):
        mask = torch.tensor([counts(sample, int(label), built) for label in labels.flatten()]).view(labels.shape)
        error = float((squared.unsqueeze(3) * mask).sum()) / max(1.0, 2.0 * CHANNELS * int(mask.sum()))
        coefficient = weight / 3 * (built.pixel_levels[level] if built.pixel_levels else 1.0)
        if built.pixel_mode == "nsd_compat":
            coefficient = sum((weight / 3) ** power for power in range(1, 4 - level)) / anchors
        total += coefficient * error
    return total


def slow_losses(name: str, built: NSD, step: int) -> dict[str, float]:
    pair, scene = (taps_of(name, 1, IMAGES), taps_of(name, 2, IMAGES)), scene_of(name, IMAGES, step)
    head = pair[0].network.head
    found = head.matches(pair[0].head, scene.boxes, scene.labels)
    rise = min(1.0, step / 12 / built.warmup) if built.warmup else 1.0
    losses: dict[str, float] = {}
    first = 0
    for level, side in enumerate(SIDES):
        anchors = pair[0].head.logits[level].shape[1] // 3
        sums = dict.fromkeys(("logit", "angle", "score", "box"), 0.0)
        rows, numbers = 0, 0
        for index in range(IMAGES * side * side * anchors):
            image, prior = divmod(index, side * side * anchors)
            at = Place(level, image, prior // anchors // side, prior // anchors % side, prior % anchors)
            label, row = (int(each[image, first + prior]) for each in (found.labels, found.match))
            if counts(built.sample, label, built):
                rows += 1
                angle = (turn(scene, image, row) if row >= 0 else -1) if head.bins > 1 else None
                for term, value in soft_terms(built, pair, at, label, angle).items():
                    sums[term] += value
            if counts(built.box_sample, label, built):
                apart, more = boxes_apart(name, pair, at, built.box_angle)
                sums["box"], numbers = sums["box"] + apart, numbers + more
        count = max(1, rows) if built.normaliser == "sampled" else IMAGES * side * side * anchors
        divisor = max(1, numbers if built.box_reduction == "mean" else int((found.match >= 0).sum()))
        soft = rise * built.beta * built.temperature**2 / count
        here = found.labels[:, first : first + side * side * anchors].view(IMAGES, side, side, anchors)
        for term, value in {
            "logit": built.logit_weight * soft * sums["logit"],
            "angle": built.angle_weight * soft * sums["angle"],
            "score": built.score_weight * rise * sums["score"] / count,
            "box": built.box_weight * sums["box"] / divisor,
            "pixel": slow_pixel(built, pair, level, here),
        }.items():
            losses[f"{term}.p{3 + level}"] = value
        first += side * side * anchors
    return losses


@pytest.mark.parametrize(("name", "options"), CASES)
def test_losses_are_those_of_the_formulas(name: str, options: str) -> None:
    built = NSD(**OPTIONS[options])
    expected = slow_losses(name, built, 2)
    scene = scene_of(name, IMAGES, 2)
    found = built(taps_of(name, 1, IMAGES), taps_of(name, 2, IMAGES), identities(), scene)
    assert all(value.shape == () for value in found.values())
    off = {"logit": built.logit_weight, "score": built.score_weight, "box": built.box_weight}
    off |= {"angle": built.angle_weight * (name == "retina-obb-class")}
    off |= {"pixel": built.pixel_background + built.pixel_foreground}
    wanted = {key: value for key, value in expected.items() if off[key.split(".")[0]]}
    assert {key: value.item() for key, value in found.items()} == pytest.approx(wanted, rel=1e-4)
