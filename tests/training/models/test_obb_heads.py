"""Heads of oriented boxes: decoding, losses, learning, and the exported graph."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.errors import UsageError
from edgekd.training.export import OPERATORS, export_onnx
from edgekd.training.models import Detector, build_model
from edgekd.training.models.boxes import pad_truth
from edgekd.training.models.coders import BINS, encode_deltas
from edgekd.training.models.grid import cell_anchors, cell_centres
from edgekd.training.models.heads import ORIENTED, HeadOutputs, RetinaOBBHead, TowerHead, dense_obb, retina_obb
from edgekd.training.models.heads.head import Matches, first_images, join_levels
from edgekd.training.models.rotated import iou_rotated

from .test_heads import SHAPES, STRIDES, head_of, leaves, maps

CPU = torch.device("cpu")
BOXES = torch.tensor([[20.0, 22, 30, 10, 0.6], [44, 44, 24, 12, -1.2]])
LARGE = torch.tensor([[22.0, 20, 36, 26, 0.3], [45, 44, 34, 30, -1.2]])  # for these some anchors are ignored
LABELS = torch.tensor([0, 2])
NAMES = sorted(ORIENTED)


def levels(flat: Tensor, channels: int, count: int) -> tuple[Tensor, ...]:
    """Return `(channels, N)` as one map `(1, count channels, H, W)` a level, count anchors a cell side by side."""
    parts = flat.split([h * w * count for h, w in SHAPES], dim=1)
    return tuple(
        part.reshape(channels, h * w, count).permute(2, 0, 1).reshape(1, count * channels, h, w)
        for part, (h, w) in zip(parts, SHAPES, strict=True)
    )


def anchors() -> Tensor:
    upright = cell_anchors(SHAPES, STRIDES, CPU)
    low, high = upright[:, :2], upright[:, 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros(len(low), 1)], dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_decode_follows_the_contract(name: str) -> None:
    head = head_of(name).eval()
    outputs = head(maps())
    wild = HeadOutputs(*(tuple(30 * item for item in part) for part in outputs))
    count = 9 if name.startswith("retina") else 1
    for boxes, scores in (head.decode(outputs), head.decode(wild)):
        assert boxes.shape == (2, 84 * count, 5)
        assert scores.shape == (2, 84 * count, 3)
        assert bool(boxes.isfinite().all())
        assert bool((boxes[..., 2] >= boxes[..., 3]).all())
        assert bool((boxes[..., 3] > 0).all())
        assert bool(((boxes[..., 4] >= -math.pi / 2 - 1e-7) & (boxes[..., 4] < math.pi / 2)).all())
        assert 0 <= scores.min().item() <= scores.max().item() <= 1
    assert [tuple(item.shape) for item in outputs.angle] == [
        (2, count * (BINS if name == "retina-obb-class" else 1), *shape) for shape in SHAPES
    ]
    assert outputs.objectness == ()
    first = first_images(outputs, 1)
    assert [len(part) for part in first] == [3, 3, 0, 3]
    assert all(len(item) == 1 for part in first for item in part)


def test_decode_of_known_dense_outputs_is_golden() -> None:
    head = head_of("dense-obb", classes=2)
    logits = tuple(torch.zeros(1, 2, *shape) for shape in SHAPES)
    regression = tuple(torch.zeros(1, 4, *shape) for shape in SHAPES)
    angle = tuple(torch.zeros(1, 1, *shape) for shape in SHAPES)
    regression[0][0, :, 2, 3] = torch.tensor([0.5, -0.25, math.log(2.0), math.log(3.0)])
    angle[0][0, 0, 2, 3] = math.log(3.0)  # sigmoid 3/4: an eighth of a turn
    boxes, _ = head.decode(HeadOutputs(logits, regression, angle=angle))
    expected = [28 + 4, 20 - 2, 24, 16, math.pi / 4 - math.pi / 2]  # the longer side is the other one
    assert boxes[0, 2 * 8 + 3].tolist() == pytest.approx(expected, abs=1e-5)
    assert boxes[0, 64].tolist() == pytest.approx([8, 8, 16, 16, 0], abs=1e-5)  # first cell of stride 16


@pytest.mark.parametrize("name", ["retina-obb", "retina-obb-class"])
def test_decode_and_loss_of_exact_offsets(name: str) -> None:
    head = head_of(name)
    count = len(anchors())
    deltas = encode_deltas(BOXES[:1].expand(count, 5), anchors())
    logits = levels(torch.zeros(3, count), 3, 9)
    regression = levels(deltas[:, :4].t().contiguous(), 4, 9)
    if name == "retina-obb":
        angle = levels(deltas[:, 4:].t().contiguous(), 1, 9)
    else:
        angle = levels(torch.full((BINS, count), -20.0), BINS, 9)
        degrees = math.degrees(deltas[0, 4].item())
        for part in angle:
            part.view(9, BINS, -1)[:, math.floor((degrees + 45) / 3)] = 20.0
    outputs = HeadOutputs(logits, regression, angle=angle)
    boxes, _ = head.decode(outputs)
    assert iou_rotated(boxes[0], BOXES[0]).min().item() > (0.999 if name == "retina-obb" else 0.9)
    exact = head.loss(outputs, [BOXES[:1]], [LABELS[:1]])
    assert exact["loss_box"].item() < 1e-4
    turned = head.loss(outputs, [BOXES[:1] + torch.tensor([0, 0, 0, 0, 0.2])], [LABELS[:1]])
    which = "loss_box" if name == "retina-obb" else "loss_angle"
    assert turned[which].item() > exact[which].item() + 0.1
    if name == "retina-obb-class":
        positives = head.positives(outputs, [BOXES[:1]], [LABELS[:1]])  # type: ignore[operator]
        assert exact["loss_angle"].item() > 100 * 0.75 * 20 / positives  # all the background says that bin too


@pytest.mark.parametrize("name", NAMES)
def test_loss_of_images_without_objects_teaches_the_background_alone(name: str) -> None:
    head = head_of(name)
    outputs = leaves(head(maps()))
    losses = head.loss(outputs, [torch.zeros(0, 5)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
    torch.stack(list(losses.values())).sum().backward()
    assert losses["loss_box"].item() == 0
    assert all(item.grad is not None and bool(item.grad.isfinite().all()) for part in outputs for item in part)
    assert all(bool((item.grad == 0).all()) for item in outputs.regression)  # type: ignore[attr-defined]
    assert all(bool((item.grad > 0).all()) for item in outputs.logits)  # type: ignore[operator]
    if name == "retina-obb-class":  # every bin of every anchor is pushed down, the first one too
        assert all(bool((item.grad > 0).all()) for item in outputs.angle)  # type: ignore[operator]
    else:
        assert all(bool((item.grad == 0).all()) for item in outputs.angle)  # type: ignore[attr-defined]


def matches_of(name: str) -> tuple[TowerHead, HeadOutputs, Matches]:
    """Return a head, its outputs, and what it is to learn of LARGE in the first image and of none in the second."""
    head = head_of(name)
    assert isinstance(head, TowerHead)
    outputs = leaves(head(maps()))
    return head, outputs, head.matches(outputs, [LARGE, LARGE[:0]], [LABELS, LABELS[:0]])


@pytest.mark.parametrize("name", NAMES)
def test_matches_tell_class_background_or_ignored_of_every_prior(name: str) -> None:
    _, _, found = matches_of(name)
    anchors_a_cell = found.match.shape[1] // 84
    assert set(found.labels[1].tolist()) == {-1}
    assert set(found.labels[0].tolist()) == ({-2, -1, 0, 2} if anchors_a_cell == 9 else {-1, 0, 2})
    image, prior, row = found.positive
    assert torch.equal(found.labels[image, prior], LABELS[row])
    assert torch.equal(found.labels[found.match < 0], found.match[found.match < 0])
    assert torch.equal(found.quality > 0, found.match >= 0)
    learnt = found.quality[found.match >= 0]
    assert learnt.max().item() == 1
    assert (learnt.min().item() < 1) == (anchors_a_cell == 1)
    assert not found.quality.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_encoded_boxes_are_those_that_decode_reads(name: str) -> None:
    head, outputs, _ = matches_of(name)
    told = head.encoded(outputs)
    boxes = head.decode(outputs)[0]
    assert told.shape == (2, 4 if name == "retina-obb-class" else 5, boxes.shape[1])
    assert told.requires_grad
    if name.startswith("dense"):
        centres, strides = cell_centres(SHAPES, STRIDES, CPU)
        torch.testing.assert_close(centres + told[1, :2].t() * strides[:, None], boxes[1, :, :2])
        sides = (told[1, 2:4].exp() * strides).sort(dim=0, descending=True).values
        torch.testing.assert_close(sides.t(), boxes[1, :, 2:4])
    elif name == "retina-obb":
        again = encode_deltas(boxes[1], anchors())
        torch.testing.assert_close(told[1].t(), again, atol=1e-4, rtol=1e-4)
    if told.shape[1] == 5:
        apart = (told[1, 4] - boxes[1, :, 4]) / (math.pi / 2)
        torch.testing.assert_close(apart, apart.round(), atol=1e-4, rtol=0)


def test_golden_box_of_one_anchor_through_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchor (100, 100, 32, 32, 0) learns (104, 98, 60, 20, -80 degrees): bin 18, decoded as 10.5 degrees."""
    head = RetinaOBBHead(3, 16, 1, (8,), angle="class")
    logits, regression, angle = (torch.zeros(1, 9 * count, 25, 25) for count in (3, 4, BINS))
    outputs = HeadOutputs((logits,), (regression,), angle=(angle - 40,))
    prior = 9 * (25 * 12 + 12) + 1
    assert head._anchors(outputs)[prior].tolist() == pytest.approx([100, 100, 32, 32, 0])
    truth = pad_truth([torch.tensor([[104.0, 98, 60, 20, math.radians(-80)]])], [torch.tensor([2])], CPU, 5)
    match = torch.full((1, 9 * 625), -1)
    match[0, prior], match[0, 0] = 0, -2
    found = Matches(truth, match, (match >= 0).float())
    bins = head.angle_labels(outputs, found)
    assert bins[0, prior] == 18
    assert bins[0, 0] == -2
    assert int((bins == -1).sum()) == 9 * 625 - 2
    monkeypatch.setattr(head, "matches", lambda *_: found)
    losses = head.loss(outputs, [], [])
    assert losses["loss_box"].item() == pytest.approx(0.125 + 0.0625 + 0.4700036 + 0.6286087, rel=1e-5)
    assert losses["loss_angle"].item() == pytest.approx(
        0.25 * 40, rel=1e-5
    )  # the one bin that should speak and does not
    outputs.angle[0][0, 30 + 18, 12, 12] = 40.0
    assert head.loss(outputs, [], [])["loss_angle"].item() == pytest.approx(0, abs=1e-6)
    box = head.decode(outputs)[0][0, prior]
    assert math.degrees(box[4].item()) % 180 in (pytest.approx(10.5, abs=1e-3), pytest.approx(100.5, abs=1e-3))


