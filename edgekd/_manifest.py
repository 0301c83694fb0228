"""`Manifest`: what a bundle says about itself. Plain frozen dataclasses that map one to one on JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 1
GRAPH = "graph.onnx"  # the usual name of the portable graph's chunk
ANGLE = "le90-radians-clockwise"  # the one angle convention, see `edgekd.geometry`


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The network's one input: placed, colour-ordered, `(x - mean) / std` with mean and std in 0..255 units.

    The task says how an image is placed: "detect" letterboxes it, "anomaly" stretches it to fill the input.
    """

    name: str = "images"
    height: int
    width: int
    color: str = "rgb"  # rgb | bgr: the order of the network's three channels, and of mean and std
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pad: int = 114
    layout: str = "NCHW"
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """One output. `kind`: "boxes" and "scores", or "map" and "score" of an anomaly network.

    `layout` of boxes: "xyxy" or "xywhr", in network pixels. A map is raw: neither blurred nor enlarged.
    """

    name: str
    kind: str
    shape: tuple[int, ...]  # without the batch: (N, 4) and (N, C), or (1, h, w) and ()
    layout: str | None = None
    activation: str | None = None  # "sigmoid": already applied, scores are in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Defaults of `predict`."""

    conf: float = 0.25
    iou: float = 0.5
    max_det: int = 300
    max_candidates: int = 3000


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What makes an image, or a pixel, anomalous; fitted on normal images alone (`edgekd._thresholds`), or by hand."""

    image: float  # an image is anomalous if its score is above this
    pixel: float  # a pixel, if the blurred map is above this
    low: float  # the score that a calibrated score shows as 0
    alpha: float | None  # expected share of false alarms among normal images, at most; None: `image` was set by hand
    pixel_alpha: float | None  # share of the normal images' pixels that were above `pixel`; None: set by hand
    images: int  # how many normal images decided, where nobody did by hand
    sigma: float  # of the blur before a map is cut, in pixels of the map


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One compiled form of the network: `files` maps the target's file name to the bundle's chunk name."""

    target: str
    precision: str
    files: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """One image kept in the bundle, with the outputs of the portable graph in fp32 as raw float32.

    Where there is none: with those of the imported file, decoded apart from it.
    """

    image: str  # chunk name of a PNG
    outputs: tuple[str, ...]  # chunk names, one per Manifest.outputs, raw little-endian float32 in that spec's shape


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is needed to run and to trust the bundle; see docs/bundle.md and the published JSON schema."""

    name: str
    task: str  # detect | anomaly
    classes: tuple[str, ...]
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    predict: Suppression = field(default_factory=Suppression)
    thresholds: Thresholds | None = None  # of task anomaly; may be changed without building anew
    angle: str | None = None  # ANGLE when a layout has an angle
    format: int = FORMAT_VERSION
    created: str = ""  # ISO 8601, UTC: "2026-11-20T08:30:00Z"
    edgekd: str = ""  # version that wrote the file
    graph: str | None = GRAPH  # chunk name of the portable graph; None: imported, runs on the target it came from alone
    artifacts: tuple[Artifact, ...] = ()
    golden: tuple[GoldenImage, ...] = ()
    receipts: tuple[
        dict[str, Any], ...
    ] = ()  # measurements: `what` (text), `value` (number); unit, split, machine, date; `comparison` of several runs
    recipe: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(
        default_factory=dict
    )  # teacher, weights' hashes, data fingerprint, tool versions
