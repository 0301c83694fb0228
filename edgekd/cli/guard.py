"""`edgekd guard`: on the board, before a service loads its model: end what was interrupted, leave what is damaged."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("guard", help="on the board: before a service starts", description=__doc__)
    parser.add_argument("name", nargs="?", default="model", help="of the model (default model)")
    parser.add_argument("--root", default="/var/lib/edgekd", help="folder of the models (default /var/lib/edgekd)")
    parser.add_argument(
        "--unit", action="store_true", help="print the lines that make systemd run this, and do nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Guard and print the path of the model; exit code 5 when there is none."""
    if args.unit:
        unit = edgekd.guard_unit(args.name, root=args.root)
        print(json.dumps({"unit": unit}) if args.json else unit, end="\n" if args.json else "")
        return 0
    found = edgekd.guard(args.name, root=args.root)
    if args.json:
        print(json.dumps({"model": found.model, "done": list(found.done)}))
        return 0
    for line in found.done:  # not among what a script takes for the path
        print(line, file=sys.stderr)
    print(found.model)
    return 0
