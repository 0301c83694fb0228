"""`edgekd demo`: the whole way on synthetic X-ray scenes, in a few minutes on a CPU."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("demo", help="the whole way on synthetic X-ray scenes", description=__doc__)
    parser.add_argument("--out", default="out/demo", help="folder to write to (default out/demo)")
    parser.add_argument("--assets", help="folder with student.toml, distill.toml and teacher.safetensors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its tables."""
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    report = edgekd.demo(args.out, assets=args.assets, progress=tell)
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
        return 0
    _print_networks(report)
    _print_targets(report)
    pictures = [row.picture for row in report.targets if row.picture]
    print(f"\nwrote {report.bundle} ({report.bundle_bytes / 2**20:.1f} MiB), {args.out}/report.json")
    print(f"      {len(pictures)} annotated pictures: {args.out}/*.png")
    print(f"took  {report.total_s:.0f} s")
    return 0


def _print_networks(report: edgekd.DemoReport) -> None:
    print(f"\nAccuracy on {report.test_scenes} test scenes (COCO AP in %, one seed; docs/results.md has several)")
    print(f"  {'network':<20} {'parameters':>10} {'fp32 size':>10} {'AP':>6} {'AP50':>6} {'training':>9}")
    for row in report.networks:
        taken = "shipped" if row.train_s is None else f"{row.train_s:.0f} s"
        size = f"{4 * row.parameters / 2**20:.1f} MiB"
        accuracy = f"{100 * row.ap:>6.1f} {100 * row.ap50:>6.1f}"
        print(f"  {row.name:<20} {row.parameters / 1e6:>8.2f} M {size:>10} {accuracy} {taken:>9}")


def _print_targets(report: edgekd.DemoReport) -> None:
    print("\nOne bundle, every target (whole predict, one thread)")
    columns = f"{'target':<10} {'artifact':<8} {'computes':<8} {'size':>10} {'build':>7} {'p50':>9} {'p90':>9}"
    print(f"  {columns}  objects in one picture")
    for row in report.targets:
        size = f"{row.size_bytes / 2**20:.2f} MiB" if row.size_bytes else "-"
        head = f"  {row.target:<10} {row.precision:<8} {row.compute or '-':<8} {size:>10} {row.build_s:>5.1f} s"
        if row.p50_ms is None:
            reason = row.note.split(" (")[0]  # `edgekd doctor` has the rest
            print(f"{head} {'-':>9} {'-':>9}  built, not run: {reason}")
        else:
            print(f"{head} {row.p50_ms:>6.2f} ms {row.p90_ms:>6.2f} ms  {row.objects}")
