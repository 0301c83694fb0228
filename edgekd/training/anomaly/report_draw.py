"""Pictures of the report: an image and its map with the truth's outlines, and the histogram of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..data.anomaly import load_mask
from ..explain_draw import blended, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .report import Case

SIDE = 320  # pixels of a picture, the longer side
BINS = 30
QUALITY = 88  # of JPEG
TRUTH = (255, 255, 255)
CUT = (255, 64, 200)  # outline of what the pixel threshold cuts out

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 220, 44, 40  # of the histogram, its left margin and its lower one
NORMAL, ANOMALOUS = "#3b82c4", "#d9772b"


def pictures(case: Case, threshold: float) -> tuple[bytes, bytes]:
    """Return two JPEGs: the image with the truth's outline, and its map with that and what the threshold cuts out.

    Colours of the map reach from 0 to twice the pixel threshold.

    Raises:
        DataError: image or mask cannot be decoded.
    """
    image = sized(case.sample.load(), SIDE)
    height, width = image.shape[:2]
    values = np.asarray(cv2.resize(case.map, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    heat = blended(image, values, 0.0, 2 * threshold, cv2.INTER_LINEAR)
    cut, _ = cv2.findContours((values > threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(heat, cut, -1, CUT, 2)
    mask = load_mask(case.sample, height, width)
    if mask is not None:
        truth, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for picture in (image, heat):
            cv2.drawContours(picture, truth, -1, (0, 0, 0), 3)  # a dark rim, for bright parts
            cv2.drawContours(picture, truth, -1, TRUTH, 1)
    return _jpeg(image), _jpeg(heat)


def histogram(normal: Sequence[float], anomalous: Sequence[float], threshold: float) -> str:
    """Return an SVG: how many normal and anomalous images score what, and where the threshold is.

    Bars of both kinds stand side by side in bins of equal width; at least one score is needed.
    """
    scores = [*normal, *anomalous, threshold]
    low, high = min(scores), max(scores)
    reach = (high - low) or 1.0
    edges = np.linspace(low, low + reach, BINS + 1)
    counts = [np.histogram(values, edges)[0] for values in (normal, anomalous)]
    tallest = max(1, int(max(each.max() for each in counts)))
    step, line = (WIDTH - LEFT) / BINS, HEIGHT - BOTTOM
    full = line - 18
    bars = [
        f'<rect x="{LEFT + step * (place + 0.06 + 0.44 * kind):.1f}" y="{line - full * count / tallest:.1f}" '
        f'width="{0.44 * step:.1f}" height="{full * count / tallest:.1f}" fill="{colour}"/>'
        for kind, (each, colour) in enumerate(zip(counts, (NORMAL, ANOMALOUS), strict=True))
        for place, count in enumerate(each)
        if count
    ]
    at = LEFT + (WIDTH - LEFT) * (threshold - low) / reach
    side = "end" if at > 0.7 * WIDTH else "start"
    ticks = [
        f'<text x="{LEFT + (WIDTH - LEFT) * share:.0f}" y="{line + 16}" '
        f'text-anchor="{"start" if share == 0 else "end" if share == 1 else "middle"}">{low + share * reach:.3g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    said = f"Scores of {len(normal)} normal and {len(anomalous)} anomalous images; threshold {threshold:.4g}"
    return "\n".join(
        [
            f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">',
            *bars,
            f'<path d="M{LEFT} {line}H{WIDTH}" stroke="currentColor"/>',
            f'<path d="M{at:.1f} {line}V4" stroke="currentColor" stroke-width="1.5" stroke-dasharray="5 3"/>',
            f'<text x="{at + (-6 if side == "end" else 6):.1f}" y="13" text-anchor="{side}">threshold</text>',
            *ticks,
            f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">score of the image</text>',
            f'<text x="{LEFT - 6}" y="{line - full + 4}" text-anchor="end">{tallest}</text>',
            f'<text x="{LEFT - 6}" y="{line}" text-anchor="end">0</text>',
            f'<text transform="translate(12 {line - full / 2:.0f}) rotate(-90)" text-anchor="middle">images</text>',
            "</svg>",
        ]
    )


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return bytes(data)
