"""`retina`: nine anchors a cell, focal loss, and L1 on encoded boxes or GIoU (RetinaNet, Lin et al., ICCV 2017)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assign import assign_by_iou
from ..boxes import giou
from ..grid import cell_anchors
from .head import HeadOutputs, SharedTower, TowerHead, init_predictor, join_levels, share_of_total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..boxes import Truth
    from .head import Matches

_PRIOR = 0.01
_ANCHORS = 9
_MAX_LOG_SIZE = math.log(1000 / 16)  # a box is at most 62.5 times its anchor; keeps exp() finite
_GIOU_WEIGHT = 2.0


class RetinaHead(TowerHead):
    """Predicts C logits and four box offsets for each anchor.

    Args:
        num_classes: number of classes C.
        channels: channels of the neck's outputs and of the towers.
        depth: stacked 3x3 convolutions per branch.
        strides: pixels per cell of each level.
        box_loss: "l1" (on encoded boxes) or "giou" (on decoded ones).
    """

    def __init__(
        self, num_classes: int, channels: int, depth: int, strides: tuple[int, ...], box_loss: str = "l1"
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = strides
        self.box_loss = box_loss
        self.class_tower = SharedTower(channels, depth, len(strides))
        self.box_tower = SharedTower(channels, depth, len(strides))
        self.class_predictor = nn.Conv2d(channels, _ANCHORS * num_classes, 3, padding=1)
        self.box_predictor = nn.Conv2d(channels, _ANCHORS * 4, 3, padding=1)
        init_predictor(self.class_predictor, -math.log((1 - _PRIOR) / _PRIOR))
        init_predictor(self.box_predictor, 0.0)

    def predict(self, classes: Tensor, boxes: Tensor, _level: int) -> tuple[Tensor, Tensor]:
        """Return one level's logits and offsets dx, dy (in anchor sizes) and log size ratios dw, dh."""
        return self.class_predictor(classes), self.box_predictor(boxes)

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` xyxy in network pixels and scores `(B, N, C)` in [0, 1], N = 9 cells."""
        scores = join_levels(outputs.logits, self.num_classes).sigmoid().transpose(1, 2)
        anchors = cell_anchors(outputs.shapes, self.strides, outputs.logits[0].device)
        return decode_offsets(join_levels(outputs.regression, 4).float(), anchors).transpose(1, 2), scores

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `loss_class` and `loss_box`, over the number of positive anchors; arguments as `DenseHead.loss`."""
        with torch.autocast(outputs.logits[0].device.type, enabled=False):
            logits = join_levels(outputs.logits, self.num_classes).float()
            found = self.matches(outputs, boxes, labels)
            anchors = cell_anchors(outputs.shapes, self.strides, logits.device)
            normaliser = share_of_total(found.quality.sum())
            return {
                "loss_class": class_loss(logits, found) / normaliser,
                "loss_box": self._box_loss(self.encoded(outputs), anchors, found) / normaliser,
            }

    def assign(self, outputs: HeadOutputs, truth: Truth) -> tuple[Tensor, Tensor]:
        """Return what each anchor learns, and 1 for each that learns an object."""
        match = assign_by_iou(truth, cell_anchors(outputs.shapes, self.strides, truth.boxes.device)).match
        return match, (match >= 0).float()

    def _box_loss(self, offsets: Tensor, anchors: Tensor, found: Matches) -> Tensor:
        """Return the summed box loss of the positive anchors."""
        image, cell, row = found.positive
        wanted = found.truth.boxes[image, row]
        if self.box_loss == "l1":
            return F.l1_loss(offsets[image, :, cell], encode_boxes(wanted, anchors[cell]), reduction="sum")
        decoded = decode_offsets(offsets, anchors)[image, :, cell]
        return _GIOU_WEIGHT * (1 - giou(decoded, wanted)[1]).sum()


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return offsets `(N, 4)` that turn anchors `(N, 4)` into boxes `(N, 4)` (R-CNN, Girshick et al. 2014, app. C)."""
    sizes, base = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / (2 * base)
    return torch.cat([shift, (sizes / base).log()], dim=1)


def decode_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes `(B, 4, N)` xyxy of offsets `(B, 4, N)` from anchors `(N, 4)`; the inverse of `encode_boxes`."""
    low, high = anchors[:, :2].t().unsqueeze(0), anchors[:, 2:].t().unsqueeze(0)
    base = high - low
    centre = (low + high) / 2 + offsets[:, :2] * base
    half = offsets[:, 2:].clamp(max=_MAX_LOG_SIZE).exp() * (base / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def class_loss(logits: Tensor, found: Matches) -> Tensor:
    """Return the summed focal loss of class logits `(B, C, N)`; ignored anchors do not count."""
    image, cell, row = found.positive
    target = torch.zeros_like(logits)
    target[image, found.truth.labels[image, row], cell] = 1.0
    return (focal(logits, target) * (found.match != -2).unsqueeze(1)).sum()


def focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the focal loss, element by element (Lin et al., ICCV 2017, eq. 5), for targets 0 or 1."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (target - logits.sigmoid()).abs()
    return (1 - alpha + (2 * alpha - 1) * target) * wrong.pow(gamma) * entropy
