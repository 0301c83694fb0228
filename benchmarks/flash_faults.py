"""Does a board serve the old version or the new one, whatever goes wrong at whatever moment of a flash? Many trials.

    python benchmarks/flash_faults.py --trials 2400            # minutes on one core; writes results/flash_faults.json
    python benchmarks/flash_faults.py --first 4711 --trials 1  # that one trial again

Each trial is a function of its number: a fake board serves the old bundle, a flash of the new one meets a fault, then
somebody predicts on the board, a service starts, predicts again, and the next flash meets no fault. Predictions, not
file names, say which version is served. Exit code 1 if any trial served neither, or needed help.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine

import edgekd
from edgekd._flash.board import program
from edgekd._flash.check import Checked, check
from edgekd.device import FakeDevice, Fault, HostKilled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
MODULE = "edgekd._flash.board"
DISK_KINDS = ("kill", "power", "full")
LINK_KINDS = ("drop", "corrupt", "host")
_checked: dict[str, Checked] = {}


def known_check(path: Path, runs: int) -> Checked:
    """Run golden test and timing once for given bytes: equal bytes decide alike."""
    key = hashlib.sha256(path.read_bytes()).hexdigest()
    if key not in _checked:
        _checked[key] = check(path, runs)
    return _checked[key]


@dataclasses.dataclass
class Bench:
    """Two bundles, a board that serves the first, and what each predicts.

    Attributes:
        old: file of the bundle in service.
        new: file of the bundle to flash.
        image: picture that tells them apart, `(H, W, 3)` uint8.
        board: folder of a board that serves the old one; copied for each trial.
    """

    old: Path
    new: Path
    image: NDArray[np.uint8]
    board: Path

    def __post_init__(self) -> None:
        """Flash the old bundle, and learn how long a flash without a fault is."""
        self.board.mkdir()
        device = self.device(self.board)
        self.flash(device, self.old)
        device.disk.close()
        self.seen = {"old": self.predict(self.old), "new": self.predict(self.new)}
        assert self.seen["old"] != self.seen["new"]
        probe = self.board.with_name("probe")
        shutil.copytree(self.board, probe, symlinks=True)
        device = self.device(probe)
        self.flash(device, self.new)
        self.operations, self.written = device.disk.operations, device.disk.written
        self.sent, self.lines = device.sent[0], device.lines
        shutil.rmtree(probe)

    def device(self, folder: Path, fault: Fault | None = None, seed: int = 0) -> FakeDevice:
        """Return a board in a folder."""
        return FakeDevice(folder, {MODULE: program(known_check)}, fault=fault, seed=seed)

    def flash(self, device: FakeDevice, path: Path) -> edgekd.FlashReport:
        """Flash without waiting and without a limit on times, which have nothing to do with faults."""
        return edgekd.flash(path, device, watch_s=0, runs=1, max_slowdown=1e9, wait_s=0)

    def predict(self, path: Path) -> str:
        """Return what the bundle at a path sees, as text."""
        with edgekd.load(path) as detector:
            found = detector.predict(self.image)
        return json.dumps([found.boxes.round(1).tolist(), found.labels.tolist()])

    def served(self, board: Path) -> str:
        """Return "old" or "new" by prediction, or what went wrong."""
        try:
            shown = self.predict(board / "var/lib/edgekd/model/current/model.bin")
        except Exception as error:
            return f"BAD: {type(error).__name__}: {error}"
        return next((name for name, seen in self.seen.items() if seen == shown), "BAD: another prediction")

    def fault(self, number: int) -> Fault:
        """Return the fault of a trial: each kind in turn, at an operation, byte or line that its number draws."""
        draw = random.Random(number)
        kind = (*DISK_KINDS, *LINK_KINDS)[number % 6]
        if kind in DISK_KINDS:
            if draw.random() < 0.5:
                return Fault(kind, operation=draw.randrange(self.operations))
            return Fault(kind, byte=draw.randrange(self.written))
        if kind == "corrupt" or draw.random() < 0.7:
            return Fault(kind, byte=draw.randrange(self.sent))
        return Fault(kind, line=draw.randrange(self.lines))

    def trial(self, folder: Path, fault: Fault, seed: int) -> dict[str, Any]:
        """Run one trial in a new folder; `bad` says what was wrong, if anything."""
        shutil.copytree(self.board, folder, symlinks=True)
        device = self.device(folder, fault, seed)
        try:
            self.flash(device, self.new)
            ended = "success"
        except HostKilled:
            ended = "host killed"
        except edgekd.errors.EdgekdError as error:
            ended = type(error).__name__
        served = self.served(folder)
        device.repair()
        try:
            edgekd.guard(root=str(folder / "var/lib/edgekd"))
            started = self.served(folder)
            self.flash(device, self.new)
            after = self.served(folder)
        except edgekd.errors.EdgekdError as error:
            started = after = f"BAD: {type(error).__name__}: {error}"
        device.disk.close()
        shutil.rmtree(folder)
        wrong = [said for said in (served, started) if said.startswith("BAD")]
        if ended == "success" and "old" in (served, started):
            wrong.append("the flash succeeded and the old version is served")
        if fault.kind == "full" and ended != "success" and "new" in (served, started):
            wrong.append("the flash failed on a full disk and the new version is served")
        if after != "new":
            wrong.append(f"the next flash left {after}")
        return {"fault": dataclasses.asdict(fault), "ended": ended, "served": served, "started": started, "bad": wrong}


@cache
def bundles(folder: Path) -> tuple[Path, Path, NDArray[np.uint8]]:
    """Write two small bundles that differ in their weights, and return them with a picture."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from edgekd import Bundle
    from edgekd._golden import add_golden
    from edgekd._manifest import Artifact
    from edgekd._target import load_target
    from tests.conformance.bundles import CLASSES, HEIGHT, WIDTH, manifest, pictures
    from tests.conformance.detectors import detector

    paths = []
    for seed, name in enumerate(("old", "new")):
        spec = dataclasses.replace(manifest(), created=f"2026-11-0{seed + 1}T08:00:00Z")
        bundle = Bundle.create(spec, {"graph.onnx": detector(HEIGHT, WIDTH, len(CLASSES), seed=seed)})
        session = load_target("reference").load(bundle, Artifact(target="reference", precision="fp32", files={}))
        paths.append(folder / f"{name}.bin")
        add_golden(bundle, pictures(1), session.infer).write(paths[-1])
        session.close()
    return paths[0], paths[1], pictures(1)[0]


