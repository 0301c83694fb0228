"""`edgekd export`: a bundle as an artifact for Mender, RAUC or SWUpdate, or as one TensorRT engine with suppression."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import edgekd
from edgekd.errors import UsageError

from ._text import plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

OK, NOT_MADE = 0, 4
FLEETS = ("mender", "rauc", "swupdate")
OF_ENGINES = ("precision", "conf", "iou", "max_det", "batch")
OF_FLEETS = (
    "compatible", "artifact_version", "name", "root", "python", "restart", "health", "max_p99", "max_slowdown", "cert",
    "key",
)  # fmt: skip


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "export", help="an artifact for Mender, RAUC or SWUpdate, or one engine", description=__doc__
    )
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("--to", required=True, metavar="KIND", help="mender, rauc, swupdate or tensorrt")
    parser.add_argument("--out", required=True, metavar="PATH", help="folder to write; of tensorrt the engine's file")
    parser.add_argument(
        "--compatible",
        help="boards that take it: device type (Mender), compatible, or BOARD:REVISION; all but tensorrt",
    )
    parser.add_argument("--artifact-version", metavar="TEXT", help="(default: name of the model and its digest)")
    parser.add_argument("--name", help="of the model on the board (default model)")
    parser.add_argument("--root", help="folder on the board (default /var/lib/edgekd)")
    parser.add_argument("--python", help="interpreter on the board that has edgekd (default python3)")
    parser.add_argument("--restart", metavar="CMD", help="as in flash")
    parser.add_argument("--health", metavar="CMD", help="as in flash")
    parser.add_argument("--max-p99", type=float, metavar="MS", help="as in flash")
    parser.add_argument("--max-slowdown", type=float, metavar="SHARE", help="as in flash")
    parser.add_argument("--cert", metavar="PEM", help="the signer's certificate (RAUC; SWUpdate if it wants one)")
    parser.add_argument("--key", metavar="PEM", help="the signer's private key (RAUC; the others if they want one)")
    engine = parser.add_argument_group("with --to tensorrt: one engine from pixels to detections, for the GPU here")
    engine.add_argument("--precision", help="fp32, fp16 or int8 (default: as load chooses)")
    engine.add_argument("--conf", type=float, help="least score, for good (default: the bundle's; as the next two)")
    engine.add_argument("--iou", type=float, help="most overlap")
    engine.add_argument("--max-det", type=int, metavar="N", help="rows of the outputs")
    engine.add_argument("--batch", type=int, metavar="N", help="largest batch (default 1)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; exit code 4 where a program that makes the artifact is missing."""
    if args.to == "tensorrt":
        return _engine(args)
    if args.to not in FLEETS:
        raise UsageError(f"nothing is exported to {args.to!r}; possible: {', '.join(FLEETS)}, tensorrt")
    if args.compatible is None:
        raise UsageError(f"--to {args.to} wants --compatible: the boards that take it")
    _refuse(args, OF_ENGINES, "that is chosen on the board, at every predict")
    report = edgekd.export(
        args.bundle, args.to, args.out, compatible=args.compatible, version=args.artifact_version,
        restart=args.restart, health=args.health, max_p99_ms=args.max_p99, max_slowdown=args.max_slowdown,
        cert=args.cert, key=args.key, **_given(args, ("name", "root", "python")),
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


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return those options that were given: the verb knows the others' defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in _given(args, names):
        raise UsageError(f"--to {args.to} has no --{name.replace('_', '-')}: {why}")


def _engine(args: argparse.Namespace) -> int:
    _refuse(args, OF_FLEETS, "an engine is one file")
    report = edgekd.export_engine(
        args.bundle, args.out, **_given(args, OF_ENGINES), progress=lambda line: print(line, file=sys.stderr)
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
        return OK
    taken = report.input
    print(f"wrote {plain(report.engine)}, {report.size_bytes / 2**20:.1f} MiB, {report.precision}")
    print(f"for {plain(report.gpu)} and {plain(report.runtime)} alone, batch 1 to {report.batch}")
    low, high = taken["range"]
    shape = "x".join(map(str, taken["shape"]))
    print(f"in   {plain(taken['name'])} {shape}, letterboxed pixels, {taken['color']}, {low} to {high}, float32")
    for name, sides in report.outputs.items():
        print(f"out  {name} {'x'.join(map(str, sides))}")
    print(f"suppressed inside: score above {report.conf:g}, overlap at most {report.iou:g}")
    return OK
