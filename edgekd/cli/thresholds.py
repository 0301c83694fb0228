"""`edgekd thresholds`: show or change what an anomaly bundle calls anomalous, without building it anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("thresholds", help="show or change an anomaly bundle's", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("--data", metavar="DIR", help="fit to these normal images, which were not trained on")
    parser.add_argument("--alpha", type=float, help="with --data: most false alarms, 0.01 is 1 %% (default: as before)")
    parser.add_argument(
        "--pixel-alpha", type=float, help="with --data: share of their pixels above the threshold (default: as before)"
    )
    parser.add_argument("--image", type=float, metavar="SCORE", help="set the image threshold by hand")
    parser.add_argument("--pixel", type=float, metavar="VALUE", help="set the pixel threshold by hand")
    parser.add_argument("--out", metavar="FILE", help="write here (default: replace the bundle)")
    parser.add_argument("--device", default="auto", help="what scores the images, as of predict (default auto)")
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16 (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show or change, and print what is now so."""
    report = edgekd.thresholds(
        args.bundle,
        data=args.data,
        alpha=args.alpha,
        pixel_alpha=args.pixel_alpha,
        image=args.image,
        pixel=args.pixel,
        out=args.out,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    return 0


def _print(report: edgekd.ThresholdsReport) -> None:
    before, after = report.before, report.after
    _line("image", before.image, after.image, _origin(after.alpha, "of normal images", after.images))
    _line("pixel", before.pixel, after.pixel, _origin(after.pixel_alpha, "of their pixels", after.images))
    if report.session is not None:
        print(f"scored by {report.session.target} {report.session.precision} (computes in {report.session.compute})")
    if report.receipts_dropped:
        print(f"receipts that no longer hold were dropped: {', '.join(report.receipts_dropped)}")
    for command in report.judge_again:
        print(f"to judge again, at the thresholds of now: {command}")
    if report.written:
        dropped = "; its signature was dropped, since the contents changed" if report.signature_dropped else ""
        print(f"wrote {report.path}{dropped}")


def _line(name: str, before: float, after: float, origin: str) -> None:
    change = "" if before == after else f", was {before:.4g}"
    print(f"{name}  above {after:.4g}{change}  ({origin})")


def _origin(share: float | None, what: str, images: int) -> str:
    return "set by hand" if share is None else f"at most {100 * share:g} % {what} are above; from {images} images"
