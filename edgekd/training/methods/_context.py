"""Global context of a feature map (GCNet, Cao et al., ICCV workshops 2019; in FGD, CVPR 2022, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class GcBlock(nn.Module):
    """What a global-context block adds to its input: R(F) = F + W2 ReLU(LN(W1 Σ_p softmax_p(w·F) F_p)).

    `(N, C, H, W)` -> `(N, C, 1, 1)`. It starts at zero (R is the identity then), and whatever it learns is one offset
    a channel and image: it can take no part of a difference of two maps that varies over the cells.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.where = nn.Conv2d(channels, 1, 1, bias=False)  # softmax sees no bias
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.LayerNorm([hidden, 1, 1])
        self.expand = nn.Conv2d(hidden, channels, 1)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(cast("Tensor", self.expand.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Return the offset of each channel and image."""
        weights = self.where(features).flatten(2).softmax(dim=2)
        context = (features.flatten(2) @ weights.transpose(1, 2)).unsqueeze(-1)
        return cast("Tensor", self.expand(self.norm(self.squeeze(context)).relu()))


def context_blocks(channels: Mapping[int, int]) -> dict[str, nn.ModuleDict]:
    """Return a block of its own for the student and for the teacher on each level, by side and level name."""
    return {
        side: nn.ModuleDict({f"p{level}": GcBlock(count) for level, count in channels.items()})
        for side in ("student_context", "teacher_context")
    }


def context_error(ours: Tensor, theirs: Tensor, adapters: nn.Module, level: int) -> Tensor:
    """Return (R_s(ours) - R_t(theirs))², `(N, C, H, W)`, with the blocks that `context_blocks` put into `adapters`."""
    found: Tensor = adapters.get_submodule(f"student_context.p{level}")(ours)
    target: Tensor = adapters.get_submodule(f"teacher_context.p{level}")(theirs)
    return (ours - theirs + (found - target)).square()
