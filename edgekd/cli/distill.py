"""`edgekd distill`: train a recipe's student against its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import edgekd

from .train import add_arguments, interrupted, options, show

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("distill", help="train a student against a teacher", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--cache", metavar="DIR", help="keep the teacher's features there; later runs need no teacher")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Distil and print where the result is and how good."""
    try:
        report = edgekd.distill(args.recipe, args.out, cache=args.cache, **options(args))
    except KeyboardInterrupt as stop:
        return interrupted(args, stop)
    return show(args, report)
