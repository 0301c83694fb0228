"""`edgekd flash`: make a bundle the version that a board or a fleet serves, in a transaction that can stop anywhere."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import edgekd

from ._board import add_board, board_options
from ._fleet import Live, show
from ._text import plain

if TYPE_CHECKING:
    import argparse

OK, NOT_ALL = 0, 3
FLEET = ("canary", "batch", "stop_on", "parallel", "state")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("flash", help="put a bundle into service on a board", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    add_board(parser, optional=True)
    parser.add_argument("--fleet", metavar="TOML", help="flash every board that this file names, instead of one")
    parser.add_argument("--canary", type=int, metavar="N", help="fleet: boards of the first stage (default 1)")
    parser.add_argument("--batch", metavar="N|N%", help="fleet: boards of each further stage (default 10%%)")
    parser.add_argument("--stop-on", type=int, metavar="N", help="fleet: failures that end it (default 1)")
    parser.add_argument("--parallel", type=int, metavar="N", help="fleet: boards flashed at once (default 8)")
    parser.add_argument("--state", metavar="FILE", help="fleet: what happened, to go on from (default TOML.state.json)")
    parser.add_argument(
        "--build", action="append", default=[], metavar="TARGET[:PRECISION]",
        help="build this on the board, before the tests; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--require", action="append", default=[], metavar="FACT=VALUE",
        help="the board must have it: l4t=36.4, python=3.10, board, edgekd, machine, power_mode, sm, tensorrt",
    )  # fmt: skip
    parser.add_argument("--max-p99", type=float, metavar="MS", help="most that the 99th percentile of predict may take")
    parser.add_argument(
        "--max-slowdown", type=float, default=0.5, metavar="SHARE",
        help="how much slower the median may be than in the version in service (default 0.5: half as slow again)",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=100, help="of predict that are timed (default 100)")
    parser.add_argument("--watch", type=float, default=5.0, metavar="S", help="seconds after the switch (default 5)")
    parser.add_argument("--restart", metavar="CMD", help="restarts your service on the board, after the switch")
    parser.add_argument("--health", metavar="CMD", help="must succeed on the board during the watch")
    parser.add_argument("--allow-downgrade", action="store_true", help="take a bundle older than the one in service")
    parser.add_argument("--keep", type=int, default=3, metavar="N", help="releases to keep on the board (default 3)")
    parser.add_argument("--quota", type=int, metavar="MIB", help="that they may take together (default: no limit)")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="for another flash to end (default 30)")
    parser.add_argument(
        "--bootstrap", metavar="WHEELS", help="first install edgekd on the board from this folder of wheels, offline"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Flash one board or a fleet; print what happens."""
    given = {name: getattr(args, name) for name in FLEET if getattr(args, name) is not None}
    if args.fleet is not None:
        if args.device is not None:
            raise edgekd.errors.UsageError(f"--fleet names the boards: leave {args.device} out, or --fleet")
        return _fleet(args, given)
    if args.device is None:
        raise edgekd.errors.UsageError("which board? edgekd flash model.bin user@board, or --fleet fleet.toml")
    if given:
        listed = ", ".join("--" + name.replace("_", "-") for name in given)
        raise edgekd.errors.UsageError(f"{listed}: for a fleet only, together with --fleet fleet.toml")
    report = edgekd.flash(args.bundle, args.device, **_options(args), progress=_ignore if args.json else _tell)
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif report.changed:
        share = report.sent_bytes / report.size_bytes
        print(f"{report.device} serves {report.model}: release {report.release}, before: {report.before or 'nothing'}")
        print(f"sent {report.sent_bytes} of {report.size_bytes} bytes ({share:.0%})")
    else:
        print(f"{report.device} has release {report.release} in service already")
    return OK


def _fleet(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Flash a fleet; exit code 3 unless every board serves the bundle."""
    live = Live(terminal=sys.stdout.isatty())
    told = None if args.json else live.told
    try:
        found = edgekd.flash_fleet(args.bundle, args.fleet, **given, **_options(args), progress=told)
    finally:
        live.done()
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        show(found)
    return OK if found.complete else NOT_ALL


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `flash`, of one board or of each."""
    return {
        **board_options(args), "build": args.build, "require": _facts(args.require), "max_p99_ms": args.max_p99,
        "max_slowdown": args.max_slowdown, "runs": args.runs, "watch_s": args.watch, "restart": args.restart,
        "health": args.health, "allow_downgrade": args.allow_downgrade, "keep": args.keep,
        "quota_bytes": 1 << 40 if args.quota is None else args.quota << 20, "wait_s": args.wait,
        "bootstrap": args.bootstrap,
    }  # fmt: skip


def _facts(words: list[str]) -> dict[str, str]:
    for word in words:
        if not all(word.partition("=")):
            raise edgekd.errors.UsageError(f"--require wants FACT=VALUE, for example l4t=36.4; got {word!r}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _ignore(_step: edgekd.FlashStep) -> None:
    """Print nothing: the report has it all."""


def _tell(step: edgekd.FlashStep) -> None:
    """Print a step when it has ended; on a terminal also what is going on."""
    if step.state in ("begun", "running"):
        if sys.stdout.isatty():
            print(f"\r\033[K{step.name:<10} ... {plain(step.detail)}", end="", flush=True)
    else:
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        print(f"{clear}{step.name:<10} {step.state:<7}{step.seconds:7.2f} s  {plain(step.detail)}", flush=True)
