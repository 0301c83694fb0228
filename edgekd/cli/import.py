"""`edgekd import`: turn somebody else's detector into a bundle."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import edgekd

from ._text import plain, size, table

if TYPE_CHECKING:
    import argparse

EPILOG = """heads: nanodet, rtdetr, yolo11, yolo11-obb, yolov5, yolov8, yolov8-obb, yolox; generic: boxes and scores in
two outputs, named with --boxes and --scores. Outputs that do not fit the head are refused. Pixels are given to the
network as the head's authors trained it, unless --color, --mean and --std say otherwise. A sidecar gives the same by
the names of the options (head = "yolox", classes = "names.txt", images = "photos/", ...), paths relative to itself;
what is said twice is refused. A .tflite or OpenVINO file becomes a bundle that runs on that target alone."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "import", help="turn a detector from elsewhere into a bundle", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("model", help="model.onnx, model.tflite, or model.xml with model.bin beside it")
    parser.add_argument("--sidecar", metavar="FILE", help=".toml or .json file that says what the options here do not")
    parser.add_argument("--head", help="what its outputs mean, see below")
    parser.add_argument("--classes", metavar="FILE", help="class names by label, one a line")
    parser.add_argument(
        "--images", action="append", metavar="PATH",
        help="folder or image of what it is to see; the first four become the golden set",
    )  # fmt: skip
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the bundle to write")
    parser.add_argument("--name", help="of the model (default: the file's)")
    parser.add_argument("--size", metavar="HxW", help="of the input in pixels, 640 or 480x640, if the graph takes any")
    parser.add_argument("--color", choices=("rgb", "bgr"), help="order of the channels that the network wants")
    parser.add_argument("--mean", nargs=3, type=float, help="of its pixels, in 0..255 units")
    parser.add_argument("--std", nargs=3, type=float, help="of its pixels, in 0..255 units")
    parser.add_argument("--conf", type=float, help="default score of predict (default: 0.25)")
    parser.add_argument("--iou", type=float, help="default overlap of predict (default: the head's)")
    generic = parser.add_argument_group("head generic")
    generic.add_argument("--boxes", metavar="NAME", help="output (N, 4) or (N, 5)")
    generic.add_argument("--scores", metavar="NAME", help="output (N, classes)")
    generic.add_argument("--layout", choices=("xyxy", "xywh", "cxcywh", "xywhr"), help="of the boxes (default: xyxy)")
    generic.add_argument("--unit", choices=("pixels", "fraction"), help="of the boxes (default: pixels)")
    generic.add_argument(
        "--activation", choices=("none", "sigmoid"), help="still to be applied to the scores (default: none)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import and print what the bundle sees."""
    report = edgekd.import_model(
        args.model, args.out, sidecar=args.sidecar, head=_head(args), classes=args.classes, images=args.images,
        name=args.name, size=_size(args.size), color=args.color, mean=args.mean, std=args.std, conf=args.conf,
        iou=args.iou,
    )  # fmt: skip
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    return 0


def _head(args: argparse.Namespace) -> str | edgekd.GenericHead | None:
    """Return the head that was named, or None."""
    of_generic = {name: getattr(args, name) for name in ("boxes", "scores", "layout", "unit", "activation")}
    given = {name: value for name, value in of_generic.items() if value is not None}
    if args.head != "generic":
        if given:
            raise edgekd.errors.UsageError(f"{', '.join(f'--{name}' for name in given)}: only with --head generic")
        return None if args.head is None else str(args.head)
    if not args.boxes or not args.scores:
        raise edgekd.errors.UsageError("head generic wants --boxes NAME and --scores NAME")
    return edgekd.GenericHead(**given)


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if found is None:
        raise edgekd.errors.UsageError(f"--size {text}: expected 640, or height and width as 480x640")
    height, width = found[1], found[2] or found[1]
    return int(height), int(width)


def _print(report: edgekd.ImportReport) -> None:
    spec = report.input
    outputs = ", ".join(f"{plain(name)} {shape}" for name, shape in report.outputs.items())
    print(f"head     {report.head}, decoded from {outputs}")
    print(f"input    {spec.width}x{spec.height} px, {spec.color}, mean {spec.mean}, std {spec.std}\n")
    rows = [(plain(name), str(count), f"{best:.2f}") for name, (count, best) in report.images.items()]
    table(("image", f"objects above {report.conf:g}", "best score"), rows)
    if not any(count for count, _ in report.images.values()):
        print("\nNothing was found. If there is something to see: is it the right --head, --color, --mean, --std?")
    if report.artifact is not None:
        print(
            f"\nIt runs on {' '.join(report.artifact)} alone: there is no portable graph to build other targets from."
        )
    print(f"\nwrote {report.path}, {size(report.size_bytes)}")
