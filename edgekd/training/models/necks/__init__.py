"""Necks: backbone features in, one map per pyramid level out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....errors import RecipeError
from .fpn import FPN
from .neck import Neck
from .pafpn import PAFPN
from .yolov4 import YOLOv4Neck

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NECKS: dict[str, Callable[[Sequence[int], int, int], Neck]] = {"fpn": FPN, "pafpn": PAFPN, "yolov4": YOLOv4Neck}


def build_neck(name: str, inputs: Sequence[int], channels: int, levels: int) -> Neck:
    """Build a neck.

    Args:
        name: a key of `NECKS`.
        inputs: channels of the backbone's feature maps, finest first, each half the size of the one before.
        channels: channels of every output; "yolov4" doubles them from each level to the next.
        levels: number of outputs; those beyond `inputs` come from stride-2 convolutions.

    Raises:
        RecipeError: there is no such neck, or it cannot make these levels.
    """
    if name not in NECKS:
        raise RecipeError(f"no neck {name!r}; possible: {', '.join(sorted(NECKS))}")
    return NECKS[name](inputs, channels, levels)


__all__ = ["FPN", "NECKS", "PAFPN", "Neck", "YOLOv4Neck", "build_neck"]
