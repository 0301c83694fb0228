"""`import_model`: somebody else's ONNX detector becomes a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._bundle import Bundle
from ._detector import Detector, DetectorInfo
from ._golden import add_golden, golden_outputs
from ._manifest import ANGLE, Artifact, InputSpec, Manifest, OutputSpec, Suppression
from ._preprocess import image_files, to_rgb
from ._target import load_target
from .errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .importing.heads import Head

GOLDEN_IMAGES = 4
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
        outputs: output of the file -> shape without the batch.
        images: file name -> objects found at the bundle's threshold, and the largest score; by these the user sees
            whether preprocessing is right.
    """

    path: str
    size_bytes: int
    head: str
    input: InputSpec
    outputs: dict[str, tuple[int, ...]]
    images: dict[str, tuple[int, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return dataclasses.asdict(self)


def import_model(
    path: str | Path,
    out: str | Path,
    *,
    head: str | Head,
    classes: Sequence[str] | str | Path,
    images: Sequence[str | Path] | str | Path,
    name: str | None = None,
    size: int | tuple[int, int] | None = None,
    color: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    conf: float = 0.25,
    iou: float | None = None,
) -> ImportReport:
    """Turn an ONNX detector into a bundle: its head is decoded inside the graph, its pixels go into the manifest.

    Nothing is guessed: outputs that are not the head's are refused, and so are scores outside 0 to 1.

    Args:
        path: ONNX file, input `(1, 3, H, W)` or `(1, H, W, 3)`, float32 or float16, weights inside or beside it.
        out: the bundle to write, atomically.
        head: nanodet, rtdetr, yolo11, yolo11-obb, yolov5, yolov8, yolov8-obb, yolox, or a `GenericHead`.
        classes: names by label, or a text file with one a line.
        images: a folder, a file or several of what the detector is to see; the first four become the golden set, which
            every build is compared with.
        name: of the model; None: the file's.
        size: of the input in pixels, one side or (height, width), of a graph that takes any; None: the graph's.
        color: "rgb" or "bgr", which the network wants; None: what the head's authors trained with.
        mean: three numbers in 0..255 units, in that order; None: as before.
        std: the same.
        conf: default score of `predict`.
        iou: default overlap of `predict`; None: the head's.

    Returns:
        What was found, and how many objects the bundle sees on the images.

    Raises:
        UsageError: the file, head, classes, size or images do not fit; says what was found and what would do.
        BuildError: ONNX cannot join graph and decoding.
        MissingPackageError: the packages of the extra `build` are missing.
    """
    from importlib import metadata  # 40 modules that loading a bundle does without

    try:
        from .importing.decoder import decode
        from .importing.foreign import INPUT, read_foreign
        from .importing.heads import HEADS
    except ImportError as error:
        raise MissingPackageError(f"import needs {error.name}: pip install 'edgekd[build]'") from error
    path, out = Path(path), Path(out)
    chosen = _head(head, HEADS)
    names, pictures = _classes(classes), image_files(images)[:GOLDEN_IMAGES]
    foreign = read_foreign(path, (size, size) if isinstance(size, int) else size)
    decoding = chosen.decoding(foreign.outputs, len(names), foreign.height, foreign.width)
    graph, boxes, scores = decode(foreign, decoding)
    manifest = Manifest(
        name=name or path.stem,
        task="detect",
        classes=names,
        input=InputSpec(
            name=INPUT,
            height=foreign.height,
            width=foreign.width,
            color=chosen.pixels.color if color is None else color,
            mean=_three("mean", chosen.pixels.mean if mean is None else mean),
            std=_three("std", chosen.pixels.std if std is None else std),
        ),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=boxes, layout=decoding.layout),
            OutputSpec(name="scores", kind="scores", shape=scores, activation="sigmoid"),
        ),
        predict=Suppression(conf=conf, iou=chosen.iou if iou is None else iou),
        angle=ANGLE if decoding.layout == "xywhr" else None,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        edgekd=metadata.version("edgekd"),
        provenance={"imported": {"file": path.name, "sha256": _digest(path), "head": _label(head)}},
    )
    bundle, seen = _with_golden(Bundle.create(manifest, {manifest.graph: graph}), pictures)
    bundle.write(out)
    return ImportReport(str(out), out.stat().st_size, _label(head), manifest.input, foreign.outputs, seen)


def _with_golden(bundle: Bundle, pictures: Sequence[Path]) -> tuple[Bundle, dict[str, tuple[int, float]]]:
    """Return the bundle with its golden set, and what it sees on those images.

    Raises:
        UsageError: scores that are no probabilities, or values that are not finite.
    """
    artifact = Artifact(target="reference", precision="fp32", files={})
    session = load_target("reference").load(bundle, artifact, threads=1)
    with Detector(bundle.manifest, session, DetectorInfo(session.info, "imported", ())) as detector:
        images = [_shrunk(path) for path in pictures]
        whole = add_golden(bundle, images, session.infer)
        for golden in whole.manifest.golden:
            _, scores = golden_outputs(whole, golden)
            if scores.min() < -SLACK or scores.max() > 1 + SLACK:
                raise UsageError(
                    f"scores run from {scores.min():.3g} to {scores.max():.3g}, no probabilities: another head,"
                    " or outputs without their sigmoid (GenericHead has activation='sigmoid')"
                )
        found = detector.predict(images, color="rgb")
    return whole, {
        path.name: (len(item), float(item.scores.max(initial=0.0))) for path, item in zip(pictures, found, strict=True)
    }


def _shrunk(path: Path) -> NDArray[np.uint8]:
    """Return an image, RGB, at most 640 pixels on the longer side: the golden set travels with the bundle."""
    from PIL import Image

    rgb, _ = to_rgb(path)
    image = Image.fromarray(rgb)
    image.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    return np.asarray(image)


def _head(head: str | Head, known: Mapping[str, Head]) -> Head:
    if not isinstance(head, str):
        return head
    if head not in known:
        raise UsageError(f"no head {head!r}; possible: {', '.join(known)}, or generic (Python: edgekd.GenericHead)")
    return known[head]


def _label(head: str | Head) -> str:
    return head if isinstance(head, str) else "generic"


def _classes(given: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Return names by label from a list, or from a text file with one a line."""
    if isinstance(given, (str, Path)):
        try:
            given = [line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read class names, one a line, from {given}: {error}") from error
    if not given or len(set(given)) != len(given):
        raise UsageError(
            f"class names should be different and at least one, got {len(given)}: {', '.join(given)[:200]}"
        )
    return tuple(given)


def _three(what: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise UsageError(f"{what} should be three numbers in 0..255 units, got {list(values)}")
    first, second, third = (float(value) for value in values)
    return first, second, third


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
