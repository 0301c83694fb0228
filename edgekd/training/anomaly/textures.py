"""A teacher for where no weights are at hand: a small ResNet-18 that has learnt from drawn textures, in two lessons.

1. Naming: which of the zoo's materials a place shows (cross-entropy), and how spoilt it is (binary cross-entropy;
   pasted patches as CutPaste, Li et al., CVPR 2021, scratches, stains and others).
2. Imitation: what a ResNet-18 with ImageNet weights shows of the same pictures, as Uninformed Students (Bergmann et
   al., CVPR 2020) makes its teacher. No photograph is looked at, but what is imitated has learnt from photographs.

Everything follows from `TextureRecipe`, its seed included, and from the file of the imitated network.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..._recipe import InputConfig, TrainConfig
from ..data.synth.mosaic import Mosaics
from ..models.backbones import build_backbone
from ..seeding import derived_seed
from .pyramid import STRIDES, cut, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.backbones import Backbone
    from .pyramid import Pyramid

BACKBONE = "resnet18"
INPUT = InputConfig()
RARE = 4.0  # weight of spoilt places beside the others
BATCH = tuple[Tensor, Tensor, Tensor]


def _schedule(steps: int, weight_decay: float) -> TrainConfig:
    return TrainConfig(
        steps=steps, batch=24, lr=2e-3, weight_decay=weight_decay, warmup=100, amp=True, threads=1, checkpoint_every=250
    )


@dataclass(frozen=True, kw_only=True)
class TextureRecipe:
    """All that the shipped weights depend on.

    Attributes:
        width: multiplier of the ResNet-18's channels.
        materials: classes.
        squares: stored pictures of each.
        size: side of a mosaic in pixels.
        places: of each picture and stride, at which the material is asked for.
        naming: steps, batch, rate and seed of the first lesson.
        imitation: of the second; 0 steps: there is none.
    """

    width: float = 0.5
    materials: int = 180
    squares: int = 24
    size: int = 128
    places: int = 64
    naming: TrainConfig = dataclasses.field(default_factory=lambda: _schedule(4000, 0.05))
    imitation: TrainConfig = dataclasses.field(default_factory=lambda: _schedule(2000, 0.01))


class MosaicBatches:
    """Mosaics by step: pixels `(B, 3, S, S)` uint8, materials `(B, S, S)` int64, spoilt `(B, 1, S, S)` float32.

    Args:
        recipe: of the mosaics.
        count: pictures a step.
        first: number of step 0, so that a second lesson sees other pictures.
    """

    def __init__(self, recipe: TextureRecipe, count: int, first: int = 0) -> None:
        self._seed, self._count, self._first = recipe.naming.seed, count, first
        self._mosaics = Mosaics(self._seed, recipe.materials, recipe.squares, recipe.size)

    def batch_at(self, step: int, rank: int = 0, world: int = 1) -> BATCH:
        """Return the batch of a step; one process only."""
        assert (rank, world) == (0, 1)
        drawn = [
            self._mosaics.draw(np.random.default_rng(derived_seed(self._seed, "mosaic", self._first + step, slot)))
            for slot in range(self._count)
        ]
        pixels, names, spoilt = (np.stack(each) for each in zip(*drawn, strict=True))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(names), torch.from_numpy(spoilt)[:, None]


class Lesson(nn.Module, ABC):
    """What a backbone is to learn.

    Attributes:
        backbone: the learner.
    """

    backbone: Backbone

    @abstractmethod
    def loss(self, pixels: Tensor, names: Tensor, spoilt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, pixels normalised, and its parts for the log, detached."""


class Naming(Lesson):
    """At strides 4, 8 and 16 one linear layer for each of both questions."""

    def __init__(self, recipe: TextureRecipe) -> None:
        super().__init__()
        self.backbone = build_backbone(BACKBONE, recipe.width)
        self._layers, self._taps = cut(BACKBONE, self.backbone)  # a list, lest they be registered twice
        counts = channels(self._layers, self._taps)
        self.names = nn.ModuleList(nn.Linear(count, recipe.materials) for count in counts)
        self.blemish = nn.ModuleList(nn.Conv2d(count, 1, 1) for count in counts)
        self._places = recipe.places

    def loss(self, pixels: Tensor, names: Tensor, spoilt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; among the parts is the share of materials that were named rightly."""
        total, parts = pixels.new_zeros(()), {}
        for scale, features in enumerate(walk(self._layers, self._taps, pixels)):
            stride, level = STRIDES[scale], f"p{scale + 2}"
            named, wanted = self._asked(scale, features, names[:, stride // 2 :: stride, stride // 2 :: stride])
            share = (4 * F.avg_pool2d(spoilt, stride)).clamp(max=1)
            seen = self.blemish[scale](features).float()
            parts[f"name.{level}"] = F.cross_entropy(named, wanted)
            parts[f"blemish.{level}"] = F.binary_cross_entropy_with_logits(
                seen, share, pos_weight=seen.new_tensor(RARE)
            )
            total = total + parts[f"name.{level}"] + parts[f"blemish.{level}"]
            parts[f"right.{level}"] = (named.argmax(1) == wanted).float().mean()
        return total, {name: value.detach() for name, value in parts.items()}

    def _asked(self, scale: int, features: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(B * places, materials)` and materials at random places."""
        count, depth = features.shape[:2]
        asked = torch.randint(names[0].numel(), (count, self._places))
        flat = features.flatten(2).gather(2, asked[:, None].expand(-1, depth, -1))
        logits = self.names[scale](flat.transpose(1, 2).reshape(-1, depth))
        return logits.float(), names.flatten(1).gather(1, asked).flatten()


class Imitation(Lesson):
    """Through a 1x1 convolution at each stride, what another network shows, each of its channels standardised.

    Args:
        backbone: the learner.
        model: what is imitated; frozen.
    """

    def __init__(self, backbone: Backbone, model: Pyramid) -> None:
        super().__init__()
        self.backbone = backbone
        self._layers, self._taps = cut(BACKBONE, backbone)
        self._model = [model]  # no part of what is trained and kept
        pairs = zip(channels(self._layers, self._taps), model.channels, strict=True)
        self.adapters = nn.ModuleList(nn.Conv2d(ours, theirs, 1) for ours, theirs in pairs)
        self.standard = nn.ModuleList(nn.BatchNorm2d(theirs, affine=False) for theirs in model.channels)

    def loss(self, pixels: Tensor, names: Tensor, spoilt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the mean squared errors; 1 each where nothing is known but the mean."""
        del names, spoilt
        parts = {}
        seen = walk(self._layers, self._taps, pixels)
        shown = self._model[0](pixels)
        for scale, (ours, theirs) in enumerate(zip(seen, shown, strict=True)):
            wanted = self.standard[scale](theirs.float())
            parts[f"imitation.p{scale + 2}"] = F.mse_loss(self.adapters[scale](ours).float(), wanted)
        return torch.stack(list(parts.values())).sum(), {name: value.detach() for name, value in parts.items()}


def channels(layers: Sequence[nn.Module], taps: tuple[int, ...]) -> list[int]:
    """Return how many channels come out at the taps; statistics of BatchNorm stay as they are."""
    training = [layer.training for layer in layers]
    for layer in layers:
        layer.eval()
    with torch.no_grad():
        found = [each.shape[1] for each in walk(layers, taps, torch.zeros(1, 3, 32, 32))]
    for layer, mode in zip(layers, training, strict=True):
        layer.train(mode)
    return found
