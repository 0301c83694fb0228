"""What the outputs of known detectors mean, one class a head; their decoding is written in ONNX's own text form.

Published decodings: YOLOX (Ge et al., 2021), NanoDet (generalized focal loss, Li et al., 2020), YOLOv5 and YOLOv8 as
their exporters leave them, RT-DETR (Zhao et al., 2024). Boxes are decoded in network pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]
"""Output name -> shape without the batch."""

STRIDES = (8, 16, 32)
_CORNERS = """
    half = Mul(size, one_half)
    low = Sub(centre, half)
    high = Add(centre, half)
    boxes = Concat <axis = 2> (low, high)
"""
_LE90 = """
    long = Max(first, second)
    short = Min(first, second)
    upended = Less(first, second)
    quarters = Cast <to = 1> (upended)
    turn = Mul(quarters, quarter_turn)
    turned = Add(angle, turn)
    ahead = Add(turned, quarter_turn)
    halves = Div(ahead, half_turn)
    whole = Floor(halves)
    surplus = Mul(whole, half_turn)
    le90 = Sub(turned, surplus)
    boxes = Concat <axis = 2> (centre, long, short, le90)
"""
TURNS: dict[str, NDArray[Any]] = {
    "quarter_turn": np.array(math.pi / 2, np.float32),
    "half_turn": np.array(math.pi, np.float32),
}
HALF: dict[str, NDArray[Any]] = {"one_half": np.array(0.5, np.float32)}


@dataclass(frozen=True)
class Pixels:
    """How a network wants its pixels: channel order, and mean and std in 0..255 units of those channels."""

    color: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)


@dataclass(frozen=True)
class Decoding:
    """How outputs become boxes and scores.

    Attributes:
        takes: name in `steps` -> output of the network.
        steps: lines of ONNX text that end in `boxes` `(batch, N, 4|5)` and `scores` `(batch, N, C)`.
        constants: name in `steps` -> value.
        layout: of the boxes: "xyxy" or "xywhr".
    """

    takes: Mapping[str, str]
    steps: str
    constants: Mapping[str, NDArray[Any]]
    layout: str = "xyxy"


class Head(Protocol):
    """What `heads` offers by name."""

    @property
    def pixels(self) -> Pixels:
        """How its authors gave it pixels."""
        ...

    @property
    def iou(self) -> float:
        """Default overlap of `predict`."""
        ...

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """Return how outputs of these shapes are decoded.

        Raises:
            UsageError: they are not this head's for so many classes and this input; says what was found and expected.
        """
        ...


class YoloX:
    """One output `(cells, 5 + C)`: offset in the cell, logarithm of the size, objectness, classes (sigmoid applied)."""

    pixels: ClassVar = Pixels("bgr", std=(1.0, 1.0, 1.0))
    iou: ClassVar = 0.5

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        corners, strides = _cells("yolox", height, width)
        name = _only("yolox", outputs, (len(strides), 5 + classes))
        steps = """
            cell, log_size, object, class = Split <axis = 2> (raw, parts)
            from_corner = Mul(cell, stride)
            centre = Add(from_corner, corner)
            units = Exp(log_size)
            size = Mul(units, stride)
            scores = Mul(object, class)
        """
        constants = {**HALF, "parts": _parts(2, 2, 1, classes), "stride": strides[None], "corner": corners[None]}
        return Decoding({"raw": name}, steps + _CORNERS, constants)


class YoloV5:
    """One output `(3 cells, 5 + C)`: centre, size (pixels), objectness, classes."""

    pixels: ClassVar = Pixels()
    iou: ClassVar = 0.5

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        cells = len(_cells("yolov5", height, width)[1])
        name = _only("yolov5", outputs, (3 * cells, 5 + classes))
        steps = """
            centre, size, object, class = Split <axis = 2> (raw, parts)
            scores = Mul(object, class)
        """
        return Decoding({"raw": name}, steps + _CORNERS, {**HALF, "parts": _parts(2, 2, 1, classes)})


class YoloV8:
    """One output `(4 + C, cells)`: centre, size (pixels), classes. YOLOv8, YOLOv9, YOLO11 and YOLO12."""

    pixels: ClassVar = Pixels()
    iou: ClassVar = 0.5

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        cells = len(_cells("yolov8", height, width)[1])
        name = _only("yolov8", outputs, (4 + classes, cells))
        steps = """
            rows = Transpose <perm = [0, 2, 1]> (raw)
            centre, size, scores = Split <axis = 2> (rows, parts)
        """
        return Decoding({"raw": name}, steps + _CORNERS, {**HALF, "parts": _parts(2, 2, classes)})


class YoloV8Obb:
    """One output `(4 + C + 1, cells)`: centre, sides (pixels), classes, clockwise angle of the first side (radians)."""

    pixels: ClassVar = Pixels()
    iou: ClassVar = 0.1

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        cells = len(_cells("yolov8-obb", height, width)[1])
        name = _only("yolov8-obb", outputs, (4 + classes + 1, cells))
        steps = """
            rows = Transpose <perm = [0, 2, 1]> (raw)
            centre, first, second, scores, angle = Split <axis = 2> (rows, parts)
        """
        constants = {**TURNS, "parts": _parts(2, 1, 1, classes, 1)}
        return Decoding({"raw": name}, steps + _LE90, constants, "xywhr")


class NanoDet:
    """Two outputs a stride: classes `(cells, C)` (sigmoid applied) and `(cells, 4 bins)` distributions of distances.

    Distances run from the middle of the cell, (x + 0.5) stride, to the left, top, right and bottom, in strides.
    """

    pixels: ClassVar = Pixels("bgr", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
    iou: ClassVar = 0.5

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        corners, strides = _cells("nanodet", height, width)
        takes, bins = self._pairs(outputs, classes, height, width)
        steps = """
            scores = Concat <axis = 1> (class8, class16, class32)
            flat = Concat <axis = 1> (sides8, sides16, sides32)
            logits = Reshape(flat, by_side)
            shares = Softmax <axis = 3> (logits)
            weighted = Mul(shares, bin)
            distance = ReduceSum <keepdims = 0> (weighted, last)
            pixels = Mul(distance, stride)
            before, after = Split <axis = 2> (pixels, parts)
            low = Sub(centre, before)
            high = Add(centre, after)
            boxes = Concat <axis = 2> (low, high)
        """
        constants = {
            "by_side": np.array([0, 0, 4, bins]),
            "bin": np.arange(bins, dtype=np.float32),
            "last": np.array([3]),
            "stride": strides[None],
            "parts": _parts(2, 2),
            "centre": (corners + strides / 2)[None],
        }
        return Decoding(takes, steps, constants)

    def _pairs(self, outputs: Shapes, classes: int, height: int, width: int) -> tuple[dict[str, str], int]:
        """Return which output is what; of two with the same shape the first has the classes, as NanoDet exports."""
        takes: dict[str, str] = {}
        bins = 0
        for stride in STRIDES:
            cells = (height // stride) * (width // stride)
            found = [name for name, shape in outputs.items() if len(shape) == 2 and shape[0] == cells]
            found.sort(key=lambda name: outputs[name][1] != classes)  # stable
            if len(found) == 2 and outputs[found[0]][1] == classes and outputs[found[1]][1] % 4 == 0:
                takes |= {f"class{stride}": found[0], f"sides{stride}": found[1]}
                bins = outputs[found[1]][1] // 4
        if len(takes) != len(outputs) or len(takes) != 2 * len(STRIDES):
            wanted = ", ".join(f"({height // s * (width // s)}, {classes})" for s in STRIDES)
            raise UsageError(
                f"head nanodet with {classes} classes wants six outputs, {wanted} and as many rows of 4 x bins each; "
                f"found {_listed(outputs)}"
            )
        return takes, bins


class RtDetr:
    """Two outputs, logits `(queries, C)` and boxes `(queries, 4)`; or one `(queries, 4 + C)`, boxes then probabilities.

    Boxes are centre and size as fractions of the input. One box a query: nothing is suppressed by overlap.
    """

    pixels: ClassVar = Pixels()
    iou: ClassVar = 1.0

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        constants = {**HALF, "scale": np.array([width, height], np.float32)}
        last = """
            centre = Mul(middle, scale)
            size = Mul(share, scale)
        """
        shapes = list(outputs.values())
        if len(outputs) == 1 and len(shapes[0]) == 2 and shapes[0][1] == 4 + classes:
            steps = "middle, share, scores = Split <axis = 2> (raw, parts)"
            parts = {"parts": _parts(2, 2, classes)}
            return Decoding({"raw": next(iter(outputs))}, steps + last + _CORNERS, {**constants, **parts})
        queries = {shape[0] for shape in shapes if len(shape) == 2}
        logits = [name for name, shape in outputs.items() if shape[1:] == (classes,)]
        boxes = [name for name, shape in outputs.items() if shape[1:] == (4,) and name not in logits[:1]]
        if len(outputs) != 2 or len(queries) != 1 or not logits or not boxes:
            raise UsageError(
                f"head rtdetr with {classes} classes wants (queries, {classes}) and (queries, 4), or one "
                f"(queries, {4 + classes}); found {_listed(outputs)}"
            )
        steps = """
            middle, share = Split <axis = 2> (box, parts)
            scores = Sigmoid(logit)
        """
        takes = {"logit": logits[0], "box": boxes[0]}
        return Decoding(takes, steps + last + _CORNERS, {**constants, "parts": _parts(2, 2)})


@dataclass(frozen=True, kw_only=True)
class GenericHead:
    """A head with boxes and scores in two outputs, `(N, 4|5)` and `(N, C)`; says what they hold.

    Attributes:
        boxes: name of the output.
        scores: name of the output.
        layout: "xyxy", "xywh" (top left corner and size), "cxcywh", or "xywhr": centre, sides,
            and the angle of the first, radians clockwise.
        unit: "pixels" of the input, or "fraction" of it.
        activation: of the scores: "none" if they are probabilities already, "sigmoid" if that is still to be applied.
        pixels: how the network wants its pixels.
        iou: default overlap of `predict`.
    """

    boxes: str
    scores: str
    layout: str = "xyxy"
    unit: str = "pixels"
    activation: str = "none"
    pixels: Pixels = field(default_factory=Pixels)
    iou: float = 0.5

    _STEPS: ClassVar = {
        "xyxy": "boxes = Identity(scaled)",
        "xywh": """
            low, size = Split <axis = 2> (scaled, parts)
            high = Add(low, size)
            boxes = Concat <axis = 2> (low, high)
        """,
        "cxcywh": "centre, size = Split <axis = 2> (scaled, parts)" + _CORNERS,
        "xywhr": "centre, first, second, angle = Split <axis = 2> (scaled, columns)" + _LE90,
    }

    def decoding(self, outputs: Shapes, classes: int, height: int, width: int) -> Decoding:
        """See `Head.decoding`."""
        columns = self._check(outputs, classes)
        side = [width, height] * 2 if self.unit == "fraction" else [1] * columns
        first = "scores = Sigmoid(score)" if self.activation == "sigmoid" else "scores = Identity(score)"
        steps = f"{first}\nscaled = Mul(box, side)\n{self._STEPS[self.layout]}"
        constants = {
            **HALF,
            **TURNS,
            "parts": _parts(2, 2),
            "columns": _parts(2, 1, 1, 1),
            "side": np.array(side, np.float32),
        }
        takes = {"box": self.boxes, "score": self.scores}
        return Decoding(takes, steps, constants, "xywhr" if columns == 5 else "xyxy")

    def _check(self, outputs: Shapes, classes: int) -> int:
        possible = {
            "layout": (self.layout, tuple(self._STEPS)),
            "unit": (self.unit, ("pixels", "fraction")),
            "activation": (self.activation, ("none", "sigmoid")),
        }
        for key, (got, known) in possible.items():
            if got not in known:
                raise UsageError(f"generic head: {key} {got!r}; possible: {', '.join(known)}")
        if (self.layout, self.unit) == ("xywhr", "fraction"):
            raise UsageError("layout xywhr wants unit pixels: a turned side is no fraction of the width or height")
        for name in (self.boxes, self.scores):
            if name not in outputs:
                raise UsageError(f"generic head: no output {name!r}; found {_listed(outputs)}")
        columns = 5 if self.layout == "xywhr" else 4
        rows = outputs[self.boxes][0] if outputs[self.boxes] else 0
        if outputs[self.boxes] != (rows, columns) or outputs[self.scores] != (rows, classes):
            raise UsageError(
                f"generic head with layout {self.layout} and {classes} classes wants (N, {columns}) and (N, {classes});"
                f" found {self.boxes} {outputs[self.boxes]}, {self.scores} {outputs[self.scores]}"
            )
        return columns


HEADS: dict[str, Head] = {
    "nanodet": NanoDet(),
    "rtdetr": RtDetr(),
    "yolo11": YoloV8(),
    "yolo11-obb": YoloV8Obb(),
    "yolov5": YoloV5(),
    "yolov8": YoloV8(),
    "yolov8-obb": YoloV8Obb(),
    "yolox": YoloX(),
}
"""By the name that `edgekd import --head` takes; "generic" is `GenericHead`."""


def _cells(head: str, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the top left corners `(N, 2)` and strides `(N, 1)`, pixels, of all cells: by stride, row and column."""
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise UsageError(f"head {head} wants sides that are multiples of {STRIDES[-1]}; the input is {width}x{height}")
    corners, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        corners.append(stride * np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _only(head: str, outputs: Shapes, wanted: tuple[int, int]) -> str:
    """Return the name of the one output, if it has the shape wanted."""
    if list(outputs.values()) != [wanted]:
        raise UsageError(f"head {head} wants one output of shape {wanted}; found {_listed(outputs)}")
    return next(iter(outputs))


def _parts(*sizes: int) -> NDArray[np.int64]:
    return np.array(sizes, np.int64)


def _listed(outputs: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in outputs.items())
