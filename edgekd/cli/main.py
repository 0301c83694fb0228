"""`edgekd`: one command a verb; each lives in the file of its name beside this one."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING

import edgekd

from ._parser import Parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COMMANDS = (
    "demo",
    "train",
    "distill",
    "import",
    "build",
    "eval",
    "predict",
    "serve",
    "thresholds",
    "profile",
    "pick",
    "inspect",
    "verify",
    "doctor",
    "selftest",
    "data",
    "flash",
    "rollback",
    "status",
    "guard",
    "keys",
    "export",
)

EXIT_CODES = (
    "exit codes: 0 ok, 2 usage, 3 a gate failed (accuracy, parity, golden), 4 environment, 5 device, 130 interrupted"
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = Parser(prog="edgekd", description=edgekd.__doc__, epilog=EXIT_CODES)
    root.add_argument("--version", action="version", version=f"edgekd {edgekd.__version__}")
    root.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    subparsers = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"edgekd.cli.{name}").add(subparsers)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except edgekd.errors.EdgekdError as error:
        if args.traceback:
            traceback.print_exc()
        print(f"edgekd {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"edgekd {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `edgekd inspect model.bin | head`
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
