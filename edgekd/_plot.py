"""Drawing of detections on a picture, with Pillow."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np

from ._preprocess import to_rgb
from .errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import ImageDraw, ImageFont

    from ._detections import Detections
    from ._manifest import Thresholds

GOLDEN_ANGLE = 0.618033988749895  # successive hues as far apart as can be

HEAT = ((0.25, (255, 225, 90), 0.0), (0.5, (255, 150, 0), 0.45), (1.0, (200, 0, 30), 0.75))
"""Calibrated value, RGB colour, opacity: nothing on what is usual for normal images, orange at the threshold."""
OUTLINE, ALARM, PASS = (255, 255, 255), (200, 0, 30), (20, 130, 60)


def class_color(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class index, 0..255 each."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * GOLDEN_ANGLE) % 1.0, 0.85, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(found: Detections, image: Any, *, color: str, width: int | None) -> NDArray[np.uint8]:
    """Draw boxes and labels on a copy of `image`; see `Detections.plot`."""
    from PIL import Image, ImageDraw, ImageFont

    rgb, was_bgr = to_rgb(image, color)
    canvas = Image.fromarray(rgb if found.thresholds is None else _heated(rgb, found, found.thresholds, width))
    pen = ImageDraw.Draw(canvas)
    line = width or max(2, round(min(canvas.size) / 250))
    font = ImageFont.load_default(size=max(11, round(min(canvas.size) / 38)))
    order = range(len(found) - 1, -1, -1)  # the best score is drawn last, on top
    for i in () if found.thresholds is not None else order:  # regions are in outline already
        points = [(float(x), float(y)) for x, y in found.corners[i]]
        pen.line([*points, points[0]], fill=class_color(int(found.labels[i])), width=line, joint="curve")
    for i in order:
        anchor = min(found.corners[i].tolist(), key=lambda point: (point[1], point[0]))
        text = f"{found.names[i]} {found.scores[i]:.2f}" if found.thresholds is None else f"{found.scores[i]:.2f}"
        _label(pen, text, (float(anchor[0]), float(anchor[1])), class_color(int(found.labels[i])), font, canvas.size)
    if found.score01 is not None:
        verdict, shade = ("anomalous", ALARM) if found.is_anomalous else ("normal", PASS)
        _label(pen, f"{verdict} {found.score01:.2f}", (0.0, 0.0), shade, font, canvas.size)
    drawn = np.array(canvas)
    return np.ascontiguousarray(drawn[:, :, ::-1]) if was_bgr else drawn


def _heated(rgb: NDArray[np.uint8], found: Detections, thresholds: Thresholds, width: int | None) -> NDArray[np.uint8]:
    """Return the picture under the anomaly map, with an outline around each region of the mask.

    Raises:
        UsageError: the picture is of another size than the one that was predicted on.
    """
    from PIL import Image, ImageFilter

    assert found.anomaly_map is not None
    assert found.mask is not None
    if rgb.shape[:2] != found.anomaly_map.shape:
        here, there = (f"{item.shape[1]}x{item.shape[0]}" for item in (rgb, found.anomaly_map))
        raise UsageError(f"plot: the image has {here} pixels, the prediction is of one with {there}")
    reach = max(thresholds.image - thresholds.low, 1e-12)
    value = 0.5 + 0.5 * (found.anomaly_map - thresholds.image) / reach
    stops = [stop for stop, _, _ in HEAT]
    opacity = np.interp(value, stops, [item for _, _, item in HEAT])
    heated = rgb.copy()
    for plane in range(3):
        tint = np.interp(value, stops, [color[plane] for _, color, _ in HEAT])
        heated[:, :, plane] = (rgb[:, :, plane] * (1 - opacity) + tint * opacity).round()
    line = width or max(2, round(min(rgb.shape[:2]) / 250))
    grown = Image.fromarray(found.mask.view(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * line + 1))
    heated[(np.asarray(grown) > 0) & ~found.mask] = OUTLINE
    return heated


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
