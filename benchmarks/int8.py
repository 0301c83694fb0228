"""What int8 costs and gains: accuracy on images that nothing was chosen on, size, latency; all targets, one run.

    python benchmarks/int8.py xray model.bin --calib DATA --test DATA/test.json          # one bundle -> one JSON
    python benchmarks/int8.py xray model.bin --calib DATA --test DATA/test.json --targets openvino,tflite
    python benchmarks/int8.py --table                                                    # writes docs/quantization.md

The gates of `edgekd build` look at validation images; the figures here are of the test images (of an anomaly network,
of the half of them that the search for layers has not seen). Latencies are of the bare network on one thread, every
precision in turn; on OpenVINO also in bf16, which it takes for fp32 models on its own where the chip can.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import RESULTS, conditions, write

import edgekd
from edgekd._bundle import Bundle
from edgekd._int8.race import race
from edgekd._target import load_target

if TYPE_CHECKING:
    from edgekd._manifest import Manifest
    from edgekd._session import Session

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quantization.md"
ROUNDS = 60
FIGURES = ("AP", "AP50", "image_AUROC", "pixel_AUROC")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of the result: results/int8/NAME.json")
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--calib", help="training images; None: as the bundle's recipe names them")
    parser.add_argument("--val", help="validation images; None: those of --calib")
    parser.add_argument("--test", help="test images; None: not looked at")
    parser.add_argument("--targets", default="openvino,tflite,tensorrt")
    parser.add_argument("--note", default="", help="what the network is")
    parser.add_argument("--table", action="store_true", help="write the table from the results that are there")
    args = parser.parse_args()
    if args.table:
        write_table()
        return
    if args.bundle is None:
        parser.error("name a result and a bundle, or --table")
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model.bin"
        shutil.copyfile(args.bundle, bundle)
        rows = [measure(bundle, target, args) for target in args.targets.split(",")]
    write(f"int8/{args.name}", {"name": args.name, "note": args.note, "rows": rows, **conditions("openvino")})


def measure(bundle: Path, target: str, args: argparse.Namespace) -> dict[str, Any]:
    """Build fp32, fp16 and int8 for one target and return what they are worth."""
    plan = edgekd.Calibration(train=args.calib, val=args.val)
    edgekd.build(bundle, targets=[target], precisions=["fp32", "fp16"], calibration=plan)
    try:
        report = edgekd.build(bundle, targets=[target], precisions=["int8"], calibration=plan)
    except edgekd.errors.GateError as error:
        return {"target": target, "refused": str(error)}
    (built,) = report.artifacts
    assert built.receipt is not None
    said = built.receipt["quantization"]
    sizes = {item: size_of(bundle, target, item) for item in ("fp32", "fp16", "int8")}
    here = load_target(target).probe() is None
    return {
        "target": target,
        "build_s": round(built.build_s, 1),
        "bytes": sizes,
        "floating": [layer["name"] for layer in said["layers"] if not layer["int8"]],
        "layers": len(said["layers"]),
        "gates": said["gates"],
        "reported": said["figures"],
        "emulated": said["emulated"],
        "times_ms": latencies(bundle, target) if here else {},
        "test": {item: accuracy(bundle, target, item, args) for item in ("fp32", "int8")} if here else {},
    }


def size_of(bundle: Path, target: str, precision: str) -> int:
    """Return the bytes of an artifact's files."""
    with Bundle.read(bundle) as opened:
        for artifact in opened.manifest.artifacts:
            if (artifact.target, artifact.precision) == (target, precision):
                return sum(len(opened.chunk(name)) for name in artifact.files.values())
    raise SystemExit(f"{bundle} has no {target} {precision}")


def accuracy(bundle: Path, target: str, precision: str, args: argparse.Namespace) -> dict[str, float] | None:
    """Return figures on the test images; None where none are given."""
    if args.test is None:
        return None
    report = edgekd.evaluate(bundle, args.test, device=target, precision=precision, threads=1)
    return {name: report.metrics[name] for name in FIGURES if name in report.metrics}


