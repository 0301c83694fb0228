"""Several processes, one batch: what has to be shared so that N ranks compute what one process would.

Gradients are averaged by `torch.nn.parallel.DistributedDataParallel`; heads divide their losses by the joined batch's
normaliser (`models.heads.head.mean_over_ranks`); BatchNorm statistics are taken over the joined batch
(`join_batch_norm`). Distillation statistics stay those of the rank's own part of the batch, as PKD defines them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def rank() -> int:
    """Return this process's rank; 0 where there is only one process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the group that `torchrun` announces in the environment, if it does; leave it at the end.

    Raises:
        UsageError: this PyTorch was built without the backend.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"cannot start {backend} for WORLD_SIZE={os.environ['WORLD_SIZE']}: {error}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Run a block on the first rank, then on the others: what it writes they find."""
    if world_size() > 1 and rank() > 0:
        dist.barrier()
    yield
    if world_size() > 1 and rank() == 0:
        dist.barrier()


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks; every rank's loss depends on every summand, so the gradient is summed too."""

    @staticmethod
    def forward(ctx: Any, here: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = here.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the batches of all ranks, for CPU (`nn.SyncBatchNorm` runs on accelerators only).

    Same parameters and buffers as `nn.BatchNorm2d`. Its reductions use their own process group, so that they cannot
    change places with those of the gradient buckets.
    """

    group: dist.ProcessGroup | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Normalise `(B, C, H, W)`; every rank has to call it the same number of times."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = input.float()
        count = self._sum(x.new_tensor([x.numel() / x.shape[1]]))
        mean = self._sum(x.sum(dim=(0, 2, 3))) / count
        var = self._sum((x - mean[:, None, None]).square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), (var * count / (count - 1).clamp(min=1)).detach())
        scale = torch.rsqrt(var + self.eps) * self.weight
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    def _sum(self, here: Tensor) -> Tensor:
        return cast("Tensor", _SumOverRanks.apply(here, self.group))  # type: ignore[no-untyped-call]

    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Update the running statistics as `nn.BatchNorm2d` does (unbiased variance)."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        cast("Tensor", self.num_batches_tracked).add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(cast("Tensor", self.num_batches_tracked))
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


def join_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model` with BatchNorm layers that see the joined batch; unchanged in a single process.

    Parameters, buffers and their names stay the same objects and names.
    """
    if world_size() == 1:
        return model
    if device.type != "cpu":
        return cast("nn.Module", nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
    JoinedBatchNorm2d.group = dist.new_group()
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d and layer.affine:
            layer.__class__ = JoinedBatchNorm2d
    return model
