"""A teacher that has seen no photograph: a ResNet taught to name materials and to see blemishes on drawn textures.

What stands in for ImageNet where no weights are at hand. Two pretexts at once, at strides 4, 8 and 16: which of the
zoo's materials a place shows (cross-entropy), and how spoilt it is (binary cross-entropy; pasted patches as CutPaste,
Li et al., CVPR 2021, scratches, stains and others). Everything follows from `TextureRecipe`, its seed included.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..._recipe import InputConfig, TrainConfig
from ..checkpoint import CheckpointFolder, optimizer_tensors, parameter_names, restore_optimizer, write_tensors
from ..data.loader import normalise
from ..data.synth.mosaic import Mosaics
from ..loop import LOG_EVERY, Loop
from ..models.backbones import build_backbone
from ..optim import build_optimizer, clip_gradients, learning_rate, set_learning_rate
from ..seeding import derived_seed, seed_everything
from .pyramid import STRIDES, cut, walk

if TYPE_CHECKING:
    from pathlib import Path

    from ..models.backbones import Backbone

BACKBONE = "resnet18"
RARE = 4.0  # weight of spoilt places beside the others
BATCH = tuple[Tensor, Tensor, Tensor]


def _schedule() -> TrainConfig:
    return TrainConfig(
        steps=4000, batch=24, lr=2e-3, weight_decay=0.05, warmup=100, amp=True, threads=1, checkpoint_every=250
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
        train: steps, batch, rate and seed.
    """

    width: float = 0.5
    materials: int = 180
    squares: int = 24
    size: int = 128
    places: int = 64
    train: TrainConfig = dataclasses.field(default_factory=_schedule)


class MosaicBatches:
    """Mosaics by step: pixels `(B, 3, S, S)` uint8, materials `(B, S, S)` int64, spoilt `(B, 1, S, S)` float32."""

    def __init__(self, recipe: TextureRecipe) -> None:
        self.recipe = recipe
        self._mosaics = Mosaics(recipe.train.seed, recipe.materials, recipe.squares, recipe.size)

    def batch_at(self, step: int, rank: int = 0, world: int = 1) -> BATCH:
        """Return the batch of a step; one process only."""
        assert (rank, world) == (0, 1)
        config = self.recipe.train
        drawn = [
            self._mosaics.draw(np.random.default_rng(derived_seed(config.seed, "mosaic", step, slot)))
            for slot in range(config.batch)
        ]
        pixels, names, spoilt = (np.stack(each) for each in zip(*drawn, strict=True))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(names), torch.from_numpy(spoilt)[:, None]


class TextureNetwork(nn.Module):
    """A backbone up to stride 16, and at each of the three strides one linear layer for both pretexts."""

    def __init__(self, recipe: TextureRecipe) -> None:
        super().__init__()
        self.backbone: Backbone = build_backbone(BACKBONE, recipe.width)
        layers, self._taps = cut(BACKBONE, self.backbone)
        self._layers = layers  # of the backbone: a list, lest they be registered twice
        with torch.no_grad():
            found = walk(layers, self._taps, torch.zeros(2, 3, 32, 32))
        self.names = nn.ModuleList(nn.Linear(each.shape[1], recipe.materials) for each in found)
        self.blemish = nn.ModuleList(nn.Conv2d(each.shape[1], 1, 1) for each in found)
        self._places = recipe.places

    def loss(self, pixels: Tensor, names: Tensor, spoilt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a normalised batch, and its parts with the share of materials that were named rightly."""
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
        count, channels = features.shape[:2]
        asked = torch.randint(names[0].numel(), (count, self._places))
        flat = features.flatten(2).gather(2, asked[:, None].expand(-1, channels, -1))
        logits = self.names[scale](flat.transpose(1, 2).reshape(-1, channels))
        return logits.float(), names.flatten(1).gather(1, asked).flatten()


class TextureTrainer:
    """One run on the CPU, resumed from its newest checkpoint with the same bits.

    Args:
        recipe: what to do.
        folder: receives `metrics.jsonl` and `checkpoints/`.
    """

    def __init__(self, recipe: TextureRecipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        if recipe.train.threads:
            torch.set_num_threads(recipe.train.threads)
        seed_everything(recipe.train.seed)
        self.network = TextureNetwork(recipe).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer([self.network], recipe.train)
        self._names = parameter_names(network=self.network)
        self._checkpoints = CheckpointFolder(folder / "checkpoints")
        self.step = 0
        found = self._checkpoints.latest()
        if found is not None and found.meta["recipe"] == dataclasses.asdict(recipe):
            self.network.load_state_dict(found.part("network"))
            restore_optimizer(self.optimizer, self._names, found.part("optimizer"))
            self.step = found.step

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
        """
        Loop(
            budget=self.recipe.train,
            folder=self.folder,
            batches=MosaicBatches(self.recipe),
            advance=self._advance,
            rate=lambda: learning_rate(max(0, self.step - 1), self.recipe.train),
            save=self._save,
            remedy="lower the rate",
            log_every=LOG_EVERY,
        ).run(self.step)

    def _advance(self, batch: BATCH) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.recipe.train
        torch.manual_seed(derived_seed(config.seed, "step", self.step))
        set_learning_rate(self.optimizer, learning_rate(self.step, config))
        pixels = normalise(batch[0], InputConfig()).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.amp):
            total, parts = self.network.loss(pixels, *batch[1:])
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        clip_gradients(self.network, 10.0)
        self.optimizer.step()
        self.step += 1
        return total.detach(), parts

    def _save(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state = optimizer_tensors(self.optimizer, self._names)
        tensors |= {f"optimizer.{name}": value for name, value in state.items()}
        self._checkpoints.write(self.step, tensors, {"recipe": dataclasses.asdict(self.recipe)})


def write_teacher(trainer: TextureTrainer, path: Path) -> None:
    """Write the backbone up to layer3 in half precision, with the recipe in the file."""
    dropped = ("layer4.", "fc.")
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in trainer.network.backbone.state_dict().items()
        if not name.startswith(dropped)
    }
    meta: dict[str, Any] = {"textures": dataclasses.asdict(trainer.recipe), "steps": trainer.step}
    write_tensors(path, tensors, meta)
