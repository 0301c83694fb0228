"""`edgekd predict`: find objects or anomalies in pictures, videos and cameras; print them, save annotated copies."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgekd

from ._text import class_list
from ._video import SUFFIX, Pace, VideoFile, with_fps

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("predict", help="find objects or anomalies in pictures", description=__doc__)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="image files or folders; a video, 'shots/*.jpg', a camera's number, /dev/video0, rtsp://..., ...",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, openvino, tflite, intel:npu, ... (default auto)")
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16, w8a32, int8 (default auto)")
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
    parser.add_argument(
        "--mode", default="latency", help="latency, or throughput: several pictures at once (default latency)"
    )
    parser.add_argument("--cache", metavar="DIR", help="keep what the engine compiles here, so that it starts faster")
    parser.add_argument("--save", metavar="DIR|FILE.mp4", help="write annotated copies here, or one video")
    parser.add_argument("--show-fps", action="store_true", help="say how many pictures a second, on what is saved too")
    parser.add_argument(
        "--json", nargs="?", const="lines", choices=["lines"], help="one JSON object per picture and line, as they come"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict each picture and print its objects."""
    if args.save:
        _keep_sources(Path(args.save), args.sources)
    still = all(_is_still(item) for item in args.sources)
    video = args.save if args.save and Path(args.save).suffix.lower() == SUFFIX else None
    paths = _expand(args.sources) if still else []
    copies = _copies(paths) if args.save and not video else {}
    with edgekd.load(
        args.bundle, device=args.device, precision=args.precision, threads=args.threads, mode=args.mode,
        cache=args.cache,
    ) as detector:  # fmt: skip
        options = {
            "conf": args.conf, "iou": args.iou, "max_det": args.max_det, "classes": class_list(args.classes),
            "tile": args.tile, "overlap": args.overlap, "ungated": args.ungated,
        }  # fmt: skip
        print(f"{args.bundle}: {detector.info.reason}", file=sys.stderr)
        if still and not video and not args.show_fps:
            return _each(args, detector, paths, copies, options)
        with VideoFile(Path(video)) if video else contextlib.nullcontext() as file:
            follow = _Follower(args, file)
            for item in [paths] if still else args.sources:
                follow.through(detector, int(item) if isinstance(item, str) and item.isdecimal() else item, options)
    return 0


def _keep_sources(save: Path, sources: list[str]) -> None:
    """Refuse to write over what is read, and into a folder of pictures whose copies would be read the next time."""
    if save.is_file() and save.suffix.lower() != SUFFIX:
        raise edgekd.errors.UsageError(f"--save {save} is a file; name a folder, or a video: FILE{SUFFIX}")
    for item in sources:
        path = Path(item)
        pictures = path if path.is_dir() else path.parent
        images = path.is_dir() or _is_pattern(item) or path.suffix.lower() in IMAGE_SUFFIXES
        if _same(save, path) or (images and _same(save, pictures)):
            raise edgekd.errors.UsageError(f"--save {save}: {item} is read from there; name another place")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _is_pattern(item: str) -> bool:
    return any(letter in item for letter in "*?[") and not Path(item).exists()


def _is_still(item: str) -> bool:
    path = Path(item)
    live = item.isdecimal() or "://" in item or " ! " in item or item.startswith("/dev/")
    other = path.exists() and path.suffix.lower() not in IMAGE_SUFFIXES
    return path.is_dir() or not (live or _is_pattern(item) or other)


def _each(
    args: argparse.Namespace,
    detector: edgekd.Detector,
    paths: list[Path],
    copies: dict[Path, str],
    options: dict[str, Any],
) -> int:
    """Predict one file after the other; the first that is no picture ends it."""
    for path in paths:
        found = detector.predict(path, **options)
        if args.json:
            print(json.dumps({"image": str(path), **found.to_dict()}), flush=True)
        else:
            _print(path, found)
        if args.save:
            _save(found, path, Path(args.save) / copies[path])
    return 0


class _Follower:
    """Prints what a stream finds, and saves its frames."""

    def __init__(self, args: argparse.Namespace, video: VideoFile | None) -> None:
        self._args, self._video = args, video
        self._pace = Pace()
        self._count, self._told = 0, time.perf_counter()

    def through(self, detector: edgekd.Detector, source: Any, options: dict[str, Any]) -> None:
        """Follow one source to its end."""
        begin, before = time.perf_counter(), self._count
        with detector.stream(source, **options) as stream:
            try:
                for frame, found in stream:
                    self._one(stream.name, frame, found, stream.fps)
            finally:
                self._tell(self._count - before, time.perf_counter() - begin, stream)

    def _one(self, name: str, frame: NDArray[np.uint8], found: edgekd.Detections, fps: float | None) -> None:
        pace = self._pace.tick()
        if self._args.json:
            print(json.dumps({"image": name, **found.to_dict()}), flush=True)
        else:
            _print(name, found)
        if self._args.save:
            drawn = found.plot(frame)
            if self._args.show_fps:
                drawn = with_fps(drawn, pace)
            if self._video is not None:
                self._video.add(drawn, fps)
            else:
                _write(drawn[:, :, ::-1], Path(self._args.save) / f"{self._count:06d}.png")
        self._count += 1
        if self._args.show_fps and time.perf_counter() - self._told > 1:
            self._told = time.perf_counter()
            print(f"{pace:.1f} fps", file=sys.stderr, flush=True)

    def _tell(self, count: int, seconds: float, stream: Any) -> None:
        lost = f", {stream.dropped} dropped, {stream.skipped} skipped"
        pace = f", {count / seconds:.1f} fps" if self._args.show_fps else ""
        print(f"{count} pictures in {seconds:.1f} s{pace}{lost}", file=sys.stderr)


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


def _print(path: Path | str, found: edgekd.Detections) -> None:
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
    _write(found.plot(path), target)
    print(f"  wrote {target}", file=sys.stderr)


def _write(rgb: NDArray[np.uint8], target: Path) -> None:
    from PIL import Image

    temporary = target.with_name(f".{target.name}.tmp")  # nobody who watches the folder sees half a picture
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(temporary, format="PNG")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise edgekd.errors.HostError(f"cannot write {target}: {error.strerror or error}") from error
