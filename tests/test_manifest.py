"""The manifest as JSON: what is written is read; the reader and the published schema refuse the same things."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekd._manifest as nouns
from edgekd._comparison import Comparison
from edgekd._manifest import ANGLE, Artifact, GoldenImage, InputSpec, Manifest, OutputSpec, Suppression, Thresholds
from edgekd._manifest_json import check_chunks, manifest_from_json, manifest_to_json
from edgekd._strict_json import MAX_DEPTH, parse_json
from edgekd.errors import BundleError, BundleVersionError, CorruptBundleError

MANIFEST = Manifest(
    name="Röntgen ✓",
    task="detect",
    classes=("gun", "knife"),
    input=InputSpec(height=320, width=416, color="bgr", mean=(1.5, 2.0, 3.0), std=(58.395, 57.12, 1.0), pad=0),
    outputs=(
        OutputSpec(name="boxes", kind="boxes", shape=(2100, 4), layout="xyxy"),
        OutputSpec(name="scores", kind="scores", shape=(2100, 2), activation="sigmoid"),
    ),
    predict=Suppression(conf=0.3, iou=0.6, max_det=10, max_candidates=50),
    created="2026-11-20T08:30:00.5Z",
    edgekd="0.1.0",
    artifacts=(
        Artifact(target="openvino", precision="fp32", files={"model.xml": "ov/m.xml"}, tools={"openvino": "2026.4"}),
        Artifact(target="openvino", precision="fp16", files={}, options={"hint": {"deep": [1, 2.5, None, True, "x"]}}),
    ),
    golden=(GoldenImage(image="golden/0.png", outputs=("golden/0.boxes", "golden/0.scores")),),
    receipts=(
        {"what": "AP50", "value": 0.77, "split": "val"},
        {"what": "images", "value": 36},
        Comparison(metric="AP", split="val", seeds=(0, 4), alone=(0.1, 0.2), distilled=(0.3, 0.3)).to_dict(),
        Comparison(metric="AP", split="test", seeds=(7,), alone=(0.1,), distilled=(0.3,)).to_dict(),
        {
            "what": "int8 AP drop",
            "value": 0.2,
            "target": "openvino",
            "quantization": {
                "passed": True,
                "race": {"rival": "fp16", "speed_up": 2.5, "faster": True, "times_ms": {"fp16": [5], "int8": [2, 2.5]}},
                "golden": {"score": 0.02, "box_px": 1.5, "map": None},
                "gates": [{"name": "AP drop", "value": None, "bound": 0.5, "unit": "points", "passed": True}],
                "layers": [{"name": "stem.weight", "int8": True, "work": 5}],
                "calibration": {"name": " any\npath", "images": 128},
                "validation": {"name": "/data", "images": 40},
                "ranges": {"estimator": "mse"},
                "steps": [],
            },
        },
    ),
    recipe={"name": "toy", "train": {"steps": 5}},
    provenance={"teacher": {"sha256": "00"}},
)
SCHEMA = json.loads(Path(nouns.__file__).with_name("bundle.schema.json").read_text(encoding="utf-8"))
SCHEMA_CHECK = jsonschema.Draft202012Validator(SCHEMA)
VALID: dict[str, Any] = json.loads(manifest_to_json(MANIFEST))


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the valid manifest with one value replaced; ... deletes the key."""
    result = copy.deepcopy(VALID)
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    inner: Any = result
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return result


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_manifest_survives_json() -> None:
    assert manifest_from_json(manifest_to_json(MANIFEST)) == MANIFEST
    SCHEMA_CHECK.validate(VALID)


