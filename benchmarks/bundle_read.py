"""What opening a bundle costs: map, hash every byte, check the layout and the manifest. Goal: 50 ms for 20 MB."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from bundle_mutators import sample
from machine import conditions, write

from edgekd._bundle import Bundle

SIZE = 20_000_000
RUNS = 50


def main() -> None:
    weights = np.random.default_rng(0).bytes(SIZE)
    bundle = sample()
    bundle = bundle.replace(dataclasses.replace(bundle.manifest, graph="big.onnx"), {"big.onnx": weights})
    reads, writes, hashes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            bundle.write(path)
            writes.append(1e3 * (time.perf_counter() - start))
            start = time.perf_counter()
            Bundle.read(path).close()
            reads.append(1e3 * (time.perf_counter() - start))
            start = time.perf_counter()
            hashlib.sha256(weights).digest()
            hashes.append(1e3 * (time.perf_counter() - start))
        size = path.stat().st_size
    result = {
        **conditions(),
        "what": "Bundle.read from the page cache, Bundle.write with fsync, bare SHA-256 of as many bytes; in turn",
        "size_bytes": size,
        "read_ms": reads[1:],
        "write_ms": writes[1:],
        "sha256_ms": hashes[1:],
        "read_ms_median": statistics.median(reads[1:]),
        "goal_ms": 50,
    }
    for name, values in (("read", reads), ("write", writes), ("SHA-256 alone", hashes)):
        print(f"{name:<14}{statistics.median(values[1:]):7.1f} ms median, {min(values[1:]):.1f} ms best of {RUNS}")
    print(f"wrote {write('bundle_read', result)}")


if __name__ == "__main__":
    main()
