"""The manifest as JSON: one canonical writer, one strict reader. `bundle.schema.json` publishes the same rules."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from ._comparison import MAX_SEEDS, VERDICTS
from ._container import is_name
from ._manifest import (
    ANGLE,
    FORMAT_VERSION,
    Artifact,
    GoldenImage,
    InputSpec,
    Manifest,
    OutputSpec,
    Suppression,
    Thresholds,
)
from ._strict_json import (
    Read,
    Table,
    choice,
    distinct,
    integer,
    many,
    mapping,
    number,
    parse_json,
    table,
    text,
    wrong,
)
from .errors import BundleError, BundleVersionError, CorruptBundleError
from .geometry import MAX_SIGMA

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SIDE = 16384  # pixels
MAX_CLASSES = 10_000
MAX_ROWS = 10_000_000  # of an output
MAX_ARTIFACTS = 256
MAX_GOLDEN = 64
MAX_RECEIPTS = 4096
MAX_SEED = (1 << 63) - 1
MAX_BYTES = 1 << 50
MAX_LISTED = 100_000  # layers, gates, latencies of an int8 receipt
MAX_IMAGES = 1_000_000_000
FIGURE = number(-1e9, 1e9)  # of a comparison: sums and squares of them stay finite
RANKS = {"boxes": 2, "scores": 2, "map": 3, "score": 0}  # dimensions of an output without the batch
WORD = r"[a-z][a-z0-9_]*"  # names of targets and precisions
CREATED = r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)"


def manifest_to_json(manifest: Manifest) -> bytes:
    """Return the canonical JSON of a manifest: UTF-8, sorted keys, one line.

    Raises:
        BundleError: it holds something that the reader would refuse; the message names the field.
    """
    try:
        fields = dataclasses.asdict(manifest)
        if manifest.thresholds is None:
            del fields["thresholds"]  # detectors have none
        encoded = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        data = encoded.encode()
        manifest_from_json(data)
    except (TypeError, ValueError, RecursionError) as error:  # not JSON, NaN, lone surrogate, a list within itself
        raise BundleError(f"the manifest cannot be written as JSON: {error}") from error
    except CorruptBundleError as error:
        raise BundleError(f"the manifest cannot be written: {error}") from error
    return data


def manifest_from_json(data: bytes) -> Manifest:
    """Read a manifest. Unknown and missing keys, wrong types and values out of range are errors that name the field.

    Raises:
        BundleVersionError: of a newer format.
        CorruptBundleError: anything else that is wrong with it.
    """
    raw = parse_json(data)
    version = raw.get("format") if isinstance(raw, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise BundleVersionError(f"manifest format {version}; this edgekd reads up to {FORMAT_VERSION}: upgrade edgekd")
    manifest = _manifest(raw, "manifest")
    _check_outputs(manifest)
    _check_artifacts(manifest)
    return manifest


def _chunk(value: object, where: str) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise wrong(where, "the name of a chunk", value)
    return value


def _file(value: object, where: str) -> str:
    if "/" in _chunk(value, where):
        raise wrong(where, "a file name without folders", value)
    return str(value)


def _three(low: float, high: float) -> Read[tuple[float, float, float]]:
    def read(value: object, where: str) -> tuple[float, float, float]:
        first, second, third = many(number(low, high), 3, 3)(value, where)
        return first, second, third

    return read


def _input(value: object, where: str) -> InputSpec:
    keys = Table(value, where)
    spec = InputSpec(
        name=keys.take("name", text(128)),
        height=keys.take("height", integer(1, MAX_SIDE)),
        width=keys.take("width", integer(1, MAX_SIDE)),
        color=keys.take("color", choice("rgb", "bgr")),
        mean=keys.take("mean", _three(-1e6, 1e6)),
        std=keys.take("std", _three(1e-6, 1e6)),  # pixels are divided by it: well above 0 in float32 too
        pad=keys.take("pad", integer(0, 255)),
        layout=keys.take("layout", choice("NCHW")),
        dtype=keys.take("dtype", choice("float32")),
    )
    keys.close()
    return spec


def _output(value: object, where: str) -> OutputSpec:
    keys = Table(value, where)
    kind = keys.take("kind", choice(*RANKS))
    spec = OutputSpec(
        name=keys.take("name", text(128)),
        kind=kind,
        shape=keys.take("shape", many(integer(1, MAX_ROWS), RANKS[kind], RANKS[kind])),
        layout=keys.take("layout", choice("xyxy", "xywhr", None)),
        activation=keys.take("activation", choice("sigmoid", "softmax", None)),
    )
    keys.close()
    return spec


def _predict(value: object, where: str) -> Suppression:
    keys = Table(value, where)
    spec = Suppression(
        conf=keys.take("conf", number(0, 1)),
        iou=keys.take("iou", number(0, 1)),
        max_det=keys.take("max_det", integer(1, MAX_ROWS)),
        max_candidates=keys.take("max_candidates", integer(1, MAX_ROWS)),
    )
    keys.close()
    return spec


def _thresholds(value: object, where: str) -> Thresholds:
    keys = Table(value, where)
    spec = Thresholds(
        image=keys.take("image", FIGURE),
        pixel=keys.take("pixel", FIGURE),
        low=keys.take("low", FIGURE),
        alpha=keys.take("alpha", _share),
        pixel_alpha=keys.take("pixel_alpha", _share),
        images=keys.take("images", integer(1, MAX_ROWS)),
        sigma=keys.take("sigma", number(0, MAX_SIGMA)),
    )
    keys.close()
    return spec


def _share(value: object, where: str) -> float | None:
    return None if value is None else number(0, 1)(value, where)


def _artifact(value: object, where: str) -> Artifact:
    keys = Table(value, where)
    artifact = Artifact(
        target=keys.take("target", text(32, WORD)),
        precision=keys.take("precision", text(32, WORD)),
        files=keys.take("files", mapping(_file, _chunk)),
        options=keys.take("options", table),
        tools=keys.take("tools", mapping(text(128), text(256))),
    )
    keys.close()
    return artifact


def _golden(value: object, where: str) -> GoldenImage:
    keys = Table(value, where)
    golden = GoldenImage(image=keys.take("image", _chunk), outputs=keys.take("outputs", many(_chunk, 2, 2)))
    keys.close()
    return golden


def _receipt(value: object, where: str) -> dict[str, Any]:
    receipt = table(value, where)
    text(256)(receipt.get("what"), f"{where}.what")
    number(-math.inf, math.inf)(receipt.get("value"), f"{where}.value")
    if "comparison" in receipt:
        _comparison(receipt["comparison"], f"{where}.comparison")
    if "quantization" in receipt:
        text(32, WORD)(receipt.get("target"), f"{where}.target")
        _quantization(receipt["quantization"], f"{where}.quantization")
    if "judgement" in receipt:
        for name in ("target", "precision"):
            text(32, WORD)(receipt.get(name), f"{where}.{name}")
        _judgement(receipt["judgement"], f"{where}.judgement")
    return receipt


def _judgement(value: object, where: str) -> None:
    """Check what `verify` relies on and what `build` prints of an artifact that was judged on images."""
    keys = Table(value, where)
    keys.take("passed", _flag)
    _golden_differences(keys.take("golden", table), f"{where}.golden")
    keys.take("gates", many(_gate, 1, MAX_LISTED))
    _image_set(keys.take("validation", table), f"{where}.validation")


def _golden_differences(value: object, where: str) -> None:
    keys = Table(value, where)
    for name in ("score", "box_px", "map"):
        keys.take(name, _at_least_0)
    keys.close()


def _image_set(value: object, where: str) -> None:
    keys = Table(value, where)
    keys.take("name", _string)
    keys.take("images", integer(1, MAX_IMAGES))


def _quantization(value: object, where: str) -> None:
    """Check what `load` and `verify` rely on and what `inspect` prints; the rest of an int8 receipt is for readers."""
    keys = Table(value, where)
    keys.take("passed", _flag)
    race = Table(keys.take("race", table), f"{where}.race")
    race.take("rival", lambda item, at: None if item is None else text(32, WORD)(item, at))
    race.take("speed_up", _at_least_0)
    race.take("faster", _flag)
    race.take("times_ms", mapping(text(32, WORD), many(number(0, math.inf), 1, MAX_LISTED)))
    _golden_differences(keys.take("golden", table), f"{where}.golden")
    keys.take("gates", many(_gate, 1, MAX_LISTED))
    keys.take("layers", many(_layer, 1, MAX_LISTED))
    for name in ("calibration", "validation"):
        _image_set(keys.take(name, table), f"{where}.{name}")
    Table(keys.take("ranges", table), f"{where}.ranges").take("estimator", text(32, WORD))
    if "alternatives" in table(value, where):
        keys.take("alternatives", mapping(text(32, WORD), _alternative))


def _alternative(value: object, where: str) -> None:
    keys = Table(value, where)
    keys.take("passed", _flag)
    keys.take("size_bytes", integer(0, MAX_BYTES))
    keys.take("gates", many(_gate, 1, MAX_LISTED))


def _gate(value: object, where: str) -> None:
    keys = Table(value, where)
    keys.take("name", _string)
    keys.take("value", lambda item, at: None if item is None else number(-math.inf, math.inf)(item, at))
    keys.take("bound", number(-math.inf, math.inf))
    keys.take("unit", _string)
    keys.take("passed", _flag)


def _layer(value: object, where: str) -> None:
    keys = Table(value, where)
    keys.take("name", _string)
    keys.take("int8", _flag)


def _at_least_0(value: object, where: str) -> float | None:
    return None if value is None else number(0, math.inf)(value, where)


def _string(value: object, where: str) -> str:
    """Read any text: names of files and of tensors are what they are."""
    if not isinstance(value, str):
        raise wrong(where, "text", value)
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(where, "true or false", value)
    return value


def _comparison(value: object, where: str) -> None:
    keys = Table(value, where)
    keys.take("metric", text(128))
    seeds = keys.take("seeds", many(integer(0, MAX_SEED), 1, MAX_SEEDS))
    for name in ("alone", "distilled", "gain"):
        inner = Table(keys.take(name, table), f"{where}.{name}")
        inner.take("mean", FIGURE)
        for spread in ("std", "standard_error") if name == "gain" else ("std",):
            inner.take(spread, lambda item, at: None if item is None else number(0, math.inf)(item, at))
        values = inner.take("values", many(FIGURE, 1, MAX_SEEDS))
        inner.close()
        if len(values) != len(seeds):
            raise CorruptBundleError(f"{where}.{name} has {len(values)} values for {len(seeds)} seeds")
    keys.take("verdict", choice(*VERDICTS))
    keys.close()


def _manifest(value: object, where: str) -> Manifest:
    keys = Table(value, where)
    manifest = Manifest(
        format=keys.take("format", integer(1, FORMAT_VERSION)),
        name=keys.take("name", text(256)),
        task=keys.take("task", choice("detect", "anomaly")),
        classes=keys.take("classes", distinct(many(text(256), 1, MAX_CLASSES))),
        input=keys.take("input", _input),
        outputs=keys.take("outputs", many(_output, 2, 2)),
        predict=keys.take("predict", _predict),
        thresholds=keys.take("thresholds", _thresholds) if "thresholds" in keys.rest else None,
        angle=keys.take("angle", choice(ANGLE, None)),
        created=keys.take("created", text(64, CREATED)),
        edgekd=keys.take("edgekd", text(64, ".*")),
        graph=keys.take("graph", lambda item, at: None if item is None else _chunk(item, at)),
        artifacts=keys.take("artifacts", many(_artifact, 0, MAX_ARTIFACTS)),
        golden=keys.take("golden", many(_golden, 0, MAX_GOLDEN)),
        receipts=keys.take("receipts", many(_receipt, 0, MAX_RECEIPTS)),
        recipe=keys.take("recipe", lambda item, at: None if item is None else table(item, at)),
        provenance=keys.take("provenance", table),
    )
    keys.close()
    return manifest


def _check_outputs(manifest: Manifest) -> None:
    """Check what ties outputs together, and to the task."""
    if (manifest.task == "anomaly") != (manifest.thresholds is not None):
        raise CorruptBundleError(f"manifest.thresholds belong to task anomaly, and to no other; got {manifest.task}")
    if manifest.task == "anomaly":
        _check_map(manifest)
    else:
        _check_boxes(manifest)


def _check_map(manifest: Manifest) -> None:
    """Check a map, then a score, of one class."""
    raw, score = manifest.outputs
    plain = [item.layout is None and item.activation is None for item in manifest.outputs]
    if (raw.kind, score.kind) != ("map", "score") or raw.name == score.name or not all(plain):
        raise CorruptBundleError("manifest.outputs should be a map, then a score, with different names and no layout")
    if raw.shape[0] != 1:
        raise CorruptBundleError(f"manifest.outputs[0] should be a map (1, h, w), got {raw.shape}")
    if len(manifest.classes) != 1 or manifest.angle is not None:
        raise CorruptBundleError("manifest: an anomaly network has one class and no angle")


def _check_boxes(manifest: Manifest) -> None:
    """Check boxes, then scores: rows, classes, the angle."""
    boxes, scores = manifest.outputs
    if (boxes.kind, scores.kind) != ("boxes", "scores") or boxes.name == scores.name:
        raise CorruptBundleError("manifest.outputs should be boxes, then scores, with different names")
    columns = {"xyxy": 4, "xywhr": 5}.get(boxes.layout or "")
    if boxes.shape[1] != columns or boxes.activation is not None:
        raise CorruptBundleError(
            f"manifest.outputs[0] should be (N, 4) xyxy or (N, 5) xywhr without an activation, got {boxes.shape} "
            f"{boxes.layout}, activation {boxes.activation}"
        )
    expected = (boxes.shape[0], len(manifest.classes))
    if scores.shape != expected or scores.layout is not None or scores.activation is None:
        raise CorruptBundleError(
            f"manifest.outputs[1] should be (rows, classes) = {expected} with an activation and no layout, "
            f"got {scores.shape}, activation {scores.activation}, layout {scores.layout}"
        )
    if (manifest.angle is None) != (boxes.layout == "xyxy"):
        raise CorruptBundleError(f"manifest.angle {manifest.angle} does not go with {boxes.layout} boxes")


def _check_artifacts(manifest: Manifest) -> None:
    if manifest.graph is None and not manifest.artifacts:
        raise CorruptBundleError("manifest.graph is null and manifest.artifacts is empty: there is nothing to run")
    built = [(item.target, item.precision) for item in manifest.artifacts]
    for index, pair in enumerate(built):
        if pair in built[:index]:
            raise CorruptBundleError(f"manifest.artifacts holds {pair[0]} {pair[1]} twice")


def check_chunks(manifest: Manifest, lengths: Mapping[str, int]) -> None:
    """Check that every chunk the manifest names is there, and that reference outputs have the length of their shape.

    Args:
        manifest: a manifest that `manifest_from_json` accepts.
        lengths: chunk name -> bytes.

    Raises:
        CorruptBundleError: they do not fit.
    """
    wanted = [] if manifest.graph is None else [("graph", manifest.graph)]
    for row, artifact in enumerate(manifest.artifacts):
        wanted += [(f"artifacts[{row}].files.{file}", name) for file, name in artifact.files.items()]
    for row, golden in enumerate(manifest.golden):
        wanted.append((f"golden[{row}].image", golden.image))
        for output, name in zip(manifest.outputs, golden.outputs, strict=True):
            wanted.append((f"golden[{row}].outputs, {output.name}", name))
            expected = 4 * math.prod(output.shape)
            if name in lengths and lengths[name] != expected:
                raise CorruptBundleError(
                    f"{name} should hold {output.name} {output.shape} float32: {expected} bytes, got {lengths[name]}"
                )
    trained = manifest.provenance.get("qat")
    if isinstance(trained, dict) and "chunk" in trained:
        wanted.append(("provenance.qat.chunk", _chunk(trained["chunk"], "manifest.provenance.qat.chunk")))
    for where, name in wanted:
        if name not in lengths:
            raise CorruptBundleError(f"manifest.{where} names the chunk {name!r}, which is not in the bundle")
