"""`Detections`: frozen columns of NumPy arrays, one row an object, best score first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import geometry
from .errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import supervision
    from numpy.typing import NDArray


def _no_timings() -> dict[str, float]:
    return {}


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one image, in pixels of that image.

    Attributes:
        boxes: `(N, 4)` float32 xyxy, or `(N, 5)` float32 xywhr (radians, clockwise on the image: `edgekd.geometry`).
        scores: `(N,)` float32 in [0, 1], descending.
        labels: `(N,)` int64, index into `classes`.
        classes: all class names of the model.
        image_size: `(height, width)` of the image in pixels.
        timings_ms: milliseconds per stage: decode, letterbox, infer, suppress, total; or decode, pipeline, total where
            the accelerator does all three at once. Of an image that was split into tiles: the sums over its tiles, and
            merge before the total.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    timings_ms: Mapping[str, float] = field(default_factory=_no_timings)

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.ndim != 2 or self.boxes.shape[1] not in (4, 5):
            raise UsageError(f"boxes: expected shape (N, 4) or (N, 5), got {self.boxes.shape}")
        for name, column in (("scores", self.scores), ("labels", self.labels)):
            if column.shape != (count,):
                raise UsageError(f"{name}: expected shape ({count},), got {column.shape}")
        for column in (self.boxes, self.scores, self.labels):
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> Detections:
        """Select rows: an int (one row stays a Detections), a slice, a mask or indices."""
        rows: Any = [index] if isinstance(index, (int, np.integer)) else index
        return Detections(
            self.boxes[rows], self.scores[rows], self.labels[rows], self.classes, self.image_size, self.timings_ms
        )

    def __iter__(self) -> Iterator[Detections]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        counts = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
        listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
        return f"Detections({listed}; image {self.image_size[1]}x{self.image_size[0]} px)"

    @property
    def names(self) -> list[str]:
        """Class name of each row."""
        return [self.classes[label] for label in self.labels]

    @property
    def oriented(self) -> bool:
        """Whether boxes are xywhr."""
        return bool(self.boxes.shape[1] == 5)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """`(N, 4)` float32: the boxes, or the axis-aligned hulls of oriented ones."""
        if not self.oriented:
            return self.boxes
        corners = self.corners
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    @property
    def corners(self) -> NDArray[np.float32]:
        """`(N, 4, 2)` float32 corner points, clockwise on the image from the top left of an upright box."""
        if self.oriented:
            return geometry.xywhr_to_corners(self.boxes)
        return geometry.xyxy_to_corners(self.boxes)

    def plot(self, image: Any, *, color: str = "bgr", width: int | None = None) -> NDArray[np.uint8]:
        """Draw the boxes on a copy of `image` and return `(H, W, 3)` uint8 in the colour order of the input.

        Args:
            image: what was given to `predict`: path, PIL image, or array `(H, W, 3)` uint8.
            color: "bgr" or "rgb", the order of an array; PIL images and files come back as RGB.
            width: line width in pixels; None: from the image's size.
        """
        from ._plot import draw

        return draw(self, image, color=color, width=width)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready lists: boxes, scores, labels, names, image_size, timings_ms."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
            "names": self.names,
            "layout": "xywhr" if self.oriented else "xyxy",
            "image_size": list(self.image_size),
            "timings_ms": dict(self.timings_ms),
        }

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Return COCO result rows, as `pycocotools.coco.COCO.loadRes` takes them.

        `bbox` is [x, y, width, height], of an oriented box that of its hull; `category_id` is the label (0-based).
        Oriented boxes also have `segmentation`, one polygon of four corners: with iouType "segm" COCO's evaluation
        compares the rectangles themselves, with "bbox" their hulls.
        """
        xyxy = self.xyxy
        rows = []
        for i in range(len(self)):
            x1, y1, x2, y2 = (float(v) for v in xyxy[i])
            row: dict[str, Any] = {
                "image_id": image_id,
                "category_id": int(self.labels[i]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(self.scores[i]),
            }
            if self.oriented:
                row["segmentation"] = [self.corners[i].reshape(-1).tolist()]
            rows.append(row)
        return rows

    def to_supervision(self) -> supervision.Detections:
        """Return a `supervision.Detections`; oriented boxes carry their corners in `data["xyxyxyxy"]`.

        Raises:
            MissingPackageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingPackageError("to_supervision() needs supervision: pip install supervision") from error
        data: dict[str, Any] = {"class_name": np.array(self.names, dtype=str)}
        if self.oriented:
            data["xyxyxyxy"] = self.corners
        return supervision.Detections(
            xyxy=self.xyxy.copy(), confidence=self.scores.copy(), class_id=self.labels.astype(int), data=data
        )
