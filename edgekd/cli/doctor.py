"""`edgekd doctor`: what this machine can run and build, what it lacks, and what to type."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import edgekd

if TYPE_CHECKING:
    import argparse

OK, NOTHING_RUNS = 0, 4
WIDTH = 110


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("doctor", help="say what this machine can run and build", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, package versions included")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one screen; exit code 4 when no target runs here."""
    health = edgekd.doctor()
    if args.json:
        print(json.dumps(health.to_dict(), indent=2))
    else:
        _print(health)
    return OK if health.can_run else NOTHING_RUNS


def _print(health: edgekd.Health) -> None:
    rows = [
        ("edgekd", f"{health.edgekd}, Python {health.python}"),
        ("platform", health.platform),
        ("cpu", f"{health.cpu}, {health.cores} cores: {' '.join(health.cpu_flags) or 'features unknown'}"),
        ("kernels", health.kernels),
        ("devices", "; ".join(health.accelerators) or "no GPU, NPU or camera found"),
    ]
    if health.cuda_kernels:
        rows.insert(4, ("on the GPU", "; ".join(health.cuda_kernels)))
    for name, text in rows:
        _line(name, text)
    for index, text in enumerate(health.board):
        _line("" if index else "board", text)
    print()
    for target in health.targets:
        can = [
            word for word, reason in (("runs", target.cannot_run), ("builds", target.cannot_build)) if reason is None
        ]
        built = f" {', '.join(target.precisions)}" if target.cannot_build is None else ""
        _line(target.name, f"{' and '.join(can) or 'neither runs nor builds'}{built}")
        if target.cannot_run:
            _line("", f"cannot run: {target.cannot_run}")
        if target.cannot_build and target.cannot_build != target.cannot_run:
            _line("", f"cannot build: {target.cannot_build}")
    print()
    installed = [f"{name} {version}" for name, version in health.packages.items() if version]
    _line("packages", ", ".join(installed))
    for extra, missing in health.extras.items():
        if missing:
            _line("missing", f"{', '.join(missing)}: pip install 'edgekd[{extra}]'")


def _line(name: str, text: str) -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=f"{name:<11}", subsequent_indent=" " * 11, break_on_hyphens=False))
