"""`yolo`: three anchors a cell, objectness, and CIoU, as in YOLOv4 (Bochkovskiy, Wang, Liao 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....errors import RecipeError
from ..assign import assign_by_shape
from ..boxes import ciou, pad_truth
from ..grid import cell_centres
from ..layers import ConvNormAct
from .head import Head, HeadOutputs, init_predictor, join_levels, share_of_total

if TYPE_CHECKING:
    from collections.abc import Sequence

ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
"""Width and height of YOLOv4's anchors in pixels of a 608 x 608 input, found by k-means on COCO; finest level first."""

_ANCHOR_SIDE = 608.0
_COUNT = 3
_PRIOR = 0.01  # initial objectness (Lin et al., ICCV 2017, section 4.1)
_BOX_WEIGHT = 5.0  # as in YOLOX (Ge et al. 2021), which also sums over cells and divides by the positives


class YOLOHead(Head):
    """Predicts for each anchor C class logits, objectness and four box offsets.

    Each level has its own convolutions: `depth` of 3x3, the last of which doubles the channels (YOLOv4 has just that
    one), then three 1x1 predictors. These are apart because objectness, classes and offsets differ in range, which
    int8 would have to share.

    `anchors` `(3, 3, 2)` is width and height in strides of the level. They start as YOLOv4's, scaled from its 608
    pixels to the recipe's input, and are saved with the weights: a detector that was trained at one size keeps its
    anchors where it is loaded for another.

    Args:
        num_classes: number of classes C.
        channels: of the neck's output on each level; they may differ.
        depth: stacked 3x3 convolutions.
        strides: pixels per cell of the three levels.
        side: geometric mean of the input's sides in pixels.

    Raises:
        RecipeError: the number of levels is not three.
    """

    anchors: Tensor

    def __init__(
        self, num_classes: int, channels: Sequence[int], depth: int, strides: tuple[int, ...], side: float
    ) -> None:
        super().__init__()
        if len(strides) != len(ANCHORS):
            raise RecipeError(
                f"head 'yolo' has anchors for three levels, for example levels = [3, 4, 5]; got {len(strides)};"
                " heads dense and retina take any number"
            )
        self.num_classes = num_classes
        self.strides = strides
        sizes = torch.tensor(ANCHORS, dtype=torch.float32) * (side / _ANCHOR_SIDE)
        self.register_buffer("anchors", sizes / torch.tensor(strides).view(-1, 1, 1))
        self.towers = nn.ModuleList(_tower(count, depth) for count in channels)
        outputs = [2 * count if depth else count for count in channels]
        self.class_predictors = nn.ModuleList(nn.Conv2d(count, _COUNT * num_classes, 1) for count in outputs)
        self.object_predictors = nn.ModuleList(nn.Conv2d(count, _COUNT, 1) for count in outputs)
        self.box_predictors = nn.ModuleList(nn.Conv2d(count, _COUNT * 4, 1) for count in outputs)
        for layers, bias in (
            (self.class_predictors, -math.log(num_classes)),  # a score of 1 / (C + 1): only objects teach classes
            (self.object_predictors, -math.log((1 - _PRIOR) / _PRIOR)),
            (self.box_predictors, 0.0),  # the anchor itself
        ):
            for layer in layers:
                init_predictor(layer, bias)

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Predict on neck outputs `(B, channels[i], H_i, W_i)`; `regression` holds tx, ty, tw, th (see `_boxes`)."""
        maps = [tower(feature) for tower, feature in zip(self.towers, features, strict=True)]
        parts = (self.class_predictors, self.box_predictors, self.object_predictors)
        return HeadOutputs(*(tuple(p(x) for p, x in zip(part, maps, strict=True)) for part in parts))

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` xyxy in network pixels and scores `(B, N, C)` in [0, 1], N = 3 cells."""
        objectness = join_levels(outputs.objectness, 1).sigmoid()
        scores = join_levels(outputs.logits, self.num_classes).sigmoid() * objectness
        return self._boxes(outputs).transpose(1, 2), scores.transpose(1, 2)

    def _boxes(self, outputs: HeadOutputs) -> Tensor:
        """Return `(B, 4, N)` xyxy in the form of Scaled-YOLOv4 (Wang et al., CVPR 2021).

        Centre = cell's corner + (2 sigmoid(t) - 0.5) strides, side = anchor (2 sigmoid(t))^2. The centre reaches half
        a stride beyond its cell, so that objects on a border need no infinite t (which YOLOv4's factors of 1.05 to 1.2
        bring about, level by level). The side ends at four anchors: unlike exp() it needs no clamp, in fp16 neither.
        """
        centres, strides = cell_centres(outputs.shapes, self.strides, outputs.logits[0].device)
        cells = [height * width for height, width in outputs.shapes]
        sizes = torch.cat(
            [
                (sizes * stride).repeat(count, 1)
                for sizes, stride, count in zip(self.anchors, self.strides, cells, strict=True)
            ]
        )
        doubled = 2 * join_levels(outputs.regression, 4).float().sigmoid()
        reach = strides.repeat_interleave(_COUNT).unsqueeze(0)
        middle = centres.repeat_interleave(_COUNT, dim=0).t().unsqueeze(0) + (doubled[:, :2] - 1) * reach
        half = doubled[:, 2:] * doubled[:, 2:] * (sizes.t() / 2).unsqueeze(0)
        return torch.cat([middle - half, middle + half], dim=1)

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return `loss_class` and `loss_objectness` (cross-entropies) and `loss_box` (5 (1 - CIoU)).

        All are over the number of positive anchors of the joined batch; arguments as `DenseHead.loss`.
        """
        with torch.autocast(outputs.logits[0].device.type, enabled=False):
            logits = join_levels(outputs.logits, self.num_classes).float()
            objectness = join_levels(outputs.objectness, 1).float().squeeze(1)
            decoded = self._boxes(outputs).transpose(1, 2)
            truth = pad_truth(boxes, labels, logits.device)
            match = assign_by_shape(truth, decoded.detach(), self.anchors, outputs.shapes, self.strides).match

            image, anchor = (match >= 0).nonzero(as_tuple=True)
            row = match[image, anchor]
            overlap = ciou(decoded[image, anchor], truth.boxes[image, row])
            target = F.one_hot(truth.labels[image, row], self.num_classes).float()
            entropy = F.binary_cross_entropy_with_logits(objectness, (match >= 0).float(), reduction="none")
            named = logits[image, :, anchor]
            normaliser = share_of_total((match >= 0).sum().float())
            return {
                "loss_class": F.binary_cross_entropy_with_logits(named, target, reduction="sum") / normaliser,
                "loss_objectness": (entropy * (match != -2)).sum() / normaliser,
                "loss_box": _BOX_WEIGHT * (1 - overlap).sum() / normaliser,
            }


def _tower(channels: int, depth: int) -> nn.Sequential:
    """Return `depth` 3x3 convolutions, the last one to twice the channels."""
    outputs = [channels] * (depth - 1) + [2 * channels] * bool(depth)
    return nn.Sequential(*(ConvNormAct(channels, count, 3) for count in outputs))
