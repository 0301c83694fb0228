"""From the student's channels to the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from . import Taps


def align_channels(channels: Mapping[int, tuple[int, int]], *, always: bool = False) -> nn.ModuleDict:
    """Return, by level name, a 1×1 convolution with bias from student to teacher channels, or an identity where equal.

    With `always`, equal counts get a convolution too, which starts as the identity.
    """
    aligned = nn.ModuleDict()
    for level, (ours, theirs) in channels.items():
        if ours == theirs and not always:
            aligned[f"p{level}"] = nn.Identity()
            continue
        conv = nn.Conv2d(ours, theirs, 1)
        if ours == theirs:
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(cast("Tensor", conv.bias))
        aligned[f"p{level}"] = conv
    return aligned


def aligned(student: Taps, adapters: nn.Module) -> dict[int, Tensor]:
    """Return the student's maps in the teacher's channels, by level, through what `align_channels` made."""
    return {level: adapters.get_submodule(f"p{level}")(features) for level, features in student.features.items()}
