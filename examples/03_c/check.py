"""Compare what the C program printed with what the same kernels give in Python, to the bit, and draw it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import edgekd
from edgekd import ops


def main() -> None:
    """Compare and draw."""
    bundle_path, lines_path, pictures = (Path(word) for word in sys.argv[1:])
    rows = np.loadtxt(lines_path, dtype=np.float64, ndmin=2).reshape(-1, 7)
    pictures.mkdir(parents=True, exist_ok=True)
    with edgekd.Bundle.read(bundle_path) as bundle:
        manifest = bundle.manifest
        for index, golden in enumerate(manifest.golden):
            boxes, scores = (
                np.frombuffer(bundle.chunk(name), "<f4").reshape(spec.shape)
                for name, spec in zip(golden.outputs, manifest.outputs, strict=True)
            )
            kept, best, labels = ops.suppress(boxes, scores, conf=0.1, iou=0.5, max_det=300, max_candidates=3000)
            mine = rows[rows[:, 0] == index]
            assert np.array_equal(mine[:, 1], labels), f"image {index}: other classes"
            assert np.array_equal(np.float32(mine[:, 2]), best), f"image {index}: other scores"
            assert np.array_equal(np.float32(mine[:, 3:]), kept), f"image {index}: other boxes"
            size = (manifest.input.height, manifest.input.width)
            found = edgekd.Detections(kept.copy(), best, labels, manifest.classes, size)
            grey = np.full((*size, 3), 114, np.uint8)
            save(found.plot(grey), pictures / f"golden-{index}.png")
    print(f"{len(rows)} objects, the same bits from C and from Python")


def save(picture: np.ndarray, path: Path) -> None:
    """Write `(H, W, 3)` uint8 BGR as a file."""
    from PIL import Image

    Image.fromarray(picture[:, :, ::-1]).save(path)


if __name__ == "__main__":
    main()
