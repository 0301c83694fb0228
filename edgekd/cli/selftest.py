"""`edgekd selftest`: try one target on this machine, and keep what was found as JSON to send back."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse

OK, FAILED = 0, 3


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "selftest", help="try one target on this machine and write what was found", description=__doc__
    )
    parser.add_argument("bundle", help="model.bin, built for the target")
    parser.add_argument("--target", required=True, help="such as tensorrt")
    parser.add_argument("--device", default="auto", help="which device of the target (default: auto)")
    parser.add_argument("--frames", type=int, default=300, help="for memory and latency (default: 300)")
    parser.add_argument("--out", metavar="JSON", help="file to write (default: selftest-TARGET.json)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Test, write, print; exit code 3 if a check failed."""
    out = args.out or f"selftest-{args.target}.json"
    report = edgekd.selftest(
        args.bundle, target=args.target, device=args.device, frames=args.frames, out=out, progress=_told
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        _print(report)
        print(f"\nwrote {out}: send it back with your report")
    return OK if report.passed else FAILED


def _told(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _print(report: edgekd.SelftestReport) -> None:
    for line in report.health.board or report.health.accelerators[:3]:
        print(line)
    for session in report.sessions:
        print(
            f"{report.target} {session.precision}: {session.runtime} on {session.device}, computes in {session.compute}"
        )
    for check in report.checks:
        print(f"{check.precision:<6}{check.name:<10}{check.status:<9}{check.detail}")
