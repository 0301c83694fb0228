"""Pictures of every kind that `predict` takes, degenerate ones among them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def _png16(height: int, width: int) -> bytes:
    grey = np.random.default_rng(3).integers(0, 65536, (height, width)).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


def noise(*shape: int) -> np.ndarray[Any, Any]:
    """Return uint8 noise, the same in every call."""
    return np.random.default_rng(4).integers(0, 256, shape).astype(np.uint8)


PICTURES: dict[str, Any] = {
    "black": lambda: np.zeros((90, 120, 3), np.uint8),
    "white": lambda: np.full((90, 120, 3), 255, np.uint8),
    "grey": lambda: noise(90, 120),
    "one channel": lambda: noise(90, 120, 1),
    "RGBA": lambda: noise(90, 120, 4),
    "16-bit PNG": lambda: _png16(90, 120),
    "1x1": lambda: noise(1, 1, 3),
    "17x999": lambda: noise(999, 17, 3),
    "999x17": lambda: noise(17, 999, 3),
    "8K": lambda: np.broadcast_to(noise(1, 7680, 3), (4320, 7680, 3)),
    "turned": lambda: noise(120, 90, 3).transpose(1, 0, 2),
    "PIL": lambda: Image.fromarray(noise(90, 120, 3)),
}
