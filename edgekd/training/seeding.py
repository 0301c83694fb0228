"""Every random draw is a function of the recipe's seed, a purpose and the step: nothing has to be saved to resume."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on each item of `purpose`, the same on every machine."""
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators and ask for deterministic kernels.

    Operations without a deterministic kernel (some on CUDA) warn and run. Fresh memory is not filled, as torch would do
    with deterministic algorithms: that took 15 % of a step, and nothing here reads what it has not written.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries that still draw from the global generator)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextmanager
def switches_restored() -> Iterator[None]:
    """Put back what a run sets for the whole process: torch's threads and its choice of deterministic kernels."""
    deterministic = torch.utils.deterministic
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    mode, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode, warn_only=warn)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def forked_random(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block on torch generators of its own seed; the caller's streams go on as if the block had not run."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
