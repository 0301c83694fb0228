"""`edgekd build`: compile a bundle's network for targets, and keep what agrees with its golden set."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import edgekd

from ._int8 import show_int8, show_judgement
from ._text import size, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

HEAD = ("target", "precision", "size", "build", "computes in", "score diff", "box or map diff", "golden set")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("build", help="compile a bundle for targets", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument(
        "--target",
        required=True,
        action="append",
        metavar="NAMES",
        help="comma-separated (openvino,tflite,tensorrt), or all that can build here; may be given several times",
    )
    parser.add_argument(
        "--precision", action="append", metavar="NAMES", help="comma-separated: fp32, fp16, w8a32, int8 (default fp32)"
    )
    parser.add_argument("--out", metavar="FILE", help="write here (default: replace the bundle)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    int8 = parser.add_argument_group(
        "int8",
        "calibrated on training images, judged on validation images; with --val, fp16 and w8a32 that exceed the golden "
        "set's bound are judged likewise",
    )
    int8.add_argument("--calib", metavar="PATH", help="training images (default: those of the bundle's recipe)")
    int8.add_argument("--val", metavar="PATH", help="validation images (default: those of --calib, or of the recipe)")
    int8.add_argument("--format", metavar="NAME", help="of both (default: found out)")
    int8.add_argument(
        "--calib-images", type=int, metavar="N", help="most images that calibrate, 8 to 4096 (default 128)"
    )
    int8.add_argument(
        "--max-drop", type=float, metavar="POINTS",
        help="of AP or image AUROC that may be lost (default 0.5; 0.7 for oriented boxes, 0.3 for AUROC)",
    )  # fmt: skip
    int8.add_argument("--ranges", metavar="NAME", help="auto (default), mse, minmax, percentile or entropy")
    int8.add_argument("--force", action="store_true", help="also take test images, or others than trained the network")
    int8.add_argument("--report", metavar="FILE", help="write a page: layers, gates, shifts of scores, latencies")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build and print what it cost."""
    targets = _split(args.target)
    report = edgekd.build(
        args.bundle,
        targets="all" if targets == ["all"] else targets,
        precisions=_split(args.precision or ["fp32"]),
        out=args.out,
        calibration=_calibration(args),
        report=args.report,
        progress=_tell if sys.stderr.isatty() else None,
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    return 0


def _calibration(args: argparse.Namespace) -> edgekd.Calibration | None:
    """Return what was asked for; None: nothing was."""
    given = {
        "train": args.calib, "val": args.val, "format": args.format, "images": args.calib_images,
        "max_drop": args.max_drop, "ranges": args.ranges, "force": args.force or None,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    return edgekd.Calibration(**given) if given else None


def _split(items: Sequence[str]) -> list[str]:
    return [word for item in items for word in item.split(",") if word]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(report: edgekd.BuildReport) -> None:
    table(HEAD, [_row(item) for item in report.artifacts])
    for item in report.artifacts:
        if item.parity.reason:
            print(f"{item.target} {item.precision} was not run: {item.parity.reason}")
    for item in report.artifacts:
        if item.receipt is not None:
            (show_int8 if "quantization" in item.receipt else show_judgement)(item.receipt)
    for name, reason in report.unavailable.items():
        print(f"{name} was left out: {reason}")
    dropped = "; its signature was dropped, since the contents changed" if report.signature_dropped else ""
    print(f"wrote {report.path}, {size(report.size_bytes)}{dropped}")


def _row(item: edgekd.BuiltArtifact) -> tuple[str, ...]:
    cost = (item.target, item.precision, size(item.size_bytes), f"{item.build_s:.1f} s")
    parity = item.parity
    if parity.session is None:
        return (*cost, "-", "-", "-", "not run")
    return (
        *cost,
        parity.session.compute,
        f"{parity.score_difference:.1e}",
        f"{parity.box_difference_px:.4f} px" if parity.map_difference is None else f"{parity.map_difference:.1e}",
        parity.status,
    )