def test_json_is_canonical() -> None:
    data = manifest_to_json(MANIFEST)
    assert data == json.dumps(VALID, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert "Röntgen ✓".encode() in data


def test_manifest_without_a_graph_needs_an_artifact() -> None:
    alone = dataclasses.replace(MANIFEST, graph=None)
    assert manifest_from_json(manifest_to_json(alone)) == alone
    assert SCHEMA_CHECK.is_valid(json.loads(manifest_to_json(alone)))
    chunks = {"ov/m.xml": 5, "golden/0.png": 5, "golden/0.boxes": 2100 * 16, "golden/0.scores": 2100 * 8}
    check_chunks(alone, chunks)
    with pytest.raises(BundleError, match=r"graph is null and manifest\.artifacts is empty: there is nothing to run"):
        manifest_to_json(dataclasses.replace(alone, artifacts=()))


def test_defaults_make_a_valid_manifest() -> None:
    smallest = Manifest(
        name="x", task="detect", classes=("a",), input=InputSpec(height=1, width=1), outputs=MANIFEST.outputs
    )
    smallest = dataclasses.replace(
        smallest, outputs=(MANIFEST.outputs[0], dataclasses.replace(MANIFEST.outputs[1], shape=(2100, 1)))
    )
    assert manifest_from_json(manifest_to_json(smallest)) == smallest
    SCHEMA_CHECK.validate(json.loads(manifest_to_json(smallest)))


def test_oriented_boxes_need_the_angle_convention() -> None:
    boxes = OutputSpec(name="boxes", kind="boxes", shape=(2100, 5), layout="xywhr")
    oriented = dataclasses.replace(MANIFEST, outputs=(boxes, MANIFEST.outputs[1]), angle=ANGLE)
    assert manifest_from_json(manifest_to_json(oriented)) == oriented
    SCHEMA_CHECK.validate(json.loads(manifest_to_json(oriented)))
    with pytest.raises(BundleError, match="angle None does not go with xywhr boxes"):
        manifest_to_json(dataclasses.replace(oriented, angle=None))
    with pytest.raises(BundleError, match=f"angle {ANGLE} does not go with xyxy boxes"):
        manifest_to_json(dataclasses.replace(MANIFEST, angle=ANGLE))


ANOMALY = dataclasses.replace(
    MANIFEST,
    task="anomaly",
    classes=("defect",),
    outputs=(
        OutputSpec(name="map", kind="map", shape=(1, 64, 64)),
        OutputSpec(name="score", kind="score", shape=()),
    ),
    thresholds=Thresholds(image=0.7, pixel=0.5, low=-0.1, alpha=0.05, pixel_alpha=0.001, images=43, sigma=1.0),
)


def test_anomaly_manifest_survives_json() -> None:
    assert manifest_from_json(manifest_to_json(ANOMALY)) == ANOMALY
    SCHEMA_CHECK.validate(json.loads(manifest_to_json(ANOMALY)))


def test_thresholds_set_by_hand_survive_json() -> None:
    fitted = ANOMALY.thresholds
    assert fitted is not None
    by_hand = dataclasses.replace(ANOMALY, thresholds=dataclasses.replace(fitted, alpha=None, pixel_alpha=None))
    assert manifest_from_json(manifest_to_json(by_hand)) == by_hand
    SCHEMA_CHECK.validate(json.loads(manifest_to_json(by_hand)))


def test_manifest_of_a_detector_has_no_key_for_thresholds() -> None:
    assert "thresholds" not in VALID  # bundles from before there were any are read as they were


@pytest.mark.parametrize(
    ("changes", "why", "tied"),
    [
        ({"thresholds": None}, "thresholds belong to task anomaly", False),
        ({"task": "detect"}, "thresholds belong to task anomaly", False),
        ({"outputs": MANIFEST.outputs}, "should be a map, then a score", False),
        ({"outputs": ANOMALY.outputs[::-1]}, "should be a map, then a score", False),
        (
            {"outputs": (ANOMALY.outputs[0], dataclasses.replace(ANOMALY.outputs[1], shape=(1,)))},
            "a list of 0 to 0 items",
            False,
        ),
        ({"outputs": (dataclasses.replace(ANOMALY.outputs[0], shape=(3, 4, 4)), ANOMALY.outputs[1])}, "map", False),
        ({"outputs": (dataclasses.replace(ANOMALY.outputs[0], layout="xyxy"), ANOMALY.outputs[1])}, "layout", False),
        ({"outputs": (dataclasses.replace(ANOMALY.outputs[0], name="score"), ANOMALY.outputs[1])}, "different", True),
        ({"classes": ("a", "b")}, "one class and no angle", True),
        ({"angle": ANGLE}, "one class and no angle", True),
        ({"thresholds": dataclasses.replace(ANOMALY.thresholds, alpha=1.5)}, r"thresholds\.alpha", False),
        ({"thresholds": dataclasses.replace(ANOMALY.thresholds, images=0)}, r"thresholds\.images", False),
    ],
)
def test_anomaly_manifest_that_does_not_hold_together_is_refused(changes: Any, why: str, tied: bool) -> None:
    broken = dataclasses.replace(ANOMALY, **changes)
    with pytest.raises(BundleError, match=why):
        manifest_to_json(broken)
    raw = json.loads(json.dumps(dataclasses.asdict(broken)))
    if raw["thresholds"] is None:
        del raw["thresholds"]
    assert SCHEMA_CHECK.is_valid(raw) == tied  # what ties fields together the schema does not say


def test_every_dataclass_field_is_a_key_of_the_schema() -> None:
    """A field added to a dataclass has to be added to the reader and to the schema."""
    properties = SCHEMA["properties"]
    pairs = [
        (Manifest, properties),
        (InputSpec, properties["input"]["properties"]),
        (Suppression, properties["predict"]["properties"]),
        (Thresholds, properties["thresholds"]["properties"]),
        (Artifact, properties["artifacts"]["items"]["properties"]),
        (GoldenImage, properties["golden"]["items"]["properties"]),
        (OutputSpec, properties["outputs"]["prefixItems"][1]["properties"]),
    ]
    for cls, keys in pairs:
        assert {item.name for item in dataclasses.fields(cls)} == set(keys), cls


TOO_DEEP: Any = 1
for _ in range(MAX_DEPTH):
    TOO_DEEP = [TOO_DEEP]

REFUSED = [
    ("format", 0, r"manifest\.format should be an integer from 1 to 1, got 0"),
    ("format", True, r"manifest\.format should be an integer"),
    ("format", 1.0, r"manifest\.format should be an integer"),
    ("name", "", r"manifest\.name should be text"),
    ("name", " x", "without blanks"),
    ("name", "x" * 257, "at most 256 characters"),
    ("name", "a\x1b[2J", "printable"),
    ("name", "a\u202eb", "printable"),
    ("name", "a\nb", "printable"),
    ("name", None, "printable"),
    ("task", "segment", "'detect'"),
    ("task", ["detect"], "'detect'"),
    ("classes", [], "a list of 1 to 10000 items"),
    ("classes", "gun", "a list of 1"),
    ("classes", {"0": "gun", "1": "knife"}, "a list of 1"),
    ("classes", ["gun", "gun"], "names 'gun' 2 times"),
    ("classes", ["gun", 3], r"classes\[1\] should be"),
    ("classes", [str(index) for index in range(10_001)], "a list of 1 to 10000"),
    ("input/height", 0, r"input\.height should be an integer from 1 to 16384, got 0"),
    ("input/height", 16385, "from 1 to 16384"),
    ("input/width", -1, "from 1 to 16384"),
    ("input/width", 320.5, "an integer"),
    ("input/width", "320", "an integer"),
    ("input/color", "RGB", "'rgb' or 'bgr'"),
    ("input/mean", [0, 0], "a list of 3 to 3"),
    ("input/mean", [0, 0, 1e7], r"mean\[2\] should be a number from -1e\+06 to 1e\+06"),
    ("input/std", [1, 1, 0], r"std\[2\] should be a number from 1e-06"),
    ("input/std", [1, 1, -1], r"std\[2\]"),
    ("input/std", [1, True, 1], r"std\[1\]"),
    ("input/pad", 256, "from 0 to 255"),
    ("input/pad", 114.5, "from 0 to 255"),
    ("input/layout", "NHWC", "'NCHW'"),
    ("input/dtype", "uint8", "'float32'"),
    ("input/extra", 1, r"manifest\.input has the unknown key 'extra'"),
    ("input/pad", ..., r"manifest\.input lacks the key 'pad'"),
    ("outputs", [], "a list of 2 to 2"),
    ("outputs/0/kind", "mask", "'boxes' or 'scores'"),
    ("outputs/0/shape", [2100, 5], r"\(N, 4\) xyxy"),
    ("outputs/0/shape", [2100], "a list of 2 to 2"),
    ("outputs/0/shape/0", 0, "from 1 to 10000000"),
    ("outputs/0/shape/0", 1 << 60, "from 1 to 10000000"),
    ("outputs/0/layout", None, r"\(N, 4\) xyxy"),
    ("outputs/0/layout", "cxcywh", "'xyxy' or 'xywhr' or null"),
    ("outputs/0/activation", "sigmoid", "activation sigmoid"),
    ("outputs/1/activation", None, "activation None"),
    ("outputs/1/layout", "xyxy", "layout xyxy"),
    ("predict/conf", 1.5, "a number from 0 to 1"),
    ("predict/iou", -0.1, "a number from 0 to 1"),
    ("predict/conf", "0.5", "a number from 0 to 1"),
    ("predict/max_det", 0, "an integer from 1"),
    ("angle", "degrees", "or null"),
    ("created", "yesterday", "text like"),
    ("created", "2026-11-20T08:30:00+01:00", "text like"),
    ("edgekd", 1, "printable"),
    ("graph", "../graph.onnx", r"manifest\.graph should be the name of a chunk"),
    ("graph", 5, "the name of a chunk"),
    ("artifacts/0/target", "OpenVINO", "text like"),
    ("artifacts/0/target", "../x", "text like"),
    ("artifacts/0/precision", "", "text like"),
    ("artifacts/0/files", {"a/b": "x"}, "a file name without folders"),
    ("artifacts/0/files", {"..": "x"}, "the name of a chunk"),
    ("artifacts/0/files", {"a": "/x"}, r"files\.a should be the name of a chunk"),
    ("artifacts/0/files", ["a"], "an object"),
    ("artifacts/0/options", [], "an object"),
    ("artifacts/0/tools", {"openvino": 2026}, "printable"),
    ("artifacts/0/tools", {"": "1"}, "a key of"),
    ("golden/0/outputs", ["a"], "a list of 2 to 2"),
    ("golden/0/image", "C:\\x.png", "the name of a chunk"),
    ("golden/0", "x", "an object"),
    ("receipts/0", {"value": 1}, r"receipts\[0\]\.what"),
    ("receipts/0", {"what": "AP"}, r"receipts\[0\]\.value"),
    ("receipts/0", {"what": "AP", "value": "0.5"}, r"receipts\[0\]\.value"),
    ("receipts/2/comparison", None, r"receipts\[2\]\.comparison should be an object"),
    ("receipts/2/comparison/verdict", "wonderful", r"comparison\.verdict"),
    ("receipts/2/comparison/seeds", [0, -1], r"comparison\.seeds\[1\]"),
    ("receipts/2/comparison/gain/std", -0.1, r"comparison\.gain\.std"),
    ("receipts/2/comparison/gain/standard_error", ..., r"comparison\.gain lacks the key 'standard_error'"),
    ("receipts/2/comparison/alone/standard_error", 0.1, r"comparison\.alone has the unknown key"),
    ("receipts/2/comparison/alone/mean", 1e10, r"comparison\.alone\.mean"),
    ("receipts/2/comparison/distilled/values/1", "0.3", r"comparison\.distilled\.values\[1\]"),
    ("receipts/2/comparison/more", 1, r"comparison has the unknown key 'more'"),
    ("receipts/4/quantization", None, r"receipts\[4\]\.quantization should be an object"),
    ("receipts/4/target", ..., r"receipts\[4\]\.target"),
    ("receipts/4/target", "Open VINO", r"receipts\[4\]\.target should be text like"),
    ("receipts/4/quantization/passed", 1, r"quantization\.passed should be true or false"),
    ("receipts/4/quantization/passed", ..., r"quantization lacks the key 'passed'"),
    ("receipts/4/quantization/race/rival", 3, r"race\.rival"),
    ("receipts/4/quantization/race/speed_up", -1, r"race\.speed_up should be a number from 0"),
    ("receipts/4/quantization/race/faster", None, r"race\.faster should be true or false"),
    ("receipts/4/quantization/race/times_ms", [1], r"race\.times_ms should be an object"),
    ("receipts/4/quantization/race/times_ms", {"int8": []}, r"times_ms\.int8 should be a list of 1"),
    ("receipts/4/quantization/race/times_ms", {"a\x1b": [1]}, r"times_ms"),
    ("receipts/4/quantization/race/times_ms/int8/0", "2", r"times_ms\.int8\[0\]"),
    ("receipts/4/quantization/golden/map", "0", r"golden\.map"),
    ("receipts/4/quantization/golden/map", ..., r"golden lacks the key 'map'"),
    ("receipts/4/quantization/golden/more", 1, r"golden has the unknown key 'more'"),
    ("receipts/4/quantization/gates", [], r"gates should be a list of 1"),
    ("receipts/4/quantization/gates/0/value", "0", r"gates\[0\]\.value"),
    ("receipts/4/quantization/gates/0/bound", None, r"gates\[0\]\.bound"),
    ("receipts/4/quantization/gates/0/unit", 5, r"gates\[0\]\.unit should be text"),
    ("receipts/4/quantization/layers/0/int8", "yes", r"layers\[0\]\.int8 should be true or false"),
    ("receipts/4/quantization/layers/0", "stem", r"layers\[0\] should be an object"),
    ("receipts/4/quantization/calibration/images", "\x1b[2J", r"calibration\.images should be an integer"),
    ("receipts/4/quantization/validation", ..., r"quantization lacks the key 'validation'"),
    ("receipts/4/quantization/ranges/estimator", "a b", r"ranges\.estimator"),
    ("recipe", [], r"manifest\.recipe should be an object"),
    ("provenance", None, r"manifest\.provenance should be an object"),
    ("unknown", 1, "manifest has the unknown key 'unknown'"),
    ("task", ..., "manifest lacks the key 'task'"),
]
TIED = [  # what ties fields together, which the schema does not say
    ("outputs", [VALID["outputs"][1], VALID["outputs"][0]], "boxes, then scores"),
    ("outputs/1/name", "boxes", "with different names"),
    ("outputs/1/shape", [2100, 3], r"\(rows, classes\) = \(2100, 2\)"),
    ("outputs/1/shape", [2099, 2], r"\(rows, classes\) = \(2100, 2\)"),
    ("artifacts/1/precision", "fp32", "holds openvino fp32 twice"),
    ("receipts/2/comparison/seeds", [0], r"comparison\.alone has 2 values for 1 seeds"),
    ("receipts/2/comparison/gain/values", [0.1], r"comparison\.gain has 1 values for 2 seeds"),
    ("provenance", {"deep": TOO_DEEP}, "nested deeper"),
    ("provenance", {"huge": 10**21}, "integer of 22 digits"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), REFUSED, ids=[f"{row[0]}={str(row[1])[:20]!r}" for row in REFUSED]
)
def test_reader_and_schema_refuse(path: str, value: object, message: str) -> None:
    raw = changed(path, value)
    with pytest.raises(CorruptBundleError, match=message):
        manifest_from_json(encode(raw))
    if (path, value) not in (("format", 1.0),):  # JSON Schema knows no difference between 1 and 1.0
        assert not SCHEMA_CHECK.is_valid(raw)


@pytest.mark.parametrize(("path", "value", "message"), TIED)
def test_reader_refuses_what_does_not_fit_together(path: str, value: object, message: str) -> None:
    with pytest.raises(CorruptBundleError, match=message):
        manifest_from_json(encode(changed(path, value)))


def test_newer_format_asks_for_an_upgrade_whatever_else_it_holds() -> None:
    with pytest.raises(BundleVersionError, match="manifest format 7; this edgekd reads up to 1: upgrade edgekd"):
        manifest_from_json(encode({"format": 7, "novelty": []}))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    data = manifest_to_json(MANIFEST).replace(b'"iou":0.6', b'"iou":' + text.encode())
    with pytest.raises(CorruptBundleError, match="strict JSON"):
        manifest_from_json(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"x": float("nan")}}, "not JSON compliant"),
        ({"provenance": {"x": object()}}, "not JSON serializable"),
        ({"provenance": {"x": "\ud800"}}, "surrogates"),
        ({"provenance": {"x": "y" * (1 << 20)}}, "at most 1048576"),
        ({"classes": ("a", "a")}, "names 'a' 2 times"),
        ({"input": InputSpec(height=0, width=1)}, r"input\.height"),
        ({"receipts": ({"what": "AP"},)}, r"receipts\[0\]\.value"),
    ],
)
def test_writer_refuses_what_the_reader_would_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message) as raised:
        manifest_to_json(dataclasses.replace(MANIFEST, **changes))
    assert not isinstance(raised.value, CorruptBundleError)


