"""`edgekd distill`: train a recipe's student against its teacher."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import edgekd

from ._comparison import show_comparisons
from .train import add_arguments, interrupted, options, show

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("distill", help="train a student against a teacher", description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="keep the teacher's features there; later runs need no teacher, or its head alone",
    )
    parser.add_argument(
        "--receipt",
        action="store_true",
        help="also train the student without distillation, and both for every seed, in DIR/receipt, and put into the "
        "bundle what distillation changed and whether that is more than noise; runs that are done are not repeated",
    )
    parser.add_argument(
        "--seeds",
        type=_numbers,
        metavar="N,N,...",
        help="of the receipt, the recipe's own among them, at least 2 for a spread (default: that one and the next 2)",
    )
    parser.add_argument(
        "--explain",
        type=int,
        nargs="?",
        const=4,
        default=0,
        metavar="N",
        help="write DIR/explain/index.html: what each method compares, on N training images (default 4), before the "
        "first step and again when training is done; of a finished run, only the page is written",
    )
    parser.add_argument(
        "--qat",
        metavar="TARGET",
        help="then train the finished student on, rounded to int8 as TARGET rounds (see `edgekd doctor`), in "
        "DIR/qat-TARGET; the bundle there is the one to build with --precision int8",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Distil and print where the result is and how good."""
    try:
        report = edgekd.distill(args.recipe, args.out, **options(args), **_own_options(args))
    except KeyboardInterrupt as stop:
        return interrupted(args, stop, _typed(args))
    code = show(args, report)
    if not args.json and os.environ.get("RANK", "0") == "0":
        show_comparisons(report.comparisons)
    return code


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of "0,1,2"; argparse says what was wrong."""
    return tuple(int(word) for word in text.split(","))


_numbers.__name__ = "list of numbers like 0,1,2"  # argparse: invalid ... value


def _own_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments that `train` does not have, where given."""
    names = ("cache", "receipt", "seeds", "explain", "qat")
    return {name: value for name in names if (value := getattr(args, name))}


def _typed(args: argparse.Namespace) -> str:
    cache = f" --cache {args.cache}" if args.cache else ""
    seeds = f" --seeds {','.join(map(str, args.seeds))}" if args.seeds else ""
    explain = f" --explain {args.explain}" if args.explain else ""
    qat = f" --qat {args.qat}" if args.qat else ""
    return f"{cache}{' --receipt' if args.receipt else ''}{seeds}{explain}{qat}"
