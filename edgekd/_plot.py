"""Drawing of detections on a picture, with Pillow."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np

from ._preprocess import to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import ImageDraw, ImageFont

    from ._detections import Detections

GOLDEN_ANGLE = 0.618033988749895  # successive hues as far apart as can be


def class_color(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class index, 0..255 each."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * GOLDEN_ANGLE) % 1.0, 0.85, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(found: Detections, image: Any, *, color: str, width: int | None) -> NDArray[np.uint8]:
    """Draw boxes and labels on a copy of `image`; see `Detections.plot`."""
    from PIL import Image, ImageDraw, ImageFont

    rgb, was_bgr = to_rgb(image, color)
    canvas = Image.fromarray(rgb)
    pen = ImageDraw.Draw(canvas)
    line = width or max(2, round(min(canvas.size) / 250))
    font = ImageFont.load_default(size=max(11, round(min(canvas.size) / 38)))
    order = range(len(found) - 1, -1, -1)  # the best score is drawn last, on top
    for i in order:
        points = [(float(x), float(y)) for x, y in found.corners[i]]
        pen.line([*points, points[0]], fill=class_color(int(found.labels[i])), width=line, joint="curve")
    for i in order:
        anchor = min(found.corners[i].tolist(), key=lambda point: (point[1], point[0]))
        text = f"{found.names[i]} {found.scores[i]:.2f}"
        _label(pen, text, (float(anchor[0]), float(anchor[1])), class_color(int(found.labels[i])), font, canvas.size)
    drawn = np.array(canvas)
    return np.ascontiguousarray(drawn[:, :, ::-1]) if was_bgr else drawn


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write `text` in a filled chip that sits on the box's upper edge, moved inside the picture."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 5
    x = min(max(corner[0], 0), max(size[0] - wide, 0))
    y = corner[1] - high if corner[1] >= high else corner[1]
    y = min(max(y, 0), max(size[1] - high, 0))
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
    pen.rectangle([x, y, x + wide, y + high], fill=color)
    pen.text((x + 3 - left, y + 2 - top), text, fill="white" if dark else "black", font=font)
