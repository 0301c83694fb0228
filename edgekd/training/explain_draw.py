"""Pictures of the explanation page: heat maps over an image, outlines of objects, a colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .._plot import class_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPACITY = 0.65  # of a heat map over its picture
MAP_SIDE = 256  # pixels, the longer side of a heat map
PICTURE_SIDE = 384  # and of the picture itself
STOPS = 9  # of the colour scale


def photograph(image: NDArray[np.uint8], boxes: NDArray[np.float32], labels: Sequence[int]) -> bytes:
    """Return a PNG of `(H, W, 3)` RGB with `(n, 4)` xyxy boxes, in pixels of the image, in the colours of their labels.

    The longer side is 384 pixels.
    """
    drawn = sized(image, PICTURE_SIDE)
    for box, label in zip(boxes * (drawn.shape[1] / image.shape[1]), labels, strict=True):
        corners = [round(float(value)) for value in box]
        cv2.rectangle(drawn, corners[:2], corners[2:], class_color(label), 2)
    return _png(drawn)


def heat_map(
    image: NDArray[np.uint8], values: NDArray[np.float32], low: float, high: float, boxes: NDArray[np.float32]
) -> bytes:
    """Return a PNG of `(h, w)` values over a grey `(H, W, 3)` RGB image, a cell a block, with the outlines of boxes.

    Args:
        image: the network's input.
        values: what to show.
        low: value of the darkest colour.
        high: value of the brightest; equal to `low` if all values are.
        boxes: `(n, 4)` xyxy in pixels of the image.
    """
    base = sized(image, MAP_SIDE)
    drawn = blended(base, values, low, high, cv2.INTER_NEAREST)
    for box in boxes * (base.shape[1] / image.shape[1]):
        corners = [round(float(value)) for value in box]
        cv2.rectangle(drawn, corners[:2], corners[2:], (255, 255, 255), 1)
    return _png(drawn)


def blended(
    image: NDArray[np.uint8], values: NDArray[np.float32], low: float, high: float, interpolation: int
) -> NDArray[np.uint8]:
    """Return `(h, w)` values in colours over the grey of `(H, W, 3)` RGB, enlarged as OpenCV's `interpolation` does."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    levels = np.asarray(np.round(255 * share), np.uint8)
    colours = cv2.resize(_coloured(levels), (image.shape[1], image.shape[0]), interpolation=interpolation)
    return np.asarray(cv2.addWeighted(colours, OPACITY, grey, 1 - OPACITY, 0), np.uint8)


def scale_colours() -> list[str]:
    """Return the colours from low to high as a heat map shows them over mid-grey: "#rrggbb" at equal distances."""
    levels = np.linspace(0, 255, STOPS).round().astype(np.uint8)[None]
    mixed = OPACITY * _coloured(levels)[0].astype(np.float64) + (1 - OPACITY) * 128
    return ["#{:02x}{:02x}{:02x}".format(*(round(float(value)) for value in colour)) for colour in mixed]


def _coloured(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `(h, w)` levels as RGB in viridis, whose lightness grows evenly with the value."""
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB), np.uint8)


def sized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a copy whose longer side has `side` pixels."""
    ratio = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
    return np.array(cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_NEAREST), np.uint8)


def _png(rgb: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    return bytes(data)
