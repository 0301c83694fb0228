"""`Session`: a started engine of one target. It knows no label, no threshold and no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = tuple[NDArray[np.float32], ...]
"""What an engine returns, in the order of `Manifest.outputs`: boxes `(B, N, 4|5)` and scores `(B, N, C)`, float32."""


@dataclass(frozen=True)
class SessionInfo:
    """What runs, for `det.info` and the receipts. `compute` is the arithmetic actually used ("fp32", "bf16", ...)."""

    target: str
    precision: str
    compute: str
    device: str
    runtime: str  # name and version of the vendor runtime


class Session(Protocol):
    """A started engine.

    One session may be used from several threads: a session whose runtime is not thread-safe guards itself with a lock.
    """

    @property
    def info(self) -> SessionInfo:
        """What runs."""
        ...

    def infer(self, pixels: NDArray[np.float32]) -> Outputs:
        """Run the network on `(B, 3, H, W)` float32, C-contiguous, B >= 1, and return float32 arrays owned by the caller.

        Raises:
            UsageError: wrong shape or dtype (says got and expected).
            ClosedError: after `close`.
            SessionError: the vendor runtime failed.
        """
        ...

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        ...
