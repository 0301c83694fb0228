"""`Detector`: backbone, neck and head as one module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._recipe import InputConfig, ModelConfig
    from .backbones import Backbone
    from .heads import Head, HeadOutputs
    from .necks import Neck
    from .weights_report import WeightsReport


class Detector(nn.Module):
    """A detector of upright or of oriented boxes, as its head is.

    Attributes:
        config: the recipe section it was built from.
        input: size and normalisation it was built for.
        num_classes: number of classes C.
        box_columns: 4 for upright boxes xyxy, 5 for oriented ones xywhr (le90, `edgekd.geometry`).
        strides: pixels per cell of each pyramid level.
        channels: channels of the neck's output on each level.
        weights: what was loaded from a file, or None.
    """

    def __init__(self, backbone: Backbone, neck: Neck, head: Head, config: ModelConfig, size: InputConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.config = config
        self.input = size
        self.num_classes = head.num_classes
        self.box_columns = head.box_columns
        self.strides = head.strides
        self.channels = neck.channels
        self.weights: WeightsReport | None = None
        self._first = backbone.strides.index(self.strides[0])
        self._last = self._first + sum(stride in backbone.strides for stride in self.strides)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the neck's outputs `(B, channels[i], H / stride, W / stride)` for normalised images `(B, 3, H, W)`."""
        maps = self.backbone(images)
        outputs: list[Tensor] = self.neck(maps[self._first : self._last])
        return outputs

    def head_outputs(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Return what the head predicts on the neck's outputs, not decoded."""
        outputs: HeadOutputs = self.head(features)
        return outputs

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return named scalar losses to be summed.

        Args:
            outputs: what `head_outputs` returned.
            boxes: per image `(n, box_columns)` float32 in network pixels; n may be 0.
            labels: per image `(n,)` int64.
        """
        return self.head.loss(outputs, boxes, labels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, box_columns)` in network pixels and scores `(B, N, C)` in [0, 1]."""
        return self.head.decode(self.head_outputs(self.features(images)))


class MadeDetector(Detector):
    """A detector that was made from a finished one, to be trained further.

    Attributes:
        made_of: plain values that decide what it computes, for telling runs apart.
    """

    made_of: dict[str, str]
