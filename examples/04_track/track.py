"""Follow objects through a video: a bundle finds them in each frame, ByteTrack says which is which.

The tracker is that of the `trackers` package, which takes `supervision.Detections`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

import edgekd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000")


@dataclass
class Track:
    """One object: where its centre was, frame by frame, and what it was taken for."""

    frames: list[int] = field(default_factory=list)
    centres: list[tuple[float, float]] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)


def follow(stream: Iterable[tuple[np.ndarray, edgekd.Detections]], tracker: Any) -> tuple[dict[int, Track], Any, float]:
    """Return the tracks by number, the last frame, and how many ms the tracker took a frame."""
    tracks: dict[int, Track] = {}
    last, spent, count = None, 0.0, 0
    for frame, found in stream:
        last, begin = frame, time.perf_counter()
        tracked = tracker.update(found.to_supervision())
        spent, count = spent + time.perf_counter() - begin, count + 1
        for number, box, label in rows(tracked):
            if number >= 0:  # -1: seen too seldom to be sure of
                track = tracks.setdefault(int(number), Track())
                track.frames.append(count - 1)
                track.centres.append((float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2))
                track.labels[label] += 1
    return tracks, last, 1e3 * spent / max(count, 1)


def rows(tracked: Any) -> Iterable[tuple[int, np.ndarray, int]]:
    """Return number, box and class of each object; a frame without any has no columns at all."""
    return zip(tracked.tracker_id, tracked.xyxy, tracked.class_id, strict=True) if len(tracked) else ()


def show(tracks: dict[int, Track], names: Sequence[str], shortest: int) -> None:
    """Print one line a track that was seen in so many frames."""
    print("track  class         first  last  seen  moved")
    for number, track in sorted(tracks.items()):
        if len(track.frames) >= shortest:
            moved = float(np.hypot(*(np.subtract(track.centres[-1], track.centres[0]))))
            name = names[track.labels.most_common(1)[0][0]]
            first, last = track.frames[0], track.frames[-1]
            print(f"{number:5d}  {name:<12s}  {first:5d} {last:5d} {len(track.frames):5d}  {moved:5.0f} px")


def draw(tracks: dict[int, Track], frame: np.ndarray, shortest: int, path: Path) -> None:
    """Write the last frame, with the way of each track on it."""
    picture = Image.fromarray(frame)
    canvas = ImageDraw.Draw(picture)
    for number, track in tracks.items():
        if len(track.frames) >= shortest:
            colour = COLOURS[number % len(COLOURS)]
            canvas.line(track.centres, fill=colour, width=2)
            canvas.text(track.centres[-1], str(number), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    print(f"wrote {path}")


def main() -> None:
    """Follow what is in a video, print the tracks, draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="model.bin")
    parser.add_argument("source", help="what `stream` takes: a video, a folder, a camera")
    parser.add_argument("out", type=Path, help="folder for the picture")
    parser.add_argument("--conf", type=float, default=0.1, help="least score of what continues a track (default 0.1)")
    parser.add_argument("--sure", type=float, default=0.5, help="least score of what begins one (default 0.5)")
    parser.add_argument("--classes", nargs="+", help="only these, by name (default: all)")
    parser.add_argument("--shortest", type=int, default=5, help="frames of a track that is shown (default 5)")
    args = parser.parse_args()
    try:
        from trackers import ByteTrackTracker
    except ImportError:
        parser.exit(4, "this example needs a tracker: pip install 'edgekd[track]'\n")
    with (
        edgekd.load(args.bundle) as detector,
        detector.stream(args.source, conf=args.conf, classes=args.classes, color="rgb") as stream,
    ):
        tracker = ByteTrackTracker(track_activation_threshold=args.sure, high_conf_det_threshold=args.sure)
        tracks, frame, tracker_ms = follow(stream, tracker)
        names = detector.names
        print(f"{detector}; {stream.skipped} frames skipped; the tracker took {tracker_ms:.2f} ms a frame")
    show(tracks, names, args.shortest)
    draw(tracks, frame, args.shortest, args.out / "tracks.png")


if __name__ == "__main__":
    main()
