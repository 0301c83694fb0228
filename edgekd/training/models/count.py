"""How big a network is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..._recipe import InputConfig


class Size(NamedTuple):
    """`parameters`: trainable numbers; `macs`: multiply-accumulate operations of convolutions and linear layers."""

    parameters: int
    macs: int


@torch.no_grad()
def count(model: nn.Module, size: InputConfig) -> Size:
    """Count parameters, and the multiply-accumulates of one image.

    Parameters shared by several levels count once; the exported graph holds one folded copy per level.

    Args:
        model: called with one image `(1, 3, height, width)`; its mode is left as it was.
        size: network input; only height and width are looked at.
    """
    macs = 0

    def add(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            macs += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            macs += output.numel() * layer.in_features

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    training = model.training
    try:
        first = next(model.parameters())
        model.eval()(torch.zeros(1, 3, size.height, size.width, device=first.device, dtype=first.dtype))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Size(sum(parameter.numel() for parameter in model.parameters()), macs)