def latencies(bundle: Path, target: str) -> dict[str, list[float]]:
    """Return milliseconds of the bare network in every precision, in turn."""
    with Bundle.read(bundle) as opened, contextlib.ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for artifact in opened.manifest.artifacts:
            if artifact.target == target:
                session = load_target(target).load(opened, artifact, threads=1)
                sessions[artifact.precision] = stack.enter_context(contextlib.closing(session))
        if target == "openvino":
            sessions["bf16"] = BrainFloat(opened.graph(), opened.manifest)
        from edgekd._golden import golden_pixels

        return race(sessions, golden_pixels(opened, opened.manifest.golden[0]), ROUNDS)


class BrainFloat:
    """The portable graph as OpenVINO runs it when it is asked for bf16; just enough of a session to be timed."""

    def __init__(self, graph: bytes, manifest: Manifest) -> None:
        import io

        import openvino

        core, spec = openvino.Core(), manifest.input
        model = core.read_model(io.BytesIO(graph))
        model.reshape({spec.name: [1, 3, spec.height, spec.width]})
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "bf16"}
        self.request = core.compile_model(model, "CPU", options).create_infer_request()
        self.tensor = openvino.Tensor

    def infer(self, pixels: Any, out: Any = None) -> Any:
        """Run the network; what it writes stays where it is."""
        self.request.set_input_tensor(self.tensor(pixels, shared_memory=True))
        self.request.infer()
        return out


def write_table() -> None:
    """Write the table between its marks."""
    import json

    heads = (
        *("network", "target", "layers in float", "figure", "float", "int8", "size, of fp32", "fp32", "fp16", "bf16"),
        *("int8", "int8 against fp32"),
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for path in sorted((RESULTS / "int8").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        lines += [line(result, row) for row in result["rows"]]
    text = PAGE.read_text(encoding="utf-8")
    body = "\n".join(lines)
    marks = re.compile(r"(<!-- int8: [^>]*-->\n).*?(<!-- /int8 -->)", re.DOTALL)
    marked = marks.sub(lambda found: f"{found[1]}{body}\n{found[2]}", text)
    PAGE.write_text(marked, encoding="utf-8")


def line(result: dict[str, Any], row: dict[str, Any]) -> str:
    if "refused" in row:
        lost = re.search(r"layers int8: (\S+(?: AUROC)? drop \S+ points)", row["refused"])
        why = f"refused; all layers int8: {lost[1]}" if lost else "refused"
        return f"| {result['note'] or result['name']} | {row['target']} | {why} |" + " |" * 9
    before, after, what = figures(row)
    times = {name: statistics.median(samples) for name, samples in row["times_ms"].items()}
    shown = [f"{times[name]:.2f} ms" if name in times else "" for name in ("fp32", "fp16", "bf16", "int8")]
    ratio = f"{times['fp32'] / times['int8']:.2f}×" if times else "not run here"
    size = f"{row['bytes']['int8'] / row['bytes']['fp32']:.2f}"
    cells = [
        result["note"] or result["name"], row["target"], f"{len(row['floating'])} of {row['layers']}", what,
        f"{100 * before:.1f}", f"{100 * after:.1f}", size, *shown, ratio,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def figures(row: dict[str, Any]) -> tuple[float, float, str]:
    """Return float, int8 and what they are: of the test images where these were looked at."""
    found = row["reported"]
    name = "AP" if "AP" in found["float"] else "image_AUROC"
    if row["test"] and row["test"]["int8"] and name == "AP":
        return row["test"]["fp32"][name], row["test"]["int8"][name], "AP, test"
    where = "validation" if name == "AP" else "other half of test"
    return found["float"][name], found["int8"][name], f"{name.replace('_', ' ')}, {where}"


if __name__ == "__main__":
    main()
