"""Who learns what: properties of both assignments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekd.training.models.assign import assign_by_iou, assign_dynamic
from edgekd.training.models.boxes import Truth, pad_truth, pairwise_iou
from edgekd.training.models.grid import cell_anchors, cell_centres

CPU = torch.device("cpu")
SHAPES, STRIDES = ((8, 8), (4, 4), (2, 2)), (8, 16, 32)
CENTRES, CELL_STRIDES = cell_centres(SHAPES, STRIDES, CPU)
ANCHORS = cell_anchors(SHAPES, STRIDES, CPU)


def truth_of(*images: list[list[float]]) -> Truth:
    boxes = [torch.tensor(image).reshape(-1, 5) for image in images]
    return pad_truth([item[:, :4] for item in boxes], [item[:, 4].long() for item in boxes], CPU)


def predictions(seed: int, images: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Return random logits `(B, C, N)` and boxes `(B, N, 4)` around the cells."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, len(CENTRES), generator=generator)
    sides = torch.rand(images, len(CENTRES), 4, generator=generator) * 20 + 2
    corners = torch.cat([CENTRES - sides[..., :2], CENTRES + sides[..., 2:]], dim=-1)
    return logits, corners


def random_truth(seed: int, counts: list[int]) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 50
        boxes.append(torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 30], dim=1))
        labels.append(torch.randint(0, 3, (count,), generator=generator))
    return pad_truth(boxes, labels, CPU)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 5), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_assign_dynamic_when_boxes_are_random_then_positives_are_near_their_box(seed: int, counts: list[int]) -> None:
    truth = random_truth(seed, counts)
    logits, boxes = predictions(seed, len(counts))
    match, iou = assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES)
    assert match.shape == iou.shape == (len(counts), len(CENTRES))
    for image, count in enumerate(counts):
        positive = match[image] >= 0
        assert bool((match[image][positive] < count).all())
        mine = truth.boxes[image][match[image][positive]]
        centre = CENTRES[positive]
        inside = ((centre > mine[:, :2]) & (centre < mine[:, 2:])).all(dim=1)
        holds = ((mine[:, :2] + mine[:, 2:]) / 2 - centre).abs().amax(dim=1) <= CELL_STRIDES[positive] / 2
        assert bool((inside | holds).all())
        expected = pairwise_iou(mine, boxes[image][positive]).diagonal()
        torch.testing.assert_close(iou[image][positive], expected)
        assert bool((iou[image][~positive] == 0).all())


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_assign_dynamic_when_boxes_do_not_overlap_then_everyone_learns_somewhere(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.tensor([[2.0, 2], [34, 2], [2, 34], [34, 34]]) + torch.rand(4, 2, generator=generator) * 10
    side = 0.5 + torch.rand(4, 2, generator=generator) * 18  # down to a sixteenth of a cell
    truth = pad_truth([torch.cat([corner, corner + side], dim=1)], [torch.tensor([0, 1, 2, 0])], CPU)
    logits, boxes = predictions(seed, 1)
    match = assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES).match
    assert set(match[0].tolist()) == {-1, 0, 1, 2, 3}


def test_assign_dynamic_when_images_share_a_batch_then_each_gets_what_it_would_alone() -> None:
    truth = random_truth(3, [4, 0, 2])
    logits, boxes = predictions(3, 3)
    joined = assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES)
    for image in range(3):
        alone = Truth(*(item[image : image + 1] for item in truth))
        single = assign_dynamic(alone, logits[image : image + 1], boxes[image : image + 1], CENTRES, CELL_STRIDES)
        assert torch.equal(single.match[0], joined.match[image])


def test_assign_dynamic_when_one_cell_predicts_better_then_it_is_among_the_positives() -> None:
    truth = truth_of([[16, 16, 48, 48, 1]])
    logits, boxes = predictions(0, 1)
    best = 27  # an 8-pixel cell at (28, 28), inside the box
    boxes[0, best] = truth.boxes[0, 0]
    logits[0, 1, best] = 3.0
    match, iou = assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES)
    assert match[0, best] == 0
    assert iou[0, best] == pytest.approx(1.0)


def test_assign_dynamic_when_predictions_fit_badly_then_the_object_takes_four_cells_and_no_more() -> None:
    truth = truth_of([[0, 0, 64, 64, 1]])
    logits, boxes = predictions(0, 1)
    boxes = torch.cat([CENTRES - 1, CENTRES + 1], dim=1).unsqueeze(0)
    match, _ = assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES)
    assert int((match == 0).sum()) == 4


def test_assign_dynamic_when_two_boxes_want_a_cell_then_it_goes_to_one_and_better_fits_mean_more_cells() -> None:
    truth = truth_of([[8, 8, 40, 40, 0], [10, 10, 42, 42, 1]])
    logits, boxes = predictions(0, 1)
    boxes[0, :] = truth.boxes[0, 0]
    match, _ = assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES)
    assert int((match == 0).sum()) + int((match == 1).sum()) == int((match >= 0).sum())
    assert int((match == 0).sum()) >= 10  # k = the sum of 13 IoUs of 1, less what the other takes


@pytest.mark.parametrize("rows", [[], [[10, 10, 10, 30, 0]], [[30, 30, 10, 10, 2]]])
def test_assignments_when_there_is_no_box_with_area_then_all_is_background(rows: list[list[float]]) -> None:
    truth = truth_of(rows)
    logits, boxes = predictions(1, 1)
    assert bool((assign_dynamic(truth, logits, boxes, CENTRES, CELL_STRIDES).match == -1).all())
    assert bool((assign_by_iou(truth, ANCHORS).match == -1).all())


def test_assign_dynamic_when_predictions_are_boxes_of_no_size_then_the_result_is_finite() -> None:
    truth = truth_of([[10, 10, 30, 30, 0]])
    boxes = CENTRES.repeat(1, 1, 2).expand(1, -1, 4)
    match, iou = assign_dynamic(truth, torch.zeros(1, 3, len(CENTRES)), boxes, CENTRES, CELL_STRIDES)
    assert bool(iou.isfinite().all())
    assert bool((match == 0).any())


def test_assign_by_iou_when_thresholds_apply_then_anchors_learn_ignore_or_stay_background() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4.5], [0, 0, 10, 2], [50, 50, 60, 60], [0, 0, 6, 10]])
    match, iou = assign_by_iou(truth_of([[0, 0, 10, 10, 0]]), anchors)
    assert match.tolist() == [[0, -2, -1, -1, 0]]
    assert iou[0].tolist() == pytest.approx([1.0, 0, 0, 0, 0.6])


def test_assign_by_iou_when_no_anchor_fits_then_the_best_one_is_taken_and_ties_do_not_mix_images() -> None:
    tiny = truth_of([[20, 20, 22, 23, 0]], [])
    match, _ = assign_by_iou(tiny, ANCHORS)
    assert int((match[0] == 0).sum()) >= 1
    best = pairwise_iou(tiny.boxes[0], ANCHORS)[0]
    assert bool((best[match[0] == 0] == best.max()).all())
    assert bool((match[1] == -1).all())


def test_assign_by_iou_when_two_boxes_force_one_anchor_then_the_larger_overlap_wins() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]])
    match, _ = assign_by_iou(truth_of([[0, 0, 3, 3, 0], [0, 0, 5, 5, 1]]), anchors)
    assert match.tolist() == [[1, -1]]


def test_anchors_when_built_then_sizes_and_ratios_are_those_of_the_paper() -> None:
    first = ANCHORS[:9]
    size = first[:, 2:] - first[:, :2]
    torch.testing.assert_close((first[:, :2] + first[:, 2:]) / 2, torch.full((9, 2), 4.0))
    expected = [32 * 2 ** (octave / 3) for octave in range(3) for _ in range(3)]
    torch.testing.assert_close(size.prod(dim=1).sqrt(), torch.tensor(expected))
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor([0.5, 1.0, 2.0] * 3))
    assert len(ANCHORS) == 9 * len(CENTRES)


def test_cells_when_built_then_they_run_row_by_row_through_the_levels() -> None:
    assert CENTRES[1].tolist() == [12.0, 4.0]
    assert CENTRES[8].tolist() == [4.0, 12.0]
    assert CENTRES[64].tolist() == [8.0, 8.0]
    assert CELL_STRIDES.tolist() == [8.0] * 64 + [16.0] * 16 + [32.0] * 4
