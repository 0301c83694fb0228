"""Rounding to int8 and back in float32, with the gradients that training through it needs.

The forward pass is that of the exported graph, operation by operation: a division, a rounding half to even, a clip, a
product (QuantizeLinear and DequantizeLinear of ONNX). The backward pass is the straight-through estimator (Bengio et
al. 2013): rounding has the gradient 1, clipping 0 outside; and for learned scales that of LSQ (Esser et al., ICLR
2020, equations 3 and 5).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

LOW, HIGH = -128, 127  # of QuantizeLinear to int8; weights stop at -127
LEVELS = 255


class Span(NamedTuple):
    """A tensor of activations in int8: `(x / scale)` rounded lies in `[low, high]`; the zero point is `-128 - low`.

    All are float32 scalars, `low` and `high` whole numbers.
    """

    scale: Tensor
    low: Tensor
    high: Tensor


def fake_quantize(x: Tensor, span: Span) -> Tensor:
    """Return `x` `(B, ...)` as int8 keeps it, float32.

    Gradients: of `x`, what comes in, and 0 where x is clipped. Of the scale, LSQ's:
    `round(x / s) - x / s` inside, the nearer limit where x is clipped, times what comes in, summed, and times
    `1 / sqrt(N high)`, N the values of one image: so that a scale moves, relative to itself, about as weights do.
    """
    found: Tensor = _Rounded.apply(x, span.scale, span.low, span.high)  # type: ignore[no-untyped-call]
    return found


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale, low, high)
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, scale, low, high = ctx.saved_tensors
        steps = x / scale
        inside = (steps > low) & (steps < high)
        of_scale = None
        if ctx.needs_input_grad[1]:
            error = torch.where(inside, steps.round() - steps, steps.clamp(low, high))
            pace = 1 / math.sqrt(x[0].numel() * float(high))
            of_scale = (gradient * error).sum() * pace
        return gradient * inside, of_scale, None, None


def fake_quantize_weight(weight: Tensor, axis: int) -> Tensor:
    """Return weights as int8 keeps them: one scale an output channel, its largest magnitude / 127.

    The rule of `edgekd.quantization.write.weight_scales`, taken anew from the weights at every step. Nothing is
    clipped, so that the gradient passes as it is; the scale takes none.

    Args:
        weight: float32, of any rank from 2.
        axis: of the output channels.
    """
    found: Tensor = _RoundedWeight.apply(weight, axis)  # type: ignore[no-untyped-call]
    return found


class _RoundedWeight(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, weight: Tensor, axis: int) -> Tensor:
        others = [item for item in range(weight.ndim) if item != axis]
        largest = weight.abs().amax(dim=others, keepdim=True)
        scales = torch.where(largest > 0, largest, torch.ones_like(largest)) / HIGH
        scales = scales.clamp(min=torch.finfo(torch.float32).tiny)
        return (weight / scales).round_().clamp_(-HIGH, HIGH).mul_(scales)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def symmetric(scale: Tensor) -> Span:
    """Return how int8 without a zero point holds a tensor."""
    return Span(scale, scale.new_tensor(LOW), scale.new_tensor(HIGH))


def asymmetric(least: Tensor, most: Tensor) -> Span:
    """Return how int8 with a zero point holds `[least, most]`, which is widened to hold 0 exactly.

    Args:
        least: smallest value, a scalar.
        most: largest value, a scalar.
    """
    least, most = least.clamp(max=0), most.clamp(min=0)
    width = most - least
    scale = torch.where(width > 0, width, torch.ones_like(width)) / LEVELS
    low = (least / scale).round()
    return Span(scale, low, low + LEVELS)
