"""Who learns what among oriented boxes, against loops over every pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekd import ops
from edgekd.training.models.assign_rotated import assign_by_rotated_iou, assign_dynamic_rotated, overlap_bound
from edgekd.training.models.boxes import Truth, pad_truth
from edgekd.training.models.grid import cell_anchors, cell_centres
from edgekd.training.models.rotated import iou_rotated

CPU = torch.device("cpu")
SHAPES, STRIDES = ((8, 8), (4, 4), (2, 2)), (8, 16, 32)
CENTRES, CELL_STRIDES = cell_centres(SHAPES, STRIDES, CPU)
_UPRIGHT = cell_anchors(SHAPES, STRIDES, CPU)
_MIDDLE = (_UPRIGHT[:, :2] + _UPRIGHT[:, 2:]) / 2
ANCHORS = torch.cat([_MIDDLE, _UPRIGHT[:, 2:] - _UPRIGHT[:, :2], torch.zeros(len(_MIDDLE), 1)], dim=1)


def random_truth(seed: int, counts: list[int]) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    low, span = torch.tensor([0.0, 0, 2, 2, -1.5]), torch.tensor([64.0, 64, 50, 20, 3])
    boxes = [low + span * torch.rand(count, 5, generator=generator) for count in counts]
    labels = [torch.randint(0, 3, (count,), generator=generator) for count in counts]
    return pad_truth(boxes, labels, CPU, 5)


def predictions(seed: int, images: int) -> tuple[Tensor, Tensor]:
    """Return random logits `(B, 3, N)` and boxes `(B, N, 5)` around the cells."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 3, len(CENTRES), generator=generator)
    rest = torch.rand(images, len(CENTRES), 3, generator=generator) * torch.tensor([40.0, 15, 3]) + 2
    return logits, torch.cat([CENTRES.expand(images, -1, -1) + logits[:, :2].transpose(1, 2), rest], dim=-1)


def slow_by_iou(boxes: np.ndarray, anchors: np.ndarray) -> list[int]:
    """Return the match of one image's anchors, pair by pair."""
    table = ops.iou_rotated(boxes, anchors)
    found = []
    for column in table.T:
        best = int(column.argmax())
        found.append(best if column[best] >= 0.5 else -1 if column[best] < 0.4 else -2)
    forced: dict[int, float] = {}
    for row in range(len(boxes)):
        best = table[row].max()
        for column in np.flatnonzero((table[row] > best - 1e-5) & (best > 0)).tolist():
            if table[row, column] > forced.get(column, 0):
                forced[column] = table[row, column]
                found[column] = row
    return found


