"""NumPy in, NumPy out: letterbox, candidates, NMS and suppress."""

from __future__ import annotations

from .geometry import Placement, candidates, letterbox, nms, suppress

__all__ = ["Placement", "candidates", "implementation", "letterbox", "nms", "suppress"]


def implementation() -> str:
    """Say what computes: "numpy reference"."""
    return "numpy reference"
