"""`doctor`: what this machine can run and build, what it lacks, and what to type.

`importlib.metadata`, `subprocess` and `shutil` are imported inside functions: they would double `import edgekd`.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _cuda_images, ops
from ._target import BoardTarget, load_target, target_names

CPU_FLAGS = (
    *(
        "f16c",
        "fma",
        "avx2",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_int8",
        "amx_bf16",
    ),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
"""Instructions that matter to inference, as Linux names them (x86, then ARM)."""
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)[^;]*(?:;(.*))?$")
SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader")
SMI_SECONDS = 10
UNKNOWN = "[N/A]"  # its answer to most that a Jetson's GPU is asked
TEGRA = Path("/etc/nv_tegra_release")
CPUINFO = Path("/proc/cpuinfo")
DEVICES = {"GPU node": "dri/renderD*", "NPU node": "accel/accel*", "video node": "video*"}


@dataclass(frozen=True)
class TargetHealth:
    """What one target can do here.

    Attributes:
        name: of the target.
        precisions: that it builds.
        cannot_run: why it cannot run here and what to type; None if it can.
        cannot_build: why it cannot build here and what to type; None if it can.
    """

    name: str
    precisions: tuple[str, ...]
    cannot_run: str | None
    cannot_build: str | None


@dataclass(frozen=True)
class Health:
    """What `doctor` found.

    Attributes:
        edgekd: version.
        python: version and executable.
        platform: operating system and architecture.
        cpu: model name.
        cores: that this process may use.
        cpu_flags: those of `CPU_FLAGS` that the CPU has.
        kernels: what computes letterbox and suppression, see `edgekd.ops.implementation`.
        cuda_kernels: for each GPU, what it would load of the CUDA kernels (`make fatbin`).
        accelerators: one line each: GPU, driver, device node.
        board: what a target knows of the board this is, and what is missing on it; empty on other machines.
        targets: one each, in the order of their names.
        packages: version by distribution, None if it is not installed; all that edgekd's extras name for this platform.
        extras: packages that are missing, by extra; an empty tuple: complete.
    """

    edgekd: str
    python: str
    platform: str
    cpu: str
    cores: int
    cpu_flags: tuple[str, ...]
    kernels: str
    cuda_kernels: tuple[str, ...]
    accelerators: tuple[str, ...]
    board: tuple[str, ...]
    targets: tuple[TargetHealth, ...]
    packages: dict[str, str | None]
    extras: dict[str, tuple[str, ...]]

    @property
    def can_run(self) -> bool:
        """Whether at least one target runs here."""
        return any(item.cannot_run is None for item in self.targets)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**dataclasses.asdict(self), "can_run": self.can_run}


def doctor() -> Health:
    """Look at this machine. Starts no engine, changes nothing, asks no network.

    Returns:
        What it can run and build, with the reason and the install command for what it cannot.
    """
    wanted = _requirements()
    packages = {name: _version(name) for name in sorted({name for names in wanted.values() for name in names})}
    cpu, flags = _cpu()
    return Health(
        edgekd=_version("edgekd") or "not installed",
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_flags=flags,
        kernels=ops.implementation(),
        cuda_kernels=tuple(f"SM{number}: {_cuda_images.image_for(number)}" for number in _cuda_images.capabilities()),
        accelerators=(*_nvidia(), *_nodes()),
        board=tuple(line for name in target_names() for line in _board(name)),
        targets=tuple(_target(name) for name in target_names()),
        packages=packages,
        extras={
            extra: tuple(name for name in names if packages[name] is None) for extra, names in wanted.items() if extra
        },
    )


def _target(name: str) -> TargetHealth:
    target = load_target(name)
    return TargetHealth(name, target.PRECISIONS, target.probe(), target.probe_build())


def _board(name: str) -> tuple[str, ...]:
    """Return what a target says of the board, if it knows boards."""
    target = load_target(name)
    return target.board() if isinstance(target, BoardTarget) else ()


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> dict[str, list[str]]:
    """Return the distributions that edgekd's metadata asks for here, by extra; "" stands for those always needed.

    The extra `dev` is left out: it has nothing to do with what can run.
    """
    from importlib import metadata

    try:
        lines = metadata.requires("edgekd") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        match = REQUIREMENT.match(line)
        if match is None or not _applies(match[2] or ""):
            continue
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", match[2] or "")
        if extra is None or extra[1] != "dev":
            found.setdefault(extra[1] if extra else "", []).append(match[1])
    return found


def _applies(marker: str) -> bool:
    """Evaluate the two markers that edgekd's own metadata uses; a full parser would be a dependency."""
    machine = re.search(r"platform_machine\s*==\s*['\"](\w+)['\"]", marker)
    if machine and machine[1] != platform.machine():
        return False
    older = re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]", marker)
    return older is None or sys.version_info[:2] < (int(older[1]), int(older[2]))


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Return the CPU's name and those of its features that are in `CPU_FLAGS`."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), ()
    fields = dict(re.findall(r"^([^\t:\n]+)[\t ]*:[\t ]*(.*)$", text, re.MULTILINE))
    features = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or fields.get("Model") or fields.get("Hardware") or platform.machine()
    return name, tuple(flag for flag in CPU_FLAGS if flag in features)


def _nvidia() -> list[str]:
    """Return one line a GPU, or why a driver that is there does not answer."""
    import shutil
    import subprocess

    lines = TEGRA.read_text(encoding="utf-8", errors="replace").splitlines()[:1] if TEGRA.is_file() else []
    if shutil.which(SMI[0]) is None:
        return lines
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [*lines, f"nvidia-smi does not answer: {error}"]
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}, without a word"
        return [*lines, f"nvidia-smi failed: {said.splitlines()[0]}"]
    for row in done.stdout.strip().splitlines():
        fields = [item.strip() for item in row.split(",")]
        if len(fields) != len(SMI[1].split(",")):  # "No devices were found"
            lines.append(f"nvidia-smi: {row.strip()}")
            continue
        name, driver, memory, capability = fields
        words = (name, memory, f"SM{capability.replace('.', '')}", f"driver {driver}")
        lines.append(", ".join(word for word in words if UNKNOWN not in word))
    return lines


def _nodes() -> list[str]:
    """Return the device nodes of GPUs, NPUs and cameras."""
    return [f"{kind} {path}" for kind, pattern in DEVICES.items() for path in sorted(Path("/dev").glob(pattern))]
