"""Does a bundle decide on this board as it should, and how fast? In a process of its own, since a model may crash.

`python -m edgekd._flash.check model.bin RUNS` prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._bundle import Bundle
from .._detector import start
from .._preprocess import to_rgb
from .._receipts import needs_receipt
from .._select import choose
from .._verify import check_artifact, golden_samples
from ..errors import EdgekdError, GateError
from . import wire

WARMUP_RUNS = 5
TIMEOUT_S = 1800  # TensorRT compiles its engine in it, which may take a small Jetson more than ten minutes


@dataclass(frozen=True)
class Checked:
    """What ran and how.

    Attributes:
        target: of the artifact that `edgekd.load` chooses on this board.
        precision: of that artifact.
        compute: the arithmetic that really ran.
        images: of the golden set.
        same: decisions that agreed with the reference: objects, or verdicts of an anomaly network.
        borderline: decisions that differ within the rounding of scores.
        samples_ms: whole `predict` on the first golden image, one each, in the order of measurement.
    """

    target: str
    precision: str
    compute: str
    images: int
    same: int
    borderline: int
    samples_ms: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Return the smallest sample that at least this share of all samples does not exceed, in ms."""
        ordered = sorted(self.samples_ms)
        return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def check(path: Path, runs: int) -> Checked:
    """Run the golden set on the artifact that would be served, then time it.

    Raises:
        GateError: a decision differs, or there is no golden set.
        EdgekdError: it cannot be loaded here.
    """
    bundle = Bundle.read(path)
    with start(bundle, "auto", "auto", 0) as detector:
        session = detector.info.session
        if not bundle.manifest.golden:
            raise GateError(f"{path} has no golden set: nothing can tell whether it works on this board")
        artifact = choose(bundle, "auto", "auto").artifact
        report = check_artifact(bundle, artifact, golden_samples(bundle))
        # int8 decides otherwise now and then, which its receipt has bounded: it passes if it does what it did then.
        differs = report.decisions is None or (report.decisions.different and not needs_receipt(artifact))
        if report.status not in ("passed", "reported") or report.decisions is None or differs:
            raise GateError(f"golden test, {session.target} {session.precision}: {report.reason or report.status}")
        image, _ = to_rgb(bytes(bundle.chunk(bundle.manifest.golden[0].image)))
        samples = []
        for _ in range(WARMUP_RUNS + runs):
            begin = time.perf_counter()
            detector.predict(image, color="rgb")
            samples.append((time.perf_counter() - begin) * 1e3)
        decided = report.decisions
        return Checked(
            session.target, session.precision, session.compute, len(bundle.manifest.golden), decided.same,
            decided.borderline, tuple(round(item, 4) for item in samples[WARMUP_RUNS:]),
        )  # fmt: skip


def check_apart(path: Path, runs: int) -> Checked:
    """Do so in a process of its own.

    Raises:
        GateError: as `check`; or the process crashed, or took longer than `TIMEOUT_S`.
        EdgekdError: as `check`.
    """
    import subprocess

    path = path.absolute()
    command = [sys.executable, "-m", "edgekd._flash.check", str(path), str(runs)]
    try:
        done = subprocess.run(
            command,
            cwd=path.parent,  # `-m` imports from there first, and a home may hold anything
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GateError(f"the model did not finish its golden test within {TIMEOUT_S} s") from error
    if done.returncode < 0:
        raise GateError(f"the model crashed in its golden test: the process ended by {_signal(-done.returncode)}")
    fields: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        fields = wire.parse_reply(line) or fields
    if "error" in fields:
        raise wire.remote_error(fields["error"], "on the board")
    if "checked" not in fields:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise GateError(f"the golden test ended with status {done.returncode}: {last}")
    checked = fields["checked"]
    return Checked(**{**checked, "samples_ms": tuple(checked["samples_ms"])})


def _signal(number: int) -> str:
    import signal

    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def main(argv: list[str]) -> int:
    """Check one bundle and print what was found."""
    try:
        wire.reply(print, checked=asdict(check(Path(argv[0]), int(argv[1]))))
    except EdgekdError as error:
        wire.reply_error(print, error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
