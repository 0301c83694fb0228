"""PatchCore (Roth et al., CVPR 2022), plainly: what a memory of normal patches finds. A comparator, not a product.

ResNet-18, layer2 and layer3, 224 x 224 pixels: each place's 3 x 3 neighbourhood averaged, layer3 enlarged to layer2's
places, both concatenated. One patch in a hundred is kept, by the greedy k-centre choice on a random projection. A place
scores its distance to the nearest kept patch, an image its greatest, reweighted as in equation 7 of the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd._anomaly import network_input
from edgekd._preprocess import ImageArray
from edgekd._recipe import InputConfig
from edgekd.training.finish import input_spec
from edgekd.training.models import load_weights
from edgekd.training.models.backbones import build_backbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgekd.training.data.sample import Sample

INPUT = InputConfig(height=224, width=224)
SPEC = input_spec(INPUT)
STRIDE = 8
KEPT = 0.01  # share of the patches
PROJECTED = 128  # dimensions in which they are chosen
NEIGHBOURS = 9
BATCH = 8


def decoded(samples: Sequence[Sample]) -> list[ImageArray]:
    """Return the images of samples."""
    return [ImageArray(sample.load(), "rgb") for sample in samples]


class PatchCore:
    """A memory of the patches of normal images.

    Args:
        weights: of the ResNet-18, up to layer3.
        samples: normal images.
        seed: of the projection and of the first patch.
    """

    def __init__(self, weights: str, samples: Sequence[Sample], seed: int) -> None:
        self.backbone = build_backbone("resnet18").eval()
        load_weights(self.backbone, weights, stages="layer3")
        batches = [
            self._patches(torch.from_numpy(network_input(decoded(samples[start : start + BATCH]), SPEC))).flatten(0, 2)
            for start in range(0, len(samples), BATCH)
        ]
        patches = torch.cat(batches)
        self.memory = patches[coreset(patches, max(NEIGHBOURS, round(KEPT * len(patches))), seed)]

    def __call__(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return maps `(B, 1, 28, 28)` and scores `(B,)` of `(B, 3, 224, 224)`, as `Session.infer` does."""
        patches = self._patches(torch.from_numpy(pixels))
        near, rows = torch.cdist(patches.flatten(0, 2), self.memory).min(1)
        count, height, width, _ = patches.shape
        maps, rows = near.view(count, height * width), rows.view(count, height * width)
        flat = patches.view(count, height * width, -1)
        scores = []
        for image in range(count):
            place = int(maps[image].argmax())
            around = torch.cdist(self.memory[rows[image, place]][None], self.memory)[0].topk(NEIGHBOURS, largest=False)
            distances = torch.cdist(flat[image, place][None], self.memory[around.indices])[0]
            weight = 1 - torch.softmax(distances, 0)[0]  # the nearest of the neighbours is the patch's own match
            scores.append(float(weight * maps[image, place]))
        return maps.view(count, 1, height, width).numpy(), np.array(scores, np.float32)

    @torch.no_grad()
    def _patches(self, images: Tensor) -> Tensor:
        """Return `(B, 28, 28, 384)`."""
        stem = self.backbone.get_submodule("maxpool")(
            F.relu(self.backbone.get_submodule("bn1")(self.backbone.get_submodule("conv1")(images)))
        )
        middle = self.backbone.get_submodule("layer2")(self.backbone.get_submodule("layer1")(stem))
        coarse = self.backbone.get_submodule("layer3")(middle)
        middle, coarse = (F.avg_pool2d(each, 3, 1, 1) for each in (middle, coarse))
        coarse = F.interpolate(coarse, size=middle.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([middle, coarse], 1).permute(0, 2, 3, 1).contiguous()


def coreset(patches: Tensor, count: int, seed: int) -> Tensor:
    """Return `(count,)` rows of `(N, D)` patches, each the farthest from those before it, in a random projection."""
    generator = torch.Generator().manual_seed(seed)
    projected = patches @ torch.randn(patches.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    row = int(torch.randint(len(patches), (1,), generator=generator))
    squares = projected.square().sum(1)
    nearest = torch.full((len(patches),), torch.inf)
    chosen = []
    for _ in range(count):
        chosen.append(row)
        nearest = torch.minimum(nearest, squares + squares[row] - 2 * (projected @ projected[row]))
        nearest[row] = -torch.inf  # rounding must not let it come again
        row = int(nearest.argmax())
    return torch.tensor(chosen)
