"""`edgekd rollback`: return a board to the version that it served before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import edgekd

from ._board import add_board, board_options

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("rollback", help="return a board to the version before", description=__doc__)
    add_board(parser)
    parser.add_argument("--to", metavar="RELEASE", help="one that `edgekd status` lists (default: the one before)")
    parser.add_argument("--restart", metavar="CMD", help="restarts your service on the board, afterwards")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="for a flash to end (default 30)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Roll back and say what is in service."""
    result = edgekd.rollback(args.device, **board_options(args), to=args.to, restart=args.restart, wait_s=args.wait)
    if args.json:
        print(json.dumps(result, indent=2))
    elif result["release"] == result["before"]:
        print(f"{args.device} has release {result['release']} of {args.name} in service already")
    else:
        print(
            f"{args.device} serves release {result['release']} of {args.name}, before: {result['before'] or 'nothing'}"
        )
        if args.restart is None:
            print("a service that has the other one open goes on with it until it is restarted")
    return 0
