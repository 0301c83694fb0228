"""Losses, decoding and towers of every upright head, and more of the dense and the retina head."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.errors import RecipeError, UsageError
from edgekd.training.models.grid import cell_anchors, cell_centres
from edgekd.training.models.heads import HEADS, ORIENTED, Head, HeadOutputs, TowerHead, build_head, dense, retina
from edgekd.training.models.heads.dense import quality_focal, relative_quality
from edgekd.training.models.heads.head import SharedTower, join_levels
from edgekd.training.models.heads.retina import decode_offsets, encode_boxes, focal

CPU = torch.device("cpu")
STRIDES = (8, 16, 32)
SHAPES = ((8, 8), (4, 4), (2, 2))
BOX = torch.tensor([[8.0, 16, 40, 48]])
NAMES = sorted({*HEADS} - {*ORIENTED})


def head_of(name: str, classes: int = 3) -> Head:
    torch.manual_seed(0)
    return build_head(name, classes, (16, 16, 16), 1, STRIDES, 64.0)


def maps(seed: int = 0, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 16, *shape, generator=generator) for shape in SHAPES]


def leaves(outputs: HeadOutputs) -> HeadOutputs:
    """Return detached copies that collect gradients."""
    return HeadOutputs(*(tuple(item.detach().clone().requires_grad_() for item in part) for part in outputs))


@pytest.mark.parametrize("name", NAMES)
def test_decode_when_run_then_boxes_and_scores_follow_the_contract(name: str) -> None:
    head = head_of(name).eval()
    boxes, scores = head.decode(head(maps()))
    anchors = {"dense": 1, "yolo": 3}.get(name, 9)
    assert boxes.shape == (2, 84 * anchors, 4)
    assert scores.shape == (2, 84 * anchors, 3)
    assert bool((boxes[..., 2:] > boxes[..., :2]).all())
    assert 0 < scores.min().item() < scores.max().item() < 0.2  # a fresh head scores about 0.01


def test_decode_when_dense_outputs_are_known_then_the_golden_boxes_come_out() -> None:
    head = head_of("dense", classes=2)
    logits = tuple(torch.zeros(1, 2, *shape) for shape in SHAPES)
    regression = tuple(torch.zeros(1, 4, *shape) for shape in SHAPES)
    logits[0][0, 1, 2, 3] = math.log(3.0)
    regression[0][0, :, 2, 3] = torch.tensor([1.0, 2.0, 3.0, 0.5]).log()
    boxes, scores = head.decode(HeadOutputs(logits, regression))
    cell = 2 * 8 + 3  # row 2, column 3: centre x 28, y 20
    torch.testing.assert_close(boxes[0, cell], torch.tensor([28.0 - 8, 20 - 16, 28 + 24, 20 + 4]))
    assert scores[0, cell].tolist() == pytest.approx([0.5, 0.75])
    torch.testing.assert_close(boxes[0, 64], torch.tensor([-8.0, -8, 24, 24]))  # first cell of stride 16


def test_decode_when_dense_logarithms_are_huge_then_boxes_stay_finite_in_half_precision() -> None:
    head = head_of("dense")
    logits = tuple(torch.zeros(1, 3, *shape) for shape in SHAPES)
    boxes, _ = head.decode(HeadOutputs(logits, tuple(torch.full((1, 4, *shape), 80.0) for shape in SHAPES)))
    assert bool(boxes.half().isfinite().all())


def test_decode_when_retina_offsets_are_zero_then_the_anchors_come_out() -> None:
    head = head_of("retina")
    logits = tuple(torch.zeros(1, 27, *shape) for shape in SHAPES)
    boxes, _ = head.decode(HeadOutputs(logits, tuple(torch.zeros(1, 36, *shape) for shape in SHAPES)))
    torch.testing.assert_close(boxes[0], cell_anchors(SHAPES, STRIDES, CPU))


def test_decode_when_one_anchor_of_one_cell_speaks_then_its_class_and_box_stay_together() -> None:
    head = head_of("retina")
    logits = tuple(torch.full((1, 27, *shape), -9.0) for shape in SHAPES)
    regression = tuple(torch.zeros(1, 36, *shape) for shape in SHAPES)
    logits[1][0, 4 * 3 + 2, 1, 3] = 9.0  # anchor 4, class 2, row 1, column 3 of the stride-16 level
    regression[1][0, 4 * 4 + 2, 1, 3] = math.log(2.0)  # twice as wide
    boxes, scores = head.decode(HeadOutputs(logits, regression))
    row = 9 * (64 + 1 * 4 + 3) + 4
    side = 64 * 2 ** (1 / 3)  # of the middle size
    assert scores[0].max(dim=1).values.argmax() == row
    assert scores[0, row].argmax() == 2
    torch.testing.assert_close(boxes[0, row], torch.tensor([56 - side, 24 - side / 2, 56 + side, 24 + side / 2]))


def test_offsets_when_encoded_and_decoded_then_the_box_comes_back() -> None:
    anchors = cell_anchors(SHAPES, STRIDES, CPU)
    wanted = BOX.expand(len(anchors), 4)
    back = decode_offsets(encode_boxes(wanted, anchors).t().unsqueeze(0), anchors)[0].t()
    torch.testing.assert_close(back, wanted)


def perfect_dense() -> HeadOutputs:
    """Return outputs that predict BOX exactly at every cell inside it, and nothing elsewhere."""
    centres, strides = cell_centres(SHAPES, STRIDES, CPU)
    edges = torch.cat([centres - BOX[:, :2], BOX[:, 2:] - centres], dim=1) / strides[:, None]
    inside = (edges > 0).all(dim=1)
    regression = torch.where(inside[:, None], edges.clamp(min=1e-3), 1.0).log().t()[None]
    logits = torch.full((1, 3, len(centres)), -14.0)
    logits[0, 1, inside] = 14.0
    split = [h * w for h, w in SHAPES]
    return HeadOutputs(
        tuple(p.reshape(1, 3, *s) for p, s in zip(logits.split(split, dim=2), SHAPES, strict=True)),
        tuple(p.reshape(1, 4, *s) for p, s in zip(regression.split(split, dim=2), SHAPES, strict=True)),
    )


def test_dense_loss_when_boxes_are_predicted_exactly_then_the_box_loss_vanishes() -> None:
    head = head_of("dense")
    perfect = head.loss(perfect_dense(), [BOX], [torch.tensor([1])])
    assert perfect["loss_box"].item() < 1e-5
    shifted = head.loss(perfect_dense(), [BOX + torch.tensor([6.0, 0, 6, 0])], [torch.tensor([1])])
    assert shifted["loss_box"].item() > 0.1
    wrong = head.loss(perfect_dense(), [BOX], [torch.tensor([2])])
    assert wrong["loss_class"].item() > 5 * perfect["loss_class"].item()


@pytest.mark.parametrize("name", ["retina", "retina-giou"])
def test_retina_loss_when_offsets_are_exact_then_the_box_loss_vanishes(name: str) -> None:
    head = head_of(name)
    anchors = cell_anchors(SHAPES, STRIDES, CPU)
    offsets = encode_boxes(BOX.expand(len(anchors), 4), anchors).t().reshape(4, -1, 9)
    split = [h * w for h, w in SHAPES]
    regression = tuple(
        part.permute(2, 0, 1).reshape(1, 36, *shape)
        for part, shape in zip(offsets.split(split, dim=1), SHAPES, strict=True)
    )
    outputs = HeadOutputs(tuple(torch.zeros(1, 27, *shape) for shape in SHAPES), regression)
    assert head.loss(outputs, [BOX], [torch.tensor([0])])["loss_box"].item() < 1e-4
    assert head.loss(outputs, [BOX + 5], [torch.tensor([0])])["loss_box"].item() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_loss_when_no_image_has_an_object_then_it_is_finite_and_every_output_has_a_gradient(name: str) -> None:
    head = head_of(name)
    outputs = leaves(head(maps()))
    nothing = [torch.zeros(0, 4), torch.zeros(0, 4)]
    losses = head.loss(outputs, nothing, [torch.zeros(0, dtype=torch.int64)] * 2)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert losses["loss_box"].item() == 0
    assert all(bool(item.grad.isfinite().all()) for part in outputs for item in part if item.grad is not None)
    assert all(item.grad is not None for part in outputs for item in part)
    assert all(bool((item.grad == 0).all()) for item in outputs.regression if item.grad is not None)
    asked = outputs.objectness or outputs.logits  # what says that there is nothing
    assert all(bool((item.grad != 0).any()) for item in asked if item.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_loss_when_a_box_has_no_area_then_it_changes_nothing(name: str) -> None:
    head = head_of(name)
    outputs = head(maps(images=1))
    line = torch.tensor([[9.0, 9, 9, 40]])
    plain = head.loss(outputs, [BOX], [torch.tensor([1])])
    extra = head.loss(outputs, [torch.cat([BOX, line])], [torch.tensor([1, 2])])
    assert {key: value.item() for key, value in plain.items()} == {key: value.item() for key, value in extra.items()}


@pytest.mark.parametrize("name", NAMES)
def test_loss_when_called_under_autocast_then_it_is_computed_in_float32(name: str) -> None:
    head = head_of(name)
    outputs = head(maps(images=1))
    plain = head.loss(outputs, [BOX], [torch.tensor([1])])
    with torch.autocast("cpu", torch.bfloat16):
        cast = head.loss(outputs, [BOX], [torch.tensor([1])])
    assert all(value.dtype == torch.float32 for value in cast.values())
    assert {key: value.item() for key, value in plain.items()} == {key: value.item() for key, value in cast.items()}
    half = HeadOutputs(*(tuple(item.bfloat16() for item in part) for part in outputs))
    assert all(value.dtype == torch.float32 for value in head.loss(half, [BOX], [torch.tensor([1])]).values())


@pytest.mark.parametrize("name", NAMES)
def test_loss_when_boxes_are_oriented_then_it_is_refused(name: str) -> None:
    head = head_of(name)
    with pytest.raises(UsageError, match="xyxy"):
        head.loss(head(maps(images=1)), [torch.zeros(1, 5)], [torch.tensor([1])])


@pytest.mark.parametrize("name", NAMES)
def test_head_when_trained_on_one_picture_then_it_finds_its_boxes(name: str) -> None:
    head = head_of(name)
    features = [item * 0.5 for item in maps(seed=4, images=1)]
    truth, labels = torch.tensor([[4.0, 4, 30, 28], [36, 30, 60, 62]]), torch.tensor([0, 2])
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    for _ in range(80):
        loss = torch.stack(list(head.loss(head(features), [truth], [labels]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    boxes, scores = head.decode(head(features))  # in training mode, as it was fitted
    for box, label in zip(truth, labels, strict=True):
        best = int(scores[0, :, label].argmax())
        assert scores[0, best, label] > 0.4
        assert (boxes[0, best] - box).abs().max().item() < 5


def test_quality_focal_when_score_is_the_target_then_it_is_zero_with_zero_gradient() -> None:
    target = torch.tensor([0.0, 0.3, 0.9])
    logits = torch.tensor([-20.0, math.log(0.3 / 0.7), math.log(9.0)], requires_grad=True)
    loss = quality_focal(logits, target)
    loss.sum().backward()
    assert loss.max().item() < 1e-6
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-4


def test_focal_when_gamma_is_zero_and_alpha_half_then_it_is_half_the_cross_entropy() -> None:
    logits, target = torch.randn(50), (torch.rand(50) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none") / 2
    torch.testing.assert_close(focal(logits, target, alpha=0.5, gamma=0.0), expected)
    one = focal(torch.zeros(2), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(one, torch.tensor([0.25, 0.75]) * 0.25 * math.log(2.0))


def test_tower_when_levels_differ_then_convolutions_are_shared_and_statistics_are_not() -> None:
    tower = SharedTower(4, 2, 2)
    assert len(tower.convs) == 2
    tower([torch.randn(2, 4, 8, 8), 5 + torch.randn(2, 4, 4, 4)])
    first, second = (level[0].running_mean for level in tower.norms)  # type: ignore[index]
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("depth", [0, 2])
def test_tower_when_run_in_two_parts_then_the_output_is_the_same_wherever_it_is_cut(depth: int) -> None:
    tower = SharedTower(4, depth, 2).eval()
    for norm in (norm for level in tower.norms for norm in level):  # type: ignore[attr-defined]
        norm.running_mean.normal_()
    features = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)]
    kept = [item.clone() for item in features]
    for level, expected in enumerate(tower(features)):
        for count in range(depth + 1):
            part = tower.before(features[level], level, count)
            assert count == 0 or bool((part < 0).any())  # the activation is still to come
            assert torch.equal(tower.after(part, level, count), expected)
        assert torch.equal(features[level], kept[level])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "yolo"])
def test_positives_when_asked_for_then_they_are_what_the_loss_divides_by(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_of(name)
    assert isinstance(head, TowerHead)
    outputs, boxes, labels = head(maps(images=1)), [torch.cat([BOX, BOX + 9])], [torch.tensor([1, 2])]
    seen: list[Tensor] = []
    for module in (dense, retina):
        monkeypatch.setattr(module, "share_of_total", lambda total: seen.append(total) or total)
    head.loss(outputs, boxes, labels)
    assert torch.equal(head.positives(outputs, boxes, labels), seen[0].detach())
    assert float(seen[0]) > 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "yolo"])
def test_matches_when_asked_for_then_they_tell_what_each_prior_learns(name: str) -> None:
    head = head_of(name)
    assert isinstance(head, TowerHead)
    outputs = head(maps())
    found = head.matches(outputs, [torch.cat([BOX, BOX + 9]), BOX[:0]], [torch.tensor([1, 2]), torch.tensor([]).long()])
    assert found.labels.shape == head.decode(outputs)[1].shape[:2]
    assert set(found.labels[0].tolist()) == ({-1, 1, 2} if name == "dense" else {-2, -1, 1, 2})
    assert set(found.labels[1].tolist()) == {-1}
    assert torch.equal(found.quality > 0, found.labels >= 0)
    learnt = found.quality[found.match >= 0]
    assert learnt.max().item() == 1
    assert (learnt.min().item() < 1) == (name == "dense")
    assert torch.equal(head.encoded(outputs), join_levels(outputs.regression, 4))


def test_join_levels_when_there_are_anchors_then_channels_of_one_anchor_stay_together() -> None:
    item = torch.arange(2 * 6 * 2 * 3).reshape(2, 6, 2, 3)  # 2 anchors x 3 channels
    joined = join_levels([item], 3)
    assert joined.shape == (2, 3, 12)
    assert torch.equal(joined[1, :, 2 * 4 + 1], item[1, 3:6, 1, 1])


def test_build_head_when_the_name_is_wrong_then_the_possible_ones_are_listed() -> None:
    with pytest.raises(RecipeError, match=r"no head 'ssd'; possible: dense, dense-obb, .*, retina, .*obb-class, yolo$"):
        build_head("ssd", 1, (8,), 1, (8,), 64.0)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "yolo"])
def test_build_head_when_levels_differ_in_channels_then_heads_that_share_layers_say_what_is_possible(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name}.* gives 8, 16; possible: neck fpn or pafpn, or head yolo"):
        build_head(name, 1, (8, 16), 1, (8, 16), 64.0)


def test_relative_quality_gives_the_best_cell_of_every_object_one_and_background_zero() -> None:
    match = torch.tensor([[0, 0, 1, -1, 1], [-1, -1, 0, 2, -2]])
    iou = torch.tensor([[0.8, 0.4, 0.1, 0.9, 0.05], [0.3, 0.3, 0.2, 0.0, 0.7]])
    expected = torch.tensor([[1.0, 0.5, 1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(relative_quality(match, iou, 3), expected)
    assert not relative_quality(torch.full((1, 4), -1), torch.zeros(1, 4), 0).any()
