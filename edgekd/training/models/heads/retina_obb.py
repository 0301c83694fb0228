"""`retina-obb`: RetinaNet with oriented boxes from upright anchors; the angle regressed, or told in classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assign_rotated import assign_by_rotated_iou
from ..coders import BINS, angle_of_bins, bin_targets, bins_of, decode_deltas, encode_deltas, to_le90
from ..grid import cell_anchors
from .head import HeadOutputs, SharedTower, TowerHead, init_predictor, join_levels, share_of_total
from .retina import class_loss, focal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..boxes import Truth
    from .head import Matches

_PRIOR = 0.01
_ANCHORS = 9


class RetinaOBBHead(TowerHead):
    """Predicts for each anchor C logits, four offsets, and the angle.

    Anchors are those of `retina`, upright; a box is assigned by rotated IoU and encoded as `encode_deltas` does, so
    that the angle to learn lies in [-pi/4, pi/4). As a number it jumps from one end to the other, together with width
    and height. As classes it does not, and the background, which has none of them, is taught too (negatives count).

    Args:
        num_classes: number of classes C.
        channels: channels of the neck's outputs and of the towers.
        depth: stacked 3x3 convolutions per branch.
        strides: pixels per cell of each level.
        angle: "regress" (L1, with the offsets) or "class" (focal loss over 30 bins of 3 degrees).
    """

    box_columns: ClassVar[int] = 5

    def __init__(
        self, num_classes: int, channels: int, depth: int, strides: tuple[int, ...], angle: str = "regress"
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = strides
        self.bins = BINS if angle == "class" else 1
        self.class_tower = SharedTower(channels, depth, len(strides))
        self.box_tower = SharedTower(channels, depth, len(strides))
        self.class_predictor = nn.Conv2d(channels, _ANCHORS * num_classes, 3, padding=1)
        self.box_predictor = nn.Conv2d(channels, _ANCHORS * 4, 3, padding=1)
        self.angle_predictor = nn.Conv2d(channels, _ANCHORS * self.bins, 3, padding=1)
        seldom = -math.log((1 - _PRIOR) / _PRIOR)
        init_predictor(self.class_predictor, seldom)
        init_predictor(self.box_predictor, 0.0)
        init_predictor(self.angle_predictor, seldom if self.bins > 1 else 0.0)

    def predict(self, classes: Tensor, boxes: Tensor, _level: int) -> tuple[Tensor, ...]:
        """Return one level's logits, offsets dx, dy, dw, dh, and angle in radians or the logits of its bins."""
        return self.class_predictor(classes), self.box_predictor(boxes), self.angle_predictor(boxes)

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 5)` xywhr, le90, in network pixels and scores `(B, N, C)` in [0, 1], N = 9 cells."""
        scores = join_levels(outputs.logits, self.num_classes).sigmoid().transpose(1, 2)
        angle = join_levels(outputs.angle, self.bins).float()
        turn = angle_of_bins(angle) if self.bins > 1 else angle
        deltas = torch.cat([join_levels(outputs.regression, 4).float(), turn], dim=1)
        return to_le90(decode_deltas(deltas, self._anchors(outputs))).transpose(1, 2), scores

    def _anchors(self, outputs: HeadOutputs) -> Tensor:
        """Return the anchors `(N, 5)` xywhr."""
        upright = cell_anchors(outputs.shapes, self.strides, outputs.logits[0].device)
        low, high = upright[:, :2], upright[:, 2:]
        return torch.cat([(low + high) / 2, high - low, torch.zeros_like(low[:, :1])], dim=1)

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `loss_class`, `loss_box` and, of classes of angles, `loss_angle`, over the number of positive anchors.

        Args:
            outputs: what `forward` returned.
            boxes: per image `(n, 5)` xywhr float32 in network pixels; boxes without area are ignored, n may be 0.
            labels: per image `(n,)` int64.

        With torch.distributed running, every rank has to call this: the normaliser is that of the joined batch.
        """
        with torch.autocast(outputs.logits[0].device.type, enabled=False):
            logits = join_levels(outputs.logits, self.num_classes).float()
            found = self.matches(outputs, boxes, labels)
            image, anchor, _ = found.positive
            wanted = self._wanted(outputs, found)
            losses = {"loss_class": class_loss(logits, found)}
            if self.bins > 1:
                angle = join_levels(outputs.angle, self.bins).float()
                target = bin_targets(found.match, (image, anchor), wanted[:, 4])
                losses["loss_angle"] = (focal(angle, target) * (found.match != -2).unsqueeze(1)).sum()
            told = self.encoded(outputs)[image, :, anchor]
            losses["loss_box"] = F.l1_loss(told, wanted[:, : told.shape[1]], reduction="sum")
            normaliser = share_of_total(found.quality.sum())
            return {name: loss / normaliser for name, loss in losses.items()}

    def assign(self, outputs: HeadOutputs, truth: Truth) -> tuple[Tensor, Tensor]:
        """Return what each anchor learns, and 1 for each that learns an object."""
        match = assign_by_rotated_iou(truth, self._anchors(outputs)).match
        return match, (match >= 0).float()

    def encoded(self, outputs: HeadOutputs) -> Tensor:
        """Return the offsets `(B, 5, N)`, or `(B, 4, N)` where the angle is told in classes."""
        offsets = super().encoded(outputs)
        return offsets if self.bins > 1 else torch.cat([offsets, join_levels(outputs.angle, 1).float()], dim=1)

    def angle_labels(self, outputs: HeadOutputs, found: Matches) -> Tensor:
        """Return `(B, N)` int64: the class of the encoded angle that an anchor learns, -1 background, -2 ignored."""
        image, anchor, _ = found.positive
        classes = found.match.clone()
        classes[image, anchor] = bins_of(self._wanted(outputs, found)[:, 4])
        return classes

    def _wanted(self, outputs: HeadOutputs, found: Matches) -> Tensor:
        """Return the offsets `(P, 5)` that the positive anchors learn."""
        image, anchor, row = found.positive
        return encode_deltas(found.truth.boxes[image, row], self._anchors(outputs)[anchor])
