"""`edgekd profile`: what a bundle costs here or on a board; `edgekd profile compare A.json B.json`: is it slower."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import edgekd
from edgekd._container import check_place

from ._board import add_place
from ._text import plain, table

if TYPE_CHECKING:
    import argparse

OK, SLOWER = 0, 3
PARTS = 12  # of a network that are printed
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("profile", help="measure latency, here or on a board", description=__doc__)
    parser.add_argument("what", nargs="+", metavar="model.bin", help="the bundle; or: compare A.json B.json")
    add_place(parser)
    parser.add_argument("--precision", default="auto", help="as in predict (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument("--images", action="append", metavar="PATH", help="images or folders (default: the golden set)")
    parser.add_argument("--calls", type=int, default=300, help="measure at least so many (default 300)")
    parser.add_argument("--soak", metavar="TIME", default="0s", help="measure at least so long, 90s, 10m, 2h")
    parser.add_argument("--fps", type=float, help="calls a second, as a camera makes them (default: no pause)")
    parser.add_argument(
        "--layers", type=int, default=20, metavar="RUNS", help="runs that time the layers, after the others; 0: none"
    )
    parser.add_argument("--receipt", action="store_true", help="write the figures into the bundle")
    parser.add_argument("--out", metavar="FILE", help="write the profile as JSON: raw samples, conditions, versions")
    parser.add_argument("--report", metavar="FILE", help="write a page, HTML")
    parser.add_argument(
        "--tolerance", type=float, default=3.0, metavar="PERCENT", help="compare: growth that is accepted (default 3)"
    )
    parser.add_argument("--json", action="store_true", help="print the profile, or the comparison, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure or compare, and print."""
    if args.what[0] == "compare":
        return _compare(args)
    if len(args.what) != 1:
        raise edgekd.errors.UsageError(f"one bundle at a time, got {len(args.what)}; or: compare A.json B.json")
    for path in (args.out, args.report):
        if path:
            check_place(Path(path))  # before the minutes that a soak takes
    found = edgekd.profile(
        args.what[0], device=args.device, precision=args.precision, threads=args.threads, images=args.images,
        calls=args.calls, seconds=_seconds(args.soak), fps=args.fps, layers=args.layers, on=args.on, python=args.python,
        progress=_tell if sys.stderr.isatty() else None,
    )  # fmt: skip
    if args.out:
        found.write(args.out)
    if args.report:
        edgekd.profile_page(found, args.report)
    receipt = edgekd.profile_receipt(args.what[0], found) if args.receipt else None
    if args.json:
        print(json.dumps(found.to_dict()))
        return OK
    _print(found)
    for path in (args.out, args.report):
        if path:
            print(f"wrote {path}")
    if receipt is not None:
        print(f"wrote {len(receipt.rows)} figures into the receipts of {receipt.path}")
        if receipt.signature_dropped:
            print(f"its signature is gone, sign it again: edgekd keys sign {receipt.path} --key KEY")
    return OK


def _compare(args: argparse.Namespace) -> int:
    if len(args.what) != 3:
        raise edgekd.errors.UsageError(f"compare wants two profiles, got {len(args.what) - 1}")
    found = edgekd.profile_compare(args.what[1], args.what[2], tolerance=args.tolerance / 100)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
        return SLOWER if found.slower else OK
    rows = [
        (
            f"p{each}",
            f"{item.before:.2f} ms",
            f"{item.after:.2f} ms",
            f"{100 * item.low:+.1f} to {100 * item.high:+.1f} %",
            _verdict(found, each),
        )
        for each, item in found.changes.items()
    ]
    table(("predict", "before", "after", "change, 95 % interval", "verdict"), rows)
    for note in found.notes:
        print(f"note: {plain(note)}")
    if found.slower:
        print(f"slower by more than {args.tolerance:g} %: {_percentiles(found.slower)}")
    if found.unclear:
        print(
            f"unclear whether slower by more than {args.tolerance:g} %: {_percentiles(found.unclear)}; "
            "profile both with more --calls, and nothing else running"
        )
    return SLOWER if found.slower else OK


def _verdict(found: edgekd.ProfileComparison, percentile: int) -> str:
    if percentile in found.slower:
        return "slower"
    if percentile in found.faster:
        return "faster"
    return "unclear" if percentile in found.unclear else f"not slower by {100 * found.tolerance:g} %"


def _percentiles(which: tuple[int, ...]) -> str:
    return ", ".join(f"p{each}" for each in which)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise edgekd.errors.UsageError(f"--soak {text}: expected a number and s, m or h: 90s, 10m, 2h")
    return float(found[1]) * UNITS[found[2]]


def _tell(share: float, calls: int) -> None:
    end = "\n" if share >= 1 else ""
    print(f"\r{100 * share:3.0f} %  {calls} calls", end=end, file=sys.stderr, flush=True)


def _print(found: edgekd.Profile) -> None:
    ran = found.session
    computes = f"computes in {ran['compute']} on {ran['device']}, {ran['runtime']}"
    where = "" if found.device == "local" else f" on {plain(found.device)}"
    print(f"{plain(found.name)}{where}: {ran['target']} {ran['precision']}, {computes}")
    pace = f"{found.fps:g} calls a second" if found.fps else "one call after the other"
    print(f"{len(found.start_s)} calls, {pace}; {plain(found.images)}; {plain(found.machine['processor'])}\n")
    head = ("stage", "mean", "p50", "p90", "p99", "max", "jitter")
    rows = [
        (name, *(f"{value:.3f} ms" for value in (item.mean, item.p50, item.p90, item.p99, item.max, item.jitter)))
        for name, item in found.summary.items()
    ]
    table(head, rows)
    memory = found.peak_memory_bytes / 2**20
    print(f"\nload {found.load_ms:.0f} ms, first call {found.first_ms:.1f} ms, peak memory {memory:.0f} MiB")
    for rail, energy in found.energy_mj().items():
        print(f"energy {plain(rail)}: {energy:.1f} mJ a call, idling included")
    _print_layers(found)
    for problem in found.problems:
        print(f"INVALID: {problem}")


def _print_layers(found: edgekd.Profile) -> None:
    """Print the parts of the network that take longest; the JSON and the page have every layer."""
    if not found.layers:
        print(f"no time by layer: {plain(found.layers_missing)}")
        return
    parts = found.modules_ms()
    total = sum(parts.values())
    rows = [(plain(name), f"{ms:.3f} ms", f"{100 * ms / total:.0f} %") for name, ms in list(parts.items())[:PARTS]]
    print(f"\nthe network alone, {len(found.layers)} layers, by the runtime's own clocks: {total:.3f} ms")
    table(("part of the network", "mean", "share"), rows)
    rest = list(parts.values())[PARTS:]
    if rest:
        print(f"and {len(rest)} more, {sum(rest):.3f} ms together")
