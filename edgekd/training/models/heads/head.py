"""`Head` and `HeadOutputs`: what every detection head offers, and the towers they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..boxes import pad_truth
from ..layers import init_convs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..boxes import Truth


class HeadOutputs(NamedTuple):
    """Raw outputs, one entry per level, A anchors a cell.

    `logits[i]` is `(B, A C, H_i, W_i)`, `regression[i]` `(B, A 4, H_i, W_i)`. A head that says apart whether there is
    an object at all has `objectness[i]`, logits `(B, A, H_i, W_i)`: its scores are the products of both sigmoids. A
    head of oriented boxes has `angle[i]`, `(B, A K, H_i, W_i)`: one number, or the logits of K classes of angles. For
    other heads these are empty. Whoever wants boxes and scores asks the head's `decode`, which is the same for all.
    """

    logits: tuple[Tensor, ...]
    regression: tuple[Tensor, ...]
    objectness: tuple[Tensor, ...] = ()
    angle: tuple[Tensor, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """`(H_i, W_i)` of each level."""
        return tuple((int(item.shape[-2]), int(item.shape[-1])) for item in self.logits)


def first_images(outputs: HeadOutputs, count: int) -> HeadOutputs:
    """Return the outputs of the first `count` images of the batch."""
    return HeadOutputs(*(tuple(item[:count] for item in maps) for maps in outputs))


def gather_levels(parts: Sequence[tuple[Tensor, ...]]) -> HeadOutputs:
    """Return outputs of one `(logits, regression)` or `(logits, regression, angle)` a level."""
    logits, regression, *angle = zip(*parts, strict=True)
    return HeadOutputs(logits, regression, angle=angle[0] if angle else ())


class Matches(NamedTuple):
    """What each prior of a batch learns: each anchor or, of a head without anchors, each cell; rows as in `decode`.

    `match` `(B, N)` int64: row of the image's truth, -1 background, -2 ignored; `quality` `(B, N)` float32: what a
    match weighs, 0 where there is none.
    """

    truth: Truth
    match: Tensor
    quality: Tensor

    @property
    def positive(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, prior and row of the truth, `(P,)` each, of the P priors that learn an object."""
        image, prior = (self.match >= 0).nonzero(as_tuple=True)
        return image, prior, self.match[image, prior]

    @property
    def labels(self) -> Tensor:
        """`(B, N)` int64: the class that a prior learns, -1 background, -2 ignored."""
        return torch.where(self.match >= 0, self.truth.labels.gather(1, self.match.clamp(min=0)), self.match)


class Head(nn.Module):
    """A detection head.

    `strides` are the pixels per cell of its levels, `num_classes` is C, and `box_columns` is 4 for upright boxes
    (xyxy) and 5 for oriented ones (xywhr): what it predicts and what it learns from.
    """

    box_columns: ClassVar[int] = 4
    strides: tuple[int, ...]
    num_classes: int

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Predict on neck outputs `(B, channels[i], H_i, W_i)`, one per stride."""
        raise NotImplementedError

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, box_columns)` in network pixels, le90 if oriented; and scores `(B, N, C)` in [0, 1]."""
        raise NotImplementedError

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return named scalar losses to be summed; per image boxes `(n, box_columns)` in network pixels, labels `(n,)`.

        Raises:
            UsageError: boxes of the other kind.
        """
        raise NotImplementedError


class SharedTower(nn.Module):
    """Stacked 3x3 convolutions shared by all levels; each level has its own BatchNorm (RTMDet, Lyu et al. 2022).

    Levels see different statistics, so one BatchNorm for all would be wrong at inference. Each folds into a copy of the
    convolution at export.
    """

    def __init__(self, channels: int, depth: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth)) for _ in range(levels))
        self.act = nn.ReLU(inplace=True)
        init_convs(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map one `(B, channels, H_i, W_i)` per level to the same shapes."""
        if len(features) != len(self.norms):
            raise ValueError(f"a tower of {len(self.norms)} levels got {len(features)} maps")
        return [self.after(feature, level, 0) for level, feature in enumerate(features)]

    def before(self, feature: Tensor, level: int, count: int) -> Tensor:
        """Run the first `count` convolutions of a level, the last one's activation left out."""
        for index in range(count):
            feature = self._layer(self.act(feature) if index else feature, level, index)
        return feature

    def after(self, feature: Tensor, level: int, count: int) -> Tensor:
        """Go on where `before` ended; it may overwrite `feature` if `count` is above 0."""
        feature = self.act(feature) if count else feature
        for index in range(count, len(self.convs)):
            feature = self.act(self._layer(feature, level, index))
        return feature

    def _layer(self, feature: Tensor, level: int, index: int) -> Tensor:
        norms = cast("nn.ModuleList", self.norms[level])
        out: Tensor = norms[index](self.convs[index](feature))
        return out


