"""Does the service answer every picture that it accepts, when it is asked for more than it can do, and when it ends?

    python benchmarks/serve_load.py [--seconds 10]

`edgekd serve` in a process of its own, a small network (that of predict.py at 320 px) on OpenVINO, and callers on
loopback that each ask again as soon as they have an answer: 1, 4, and then 64, which is four times what may be under
way. SIGTERM comes amid the last round. What callers saw must be what the service counted; both are in
results/serve_load.json.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from machine import conditions, write
from PIL import Image
from predict import bundle

ROUNDS = (1, 4, 64)
QUEUE = 16
MOST = 200_000  # requests of one round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    seconds = parser.parse_args().seconds
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)).save(held, "JPEG", quality=90)
    with tempfile.TemporaryDirectory() as folder:
        words = ["serve", str(bundle(Path(folder), 320)), "--port", "0", "--queue", str(QUEUE), "--json"]
        with subprocess.Popen(
            [sys.executable, "-m", "edgekd.cli.main", *words], stdout=subprocess.PIPE, text=True
        ) as it:
            assert it.stdout is not None
            port = int(json.loads(it.stdout.readline())["url"].rsplit(":", 1)[1].strip("/"))
            rounds = [ask(port, held.getvalue(), callers, seconds) for callers in ROUNDS[:-1]]
            ending = threading.Timer(seconds, it.send_signal, [signal.SIGTERM])
            ending.start()
            rounds.append(ask(port, held.getvalue(), ROUNDS[-1], seconds + 30))
            report = json.loads(it.stdout.read().splitlines()[-1])
    seen = sum(int(row["statuses"].get("200", 0)) for row in rounds)
    result = {
        "network": "100 objects at 320 px, OpenVINO fp32; a JPEG of 640x480 a request",
        "queue": QUEUE,
        "rounds": rounds,
        "service": report,
        "exit_code": it.returncode,
        "answers_seen": seen,
        "lost": report["accepted"] - seen,
        "load_average": os.getloadavg(),
        "note": "callers, service and other work shared two cores",
        **conditions("openvino", "starlette", "uvicorn"),
    }
    write("serve_load", result)
    for row in rounds:
        print(f"{row['callers']:3} callers: {row['per_second']:.1f} answers a second, p50 {row['p50_ms']:.1f} ms, "
              f"p99 {row['p99_ms']:.1f} ms, {row['statuses']}")  # fmt: skip
    print(f"accepted {report['accepted']}, answered {report['answered']}, seen {seen}, lost {result['lost']}")
    assert result["lost"] == 0


def ask(port: int, picture: bytes, callers: int, seconds: float) -> dict[str, Any]:
    """Ask from some threads until the time is over or the service is gone."""
    statuses: Counter[str] = Counter()
    times: list[float] = []
    end, lock = time.monotonic() + seconds, threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < end and sum(statuses.values()) < MOST:
            start = time.perf_counter()
            try:
                connection.request("POST", "/predict", picture)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):  # it is gone, and this was not accepted
                connection.close()
                return
            with lock:
                statuses[str(answer.status)] += 1
                if answer.status == 200:
                    times.append(1e3 * (time.perf_counter() - start))
            if answer.status == 503:
                time.sleep(0.02)  # a caller with less patience than Retry-After asks for
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(callers)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
    taken = time.monotonic() - begin
    return {
        "callers": callers, "seconds": taken, "statuses": dict(statuses), "per_second": len(times) / taken,
        "p50_ms": p50, "p99_ms": p99,
    }  # fmt: skip


if __name__ == "__main__":
    main()
