"""What every result file says about where it was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CODE = ("edgekd", "kernels", "targets", ":(glob)benchmarks/*.py")  # results that are being written do not make it dirty


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=RESULTS.parents[1], capture_output=True, text=True, check=False
    ).stdout.strip()


# Asked when the process starts, as the code it measures is what it loaded then.
COMMIT = _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain", "--", *CODE) else "")


def conditions(*packages: str) -> dict[str, Any]:
    """Return machine, date, commit and the versions of `packages`."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "commit": COMMIT,
        "versions": {name: _version(name) for name in ("edgekd", "numpy", *packages)},
    }


def _version(distribution: str) -> str | None:
    """Return a version, or None: what was measured for minutes is not lost because a package was put on a path."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def write(name: str, result: dict[str, Any]) -> Path:
    """Write `results/<name>.json` whole or not at all."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
    return path


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
