"""Suppress duplicate rotated boxes and merge the detections of tiles, with `edgekd.ops` on plain arrays.

The boxes are those of a drawn scene, multiplied and cut as a detector that runs on tiles would return them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from edgekd import geometry, ops

CLASSES = {"vehicle": 0, "ship": 1, "building": 2}


def read(label_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return `(N, 5)` xywhr and `(N,)` classes of a DOTA label file: four corners of a rectangle, then the class."""
    rows = [line.split() for line in label_file.read_text().splitlines() if len(line.split()) >= 9]
    corners = np.array([row[:8] for row in rows], np.float32).reshape(-1, 4, 2)
    wide, high = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    size = np.stack([np.hypot(*wide.T), np.hypot(*high.T)], axis=1)
    angle = np.arctan2(wide[:, 1], wide[:, 0])[:, None]
    boxes = np.concatenate([corners.mean(axis=1), size, angle], axis=1).astype(np.float32)
    return boxes, np.array([CLASSES.setdefault(row[8], len(CLASSES)) for row in rows], np.int64)


def main() -> None:
    """Read a scene, multiply and cut its boxes, put them together again, draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder with images/ and labelTxt/")
    parser.add_argument("out", type=Path, help="folder for the picture")
    args = parser.parse_args()
    image = Image.open(sorted((args.scene / "images").glob("*.jpg"))[0])
    truth, labels = read(sorted((args.scene / "labelTxt").glob("*.txt"))[0])
    rng = np.random.default_rng(0)

    # A detector sees each object several times, a little off.
    copies = np.repeat(truth, 6, axis=0)
    copies += rng.normal(0, 1, copies.shape).astype(np.float32) * np.float32([0.7, 0.7, 0.7, 0.7, 0.02])
    scores = rng.uniform(0.3, 1, len(copies)).astype(np.float32)
    keep = ops.nms_rotated(copies, scores, 0.3, np.repeat(labels, 6))
    print(f"nms_rotated: {len(copies)} boxes, {len(keep)} kept, {len(truth)} objects ({ops.implementation()})")
    overlap = ops.iou_rotated(truth, copies[keep]).max(axis=1)
    print(f"IoU of each object with the nearest kept box: {overlap.mean():.2f} on average")

    # On tiles, what a border cuts is found twice: as a piece, and whole by the neighbour.
    windows = geometry.windows(image.height, image.width, 256, 96)
    found = []
    upright = geometry.xywhr_to_corners(truth)
    upright = np.concatenate([upright.min(axis=1), upright.max(axis=1)], axis=1)
    for tile, window in enumerate(windows):
        clipped = np.clip(upright, np.tile(window[:2], 2), np.tile(window[2:], 2))
        share = (clipped[:, 2:] - clipped[:, :2]).prod(1) / (upright[:, 2:] - upright[:, :2]).prod(1)
        found += [(clipped[i], rng.uniform(0.3, 1), labels[i], tile) for i in np.flatnonzero(share > 0.2)]
    boxes, best, classes, tiles = (np.array(column) for column in zip(*found, strict=True))
    merged = ops.merge_tiles(boxes, best, classes, tiles, windows)
    print(f"merge_tiles: {len(boxes)} boxes of {len(windows)} tiles, {len(merged)} kept, {len(truth)} objects")

    canvas = ImageDraw.Draw(image)
    for corners in geometry.xywhr_to_corners(copies[keep]):
        canvas.polygon([tuple(point) for point in corners], outline=(255, 210, 0), width=2)
    args.out.mkdir(parents=True, exist_ok=True)
    image.save(args.out / "boxes.png")
    print(f"wrote {args.out / 'boxes.png'}")


if __name__ == "__main__":
    main()
