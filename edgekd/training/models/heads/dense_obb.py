"""`dense-obb`: the anchor-free `dense` head with oriented boxes, in the spirit of RTMDet-R (Lyu et al. 2022)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..assign_rotated import assign_dynamic_rotated
from ..coders import to_le90
from ..gaussian import LOSSES
from ..grid import cell_centres
from .dense import quality_focal, relative_quality
from .head import HeadOutputs, SharedTower, TowerHead, init_predictor, join_levels, share_of_total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..boxes import Truth

_PRIOR = 0.01
_MAX_LOG_SIDE = math.log(1024.0)  # in strides, either way: finite in float16, and never without area
_BOX_WEIGHT = 2.0


class DenseOBBHead(TowerHead):
    """Predicts at every cell C quality logits, the box's centre and log sides in strides, and its angle.

    RTMDet-R predicts distances to the four edges in the box's own frame, which takes sine and cosine to decode; the
    centre's offset on the image says the same without them. The angle is pi (sigmoid - 1/2), within a quarter turn of
    upright: with width and height in either order every rectangle has a name there, most of them two, and the losses
    do not tell names apart, so nothing that is learnt jumps; only `decode` picks the name.

    The default loss is the exact overlap, which is what is evaluated: it sees the angle of squares, which Gaussians
    have not, and weighs an error of angle by what it costs a box of that shape. That boxes apart give it no gradient
    does not matter here, for a cell learns only boxes that hold it, and starts with a box around itself.

    Args:
        num_classes: number of classes C.
        channels: channels of the neck's outputs and of the towers.
        depth: stacked 3x3 convolutions per branch.
        strides: pixels per cell of each level.
        box_loss: name of one of `gaussian.LOSSES`.
    """

    box_columns: ClassVar[int] = 5

    def __init__(
        self, num_classes: int, channels: int, depth: int, strides: tuple[int, ...], box_loss: str = "iou"
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = strides
        self.box_loss = LOSSES[box_loss]
        self.class_tower = SharedTower(channels, depth, len(strides))
        self.box_tower = SharedTower(channels, depth, len(strides))
        self.class_predictors = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for _ in strides)
        self.box_predictors = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in strides)
        self.angle_predictors = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in strides)
        for layers, bias in (
            (self.class_predictors, -math.log((1 - _PRIOR) / _PRIOR)),
            (self.box_predictors, 0.0),
            (self.angle_predictors, 0.0),
        ):
            for layer in layers:
                init_predictor(layer, bias)
        for layer in self.box_predictors:
            nn.init.constant_(layer.bias[2:], math.log(4.0))  # type: ignore[index]

    def predict(self, classes: Tensor, boxes: Tensor, level: int) -> tuple[Tensor, ...]:
        """Return one level's logits; centre x, y and log width and height; and the angle before its sigmoid."""
        return (
            self.class_predictors[level](classes),
            self.box_predictors[level](boxes),
            self.angle_predictors[level](boxes),
        )

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 5)` xywhr, le90, in network pixels and scores `(B, N, C)` in [0, 1]."""
        scores = join_levels(outputs.logits, self.num_classes).sigmoid().transpose(1, 2)
        return to_le90(self._boxes(outputs)).transpose(1, 2), scores

    def encoded(self, outputs: HeadOutputs) -> Tensor:
        """Return `(B, 5, N)`: the centre from the cell's and the log sides, in strides, and the angle in radians."""
        return torch.cat([super().encoded(outputs), self._angle(outputs)], dim=1)

    def _angle(self, outputs: HeadOutputs) -> Tensor:
        """Return `(B, 1, N)` in radians."""
        return math.pi * (join_levels(outputs.angle, 1).float().sigmoid() - 0.5)

    def _boxes(self, outputs: HeadOutputs) -> Tensor:
        """Return `(B, 5, N)` xywhr, width and height in either order."""
        centres, strides = cell_centres(outputs.shapes, self.strides, outputs.logits[0].device)
        raw = join_levels(outputs.regression, 4).float()
        middle = centres.t().unsqueeze(0) + raw[:, :2] * strides
        sides = raw[:, 2:].clamp(-_MAX_LOG_SIDE, _MAX_LOG_SIDE).exp() * strides
        return torch.cat([middle, sides, self._angle(outputs)], dim=1)

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `loss_class` (quality focal, beta 2) and `loss_box`, over the summed quality of the matches.

        Args:
            outputs: what `forward` returned.
            boxes: per image `(n, 5)` xywhr float32 in network pixels; boxes without area are ignored, n may be 0.
            labels: per image `(n,)` int64.

        With torch.distributed running, every rank has to call this: the normaliser is that of the joined batch.
        """
        with torch.autocast(outputs.logits[0].device.type, enabled=False):
            logits = join_levels(outputs.logits, self.num_classes).float()
            decoded = self._boxes(outputs).transpose(1, 2)
            found = self.matches(outputs, boxes, labels)
            image, cell, row = found.positive
            weight = found.quality[image, cell]
            target = torch.zeros_like(logits)
            target[image, found.truth.labels[image, row], cell] = weight
            normaliser = share_of_total(found.quality.sum())
            apart = self.box_loss(decoded[image, cell], found.truth.boxes[image, row])
            return {
                "loss_class": quality_focal(logits, target).sum() / normaliser,
                "loss_box": _BOX_WEIGHT * (apart * weight).sum() / normaliser,
            }

    def assign(self, outputs: HeadOutputs, truth: Truth) -> tuple[Tensor, Tensor]:
        """Return each cell's match and the quality it should learn; no cell is ignored."""
        logits = join_levels(outputs.logits, self.num_classes).float()
        centres, strides = cell_centres(outputs.shapes, self.strides, logits.device)
        match, iou = assign_dynamic_rotated(truth, logits, self._boxes(outputs).transpose(1, 2), centres, strides)
        return match, relative_quality(match, iou, truth.boxes.shape[1])
