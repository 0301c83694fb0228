"""`Pyramid`: a frozen teacher, cut after the last layer that is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ...errors import RecipeError
from ..models.backbones.squeezenet import SqueezeNet
from ..teacher import fingerprint

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from typing_extensions import Self

    from ..._recipe import InputConfig
    from ..models.backbones import Backbone

STRIDES = (4, 8, 16)  # RD4AD, section 3.1: the three middle stages of the teacher

_RESNET = ("layer1", "layer2", "layer3")
TAPS: dict[str, tuple[str, str, str]] = {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "mobilenetv2": ("features.3", "features.6", "features.13"),
    "mobilenetv2-tf": ("features.3", "features.6", "features.13"),
    "squeezenet1.1": ("features.4", "features.7", "features.12"),
}
"""The last layers of strides 4, 8 and 16, by backbone."""


class Pyramid(nn.Module):
    """Maps the network's input `(B, 3, H, W)` to a teacher's features at strides 4, 8 and 16, finest first.

    It is always in evaluation mode and never trained, whatever `train()` or `requires_grad_()` of a parent say first.
    Layers after the last tap are dropped: in RD4AD's teacher they are two thirds of the weights.

    Args:
        name: the backbone's, a key of `TAPS`.
        backbone: with its weights; its layers are taken over.
        ours: the input of the whole network.
        theirs: what the teacher was trained on; None: the same. The difference becomes a 1x1 convolution, exactly as
            another colour order and normalisation are affine in the pixels.

    Attributes:
        channels: C_k of the three maps.
        pretrained: file and SHA-256 of its weights, for the record, and of edgekd's own how they were trained; None:
            random.
        calibrated: how many images its BatchNorm was fitted to; 0: to none.
        mean_shares: energy of the mean in that of all features, a map; empty until it is measured.

    Raises:
        RecipeError: no taps are known for this backbone.
    """

    def __init__(self, name: str, backbone: Backbone, ours: InputConfig, theirs: InputConfig | None = None) -> None:
        super().__init__()
        if name not in TAPS:
            raise RecipeError(f"a {name!r} backbone is no anomaly teacher; possible: {', '.join(sorted(TAPS))}")
        self.name = name
        self.pretrained: dict[str, Any] | None = None
        self.calibrated = 0
        self.mean_shares: tuple[float, ...] = ()
        self.adapt = _adapter(ours, theirs)
        layers, self._taps = cut(name, backbone)
        self.layers = nn.Sequential(*layers)
        self.channels = _channels(self)
        self.requires_grad_(requires_grad=False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: BatchNorm statistics of a teacher are part of what it knows."""
        del mode
        return super().train(mode=False)

    @property
    def source(self) -> dict[str, Any]:
        """What it is, for run identities and the manifest."""
        return {
            "backbone": self.name,
            "pretrained": self.pretrained,
            "calibrated": self.calibrated,
            "mean_shares": [round(share, 4) for share in self.mean_shares],
            "state_sha256": fingerprint(self),
        }

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return `(B, C_k, H / 4, W / 4)`, `/ 8` and `/ 16`, without gradient."""
        return walk(self.layers, self._taps, self.adapt(images))


def walk(layers: Iterable[nn.Module], taps: Container[int], features: Tensor) -> list[Tensor]:
    """Return what comes out of the layers at `taps`."""
    found = []
    for index, layer in enumerate(layers):
        features = layer(features)
        if index in taps:
            found.append(features)
    return found


def cut(name: str, backbone: Backbone) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Return a backbone's layers in forward order up to the last tap, and where the taps are."""
    names: list[str] = []
    layers: list[nn.Module] = []
    if isinstance(backbone, SqueezeNet):  # it pads its input, see there
        names, layers = ["pad"], [nn.ZeroPad2d((0, 1, 0, 1))]
    prefix, chain = ("", backbone) if TAPS[name] == _RESNET else ("features.", backbone.get_submodule("features"))
    for inner, layer in chain.named_children():
        names.append(prefix + inner)
        layers.append(layer)
    places = tuple(names.index(tap) for tap in TAPS[name])
    return layers[: places[-1] + 1], places


def _channels(pyramid: Pyramid) -> tuple[int, int, int]:
    with torch.no_grad():
        first, second, third = pyramid.eval()(torch.zeros(1, 3, 32, 32))
    return first.shape[1], second.shape[1], third.shape[1]


def _adapter(ours: InputConfig, theirs: InputConfig | None) -> nn.Module:
    """Return what turns `(pixel - mean) / std` of one input section into that of another."""
    if theirs is None or (ours.color, ours.mean, ours.std) == (theirs.color, theirs.mean, theirs.std):
        return nn.Identity()
    conv = nn.Conv2d(3, 3, 1)
    order = [0, 1, 2] if ours.color == theirs.color else [2, 1, 0]
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (ours.mean, ours.std))
    wanted, spread = (torch.tensor(values, dtype=torch.float64) for values in (theirs.mean, theirs.std))
    weight = torch.zeros(3, 3, dtype=torch.float64)
    weight[range(3), order] = std[order] / spread
    with torch.no_grad():
        conv.weight.copy_(weight[:, :, None, None])
        cast("Tensor", conv.bias).copy_((mean[order] - wanted) / spread)
    return conv
