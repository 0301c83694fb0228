"""`edgekd predict`: find objects or anomalous regions in pictures, print them, and save annotated copies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import edgekd

from ._text import class_list

if TYPE_CHECKING:
    import argparse

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("predict", help="find objects or anomalies in pictures", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--device", default="auto", help="auto, cpu, openvino, tflite, intel:npu, ... (default auto)")
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16, int8 (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine (default: its own choice)")
    parser.add_argument("--conf", type=float, help="score threshold in [0, 1] (default: the bundle's)")
    parser.add_argument(
        "--iou", type=float, help="overlap above which the worse box is dropped (default: the bundle's)"
    )
    parser.add_argument("--max-det", type=int, help="most objects per image (default: the bundle's, for each tile)")
    parser.add_argument("--classes", help="only these classes, comma-separated names or indices")
    parser.add_argument(
        "--tile", type=int, metavar="PX", help="split larger images into windows of PX x PX pixels (default: do not)"
    )
    parser.add_argument(
        "--overlap", type=int, metavar="PX", help="pixels that neighbouring tiles share (default: a fifth of a tile)"
    )
    parser.add_argument(
        "--ungated", action="store_true", help="of an anomaly network: show regions of normal images too"
    )
    parser.add_argument("--save", metavar="DIR", help="write annotated copies here")
    parser.add_argument("--json", action="store_true", help="one JSON object per image and line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict each image and print its objects."""
    paths = _expand(args.images)
    copies = _copies(paths) if args.save else {}
    with edgekd.load(args.bundle, device=args.device, precision=args.precision, threads=args.threads) as detector:
        classes = class_list(args.classes)
        print(f"{args.bundle}: {detector.info.reason}", file=sys.stderr)
        for path in paths:
            found = detector.predict(
                path, conf=args.conf, iou=args.iou, max_det=args.max_det, classes=classes,
                tile=args.tile, overlap=args.overlap, ungated=args.ungated,
            )  # fmt: skip
            if args.json:
                print(json.dumps({"image": str(path), **found.to_dict()}))
            else:
                _print(path, found)
            if args.save:
                _save(found, path, Path(args.save) / copies[path])
    return 0


def _expand(items: list[str]) -> list[Path]:
    """Return the files named, folders replaced by the images in them."""
    paths: list[Path] = []
    for item in items:
        path = Path(item)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise edgekd.errors.ImageError(
                    f"no image in the folder {path} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
                )
            paths += inside
        else:
            paths.append(path)
    return paths


def _print(path: Path, found: edgekd.Detections) -> None:
    total = found.timings_ms["total"]
    print(f"{path}  {found.image_size[1]}x{found.image_size[0]} px  {_summary(found)}  {total:.1f} ms")
    width = max((len(name) for name in found.names), default=0)
    for box, score, name in zip(found.boxes.tolist(), found.scores.tolist(), found.names, strict=True):
        numbers = " ".join(f"{value:8.1f}" for value in box[:4])
        angle = f" {box[4]:+.3f} rad" if len(box) == 5 else ""
        print(f"  {name:<{width}}  {score:.3f}  {numbers} px{angle}")


def _summary(found: edgekd.Detections) -> str:
    if found.score is None or found.thresholds is None:
        return f"{len(found)} objects"
    verdict = "ANOMALOUS" if found.is_anomalous else "normal"
    score = f"score {found.score:.4g} (threshold {found.thresholds.image:.4g}; calibrated {found.score01:.2f})"
    return f"{verdict}  {score}  {len(found)} regions"


def _copies(paths: list[Path]) -> dict[Path, str]:
    """Return a file name for each image's annotated copy; images of one name in two folders carry the folder's."""
    stems = [path.stem for path in paths]
    names = {
        path: f"{path.stem}.png" if stems.count(path.stem) == 1 else f"{path.parent.name}-{path.stem}.png"
        for path in paths
    }
    if len(set(names.values())) < len(names):
        raise edgekd.errors.UsageError("--save: two images would be saved under one name; use two folders and calls")
    return names


def _save(found: edgekd.Detections, path: Path, target: Path) -> None:
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(found.plot(path)).save(target)
    print(f"  wrote {target}", file=sys.stderr)
