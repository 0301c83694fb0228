"""`dense`: anchor-free head, one point a cell; quality focal and GIoU loss, dynamic assignment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assign import assign_dynamic
from ..boxes import giou
from ..grid import cell_centres
from .head import HeadOutputs, SharedTower, TowerHead, init_predictor, join_levels, share_of_total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..boxes import Truth

_PRIOR = 0.01  # initial score (Lin et al., ICCV 2017, section 4.1)
_MAX_LOG_DISTANCE = math.log(1024.0)  # in strides; keeps exp() finite in fp16 too
_BOX_WEIGHT = 2.0


class DenseHead(TowerHead):
    """Predicts at every cell C quality logits and the log distances, in strides, to the four edges.

    The score stands for class and quality of the box at once (generalized focal loss, Li et al., NeurIPS 2020), so no
    objectness or centre-ness branch is needed.
    """

    def __init__(self, num_classes: int, channels: int, depth: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = strides
        self.class_tower = SharedTower(channels, depth, len(strides))
        self.box_tower = SharedTower(channels, depth, len(strides))
        self.class_predictors = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for _ in strides)
        self.box_predictors = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in strides)
        for layer in self.class_predictors:
            init_predictor(layer, -math.log((1 - _PRIOR) / _PRIOR))
        for layer in self.box_predictors:
            init_predictor(layer, math.log(2.0))

    def predict(self, classes: Tensor, boxes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return one level's logits and the log distances left, top, right, bottom."""
        return self.class_predictors[level](classes), self.box_predictors[level](boxes)

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` xyxy in network pixels and scores `(B, N, C)` in [0, 1]."""
        scores = join_levels(outputs.logits, self.num_classes).sigmoid().transpose(1, 2)
        return self._boxes(outputs).transpose(1, 2), scores

    def _boxes(self, outputs: HeadOutputs) -> Tensor:
        """Return `(B, 4, N)` xyxy: the centre, plus or minus stride times the exponential of the clipped logarithm."""
        centres, strides = cell_centres(outputs.shapes, self.strides, outputs.logits[0].device)
        corners = torch.cat([centres, centres], dim=1).t().unsqueeze(0)
        signs = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]], device=strides.device)
        distances = join_levels(outputs.regression, 4).float().clamp(max=_MAX_LOG_DISTANCE).exp()
        return corners + distances * (signs * strides).unsqueeze(0)

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `loss_class` (quality focal, beta 2) and `loss_box` (2 GIoU), over the summed quality of the matches.

        Args:
            outputs: what `forward` returned.
            boxes: per image `(n, 4)` xyxy float32 in network pixels; boxes without area are ignored, n may be 0.
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
            overlap = giou(decoded[image, cell], found.truth.boxes[image, row])[1]
            return {
                "loss_class": quality_focal(logits, target).sum() / normaliser,
                "loss_box": _BOX_WEIGHT * ((1 - overlap) * weight).sum() / normaliser,
            }

    def assign(self, outputs: HeadOutputs, truth: Truth) -> tuple[Tensor, Tensor]:
        """Return each cell's match and the quality it should learn; no cell is ignored."""
        logits = join_levels(outputs.logits, self.num_classes).float()
        centres, strides = cell_centres(outputs.shapes, self.strides, logits.device)
        match, iou = assign_dynamic(truth, logits, self._boxes(outputs).transpose(1, 2), centres, strides)
        return match, relative_quality(match, iou, truth.boxes.shape[1])


def relative_quality(match: Tensor, iou: Tensor, objects: int) -> Tensor:
    """Return `(B, N)`: the IoU of each match over the best one of its object, 0 where nothing is matched.

    The best cell of every object learns the score 1. With the bare IoU as target a small object, whose boxes start
    poor, hardly counts in the loss and stays poor
    (task alignment, Feng et al., ICCV 2021, section 3.2, normalises per object for the same reason).

    Args:
        match: `(B, N)` int64, row of the object, negative for none.
        iou: `(B, N)` float32 of the match.
        objects: rows an image has at most.
    """
    row = match.clamp(min=0)
    best = iou.new_zeros(len(match), max(objects, 1)).scatter_reduce(1, row, iou * (match >= 0), "amax")
    return iou * (match >= 0) / best.gather(1, row).clamp(min=1e-6)


def quality_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Return the quality focal loss |target - sigmoid|^2 BCE, element by element (Li et al., NeurIPS 2020, eq. 6)."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return entropy * (target - logits.sigmoid()).square()
