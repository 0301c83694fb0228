"""Necks: backbone features in, one map of equal channels per pyramid level out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....errors import RecipeError
from .fpn import FPN
from .pafpn import PAFPN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

NECKS: dict[str, Callable[[Sequence[int], int, int], nn.Module]] = {"fpn": FPN, "pafpn": PAFPN}


def build_neck(name: str, inputs: Sequence[int], channels: int, levels: int) -> nn.Module:
    """Build a neck.

    Args:
        name: a key of `NECKS`.
        inputs: channels of the backbone's feature maps, finest first, each half the size of the one before.
        channels: channels of every output.
        levels: number of outputs; those beyond `inputs` come from stride-2 convolutions.

    Raises:
        RecipeError: there is no such neck.
    """
    if name not in NECKS:
        raise RecipeError(f"no neck {name!r}; possible: {', '.join(sorted(NECKS))}")
    return NECKS[name](inputs, channels, levels)


__all__ = ["FPN", "NECKS", "PAFPN", "build_neck"]
