"""Does anything get past `Bundle.read` but a sound bundle, or out of it but a BundleError? Many mutated files.

    python benchmarks/fuzz_bundle.py --cases 120000           # a few minutes on one core
    python benchmarks/fuzz_bundle.py --first 4711 --cases 1   # that one case again

Each case is a function of its number. What is accepted must be, byte for byte, what `Bundle.write` would write; if its
signature holds, it must be the original. Its golden set is decoded. Exit code 1 if any case raised anything but a
BundleError, hung for half a minute, or was wrongly accepted.
"""

from __future__ import annotations

import argparse
import collections
import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bundle_mutators import KEY, Mutators, joined
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekd._bundle import Bundle
from edgekd._golden import golden_outputs, golden_pixels
from edgekd.errors import BundleError, SignatureError
from edgekd.profiling.run import peak_memory_bytes

PUBLIC = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()

HANG_S = 30  # of the clock, on a machine that may be busy
WARM_UP = 2000  # cases before memory is first looked at


def outcome(path: Path, data: bytes, original: bytes) -> str:
    """Open a file as a user would, and say what happened."""
    path.write_bytes(data)
    try:
        with Bundle.read(path) as bundle:
            return accepted(bundle, data, original)
    except BundleError as error:
        str(error).encode()  # a message that cannot be printed is a crash
        return type(error).__name__
    except TimeoutError:
        return "BAD: hung"
    except BaseException as error:
        return f"BAD: {type(error).__name__}: {error}"


def accepted(bundle: Bundle, data: bytes, original: bytes) -> str:
    """Check that a bundle deserved to be accepted, and use all of it."""
    chunks = {name: bundle.chunk(name) for name in bundle.names()}
    if joined(bundle.toc, chunks, bundle.signature) != data:
        return "BAD: not what would be written"
    repr(bundle), bundle.graph()
    try:
        bundle.verify_signature([PUBLIC])
    except SignatureError:
        signed = False
    else:
        signed = True
    if signed != (data == original):
        return "BAD: forged" if signed else "BAD: own signature refused"
    try:
        for golden in bundle.manifest.golden:
            golden_pixels(bundle, golden), golden_outputs(bundle, golden)
    except BundleError:
        return "sound, signature and golden set refused"
    return "original" if signed else "sound, signature refused"


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run(first: int, cases: int) -> dict[str, Any]:
    """Run the cases and return what happened."""
    mutators = Mutators()
    names = list(mutators.all)
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in names}
    times = np.zeros(cases)
    bad: list[dict[str, Any]] = []
    after_warm_up = rss_bytes()
    signal.signal(signal.SIGALRM, _hung)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "model.bin"
        assert outcome(path, mutators.whole, mutators.whole) == "original"
        for index in range(cases):
            name = names[(first + index) % len(names)]
            data = mutators.all[name](np.random.default_rng(first + index))
            signal.alarm(HANG_S)
            start = time.process_time()  # of this process: other work on the machine does not count
            found = outcome(path, data, mutators.whole)
            times[index] = time.process_time() - start
            signal.alarm(0)
            counts[name][found] += 1
            if found.startswith("BAD"):
                bad.append({"case": first + index, "mutator": name, "outcome": found})
            if index == WARM_UP:
                after_warm_up = rss_bytes()
    return {
        "cases": cases,
        "first": first,
        "bad": bad,
        "outcomes": dict(sum(counts.values(), collections.Counter()).most_common()),
        "by_mutator": {name: dict(counter.most_common()) for name, counter in counts.items()},
        "case_cpu_ms": {
            "median": float(np.median(times) * 1e3),
            "p99": float(np.quantile(times, 0.99) * 1e3),
            "max": float(times.max() * 1e3),
            "slowest_case": first + int(times.argmax()),
        },
        "rss_growth_bytes": rss_bytes() - after_warm_up,
        "rss_peak_bytes": peak_memory_bytes(),
    }


def _hung(*_: object) -> None:
    raise TimeoutError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=120_000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    report = {**run(args.first, args.cases), "seconds": time.perf_counter() - start}
    print(json.dumps(report, indent=2))
    if args.first == 0:
        from machine import conditions, write

        print(f"wrote {write('fuzz_bundle', {**conditions('pillow', 'cryptography'), **report})}")
    return 1 if report["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
