"""`Detections`: frozen columns of NumPy arrays, one row an object or an anomalous region, best score first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import geometry
from ._thresholds import calibrated
from .errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import supervision
    from numpy.typing import NDArray

    from ._manifest import Thresholds


def _no_timings() -> dict[str, float]:
    return {}


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects, or anomalous regions, found in one image, in pixels of that image.

    Attributes:
        boxes: `(N, 4)` float32 xyxy, or `(N, 5)` float32 xywhr (radians, clockwise on the image: `edgekd.geometry`).
        scores: `(N,)` float32 in [0, 1], descending.
        labels: `(N,)` int64, index into `classes`.
        classes: all class names of the model.
        image_size: `(height, width)` of the image in pixels.
        timings_ms: milliseconds per stage: decode, letterbox, infer, suppress (of an anomaly network: regions), total;
            where the accelerator does all three at once: decode, pipeline and total. Of an image that was split into
            tiles: the sums over its tiles, and merge before the total.
        score: of the whole image, by an anomaly network, raw; this and what follows is None for detectors.
        thresholds: that decided.
        mask: `(H, W)` bool, the anomalous pixels; none in a normal image but with `predict(ungated=True)`.
        anomaly_map: `(H, W)` float32, blurred and enlarged, in the units of `thresholds.pixel`: not calibrated.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    timings_ms: Mapping[str, float] = field(default_factory=_no_timings)
    score: float | None = None
    thresholds: Thresholds | None = None
    mask: NDArray[np.bool_] | None = None
    anomaly_map: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.ndim != 2 or self.boxes.shape[1] not in (4, 5):
            raise UsageError(f"boxes: expected shape (N, 4) or (N, 5), got {self.boxes.shape}")
        for name, column in (("scores", self.scores), ("labels", self.labels)):
            if column.shape != (count,):
                raise UsageError(f"{name}: expected shape ({count},), got {column.shape}")
        planes = {"mask": self.mask, "anomaly_map": self.anomaly_map}
        image_level = [item is None for item in (self.score, self.thresholds, *planes.values())]
        if any(image_level) != all(image_level):
            raise UsageError("score, thresholds, mask and anomaly_map come together or not at all")
        for name, plane in planes.items():
            if plane is not None and plane.shape != tuple(self.image_size):
                raise UsageError(f"{name}: expected shape {tuple(self.image_size)}, got {plane.shape}")
        for array in (self.boxes, self.scores, self.labels, self.mask, self.anomaly_map):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> Detections:
        """Select rows: an int (one row stays a Detections), a slice, a mask or indices; what is the image's stays."""
        rows: Any = [index] if isinstance(index, (int, np.integer)) else index
        return dataclasses.replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows])

    def __iter__(self) -> Iterator[Detections]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        counts = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
        listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
        if self.score is not None:
            listed = f"{'anomalous' if self.is_anomalous else 'normal'}, score {self.score:.4g}; {len(self)} regions"
        return f"Detections({listed}; image {self.image_size[1]}x{self.image_size[0]} px)"

    @property
    def is_anomalous(self) -> bool | None:
        """Whether the image's score is above the image threshold; None for detectors."""
        return None if self.score is None or self.thresholds is None else self.score > self.thresholds.image

    @property
    def score01(self) -> float | None:
        """The image's score in [0, 1], 0.5 at the threshold; no probability; None for detectors."""
        return None if self.score is None or self.thresholds is None else calibrated(self.score, self.thresholds)

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

        Of an anomaly network: the map as heat, from where a normal image ends; regions in outline; and the verdict.

        Args:
            image: what was given to `predict`: path, PIL image, or array `(H, W, 3)` uint8.
            color: "bgr" or "rgb", the order of an array; PIL images and files come back as RGB.
            width: line width in pixels; None: from the image's size.
        """
        from ._plot import draw

        return draw(self, image, color=color, width=width)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready lists: boxes, scores, labels, names, image_size, timings_ms.

        Of an anomaly network also score, score01, is_anomalous and thresholds; map and mask are too large for JSON.
        """
        judged: dict[str, Any] = {}
        if self.thresholds is not None:
            judged = {
                "is_anomalous": self.is_anomalous,
                "score": self.score,
                "score01": self.score01,
                "thresholds": {"image": self.thresholds.image, "pixel": self.thresholds.pixel},
            }
        return {
            **judged,
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
        compares the rectangles themselves, with "bbox" their hulls. Anomalous regions have their pixels, run by run.
        """
        xyxy = self.xyxy
        masks = iter(self._region_masks())
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
            elif self.mask is not None:
                row["segmentation"] = _run_lengths(next(masks))
            rows.append(row)
        return rows

    def to_supervision(self) -> supervision.Detections:
        """Return a `supervision.Detections`; oriented boxes carry their corners in `data["xyxyxyxy"]`.

        Anomalous regions carry their masks, `(N, H, W)` bool.

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
            xyxy=self.xyxy.copy(), confidence=self.scores.copy(), class_id=self.labels.astype(int), data=data,
            mask=np.stack([*self._region_masks()]) if self.mask is not None and len(self) else None,
        )  # fmt: skip

    def _region_masks(self) -> Iterator[NDArray[np.bool_]]:
        """Yield `(H, W)` bool a row: the pixels of that region alone; nothing without a mask.

        A box names its region. Were it the box of two 8-connected components, a path of the one from its left to its
        right and a path of the other from its top to its bottom would cross, and so touch.
        """
        if self.mask is None:
            return
        labels, count = geometry.label(self.mask)
        y, x = np.nonzero(labels)
        number, points = labels[y, x] - 1, np.stack([x, y], axis=1)
        low, high = np.full((count, 2), max(self.image_size)), np.zeros((count, 2), np.int64)
        np.minimum.at(low, number, points)
        np.maximum.at(high, number, points + 1)
        known = {tuple(box): index for index, box in enumerate(np.concatenate([low, high], axis=1).tolist(), 1)}
        for box in self.boxes.astype(int).tolist():
            yield labels == known[tuple(box)]


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths of `(H, W)`: column by column, zeros first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=flat.size).tolist()}
