"""`edgekd data`: check a set (`lint`), make a synthetic one (`synth`), cut images (`tile`), annotate them (`label`)."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import edgekd

from ._text import class_list, plain

if TYPE_CHECKING:
    import argparse

PLACES = 3  # shown of each finding; --json has all
EXIT_FINDINGS = 3
FORMATS = "auto, coco, coco-obb, voc, yolo, yolo-obb, dota, dior, hrsc, ucas, mvtec, btad, visa (default auto)"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its subcommands."""
    parser = subparsers.add_parser("data", help="check, make, tile or label a data set", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_lint(verbs)
    _add_synth(verbs)
    _add_tile(verbs)
    _add_label(verbs)


def _add_lint(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lint = verbs.add_parser("lint", help="check boxes, classes, files and leaks between splits; exit 3 on errors")
    lint.add_argument("paths", nargs="+", metavar="PATH", help="splits, training set first: JSON, list files, folders")
    lint.add_argument("--format", default="auto", help=FORMATS)
    lint.add_argument("--split", action="append", default=[], help="a split that each PATH holds; may be repeated")
    lint.add_argument("--json", action="store_true", help="print the report as JSON, with every place")
    lint.set_defaults(run=run_lint)


def _add_synth(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    synth = verbs.add_parser("synth", help="write a seeded synthetic data set")
    synth.add_argument("kind", help="xray, aerial or surface")
    synth.add_argument("folder", help="a new or empty folder")
    for split, count in (("train", 300), ("val", 100), ("test", 100)):
        synth.add_argument(f"--{split}", type=int, default=count, help=f"number of {split} images (default {count})")
    synth.add_argument("--seed", type=int, default=0, help="the same seed writes the same pixels (default 0)")
    synth.add_argument("--size", type=int, help="long side in pixels (default: the kind's own)")
    synth.add_argument("--json", action="store_true", help="print the result as JSON")
    synth.set_defaults(run=run_synth)


def _add_tile(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tile = verbs.add_parser("tile", help="cut large annotated images into overlapping tiles, as a set of its own")
    tile.add_argument("data", help="a set of boxes or oriented boxes: JSON, list file, folder")
    tile.add_argument("out", help="a new or empty folder, for tiles.json (or SPLIT.json) and images/")
    tile.add_argument("--size", type=int, default=1024, help="side of a window in pixels (default 1024)")
    tile.add_argument("--overlap", type=int, default=200, help="of neighbouring windows in pixels (default 200)")
    tile.add_argument(
        "--rates", type=float, nargs="+", default=[1.0], metavar="RATE",
        help="scales to cut at: at 0.5 a window is twice as large in pixels of the image; none is resized (default 1)",
    )  # fmt: skip
    tile.add_argument("--keep", type=float, default=0.7, help="least share of an object on a tile (default 0.7)")
    tile.add_argument("--pad", type=int, metavar="GREY", help="fill windows larger than their image (default: do not)")
    tile.add_argument("--format", default="auto", help=FORMATS)
    tile.add_argument("--split", help="where the data holds several: train, val or test")
    tile.add_argument("--json", action="store_true", help="print the result as JSON")
    tile.set_defaults(run=run_tile)


def _add_label(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    label = verbs.add_parser("label", help="annotate images with what a bundle finds on them, as COCO JSON")
    label.add_argument("bundle", help="model.bin")
    label.add_argument("images", nargs="+", help="image files, or folders of them")
    label.add_argument("--out", required=True, metavar="FILE", help="COCO JSON to write")
    label.add_argument("--conf", type=float, default=0.5, help="objects that score above this (default 0.5)")
    label.add_argument("--classes", help="only these, comma-separated names or indices")
    label.add_argument("--tile", type=int, metavar="PX", help="as in predict")
    label.add_argument("--overlap", type=int, metavar="PX", help="as in predict")
    label.add_argument("--device", default="auto", help="as in predict")
    label.add_argument("--precision", default="auto", help="as in predict")
    label.add_argument("--json", action="store_true", help="print the result as JSON")
    label.set_defaults(run=run_label)


def run_lint(args: argparse.Namespace) -> int:
    """Print the report; 3 when it holds an error."""
    report = edgekd.data_lint(args.paths, format=args.format, splits=args.split, progress=_progress)
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        _print_splits(report)
        _print_findings(report)
    return 0 if report.ok else EXIT_FINDINGS


def run_synth(args: argparse.Namespace) -> int:
    """Write the set and say where."""
    counts = {"train": args.train, "val": args.val, "test": args.test}
    folder = edgekd.data_synth(args.kind, args.folder, **counts, seed=args.seed, size=args.size, progress=_progress)
    if args.json:
        print(json.dumps({"folder": str(folder), "kind": args.kind, "seed": args.seed, **counts}))
    else:
        print(f"{folder}: {args.kind}, " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    return 0


def run_tile(args: argparse.Namespace) -> int:
    """Write the tiles and say what became of the objects."""
    names = ("size", "overlap", "rates", "keep", "pad", "format", "split")
    report = edgekd.data_tile(args.data, args.out, **{name: getattr(args, name) for name in names}, progress=_progress)
    if args.json:
        print(json.dumps(report.to_dict()))
        return 0
    print(f"{report.annotations}: {report.tiles} tiles of {report.images} images, {report.objects} objects")
    if report.cut or report.lost:
        print(
            f"{report.cut} objects are whole on no tile (difficult where they are), {report.lost} are on none: "
            "a larger --overlap keeps more"
        )
    return 0


def run_label(args: argparse.Namespace) -> int:
    """Write the annotations and say what they hold."""
    report = edgekd.data_label(
        args.bundle, args.images, args.out, conf=args.conf, classes=class_list(args.classes), tile=args.tile,
        overlap=args.overlap, device=args.device, precision=args.precision, progress=_progress,
    )  # fmt: skip
    if args.json:
        print(json.dumps(dataclasses.asdict(report)))
        return 0
    objects = ", ".join(f"{count} {plain(name)}" for name, count in report.objects.items() if count) or "nothing"
    print(f"{report.path}: {report.images} images, {report.empty} of them without objects; {objects}")
    for file, reason in report.unreadable.items():
        print(f"left out: {plain(file)}: {plain(reason)}")
    return 0


def _progress(done: int, total: int) -> None:
    """Count on one line of the terminal; nothing where there is none."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _print_splits(report: edgekd.LintReport) -> None:
    width = max((len(item.name) for item in report.splits), default=5)
    print(f"{'split':<{width}}  {'task':<7}  {'images':>6}  {'objects':>7}  {'empty':>5}  classes")
    for item in report.splits:
        classes = ", ".join(f"{name} {count}" for name, count in item.classes.items())
        numbers = f"{item.images:>6}  {item.objects:>7}  {item.empty:>5}"
        print(f"{item.name:<{width}}  {item.task:<7}  {numbers}  {classes}")


def _print_findings(report: edgekd.LintReport) -> None:
    for item in report.findings:
        print(f"\n{item.severity}: {item.kind}: {item.message}\n  in {item.split}")
        for place in item.places[:PLACES]:
            print(f"    {place}")
        if len(item.places) > PLACES:
            print(f"    and {len(item.places) - PLACES} more (--json lists all)")
    warnings = len(report.findings) - len(report.errors)
    print(f"\n{len(report.errors)} errors, {warnings} warnings")
