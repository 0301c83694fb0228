"""`import_model`: somebody else's detector becomes a bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._bundle import Bundle
from ._detector import Detector, DetectorInfo
from ._golden import add_golden, golden_outputs
from ._manifest import GRAPH, Artifact, InputSpec
from ._preprocess import to_rgb
from ._target import ImportingTarget, load_target, target_names
from .errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ._import_request import Request
    from ._session import Outputs
    from .importing.heads import Head

    Shapes = dict[str, tuple[int, ...]]  # of outputs, without the batch

GOLDEN_SIDE = 640  # pixels, the longer side at most
SLACK = 1e-3  # scores this far outside 0 to 1 are rounding


@dataclass(frozen=True)
class ImportReport:
    """What `import_model` made.

    Attributes:
        path: the bundle.
        size_bytes: of it.
        head: its name.
        input: height, width, channel order, mean and std that `predict` will use.
        conf: score above which objects are counted, the bundle's.
        outputs: output of the file -> shape without the batch.
        images: file name -> objects found at the bundle's threshold, and the largest score; by these the user sees
            whether preprocessing is right.
        artifact: target and precision of a file of a target's own format, on which alone the bundle runs; None: the
            bundle has a portable graph.
    """

    path: str
    size_bytes: int
    head: str
    input: InputSpec
    conf: float
    outputs: dict[str, tuple[int, ...]]
    images: dict[str, tuple[int, float]]
    artifact: tuple[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return dataclasses.asdict(self)


def import_model(
    path: str | Path,
    out: str | Path,
    *,
    sidecar: str | Path | None = None,
    head: str | Head | None = None,
    classes: Sequence[str] | str | Path | None = None,
    images: Sequence[str | Path] | str | Path | None = None,
    name: str | None = None,
    size: int | tuple[int, int] | None = None,
    color: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    conf: float | None = None,
    iou: float | None = None,
) -> ImportReport:
    """Turn a detector into a bundle: its head is decoded inside the graph, its pixels go into the manifest.

    An ONNX file becomes the portable graph of the bundle, which every target builds from. A file of a target's own
    format (LiteRT's `.tflite`, OpenVINO's `.xml`) becomes that target's artifact; the bundle runs there alone.

    Nothing is guessed: outputs that are not the head's are refused, and so are scores outside 0 to 1.

    Args:
        path: ONNX file, input `(1, 3, H, W)` or `(1, H, W, 3)`, float32 or float16, weights inside or beside it;
            `.tflite`, float32 in and out; or the `.xml` of an OpenVINO model with its `.bin` beside it.
        out: the bundle to write, atomically; none of the files that are read.
        sidecar: a `.toml` or `.json` file that gives some of the arguments below, by their names; the generic head is
            its table `generic`. Paths in it are relative to its folder. None: all are given here.
        head: nanodet, rtdetr, yolo11, yolo11-obb, yolov5, yolov8, yolov8-obb, yolox, or a `GenericHead`. Required,
            here or in the sidecar.
        classes: names by label, or a text file with one a line. Required, here or in the sidecar.
        images: a folder, a file or several of what the detector is to see; the first four become the golden set, which
            every build is compared with. Required, here or in the sidecar.
        name: of the model; None: the file's.
        size: of the input in pixels, one side or (height, width), of a graph that takes any; None: the graph's.
        color: "rgb" or "bgr", which the network wants; None: what the head's authors trained with.
        mean: three numbers in 0..255 units, in that order; None: as before.
        std: the same.
        conf: default score of `predict`; None: 0.25.
        iou: default overlap of `predict`; None: the head's.

    Returns:
        What was found, and how many objects the bundle sees on the images.

    Raises:
        UsageError: the file, sidecar, head, classes, size or images do not fit, or `out` is one of these files; says
            what was found and what would do.
        BuildError: graph and decoding cannot be joined.
        GateError: the artifact differs from the file, decoded apart from it, by more than `build` allows.
        MissingPackageError: the packages of the extra `build` are missing.
        TargetUnavailableError: a target that takes such files cannot build here.
    """
    from ._import_request import refuse_to_overwrite, request

    path, out = Path(path), Path(out)
    given = {
        "head": head, "classes": classes, "images": images, "name": name, "size": size, "color": color, "mean": mean,
        "std": std, "conf": conf, "iou": iou,
    }  # fmt: skip
    asked = request(path, None if sidecar is None else Path(sidecar), given)
    refuse_to_overwrite(out, asked.files)
    target = _taker(path)
    try:
        if target is None:
            bundle, outputs = _from_onnx(path, out, asked)
            artifact = Artifact(target="reference", precision="fp32", files={})
        else:
            from ._import_artifact import from_file

            bundle, outputs = from_file(path, out, asked, target)
            (artifact,) = bundle.manifest.artifacts
    except ImportError as error:
        raise MissingPackageError(f"import needs {error.name}: pip install 'edgekd[build]'") from error
    _check_scores(bundle)
    seen = _seen(bundle, artifact, asked)
    bundle.write(out)
    became = None if target is None else (artifact.target, artifact.precision)
    return ImportReport(
        str(out), out.stat().st_size, asked.head_name, bundle.manifest.input, asked.predict.conf, outputs, seen, became
    )


def _taker(path: Path) -> str | None:
    """Return the target whose own format a file has, by its name; None: ONNX."""
    for name in target_names():
        target = load_target(name)
        if isinstance(target, ImportingTarget) and path.suffix.lower() == target.SUFFIX:
            return name
    return None


def _from_onnx(path: Path, out: Path, asked: Request) -> tuple[Bundle, Shapes]:
    """Return a bundle with a portable graph and a golden set, and the outputs of the file."""
    from ._import_request import digests, refuse_to_overwrite
    from .importing.decoder import decode
    from .importing.foreign import read_foreign

    foreign = read_foreign(path, asked.size)
    refuse_to_overwrite(out, foreign.files)
    decoding = asked.head.decoding(foreign.outputs, len(asked.classes), foreign.height, foreign.width)
    graph, boxes, scores = decode(foreign, decoding)
    imported = {"file": path.name, "sha256": digests([path])[path.name]}
    manifest = asked.manifest((foreign.height, foreign.width), (boxes, scores), decoding.layout, imported)
    bundle = Bundle.create(manifest, {GRAPH: graph})
    session = load_target("reference").load(bundle, Artifact(target="reference", precision="fp32", files={}), threads=1)
    try:
        return with_golden(bundle, asked, session.infer), foreign.outputs
    finally:
        session.close()


def with_golden(bundle: Bundle, asked: Request, infer: Callable[[NDArray[np.float32]], Outputs]) -> Bundle:
    """Return the bundle with a golden set of the first images."""
    return add_golden(bundle, [_shrunk(path) for path in asked.pictures], infer)


def _check_scores(bundle: Bundle) -> None:
    """Refuse scores that are no probabilities.

    Raises:
        UsageError: some of the golden set are not.
    """
    for golden in bundle.manifest.golden:
        _, scores = golden_outputs(bundle, golden)
        if scores.min() < -SLACK or scores.max() > 1 + SLACK:
            raise UsageError(
                f"scores run from {scores.min():.3g} to {scores.max():.3g}, no probabilities: another head,"
                " or outputs without their sigmoid (GenericHead has activation='sigmoid')"
            )


def _seen(bundle: Bundle, artifact: Artifact, asked: Request) -> dict[str, tuple[int, float]]:
    """Return how many objects the bundle sees on the golden images, and the best score, by file name."""
    session = load_target(artifact.target).load(bundle, artifact, threads=1)
    with Detector(bundle.manifest, session, DetectorInfo(session.info, "imported", ())) as detector:
        found = detector.predict([_shrunk(path) for path in asked.pictures], color="rgb")
    return {
        path.name: (len(item), float(item.scores.max(initial=0.0)))
        for path, item in zip(asked.pictures, found, strict=True)
    }


def _shrunk(path: Path) -> NDArray[np.uint8]:
    """Return an image, RGB, at most 640 pixels on the longer side: the golden set travels with the bundle."""
    from PIL import Image

    rgb, _ = to_rgb(path)
    image = Image.fromarray(rgb)
    image.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    return np.asarray(image)
