"""Write a video in which pictures pass the camera as on a conveyor belt, from the right to the left."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

FPS = 15.0
STEP = 8  # pixels that the belt moves from frame to frame


def main() -> None:
    """Lay the pictures side by side, and move a window along them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder of pictures, the first four of which are taken")
    parser.add_argument("out", type=Path, help="the video to write, clip.avi")
    args = parser.parse_args()
    pictures = [cv2.imread(str(path)) for path in sorted(args.pictures.glob("*.jpg"))[:4]]
    height, width = pictures[0].shape[:2]
    belt = np.concatenate([cv2.resize(picture, (width, height)) for picture in pictures], axis=1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(args.out), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (width, height))
    starts = range(0, belt.shape[1] - width + 1, STEP)
    for start in starts:
        video.write(np.ascontiguousarray(belt[:, start : start + width]))
    video.release()
    print(f"wrote {args.out}, {len(starts)} frames of {width}x{height} pixels, {STEP} pixels further each")


if __name__ == "__main__":
    main()
