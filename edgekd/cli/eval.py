"""`edgekd eval`: accuracy of a bundle, as it runs here, on annotated images."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import edgekd

from ._text import plain, table

if TYPE_CHECKING:
    import argparse

FIGURES = ("AP", "AP50", "AP75")
ANOMALY = (
    *("image_AUROC", "image_AP", "image_F1_max", "pixel_AUROC", "pixel_AP", "pixel_F1_max", "AUPRO"),
    *("aupro_rd4ad", "false_alarms", "found"),
)
LEFT_OUT = 3  # lines of what the reader dropped; --json has all
SIZES = ("AP_small", "AP_medium", "AP_large")


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
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16, w8a32, int8 (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument(
        "--tile", type=int, metavar="PX", help="split larger images into windows of PX x PX pixels (default: do not)"
    )
    parser.add_argument(
        "--overlap", type=int, metavar="PX", help="pixels that neighbouring tiles share (default: a fifth of a tile)"
    )
    parser.add_argument(
        "--mode", help="of oriented boxes: voc07 (precision at 11 recalls) or area (under the curve; default)"
    )
    parser.add_argument("--report", metavar="HTML", help="of an anomaly bundle: write scores, worst images and origin")
    parser.add_argument("--receipt", action="store_true", help="write the figures into the bundle, for `edgekd pick`")
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
        mode=args.mode,
        report=args.report,
        receipt=args.receipt,
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
        return 0
    session = report.session
    print(f"{args.bundle} on {session.target} {session.precision} (computes in {session.compute}, {session.device})")
    of_anomalies = "image_AUROC" in report.metrics
    counted = f"{report.objects} of them anomalous" if of_anomalies else f"{report.objects} objects"
    print(f"{report.data}: {report.images} images, {counted}, {report.seconds:.1f} s")
    for line in report.dropped[:LEFT_OUT]:
        print(f"left out: {plain(line)}")
    if len(report.dropped) > LEFT_OUT:
        print(f"left out: {len(report.dropped) - LEFT_OUT} more (--json lists all)")
    if of_anomalies:
        _show_anomaly(report.metrics)
    elif "mode" in report.metrics:
        _show_oriented(report.metrics)
    else:
        _show(report.metrics)
    if report.page is not None:
        print(report.page)
    if args.receipt:
        print(f"wrote the figures into the receipts of {args.bundle}")
    if report.signature_dropped:
        print(f"its signature is gone, sign it again: edgekd keys sign {args.bundle} --key KEY")
    return 0


def _show(metrics: dict[str, Any]) -> None:
    rows = {**{name: metrics[name] for name in (*FIGURES, *SIZES)}, **metrics["per_class"]}
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        shown = "none of this size" if math.isnan(value) else f"{100 * value:5.1f} %"
        print(f"  {name:<{width}}  {shown}")


def _show_anomaly(metrics: dict[str, Any]) -> None:
    for name in ANOMALY:
        why = metrics["undefined"].get(name, "no such image")
        print(f"  {name:<12}  {why if math.isnan(metrics[name]) else f'{100 * metrics[name]:5.1f} %'}")


def _show_oriented(metrics: dict[str, Any]) -> None:
    """Print each figure with its mode: figures of two modes differ by points and look alike."""
    mode = metrics["mode"]
    for name in FIGURES:
        print(f"  {name:<4}  {_percent(metrics[name])}  ({mode}, IoU of rotated boxes)")
    rows = [
        (plain(name), _percent(value), _percent(metrics["per_class_AP50"][name]))
        for name, value in metrics["per_class"].items()
    ]
    table(("class", f"AP ({mode})", f"AP50 ({mode})"), rows)
    background = metrics.get("background")
    if background:
        shown = f"{background['false_positives']:.2f} per image at confidence {background['confidence']:g}"
        print(f"false positives on {background['images']} images without objects: {shown}")


def _percent(value: float) -> str:
    return "no object" if math.isnan(value) else f"{100 * value:5.1f} %"
