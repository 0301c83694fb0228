"""`edgekd eval`: accuracy of a bundle, as it runs here, on annotated images."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse

FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("eval", help="measure a bundle's accuracy", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("data", help="annotated images, as a recipe's data.val names them")
    parser.add_argument("--format", default="auto", help="coco, voc, yolo, ... (default: found out)")
    parser.add_argument("--split", help="where the data holds several: train, val or test")
    parser.add_argument(
        "--device", "--target", default="auto", help="auto, cpu, openvino, tflite, intel:npu, ... (default auto)"
    )
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16 (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument(
        "--tile", type=int, metavar="PX", help="split larger images into windows of PX x PX pixels (default: do not)"
    )
    parser.add_argument(
        "--overlap", type=int, metavar="PX", help="pixels that neighbouring tiles share (default: a fifth of a tile)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the figures."""
    report = edgekd.evaluate(
        args.bundle,
        args.data,
        format=args.format,
        split=args.split,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        tile=args.tile,
        overlap=args.overlap,
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
        return 0
    session = report.session
    print(f"{args.bundle} on {session.target} {session.precision} (computes in {session.compute}, {session.device})")
    print(f"{report.data}: {report.images} images, {report.objects} objects, {report.seconds:.1f} s")
    rows = {**{name: report.metrics[name] for name in FIGURES}, **report.metrics["per_class"]}
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        shown = "none of this size" if math.isnan(value) else f"{100 * value:5.1f} %"
        print(f"  {name:<{width}}  {shown}")
    return 0
