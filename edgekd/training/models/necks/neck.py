"""`Neck`: what every neck offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Neck(nn.Module):
    """Maps backbone features, finest first, to one map per pyramid level. `channels` are those of each output."""

    channels: tuple[int, ...]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map feature maps `(B, inputs[i], H_i, W_i)` to `(B, channels[i], H_i, W_i)`, finest first."""
        raise NotImplementedError
