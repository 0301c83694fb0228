"""`edgekd export`: a bundle as an artifact for Mender, RAUC or SWUpdate, or as one TensorRT engine with suppression."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import edgekd
from edgekd.errors import UsageError

from ._board import add_name, board_options
from ._text import plain

if TYPE_CHECKING:
    import argparse

OK, NOT_MADE = 0, 4
FLEETS = ("mender", "rauc", "swupdate")


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
    add_name(parser)
    parser.add_argument("--python", default="python3", help="interpreter on the board that has edgekd")
    parser.add_argument("--restart", metavar="CMD", help="as in flash")
    parser.add_argument("--health", metavar="CMD", help="as in flash")
    parser.add_argument("--max-p99", type=float, metavar="MS", help="as in flash")
    parser.add_argument("--max-slowdown", type=float, metavar="SHARE", help="as in flash")
    parser.add_argument("--cert", metavar="PEM", help="the signer's certificate (RAUC; SWUpdate if it wants one)")
    parser.add_argument("--key", metavar="PEM", help="the signer's private key (RAUC; the others if they want one)")
    engine = parser.add_argument_group("with --to tensorrt: one engine from pixels to detections, for the GPU here")
    engine.add_argument("--precision", default="auto", help="fp32, fp16 or int8 (default: as load chooses)")
    engine.add_argument("--conf", type=float, help="least score, for good (default: the bundle's; as the next two)")
    engine.add_argument("--iou", type=float, help="most overlap")
    engine.add_argument("--max-det", type=int, metavar="N", help="rows of the outputs")
    engine.add_argument("--batch", type=int, default=1, metavar="N", help="largest batch (default 1)")
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
    report = edgekd.export(
        args.bundle, args.to, args.out, compatible=args.compatible, version=args.artifact_version,
        **board_options(args), restart=args.restart, health=args.health, max_p99_ms=args.max_p99,
        max_slowdown=args.max_slowdown, cert=args.cert, key=args.key,
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


def _engine(args: argparse.Namespace) -> int:
    others = ("compatible", "artifact_version", "restart", "health", "max_p99", "max_slowdown", "cert", "key")
    given = [name for name in others if getattr(args, name) is not None]
    if given:
        raise UsageError(f"--to tensorrt has no --{given[0].replace('_', '-')}: an engine is one file")
    report = edgekd.export_engine(
        args.bundle, args.out, precision=args.precision, conf=args.conf, iou=args.iou, max_det=args.max_det,
        batch=args.batch, progress=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
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
