"""Whether there is memory enough to build an engine, before the kernel's out-of-memory killer decides it."""

from __future__ import annotations

import re
from pathlib import Path

from edgekd.errors import TargetUnavailableError

MEMINFO = Path("/proc/meminfo")
SWAPS = Path("/proc/swaps")
MIB = 1 << 20
LIBRARIES_BYTES = 700 * MIB  # TensorRT's builder with its kernels, once loaded: an estimate, no board has measured it
GRAPH_COPIES = 6  # parsed graph, weights of the best tactic and of the one that is tried, plan ...: likewise
LEAST_WORKSPACE_BYTES = 64 * MIB


def preflight(
    graph_bytes: int, workspace_bytes: int, folder: Path, meminfo: Path = MEMINFO, swaps: Path = SWAPS
) -> int:
    """Return how much workspace a build may take here: at most a quarter of the free memory.

    Swap counts as room for what else is in memory, not for the workspace: a GPU's memory is never swapped.

    Args:
        graph_bytes: size of the typed graph.
        workspace_bytes: wanted at most.
        folder: where the engine will be kept; named in the message.
        meminfo: the system's own account; where there is none nothing is checked.
        swaps: likewise, of swap.

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
    free, swap = int(found[1]) * 1024, _free_swap(swaps)
    needed = LIBRARIES_BYTES + GRAPH_COPIES * graph_bytes + LEAST_WORKSPACE_BYTES
    if free + swap < needed:
        also = f" and {swap // MIB} MiB of swap" if swap else ""
        raise TargetUnavailableError(
            f"{free // MIB} MiB of memory{also} are free and building the engine wants about {needed // MIB} MiB (an "
            "estimate). Stop the desktop: sudo systemctl isolate multi-user.target; or add swap: sudo fallocate -l 4G "
            "/swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile; or build on a "
            f"board of the same kind, JetPack and TensorRT, and copy {folder} here"
        )
    return min(workspace_bytes, max(LEAST_WORKSPACE_BYTES, (free - needed) // 4))


def _free_swap(swaps: Path) -> int:
    """Return the bytes of swap that are free, zram apart, which Jetsons have by default and which lies in the RAM."""
    try:
        text = swaps.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    rows = re.findall(r"^(\S+)\s+\S+\s+(\d+)\s+(\d+)\s", text, re.MULTILINE)
    return sum((int(size) - int(used)) * 1024 for name, size, used in rows if not name.startswith("/dev/zram"))