def run(folder: Path, first: int, trials: int) -> dict[str, Any]:
    """Run trials and count how they ended."""
    bench = Bench(*bundles(folder), folder / "board")
    outcomes: collections.Counter[str] = collections.Counter()
    bad = []
    begin = time.perf_counter()
    for number in range(first, first + trials):
        fault = bench.fault(number)
        result = bench.trial(folder / "trial", fault, number)
        outcomes[f"{fault.kind}: {result['ended']}, served {result['served']}, then {result['started']}"] += 1
        if result["bad"]:
            bad.append({"number": number, **result})
    return {
        "first": first, "trials": trials, "seconds": round(time.perf_counter() - begin, 1),
        "flash": {"operations": bench.operations, "bytes_written": bench.written, "bytes_sent": bench.sent},
        "outcomes": dict(sorted(outcomes.items())), "bad": bad,
    }  # fmt: skip


def main() -> int:
    """Run the trials that were asked for; write the result if they are many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2400)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "flash_faults.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flash-faults-") as folder:
        report = run(Path(folder), args.first, args.trials)
    print(json.dumps(report, indent=1))
    if args.trials >= 2000:
        args.out.write_text(json.dumps({**machine.conditions("onnxruntime"), **report}, indent=1) + "\n")
    return 1 if report["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
