"""Streams of chance that do not disturb each other."""

from __future__ import annotations

import random

import numpy as np
import torch

from edgekd.training.seeding import derived_seed, forked_random, seed_everything, switches_restored

CPU = torch.device("cpu")


def test_derived_seeds_are_fixed_and_differ_by_every_part() -> None:
    assert derived_seed(0, "step", 1) == 3670991852909586624
    seeds = {derived_seed(*parts) for parts in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 11), (0, "a1"))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_everything_is_seeded() -> None:
    def draws() -> tuple[float, float, float]:
        seed_everything(3)
        return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002

    first = draws()
    assert draws() == first
    assert torch.are_deterministic_algorithms_enabled()


def test_switches_of_the_process_are_put_back() -> None:
    threads, mode = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with switches_restored():
        seed_everything(0)
        torch.set_num_threads(threads + 1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, mode)
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_forked_block_is_reproducible_and_leaves_the_stream_outside_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with forked_random(5, CPU):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(4), expected)
    with forked_random(5, CPU):
        assert torch.equal(torch.rand(3), inside)
