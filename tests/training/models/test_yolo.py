"""The YOLOv4 neck and head: shapes, decoding, CIoU, assignment, loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.training.models import build_model, count, load_detector
from edgekd.training.models.assign import assign_by_shape
from edgekd.training.models.boxes import Truth, ciou, pad_truth, pairwise_iou
from edgekd.training.models.heads import HeadOutputs, YOLOHead
from edgekd.training.models.heads import yolo as yolo_module
from edgekd.training.models.heads.yolo import ANCHORS
from edgekd.training.models.necks.yolov4 import PyramidPooling

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
STRIDES = (8, 16, 32)
SHAPES = ((8, 12), (4, 6), (2, 3))  # of 64 x 96 pixels
CELLS = [height * width for height, width in SHAPES]
ANCHOR_ROWS = 3 * sum(CELLS)
SIZE = InputConfig(height=64, width=96)
PUBLISHED = ModelConfig(backbone="cspdarknet53", neck="yolov4", channels=128, head="yolo", head_depth=1)
TINY = ModelConfig(backbone="csp-tiny", width=0.25, neck="yolov4", channels=8, head="yolo", head_depth=1)


def head_of(classes: int = 3, channels: tuple[int, ...] = (8, 16, 32), side: float = 304.0) -> YOLOHead:
    """Return a head whose anchors are half of the published ones."""
    torch.manual_seed(0)
    return YOLOHead(classes, channels, 1, STRIDES, side)


def as_maps(values: Tensor) -> tuple[Tensor, ...]:
    """Return `(B, K, N)` as one map `(B, 3 K, H, W)` a level: the inverse of `join_levels`, written as loops."""
    maps, start = [], 0
    for height, width in SHAPES:
        item = values.new_zeros(len(values), 3, values.shape[1], height, width)
        for row in range(height):
            for column in range(width):
                for anchor in range(3):
                    item[:, anchor, :, row, column] = values[:, :, start + (row * width + column) * 3 + anchor]
        maps.append(item.flatten(1, 2))
        start += 3 * height * width
    return tuple(maps)


def cells_of_rows() -> tuple[Tensor, Tensor, Tensor]:
    """Return column and row `(N, 2)`, stride `(N,)` and anchor `(N, 2)` in pixels of every output row, by loops."""
    places, strides, sizes = [], [], []
    for (height, width), stride, anchors in zip(SHAPES, STRIDES, ANCHORS, strict=True):
        for row in range(height):
            for column in range(width):
                for anchor in anchors:
                    places.append((column, row))
                    strides.append(stride)
                    sizes.append((anchor[0] / 2, anchor[1] / 2))
    return torch.tensor(places, dtype=torch.float64), torch.tensor(strides), torch.tensor(sizes, dtype=torch.float64)


def encode(boxes: Tensor) -> Tensor:
    """Return offsets `(4, N)` that should decode to boxes `(N, 4)`: the inverse of the paper's formulas in float64."""
    places, strides, sizes = cells_of_rows()
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 / strides[:, None] - places
    ratio = (boxes[:, 2:] - boxes[:, :2]) / sizes
    return torch.cat([torch.logit((middle + 0.5) / 2), torch.logit(ratio.sqrt() / 2)], dim=1).t().float()


def reachable(seed: int) -> Tensor:
    """Return a random box `(N, 4)` float64 for every row that its cell and anchor can express."""
    places, strides, sizes = cells_of_rows()
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(len(places), 2, generator=generator, dtype=torch.float64) * 1.9 - 0.45
    sides = sizes * (torch.rand(len(places), 2, generator=generator, dtype=torch.float64) * 3.8 + 0.05)
    middle = (places + shift) * strides[:, None]
    return torch.cat([middle - sides / 2, middle + sides / 2], dim=1)


