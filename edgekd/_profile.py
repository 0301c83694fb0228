"""`profile`: what a bundle costs on this machine; `profile_page` shows it, `profile_compare` says if it costs more."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bundle import Bundle
from ._container import write_file
from ._detector import start as start_detector
from ._preprocess import image_files, to_rgb
from .errors import EdgekdError, UsageError
from .profiling.record import TOTAL, Profile
from .profiling.statistics import Change, change

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._detector import Detector
    from .device import Device

PERCENTILES = (50, 90, 99)
NOT_ASKED = "they were not asked for"


@dataclass(frozen=True)
class ProfileComparison:
    """How latency moved from one profile to another.

    Attributes:
        changes: percentile -> before and after in ms, and the 95 % interval of after / before - 1.
        tolerance: growth that is accepted, 0.03 for 3 %.
        slower: percentiles whose whole interval lies above the tolerance.
        faster: percentiles whose whole interval lies below zero.
        unclear: percentiles whose interval reaches from below the tolerance to above it: more calls would tell.
        notes: why the two may not be comparable: other machine, engine, rate, or an invalid run.
    """

    changes: dict[int, Change]
    tolerance: float
    slower: tuple[int, ...]
    faster: tuple[int, ...]
    unclear: tuple[int, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "changes": {f"p{key}": item._asdict() for key, item in self.changes.items()}}


def profile(
    path: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    images: Sequence[str | Path] | str | Path | None = None,
    calls: int = 300,
    seconds: float = 0.0,
    fps: float | None = None,
    warmup: int = 10,
    layers: int = 20,
    on: str | Device | None = None,
    python: str = "python3",
    progress: Callable[[float, int], None] | None = None,
) -> Profile:
    """Measure the real `predict` of a bundle, here or on a board, and look at the machine meanwhile.

    Args:
        path: `model.bin`.
        device: as in `load`; or "user@board": the same as `on`.
        precision: as in `load`.
        threads: as in `load`.
        images: files or a folder, decoded in every call as `predict` does; None: the bundle's golden images, as arrays.
        calls: measure at least so many.
        seconds: measure at least so long: a soak of ten minutes shows what heat does.
        fps: calls a second, as a camera makes them; clocks and caches behave otherwise than in a tight loop. None: one
            right after the other.
        warmup: calls before that which are not measured; the very first is reported by itself.
        layers: runs of the network alone, after the samples and on an engine of their own, whose layers are timed
            where the runtime tells; 0: none.
        on: board to measure on: "user@board" or an alias of `~/.ssh/config` (whatever `ssh` reaches without a
            question), or a `Device`. The bundle and the images are sent there, and nothing stays. None: here.
        python: interpreter on the board that has edgekd.
        progress: told the share that is done and the number of calls, about once a second.

    Returns:
        Raw samples of every stage, figures, conditions, and what was wrong with them.

    Raises:
        BundleError: as `load`.
        UsageError: as `load`; a number out of its range; no images.
        TargetUnavailableError: as `load`; on a board: what it lacks.
        DeviceError: no connection to the board, or it broke.
    """
    _check(calls=calls, seconds=seconds, fps=fps, warmup=warmup, layers=layers)
    files = None if images is None else image_files(images)
    board, device = place(device, on)
    options: dict[str, Any] = {
        "device": device, "precision": precision, "threads": threads, "calls": calls, "seconds": seconds, "fps": fps,
        "warmup": warmup, "layers": layers,
    }  # fmt: skip
    if board is None:
        found = _here(Path(path), files, progress=progress, **options)
    else:
        from ._profile_on import profile_on

        found = profile_on(board, python, Path(path), files or [], options, progress)
    return found if not files else replace(found, images=f"{len(files)} from {_listed(images)}")


def _here(
    path: Path,
    files: Sequence[Path] | None,
    *,
    device: str,
    precision: str,
    threads: int,
    calls: int,
    seconds: float,
    fps: float | None,
    warmup: int,
    layers: int,
    progress: Callable[[float, int], None] | None,
) -> Profile:
    """Do what `profile` says on this machine."""
    from .profiling.run import Pace, machine, measure, peak_memory_bytes
    from .profiling.sensors import Sensors

    start = time.perf_counter()
    bundle = Bundle.read(path)
    detector = start_detector(bundle, device, precision, threads)  # owns the bundle
    load_ms = 1e3 * (time.perf_counter() - start)
    with detector:
        shown = files or _golden(bundle)
        start = time.perf_counter()
        _predict(detector, shown[0])
        first_ms = 1e3 * (time.perf_counter() - start)
        for index in range(warmup):
            _predict(detector, shown[index % len(shown)])
        sensors = Sensors()
        pace = Pace(calls, seconds, fps)
        measured = measure(lambda image: _predict(detector, image), shown, pace, sensors, progress)
        peak = peak_memory_bytes()
        timed, missing = _layers(bundle, device, precision, threads, shown[0], layers)
        return Profile(
            name=bundle.manifest.name,
            digest=bundle.digest,
            session=asdict(detector.info.session),
            machine=machine(sensors),
            images=f"{len(shown)} golden images",
            fps=fps,
            load_ms=load_ms,
            first_ms=first_ms,
            peak_memory_bytes=peak,
            layers=timed,
            layers_missing=missing,
            **measured._asdict(),
        )


def _layers(
    bundle: Bundle, device: str, precision: str, threads: int, image: Any, runs: int
) -> tuple[list[dict[str, Any]], str]:
    """Return the layers, and why there are none; the samples are not lost for an engine that does not start twice."""
    from .profiling.layers import layer_times

    if not runs:
        return [], NOT_ASKED
    try:
        found, missing = layer_times(bundle, device, precision, threads, to_rgb(image, "rgb")[0], runs)
    except EdgekdError as error:
        return [], str(error)
    return [item._asdict() for item in found], missing


def place(device: str, on: str | Device | None) -> tuple[Device | None, str]:
    """Return the board that `device` or `on` names, or None, and the device of the engine there.

    Raises:
        UsageError: both name a board.
    """
    if on is not None and "@" in device:
        raise UsageError(
            f"device={device!r} and on={on!r} both name a board: give one, and with `on` the engine's device"
        )
    named = device if "@" in device else on
    if isinstance(named, str):
        from .device import open_device

        return open_device(named), "auto" if "@" in device else device
    return named, device


def profile_compare(
    before: Profile | str | Path, after: Profile | str | Path, *, tolerance: float = 0.03
) -> ProfileComparison:
    """Compare two profiles: is the second slower by more than a tolerance, beyond what chance explains?

    Args:
        before: a `Profile`, or the path of its JSON.
        after: the same.
        tolerance: growth of a percentile that is accepted, 0.03 for 3 %.

    Raises:
        UsageError: a file is no profile.
    """
    first, second = (item if isinstance(item, Profile) else Profile.read(item) for item in (before, after))
    changes = {each: change(first.stages_ms[TOTAL], second.stages_ms[TOTAL], each) for each in PERCENTILES}
    return ProfileComparison(
        changes,
        tolerance,
        tuple(each for each, item in changes.items() if item.low > tolerance),
        tuple(each for each, item in changes.items() if item.high < 0),
        tuple(each for each, item in changes.items() if item.low <= tolerance < item.high),
        tuple(_differences(first, second)),
    )


def profile_page(found: Profile, path: str | Path) -> None:
    """Write a profile as one HTML file, atomically: distribution, time line, stages, conditions, what to change."""
    from .profiling.page import render

    write_file(Path(path), [render(found).encode()])


def _differences(first: Profile, second: Profile) -> list[str]:
    pairs = {
        "processor": (first.machine.get("processor"), second.machine.get("processor")),
        "engine": (" ".join(first.session.values()), " ".join(second.session.values())),
        "device": (first.device, second.device),
        "rate": (first.fps, second.fps),
        "images": (first.images, second.images),
    }
    found = [f"{name}: {before} before, {after} after" for name, (before, after) in pairs.items() if before != after]
    for name, item in (("before", first), ("after", second)):
        found += [f"{name} is not valid: {problem}" for problem in item.problems]
    return found


def _predict(detector: Detector, image: Any) -> Any:
    return detector.predict(image, color="rgb")


def _golden(bundle: Bundle) -> list[Any]:
    if not bundle.manifest.golden:
        raise UsageError(f"{bundle.path} has no golden images to show; give some: --images DIR")
    return [to_rgb(bytes(bundle.chunk(golden.image)))[0] for golden in bundle.manifest.golden]


def _listed(images: Any) -> str:
    return str(images) if isinstance(images, (str, Path)) else ", ".join(map(str, images))


def _check(*, calls: int, seconds: float, fps: float | None, warmup: int, layers: int) -> None:
    limits = (("calls", calls, 1), ("seconds", seconds, 0), ("warmup", warmup, 0), ("layers", layers, 0))
    for name, value, least in limits:
        if not value >= least:
            raise UsageError(f"{name} should be at least {least}, got {value}")
    if fps is not None and not 0 < fps <= 10_000:
        raise UsageError(f"fps should be above 0 and at most 10000, got {fps}")
