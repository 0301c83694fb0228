"""`edgekd pick`: of several bundles the most accurate one that holds a latency budget, measured where it is to run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import edgekd

from ._board import add_place
from ._text import plain, size, table

if TYPE_CHECKING:
    import argparse

    from edgekd._pick import Candidate

OK, NONE_HOLDS = 0, 3


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("pick", help="choose a bundle by a latency budget", description=__doc__)
    parser.add_argument("bundles", nargs="+", metavar="model.bin", help="bundles to choose from")
    parser.add_argument(
        "--budget", required=True, metavar="TEXT", help='"8 ms p99": a time and mean, p50, p90, p99 or max of predict'
    )
    parser.add_argument("--metric", help="figure of accuracy in the receipts (default: AP; anomaly: image_AUROC)")
    parser.add_argument(
        "--split", help="of the data that it is of (default: test, val or another, the first that all have)"
    )
    add_place(parser)
    parser.add_argument("--precision", default="auto", help="as in predict (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument("--images", action="append", metavar="PATH", help="images or folders (default: the golden set)")
    parser.add_argument("--calls", type=int, default=300, help="measure so many of each bundle (default 300)")
    parser.add_argument("--fps", type=float, help="calls a second, as a camera makes them (default: no pause)")
    parser.add_argument("--report", metavar="FILE", help="write a page with the Pareto front, HTML")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, choose and print; exit code 3 where no bundle holds the budget."""
    found = edgekd.pick(
        args.bundles, args.budget, metric=args.metric, split=args.split, device=args.device, precision=args.precision,
        threads=args.threads, images=args.images, calls=args.calls, fps=args.fps, on=args.on, python=args.python,
        report=args.report, progress=_tell if sys.stderr.isatty() else None,
    )  # fmt: skip
    if args.json:
        print(json.dumps(found.to_dict()))
    else:
        _print(found)
        if args.report:
            print(f"wrote {args.report}")
    return OK if found.chosen is not None else NONE_HOLDS


def _tell(path: str) -> None:
    print(f"measuring {plain(path)}", file=sys.stderr, flush=True)


def _print(found: edgekd.PickReport) -> None:
    where = "" if found.device == "local" else f" ({plain(found.device)})"
    data = f"{found.metric} on {found.split}, data {found.data_sha256[:16]}"
    print(f"{plain(found.machine)}{where}; {plain(data)}, as the receipts say\n")
    rows = []
    for item in found.candidates:
        times = [f"{item.latency_ms[name]:.2f} ms" if item.latency_ms else "-" for name in ("p50", "p90", "p99", "max")]
        ran = f"{item.session['target']} {item.session['precision']}" if item.session else "-"
        marks = _said(item) + (", front" if item.front else "") + (" <- chosen" if item.path == found.chosen else "")
        value = f"{100 * item.accuracy.value:.1f} %"
        rows.append((plain(item.path), value, *times, size(item.size_bytes), ran, marks))
    table(("bundle", found.metric, "p50", "p90", "p99", "max", "size", "artifact", ""), rows)
    for item in found.candidates:
        for problem in item.problems:
            print(f"{'INVALID' if item.latency_ms else 'not measured'}: {plain(item.path)}: {problem}")
    chosen = next((item for item in found.candidates if item.path == found.chosen), None)
    if chosen is not None and chosen.interval_ms is not None and not chosen.surely:
        between = f"{chosen.interval_ms[0]:.2f} to {chosen.interval_ms[1]:.2f} ms"
        print(
            f"{plain(chosen.path)} holds {found.budget} as measured, but its 95 % interval is {between}: measure more "
            "calls (--calls), or take one with room to spare"
        )
    if found.chosen is None:
        share = found.over_ms / edgekd.Budget.parse(found.budget).ms
        over = f"{found.over_ms:.2f} ms ({share:.0%}) above it"
        print(f"none holds {found.budget}: {plain(found.closest)} is the fastest, {over}")


def _said(item: Candidate) -> str:
    """Return whether a bundle holds the budget, in words."""
    if not item.latency_ms:
        return "does not run"
    if not item.holds:
        return "over"
    return "holds" if item.surely else "may hold"
