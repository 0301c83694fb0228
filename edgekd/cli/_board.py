"""What the commands that talk to a board have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_board(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the board and what names a model on it."""
    parser.add_argument(
        "device", nargs="?" if optional else None, help="user@board, an alias of ~/.ssh/config, or local (this machine)"
    )
    add_name(parser)
    parser.add_argument(
        "--python", default="python3", help="interpreter on the board that has edgekd (default python3)"
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add where to measure: an engine here, or a board."""
    parser.add_argument(
        "--device", default="auto", help="engine, as in predict (default auto); or user@board: measure there"
    )
    parser.add_argument(
        "--on", metavar="BOARD", help="measure there: user@board or an alias of ~/.ssh/config; --device is its engine"
    )
    parser.add_argument("--python", default="python3", help="interpreter on the board that has edgekd")


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add what names a model on a board."""
    parser.add_argument("--name", default="model", help="of the model on the board (default model)")
    parser.add_argument("--root", default="/var/lib/edgekd", help="folder on the board (default /var/lib/edgekd)")


def board_options(args: argparse.Namespace) -> dict[str, str]:
    """Return these as arguments of a verb."""
    return {"name": args.name, "root": args.root, "python": args.python}