def random_truth(seed: int, counts: list[int], classes: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for number in counts:
        corner = torch.rand(number, 2, generator=generator) * torch.tensor([80.0, 50])
        sides = 2 + torch.rand(number, 2, generator=generator).square() * 60
        boxes.append(torch.cat([corner, corner + sides], dim=1))
        labels.append(torch.randint(0, classes, (number,), generator=generator))
    return boxes, labels


# --- neck -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["csp-tiny", "cspdarknet53", "mobilenetv3-small", "mobilenetv3-large"])
def test_detector_when_built_then_levels_have_c_2c_and_4c_channels(backbone: str) -> None:
    model = build_model(ModelConfig(**{**vars(TINY), "backbone": backbone, "width": 0.125}), 2, SIZE, seed=0).eval()
    with torch.no_grad():
        features = model.features(torch.randn(1, 3, 64, 96))
        boxes, scores = model(torch.randn(1, 3, 64, 96))
    assert model.channels == (8, 16, 32)
    assert [tuple(item.shape[1:]) for item in features] == [(8, 8, 12), (16, 4, 6), (32, 2, 3)]
    assert boxes.shape == (1, ANCHOR_ROWS, 4)
    assert scores.shape == (1, ANCHOR_ROWS, 2)


def test_network_when_built_in_full_then_it_has_the_size_of_the_published_one() -> None:
    size = InputConfig(height=32, width=32)
    parameters, macs = count(build_model(PUBLISHED, 80, size, seed=0), size)
    assert parameters == 64_363_101
    assert macs * 13**2 == pytest.approx(60.1e9 / 2, rel=1e-3)  # published: 60.1 BFLOP at 416 x 416


def test_pooling_when_windows_are_chained_then_they_are_those_of_5_9_and_13_cells() -> None:
    features = torch.randn(2, 3, 16, 9)
    expected = torch.cat([features, *(F.max_pool2d(features, size, 1, size // 2) for size in (5, 9, 13))], dim=1)
    assert torch.equal(PyramidPooling()(features), expected)


# --- decoding ---------------------------------------------------------------------------------------------------------


def outputs_of(logits: Tensor, offsets: Tensor, objectness: Tensor) -> HeadOutputs:
    """Return head outputs of `(B, C, N)`, `(B, 4, N)` and `(B, N)`."""
    return HeadOutputs(as_maps(logits), as_maps(offsets), as_maps(objectness.unsqueeze(1)))


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_decode_when_boxes_are_encoded_then_they_come_back(seed: int) -> None:
    wanted = reachable(seed)
    nothing = torch.zeros(1, 3, ANCHOR_ROWS)
    boxes, _ = head_of().decode(outputs_of(nothing, encode(wanted).unsqueeze(0), nothing[:, 0]))
    torch.testing.assert_close(boxes[0].double(), wanted, rtol=1e-3, atol=2e-2)


def test_decode_when_offsets_are_zero_then_anchors_lie_on_the_cells_centres() -> None:
    places, strides, sizes = cells_of_rows()
    nothing = torch.zeros(1, 4, ANCHOR_ROWS)
    boxes, _ = head_of().decode(outputs_of(nothing[:, :3], nothing, nothing[:, 0]))
    middle = (places + 0.5) * strides[:, None]
    torch.testing.assert_close(boxes[0].double(), torch.cat([middle - sizes / 2, middle + sizes / 2], dim=1))


def test_decode_when_one_anchor_speaks_then_its_score_is_objectness_times_class() -> None:
    logits = torch.full((1, 3, ANCHOR_ROWS), 0.0)
    objectness = torch.full((1, ANCHOR_ROWS), -30.0)
    row = 3 * (CELLS[0] + 2 * 6 + 5) + 1  # level 1, row 2, column 5, anchor 1
    objectness[0, row], logits[0, 2, row] = math.log(4.0), math.log(3.0)
    _, scores = head_of().decode(outputs_of(logits, torch.zeros(1, 4, ANCHOR_ROWS), objectness))
    assert scores[0, row].tolist() == pytest.approx([0.4, 0.4, 0.6])  # 4/5 of 1/2, 1/2, 3/4
    assert float(scores.sum()) == pytest.approx(1.4, abs=1e-6)


def test_decode_when_offsets_are_extreme_then_boxes_end_at_four_anchors_and_are_finite_in_half_precision() -> None:
    _, _, sizes = cells_of_rows()
    for value, factor in ((80.0, 4.0), (-80.0, 0.0)):
        offsets = torch.full((1, 4, ANCHOR_ROWS), value)
        boxes, _ = head_of().decode(outputs_of(offsets[:, :3], offsets, offsets[:, 0]))
        assert bool(boxes.half().isfinite().all())
        sides = (boxes[0, :, 2:] - boxes[0, :, :2]).double()
        torch.testing.assert_close(sides, factor * sizes, rtol=1e-5, atol=1e-3)


def test_anchors_when_built_then_they_scale_with_the_input_and_when_loaded_then_they_stay(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    trained = build_model(TINY, 2, InputConfig(height=608, width=608), seed=0)
    pixels = trained.head.anchors * torch.tensor(STRIDES).view(-1, 1, 1)  # type: ignore[operator]
    torch.testing.assert_close(pixels, torch.tensor(ANCHORS, dtype=torch.float32))
    model = build_model(TINY, 2, InputConfig(height=256, width=1024), seed=0)  # as many pixels as 512 x 512
    torch.testing.assert_close(model.head.anchors * 608 / 512, trained.head.anchors)  # type: ignore[operator]
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    load_detector(model, tmp_path / "trained.safetensors")
    assert torch.equal(model.head.anchors, trained.head.anchors)  # type: ignore[arg-type]


# --- CIoU -------------------------------------------------------------------------------------------------------------


def ciou_parts(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Return IoU less the distance term, alpha and v of two boxes from the paper's equations, in Python's floats."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    iou = wide * high / (area_a + area_b - wide * high)
    hull = math.hypot(max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    apart = math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    angles = [math.atan2(box[2] - box[0], box[3] - box[1]) for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return iou - (apart / hull) ** 2, v / (1 - iou + v) if v else 0.0, v


corner = st.floats(-50, 100, width=32)
side = st.floats(0.5, 80, width=32)


@given(st.lists(st.tuples(corner, corner, side, side), min_size=2, max_size=2))
@settings(max_examples=150, deadline=None)
def test_ciou_when_boxes_are_random_then_it_is_that_of_the_equations(rows: list[tuple[float, ...]]) -> None:
    first, second = ([x, y, x + w, y + h] for x, y, w, h in rows)
    value = ciou(torch.tensor([first]), torch.tensor([second]))
    exact = [torch.tensor(box).double().tolist() for box in (first, second)]  # as float32 holds them
    rest, alpha, v = ciou_parts(*exact)
    assert value.item() == pytest.approx(rest - alpha * v, abs=2e-4)
    assert -1.5 <= value.item() <= 1 + 1e-6


def test_ciou_when_boxes_are_equal_then_it_is_one_and_when_they_are_points_then_it_is_finite() -> None:
    box = torch.tensor([[3.0, 4, 30, 20]])
    assert ciou(box, box).item() == pytest.approx(1)
    points = torch.zeros(2, 4, requires_grad=True)
    value = ciou(points, torch.zeros(2, 4))
    value.sum().backward()
    assert bool(value.isfinite().all())
    assert points.grad is not None
    assert bool(points.grad.isfinite().all())


def test_ciou_when_differentiated_then_alpha_is_a_constant() -> None:
    box, wanted = [0.0, 0, 10, 30], [0.0, 0, 30, 10]
    tensor = torch.tensor([box], requires_grad=True)
    ciou(tensor, torch.tensor([wanted])).sum().backward()
    alpha = ciou_parts(box, wanted)[1]
    wider, narrower = (ciou_parts([0.0, 0, 10 + step, 30], wanted) for step in (1e-4, -1e-4))
    slope = (wider[0] - narrower[0] - alpha * (wider[2] - narrower[2])) / 2e-4
    assert tensor.grad is not None
    assert float(tensor.grad[0, 2]) == pytest.approx(slope, rel=1e-3)


# --- assignment -------------------------------------------------------------------------------------------------------


def slow_assignment(truth: Truth, predicted: Tensor, anchors: Tensor) -> Tensor:
    """Return the match `(B, N)` by loops over images, objects and anchors."""
    match = torch.full(predicted.shape[:2], -1)
    for image in range(len(predicted)):
        fits: dict[int, tuple[float, int]] = {}
        for number, box in enumerate(truth.boxes[image]):
            if not truth.valid[image, number]:
                continue
            for place, fit in claims_of(box, anchors):
                if place not in fits or fit > fits[place][0]:
                    fits[place] = (fit, number)
            close = pairwise_iou(box[None], predicted[image])[0] > 0.7
            match[image][close & (match[image] == -1)] = -2
        for place, (_, number) in fits.items():
            match[image, place] = number
    return match


def claims_of(box: Tensor, anchors: Tensor) -> list[tuple[int, float]]:
    """Return the output rows that one object wants and how well each fits."""
    width, height = (box[2:] - box[:2]).tolist()
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    claims, start = [], 0
    for level, (rows, columns) in enumerate(SHAPES):
        column = min(max(int(x // STRIDES[level]), 0), columns - 1)
        row = min(max(int(y // STRIDES[level]), 0), rows - 1)
        for number in range(3):
            w, h = (anchors[level, number] * STRIDES[level]).tolist()
            inter = min(w, width) * min(h, height)
            claims.append((start + (row * columns + column) * 3 + number, inter / (w * h + width * height - inter)))
        start += rows * columns * 3
    best = max(fit for _, fit in claims)
    return [(place, fit) for place, fit in claims if fit > 0.213 or fit == best]


@given(st.integers(0, 2**31), st.lists(st.integers(0, 9), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_assign_by_shape_when_boxes_are_random_then_it_is_what_loops_find(seed: int, counts: list[int]) -> None:
    truth = pad_truth(*random_truth(seed, counts), CPU)
    anchors = head_of().anchors
    predicted = reachable(seed).float().expand(len(counts), -1, 4).clone()
    for image, number in enumerate(counts):  # some predictions right on an object, so that some are ignored
        for index in range(number):
            predicted[image, index * 40] = truth.boxes[image, index] + 1
    match, iou = assign_by_shape(truth, predicted, anchors, SHAPES, STRIDES)
    assert torch.equal(match, slow_assignment(truth, predicted, anchors))
    assert torch.equal(iou > 0, match >= 0)
    for image, number in enumerate(counts):
        best = max((fit for row in range(number) for _, fit in claims_of(truth.boxes[image, row], anchors)), default=0)
        assert float(iou[image].max()) == pytest.approx(best, rel=1e-5)


def test_assign_by_shape_when_two_objects_share_all_anchors_then_the_first_has_them_whatever_the_device_does() -> None:
    boxes = torch.tensor([[10.0, 10, 40, 40], [10, 10, 40, 40]])
    truth = pad_truth([boxes], [torch.tensor([0, 1])], CPU)
    match = assign_by_shape(truth, torch.zeros(1, ANCHOR_ROWS, 4), head_of().anchors, SHAPES, STRIDES).match
    assert int((match == 0).sum()) >= 1
    assert int((match == 1).sum()) == 0


def test_assign_by_shape_when_an_object_is_like_no_anchor_then_it_still_has_the_best_one() -> None:
    truth = pad_truth([torch.tensor([[0.0, 30, 90, 31]])], [torch.tensor([0])], CPU)
    match, iou = assign_by_shape(truth, torch.zeros(1, ANCHOR_ROWS, 4), head_of().anchors, SHAPES, STRIDES)
    assert int((match == 0).sum()) == 1
    assert 0 < float(iou.max()) < 0.213


def test_assign_by_shape_when_images_share_a_batch_then_each_gets_what_it_would_alone() -> None:
    truth = pad_truth(*random_truth(3, [4, 0, 2]), CPU)
    predicted = reachable(3).float().expand(3, -1, 4)
    joined = assign_by_shape(truth, predicted, head_of().anchors, SHAPES, STRIDES)
    for image in range(3):
        alone = Truth(*(item[image : image + 1] for item in truth))
        single = assign_by_shape(alone, predicted[:1], head_of().anchors, SHAPES, STRIDES)
        assert torch.equal(single.match[0], joined.match[image])


# --- loss -------------------------------------------------------------------------------------------------------------


def random_outputs(seed: int, images: int) -> HeadOutputs:
    generator = torch.Generator().manual_seed(seed)
    return outputs_of(
        torch.randn(images, 3, ANCHOR_ROWS, generator=generator),
        torch.randn(images, 4, ANCHOR_ROWS, generator=generator),
        torch.randn(images, ANCHOR_ROWS, generator=generator),
    )


def test_loss_when_everything_is_right_then_it_vanishes_and_each_part_sees_its_own_error() -> None:
    head = head_of()
    box = torch.tensor([[20.0, 12, 62, 50]])
    places = [place for place, _ in claims_of(box[0], head.anchors)]
    logits, objectness = torch.full((1, 3, ANCHOR_ROWS), -20.0), torch.full((1, ANCHOR_ROWS), -20.0)
    logits[0, 1, places] = objectness[0, places] = 20.0
    offsets = torch.zeros(4, ANCHOR_ROWS)
    offsets[:, places] = encode(box.double().expand(ANCHOR_ROWS, 4))[:, places]
    assert bool(offsets.isfinite().all())
    outputs = outputs_of(logits, offsets.unsqueeze(0), objectness)
    right = head.loss(outputs, [box], [torch.tensor([1])])
    assert all(value.item() < 1e-4 for value in right.values())
    label = head.loss(outputs, [box], [torch.tensor([2])])
    assert label["loss_class"].item() == pytest.approx(40, rel=1e-3)  # two of three classes wrong by 20
    assert label["loss_objectness"].item() < 1e-4
    moved = head.loss(outputs, [box + torch.tensor([4.0, 0, 4, 0])], [torch.tensor([1])])
    assert moved["loss_box"].item() > 0.3
    silent = head.loss(outputs._replace(objectness=as_maps(-objectness.unsqueeze(1))), [box], [torch.tensor([1])])
    assert silent["loss_objectness"].item() > 20


def test_loss_when_a_free_anchor_predicts_the_box_well_then_its_objectness_counts_nowhere() -> None:
    head = head_of()
    box = torch.tensor([[20.0, 12, 62, 50]])
    taken = {place for place, _ in claims_of(box[0], head.anchors)}
    offsets = encode(box.double().expand(ANCHOR_ROWS, 4))
    free = next(row for row in range(ANCHOR_ROWS) if row not in taken and bool(offsets[:, row].isfinite().all()))
    chosen = torch.zeros(1, 4, ANCHOR_ROWS)
    chosen[0, :, free] = offsets[:, free]
    objectness = torch.zeros(1, ANCHOR_ROWS, requires_grad=True)
    outputs = outputs_of(torch.zeros(1, 3, ANCHOR_ROWS), chosen, objectness)
    head.loss(outputs, [box], [torch.tensor([0])])["loss_objectness"].backward()
    grad = objectness.grad
    assert grad is not None
    assert float(grad[0, free]) == 0
    assert all(float(grad[0, place]) < 0 for place in taken)
    assert int((grad[0] > 0).sum()) >= ANCHOR_ROWS - len(taken) - 3


def test_loss_when_ranks_split_a_batch_then_their_sums_over_the_joined_normaliser_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the joined batch's count for all, parts add up to the whole: the only thing shared is the normaliser."""
    head, outputs = head_of(), random_outputs(5, 4)
    boxes, labels = random_truth(5, [3, 0, 1, 5])
    totals: list[float] = []

    def joined(total: Tensor) -> Tensor:
        totals.append(total.item())
        return torch.tensor(7.0)

    monkeypatch.setattr(yolo_module, "share_of_total", joined)
    whole = head.loss(outputs, boxes, labels)
    parts = []
    for rank in (slice(0, 2), slice(2, 4)):
        mine = HeadOutputs(*(tuple(item[rank] for item in part) for part in outputs))
        parts.append(head.loss(mine, boxes[rank], labels[rank]))
    assert totals[0] == totals[1] + totals[2] > 8
    for name, value in whole.items():
        assert value.item() == pytest.approx(sum(part[name].item() for part in parts), rel=1e-5)


def test_head_when_it_stands_on_a_pyramid_of_equal_channels_then_it_builds_at_any_depth() -> None:
    for depth in (0, 1, 3):
        head = YOLOHead(2, (8, 8, 8), depth, STRIDES, 64.0)
        outputs = head([torch.randn(1, 8, *shape) for shape in SHAPES])
        assert [tuple(item.shape[1:]) for item in outputs.objectness] == [(3, *shape) for shape in SHAPES]
        convs = [len(tower) for tower in head.towers]  # type: ignore[arg-type]
        assert convs == [depth] * 3


def test_detector_when_trained_on_three_pictures_then_it_finds_every_box() -> None:
    model = build_model(TINY, 2, SIZE, seed=0)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 3, 64, 96, generator=generator) * 0.1
    boxes = [torch.tensor([[8.0, 8, 30, 40], [50, 20, 90, 56]]), torch.tensor([[40.0, 4, 60, 20]]), torch.zeros(0, 4)]
    labels = [torch.tensor([0, 1]), torch.tensor([1]), torch.zeros(0, dtype=torch.int64)]
    for image, its_boxes, its_labels in zip(images, boxes, labels, strict=True):
        for (x1, y1, x2, y2), label in zip(its_boxes.int().tolist(), its_labels.tolist(), strict=True):
            image[label, y1:y2, x1:x2] += 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = torch.stack(list(model.loss(model.head_outputs(model.features(images)), boxes, labels).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found, scores = model(images)  # in training mode, as it was fitted
    for image, (its_boxes, its_labels) in enumerate(zip(boxes, labels, strict=True)):
        for box, label in zip(its_boxes, its_labels, strict=True):
            overlap = pairwise_iou(box[None], found[image])[0]
            best = int((scores[image, :, label] * (overlap > 0.5)).argmax())
            assert scores[image, best, label] > 0.5
            assert overlap[best] > 0.75
        if len(its_boxes):
            scores[image, pairwise_iou(its_boxes, found[image]).amax(dim=0) > 0.3] = 0
    assert float(scores.max()) < 0.3  # and nothing else