def test_angle_loss_counts_negatives_once_and_the_ignored_not_at_all() -> None:
    head, outputs, found = matches_of("retina-obb-class")
    loss = head.loss(outputs, [LARGE, LARGE[:0]], [LABELS, LABELS[:0]])["loss_angle"]
    loss.backward()
    flat = join_levels(outputs.angle, BINS).detach()
    bins = head.angle_labels(outputs, found)
    target = torch.nn.functional.one_hot(bins.clamp(min=0), BINS).transpose(1, 2) * (bins >= 0).unsqueeze(1)
    score = flat.sigmoid()
    right = torch.where(target == 1, score, 1 - score)
    each = -torch.where(target == 1, 0.25, 0.75) * (1 - right).square() * right.log()
    expected = (each * (bins != -2).unsqueeze(1)).sum() / (bins >= 0).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert int((bins == -2).sum()) > 0
    slope = join_levels([item.grad for item in outputs.angle], BINS)  # type: ignore[misc]
    assert float(slope.transpose(1, 2)[bins == -2].abs().max()) == 0
    assert float(slope.transpose(1, 2)[bins == -1].min()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_loss_does_not_see_boxes_without_area_or_the_name_of_a_rectangle_or_autocast(name: str) -> None:
    head = head_of(name)
    outputs = head(maps(images=1))
    plain = head.loss(outputs, [BOXES], [LABELS])
    line = torch.tensor([[9.0, 9, 0, 40, 0.2]])
    extra = head.loss(outputs, [torch.cat([BOXES, line])], [torch.tensor([0, 2, 1])])
    other = head.loss(outputs, [BOXES[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2])], [LABELS])
    with torch.autocast("cpu", torch.bfloat16):
        cast = head.loss(outputs, [BOXES], [LABELS])
    for key, value in plain.items():
        assert value.dtype == torch.float32
        assert extra[key].item() == cast[key].item() == value.item()
        assert other[key].item() == pytest.approx(value.item(), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_upright_boxes_are_refused(name: str) -> None:
    head = head_of(name)
    with pytest.raises(UsageError, match=r"oriented xywhr boxes of shape \(n, 5\), got \(1, 4\)"):
        head.loss(head(maps(images=1)), [torch.zeros(1, 4)], [torch.tensor([1])])


@pytest.mark.parametrize("name", NAMES)
def test_positives_are_what_the_loss_divides_by(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_of(name)
    assert isinstance(head, TowerHead)
    outputs = head(maps(images=1))
    seen: list[Tensor] = []
    for module in (dense_obb, retina_obb):
        monkeypatch.setattr(module, "share_of_total", lambda total: seen.append(total) or total)
    head.loss(outputs, [BOXES], [LABELS])
    assert torch.equal(head.positives(outputs, [BOXES], [LABELS]), seen[0].detach())
    assert float(seen[0]) > 1


@pytest.mark.parametrize("name", NAMES)
def test_head_trained_on_one_picture_finds_its_boxes(name: str) -> None:
    head = head_of(name)
    features = [item * 0.5 for item in maps(seed=4, images=1)]
    steps = 160 if name == "dense-obb-gwd" else 120
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / steps)
        loss = torch.stack(list(head.loss(head(features), [BOXES], [LABELS]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    boxes, scores = head.decode(head(features))  # in training mode, as it was fitted
    for box, label in zip(BOXES, LABELS, strict=True):
        best = int(scores[0, :, label].argmax())
        assert scores[0, best, label] > 0.4
        assert iou_rotated(boxes[0, best], box).item() > 0.8


SIZE = InputConfig(height=32, width=64)


def lively(name: str) -> Detector:
    """Return a detector whose boxes point everywhere."""
    config = ModelConfig(
        backbone="csp-tiny", width=0.25, channels=8, head=name, head_depth=1, neck="fpn", levels=(3, 4)
    )
    model = build_model(config, 3, SIZE, seed=0)
    generator = torch.Generator().manual_seed(1)
    for key, parameter in model.head.named_parameters():
        if "predictor" in key:
            parameter.data.normal_(0, 0.1, generator=generator)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            layer.running_mean.normal_(0, 0.2, generator=generator)
    return model.eval()


@cache
def exported(name: str) -> tuple[Detector, bytes]:
    model = lively(name)
    return model, export_onnx(model, SIZE)


@pytest.mark.parametrize("name", ["dense-obb", "retina-obb", "retina-obb-class"])
def test_exported_graph_agrees_with_torch_and_keeps_to_plain_operators(name: str) -> None:
    model, data = exported(name)
    graph = onnx.load_from_string(data).graph
    assert {node.op_type for node in graph.node} <= OPERATORS
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 64, generator=torch.Generator().manual_seed(batch))
        boxes, scores = session.run(["boxes", "scores"], {"images": images.numpy()})
        with torch.no_grad():
            expected_boxes, expected_scores = model(images)
        assert expected_boxes[..., 4].std() > 0.1
        np.testing.assert_allclose(scores, expected_scores.numpy(), atol=1e-4)
        np.testing.assert_allclose(boxes[..., :4], expected_boxes[..., :4].numpy(), rtol=1e-4, atol=1e-3)
        # Rounding may name a square, or an upright box, otherwise; it stays the same rectangle. Some are a pixel thin.
        assert iou_rotated(torch.from_numpy(boxes), expected_boxes).min().item() > 0.99
    shapes = {item.name: [size.dim_value for size in item.type.tensor_type.shape.dim][1:] for item in graph.output}
    assert shapes == {"boxes": [*expected_boxes.shape[1:]], "scores": [*expected_scores.shape[1:]]}


@pytest.mark.parametrize("name", ["dense-obb", "retina-obb-class"])
def test_exported_graph_translates_for_tflite(name: str) -> None:
    from edgekd.targets.tflite._torch_from_onnx import TranslatedGraph

    model, data = exported(name)
    images = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = TranslatedGraph(onnx.load_from_string(data), ["boxes", "scores"])(images)
        boxes, scores = model(images)
    assert iou_rotated(got["boxes"], boxes).min().item() > 0.99
    torch.testing.assert_close(got["scores"], scores, atol=1e-4, rtol=0)