def test_writer_refuses_a_list_within_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BundleError, match="cannot be written"):
        manifest_to_json(dataclasses.replace(MANIFEST, provenance={"x": endless}))


def test_check_chunks_names_what_is_missing_or_too_long() -> None:
    lengths = {
        "graph.onnx": 5, "ov/m.xml": 5, "golden/0.png": 5, "golden/0.boxes": 2100 * 16, "golden/0.scores": 2100 * 8,
    }  # fmt: skip
    check_chunks(MANIFEST, lengths)
    for name in lengths:
        with pytest.raises(CorruptBundleError, match=f"names the chunk '{name}', which is not in the bundle"):
            check_chunks(MANIFEST, {key: value for key, value in lengths.items() if key != name})
    with pytest.raises(
        CorruptBundleError, match=r"golden/0\.scores should hold scores \(2100, 2\) float32: 16800 bytes"
    ):
        check_chunks(MANIFEST, {**lengths, "golden/0.scores": 16804})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


PLACES = [place for place in places(VALID) if place]
NEAR = st.sampled_from(
    [0, 1, -1, 2, 4, 5, 255, 256, 1e-9, "", "x", "xyxy", "sigmoid", "../x", "a\n", [], {}, None, True]
)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_any_change_is_refused_or_reads_back_and_fits_the_schema(data: st.DataObject) -> None:
    raw = copy.deepcopy(VALID)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(PLACES))
        inner: Any = raw
        try:
            for key in place[:-1]:
                inner = inner[key]
            kind = data.draw(st.sampled_from(["replace", "replace", "delete", "add"]))
            if kind == "delete":
                del inner[place[-1]]
            elif kind == "add" and isinstance(inner, dict):
                inner[data.draw(st.text(max_size=5))] = data.draw(JSON)
            else:
                inner[place[-1]] = copy.deepcopy(data.draw(NEAR | JSON))  # NEAR draws the same list each time
        except (KeyError, IndexError, TypeError):  # the first change took the place of the second away
            continue
    try:
        manifest = manifest_from_json(encode(raw))
    except BundleError:
        return
    assert SCHEMA_CHECK.is_valid(raw)
    assert manifest_from_json(manifest_to_json(manifest)) == manifest


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_strict_parser_reads_what_json_writes(value: object) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")) == value


@given(st.text(alphabet='[]{}",:\\ 1a\n', max_size=60))
@settings(max_examples=500, deadline=None)
def test_text_that_json_refuses_is_refused_and_the_rest_read_alike(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(CorruptBundleError, match="strict JSON"):
            parse_json(text.encode())
        return
    if json.dumps(expected).count(":") == text.count(":"):  # no key twice; colons within strings are counted in both
        assert parse_json(text.encode()) == expected


@given(st.integers(1, 60), st.text(alphabet='[{"\\', max_size=20))
@settings(max_examples=200, deadline=None)
def test_depth_is_counted_outside_of_strings_only(depth: int, noise: str) -> None:
    data = b"[" * depth + json.dumps(noise).encode() + b"]" * depth
    if depth > MAX_DEPTH:
        with pytest.raises(CorruptBundleError, match="nested deeper"):
            parse_json(data)
    else:
        parse_json(data)
