"""`edgekd export`: a bundle as an artifact for a fleet that Mender, RAUC or SWUpdate looks after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import edgekd

from ._board import add_name, board_options
from ._text import plain

if TYPE_CHECKING:
    import argparse

OK, NOT_MADE = 0, 4


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("export", help="an artifact for Mender, RAUC or SWUpdate", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("--to", required=True, metavar="KIND", help="mender, rauc or swupdate")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--compatible", required=True, help="boards that take it: device type (Mender), compatible, or BOARD:REVISION"
    )
    parser.add_argument("--artifact-version", metavar="TEXT", help="(default: name of the model and its digest)")
    add_name(parser)
    parser.add_argument("--python", default="python3", help="interpreter on the board that has edgekd")
    parser.add_argument("--restart", metavar="CMD", help="as in flash")
    parser.add_argument("--health", metavar="CMD", help="as in flash")
    parser.add_argument("--max-p99", type=float, metavar="MS", help="as in flash")
    parser.add_argument("--cert", metavar="PEM", help="the signer's certificate (RAUC; SWUpdate if it wants one)")
    parser.add_argument("--key", metavar="PEM", help="the signer's private key (RAUC; the others if they want one)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; exit code 4 where a program that makes the artifact is missing."""
    report = edgekd.export(
        args.bundle, args.to, args.out, compatible=args.compatible, version=args.artifact_version,
        **board_options(args), restart=args.restart, health=args.health, max_p99_ms=args.max_p99, cert=args.cert,
        key=args.key,
    )  # fmt: skip
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        for path in (*report.files, *([report.artifact] if report.artifact else [])):
            print(f"wrote {plain(path)}")
        for command in report.commands:
            print(f"{'ran' if report.artifact else 'run'}: {plain(command)}")
        print(f"on the board: {plain(report.on_board)}")
        if report.missing:
            print(report.missing)
    return OK if report.artifact else NOT_MADE
