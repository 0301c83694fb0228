"""Whether there is memory enough to build an engine, before the kernel's out-of-memory killer decides it."""

from __future__ import annotations

import re
from pathlib import Path

from edgekd.errors import TargetUnavailableError

MEMINFO = Path("/proc/meminfo")
MIB = 1 << 20
LIBRARIES_BYTES = 700 * MIB  # TensorRT's builder with its kernels, once loaded: an estimate, no board has measured it
GRAPH_COPIES = 6  # parsed graph, weights of the best tactic and of the one that is tried, plan ...: likewise
LEAST_WORKSPACE_BYTES = 64 * MIB


def preflight(graph_bytes: int, workspace_bytes: int, folder: Path, meminfo: Path = MEMINFO) -> int:
    """Return how much workspace a build may take here: at most a quarter of the free memory.

    Args:
        graph_bytes: size of the typed graph.
        workspace_bytes: wanted at most.
        folder: where the engine will be kept; named in the message.
        meminfo: the system's own account; where there is none nothing is checked.

    Raises:
        TargetUnavailableError: so little is free that the build would be killed; says what to do.
    """
    try:
        text = meminfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return workspace_bytes
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        return workspace_bytes
    free = int(found[1]) * 1024
    needed = LIBRARIES_BYTES + GRAPH_COPIES * graph_bytes + LEAST_WORKSPACE_BYTES
    if free < needed:
        raise TargetUnavailableError(
            f"{free // MIB} MiB of memory are free and building the engine wants about {needed // MIB} MiB (an "
            "estimate). Stop the desktop: sudo systemctl isolate multi-user.target; or add swap: sudo fallocate -l 4G "
            "/swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile; or build on a "
            f"board of the same kind, JetPack and TensorRT, and copy {folder} here"
        )
    return min(workspace_bytes, max(LEAST_WORKSPACE_BYTES, (free - needed) // 4))