class TowerHead(Head):
    """A head of two towers, shared by all levels, and predictors on them; it tells what each prior learns.

    `bins` is the number of classes of angles; 1: the angle is a number, or there is none.
    """

    class_tower: SharedTower
    box_tower: SharedTower
    bins: int = 1

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Predict on neck outputs `(B, channels, H_i, W_i)`, one per stride."""
        maps = zip(self.class_tower(features), self.box_tower(features), strict=True)
        return gather_levels([self.predict(classes, boxes, level) for level, (classes, boxes) in enumerate(maps)])

    def predict(self, classes: Tensor, boxes: Tensor, level: int) -> tuple[Tensor, ...]:
        """Return one level's logits, regression and, of oriented boxes, angle.

        Args:
            classes: output `(B, channels, H, W)` of the tower of classes.
            boxes: likewise of the tower of boxes.
            level: index of the level.
        """
        raise NotImplementedError

    @torch.no_grad()
    def matches(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Matches:
        """Return what each prior learns, for `loss` and for distillation alike; arguments and errors as of `loss`."""
        device = outputs.logits[0].device
        truth = pad_truth(boxes, labels, device, self.box_columns)
        with torch.autocast(device.type, enabled=False):
            return Matches(truth, *self.assign(outputs, truth))

    def assign(self, outputs: HeadOutputs, truth: Truth) -> tuple[Tensor, Tensor]:
        """Return `match` and `quality` of `Matches`; called without gradient and with autocast off."""
        raise NotImplementedError

    def positives(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Return the scalar that `loss` divides by, of this rank alone and before the limit of 1."""
        return self.matches(outputs, boxes, labels).quality.sum()

    def encoded(self, outputs: HeadOutputs) -> Tensor:
        """Return `(B, 4, N)` float32, each prior's box in units of the prior; or `(B, 5, N)`, an angle in radians too.

        Heads of one class speak of equal priors in equal terms, so that these numbers can be compared.
        """
        return join_levels(outputs.regression, 4).float()

    def angle_labels(self, outputs: HeadOutputs, found: Matches) -> Tensor:
        """Return `(B, N)` int64 as `Matches.labels`, of classes of angles; for heads whose `bins` are above 1."""
        raise NotImplementedError


def init_predictor(layer: nn.Module, bias: float) -> None:
    """Initialise a last convolution: small weights, one bias for all outputs."""
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(parameter, bias)
        else:
            nn.init.normal_(parameter, std=0.01)


def join_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Join maps `(B, A channels, H_i, W_i)` as `(B, channels, N)`, N = sum of H_i W_i A.

    Anchors of a cell lie side by side. The batch is the only -1: the exported graph has constant shapes otherwise.
    """
    flat = []
    for item in maps:
        count = int(item.shape[1]) // channels
        cells = int(item.shape[2] * item.shape[3])
        if count > 1:
            item = item.reshape(-1, count, channels, cells).permute(0, 2, 3, 1)
        flat.append(item.reshape(-1, channels, cells * count))
    return torch.cat(flat, dim=2)


def mean_over_ranks(total: Tensor) -> Tensor:
    """Return the mean of a scalar over all distributed ranks, without gradient; itself in a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return total
    summed = total.detach().clone()
    dist.all_reduce(summed)
    return summed / dist.get_world_size()


def share_of_total(total: Tensor) -> Tensor:
    """Return a rank's share of the joined batch's `total`, which counts as at least 1 (a batch without objects).

    Each rank divides its summed loss by it; averaged over ranks that is the loss of one process on the joined batch.
    """
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    return mean_over_ranks(total).clamp(min=1 / ranks)