@given(st.integers(0, 2**31), st.lists(st.integers(0, 4), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_by_iou_equals_the_slow_loop(seed: int, counts: list[int]) -> None:
    truth = random_truth(seed, counts)
    match, iou = assign_by_rotated_iou(truth, ANCHORS)
    for image, count in enumerate(counts):
        boxes = truth.boxes[image, :count]
        table = ops.iou_rotated(boxes.numpy(), ANCHORS.numpy())
        near = np.zeros(len(ANCHORS), np.bool_)  # within rounding of a threshold, or of another box's claim
        for row in table:
            near |= (np.abs(row - 0.5) < 1e-5) | (np.abs(row - 0.4) < 1e-5)
            tied = np.abs(row - row.max()) < 1e-5
            near |= tied & (tied.sum() > 1)
        expected = np.array(slow_by_iou(boxes.numpy(), ANCHORS.numpy()) if count else [-1] * len(ANCHORS))
        assert np.array_equal(match[image].numpy()[~near], expected[~near])
        positive = match[image] >= 0
        mine = iou_rotated(boxes[match[image][positive]], ANCHORS[positive])
        torch.testing.assert_close(iou[image][positive], mine)
        assert set(match[image][positive].tolist()) <= set(range(count))


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=30, deadline=None)
def test_bound_is_never_below_the_overlap(seed: int, turned: bool) -> None:
    truth = random_truth(seed, [6])
    others = random_truth(seed + 1, [40]).boxes[0] if turned else ANCHORS
    bound = overlap_bound(truth.boxes, others)
    exact = iou_rotated(truth.boxes.unsqueeze(-2), others)
    assert bool((bound * 1.0001 >= exact).all())
    assert bool((bound > 0).any())


def test_by_iou_when_no_anchor_fits_then_the_best_one_is_taken() -> None:
    thin = [torch.tensor([[30.0, 30, 50, 1.5, math.pi / 4]]), torch.zeros(0, 5)]
    match, iou = assign_by_rotated_iou(pad_truth(thin, [torch.tensor([1]), torch.zeros(0)], CPU, 5), ANCHORS)
    assert int((match[0] == 0).sum()) >= 1
    exact = iou_rotated(thin[0], ANCHORS)
    assert exact.max() < 0.2
    assert bool((exact[match[0] == 0] == exact.max()).all())
    assert bool((iou[0][match[0] == 0] == exact.max()).all())
    assert bool((match[1] == -1).all())


def slow_dynamic(boxes: Tensor, labels: Tensor, logits: Tensor, predicted: Tensor) -> list[int]:
    """Return the match of one image's cells: the cost pair by pair, then each object in turn."""
    costs = torch.full((len(boxes), len(CENTRES)), math.inf)
    wanted = []
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        x, y, w, h, r = box.tolist()
        overlaps = []
        for cell, (cx, cy) in enumerate(CENTRES.tolist()):
            dx, dy, stride = cx - x, cy - y, float(CELL_STRIDES[cell])
            along, across = dx * math.cos(r) + dy * math.sin(r), dy * math.cos(r) - dx * math.sin(r)
            inside = abs(along) < w / 2 and abs(across) < h / 2
            if not inside and not (stride == STRIDES[0] and max(abs(dx), abs(dy)) <= stride / 2):
                continue
            iou = float(ops.iou_rotated(box[None].numpy(), predicted[cell][None].numpy())[0, 0])
            overlaps.append(iou)
            logit = float(logits[label, cell])
            score = 1 / (1 + math.exp(-logit))
            entropy = -iou * math.log(score) - (1 - iou) * math.log(1 - score)
            distance = min(math.hypot(dx, dy) / stride, 8)
            costs[row, cell] = entropy * (iou - score) ** 2 - 3 * math.log(iou + 1e-7) + 10 ** (distance - 3)
        wanted.append(max(int(sum(sorted(overlaps)[-13:])), 4))
    selected = torch.full_like(costs, math.inf)
    for row, count in enumerate(wanted):
        for cell in costs[row].argsort()[:count].tolist():
            selected[row, cell] = costs[row, cell]
    best = selected.min(dim=0)
    return torch.where(best.values.isfinite(), best.indices, -1).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_dynamic_equals_the_slow_loop(seed: int) -> None:
    counts = [3, 0, 1]
    truth = random_truth(seed, counts)
    logits, boxes = predictions(seed, 3)
    match, iou = assign_dynamic_rotated(truth, logits, boxes, CENTRES, CELL_STRIDES)
    for image, count in enumerate(counts):
        if count == 0:
            assert bool((match[image] == -1).all())
            continue
        its = truth.boxes[image, :count], truth.labels[image, :count]
        assert match[image].tolist() == slow_dynamic(*its, logits[image], boxes[image])
        positive = match[image] >= 0
        mine = iou_rotated(its[0][match[image][positive]], boxes[image][positive])
        torch.testing.assert_close(iou[image][positive], mine)
        assert bool((iou[image][~positive] == 0).all())


def test_dynamic_when_a_thin_box_crosses_the_picture_then_its_hull_is_not_its_candidates() -> None:
    diagonal = pad_truth([torch.tensor([[32.0, 32, 80, 6, math.pi / 4]])], [torch.tensor([0])], CPU, 5)
    logits, _ = predictions(0, 1)
    boxes = diagonal.boxes.expand(1, len(CENTRES), 5)  # every cell predicts it: all candidates are as good
    match, _ = assign_dynamic_rotated(diagonal, logits, boxes, CENTRES, CELL_STRIDES)
    taken = CENTRES[match[0] == 0]
    assert len(taken) >= 8
    assert bool(((taken[:, 0] - taken[:, 1]).abs() < 8.5).all())


def test_boxes_without_area_are_nobodys() -> None:
    rows = torch.tensor([[20.0, 20, 0, 9, 0.3], [20, 20, 9, 0, 0.3]])
    truth = pad_truth([rows], [torch.tensor([0, 1])], CPU, 5)
    logits, boxes = predictions(1, 1)
    assert bool((assign_dynamic_rotated(truth, logits, boxes, CENTRES, CELL_STRIDES).match == -1).all())
    assert bool((assign_by_rotated_iou(truth, ANCHORS).match == -1).all())
