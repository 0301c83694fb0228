"""Rounding to int8: the values of ONNX's operators, and the gradients of the papers."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from edgekd.quantization.write import rounded_weights, weight_scales
from edgekd.training.fake_quant import Span, asymmetric, fake_quantize, fake_quantize_weight, symmetric


def span(scale: float, low: int = -128, high: int = 127) -> Span:
    return Span(*(torch.tensor(float(value)) for value in (scale, low, high)))


def by_onnx_runtime(x: np.ndarray, scale: np.float32) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear as the exported graph has them."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)]
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [float(scale)]),
        helper.make_tensor("z", TensorProto.INT8, [], [0]),
    ]
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "pair", inputs, outputs, constants), opset_imports=opset)
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("scale", [np.float32(0.1), np.float32(0.0123), np.float32(1.0), np.float32(3e-5)])
def test_activations_have_the_bits_of_onnx_runtime(scale: np.float32) -> None:
    random = np.random.default_rng(0)
    wide = random.normal(0, 60 * scale, (4, 5, 33, 17)).astype(np.float32)  # some are clipped
    ties = (np.arange(-300, 300).astype(np.float32) / 2) * scale
    wide[0, 0].reshape(-1)[:] = 0
    wide[0, 1].reshape(-1)[:] = ties[: 33 * 17]
    ours = fake_quantize(torch.from_numpy(wide), symmetric(torch.tensor(scale)))
    np.testing.assert_array_equal(ours.numpy(), by_onnx_runtime(wide, scale))


@pytest.mark.parametrize(("shape", "axis"), [((8, 3, 3, 3), 0), ((6, 10), 1), ((4, 9, 2, 2), 1)])
def test_weights_have_the_bits_of_the_writer(shape: tuple[int, ...], axis: int) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    index: list[int | slice] = [slice(None)] * len(shape)
    index[axis] = 1
    values[tuple(index)] = 0  # a channel of zeros
    index[axis] = 2
    values[tuple(index)] *= np.float32(1e-38)  # and one whose scale no float32 without denormals holds
    scales = weight_scales(values, axis)
    spread = scales.reshape([-1 if item == axis else 1 for item in range(len(shape))])
    expected = rounded_weights(values, scales, axis).astype(np.float32) * spread
    np.testing.assert_array_equal(fake_quantize_weight(torch.from_numpy(values), axis).numpy(), expected)


def test_gradient_of_x_passes_inside_and_is_zero_where_x_is_clipped() -> None:
    x = torch.tensor([[-13.0, -12.7, -1.0, 0.0, 0.26, 12.6, 12.8, 99.0]], requires_grad=True)
    came_in = torch.arange(1.0, 9.0).unsqueeze(0)
    fake_quantize(x, span(0.1)).backward(came_in)
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]]


def lsq(x: Tensor, scale: float, came_in: Tensor, low: int, high: int) -> float:
    """Esser et al. 2020, equation 3, term by term, and their g = 1 / sqrt(N Q_P) for the values of one image."""
    total = 0.0
    for value, gradient in zip(x.flatten().tolist(), came_in.flatten().tolist(), strict=True):
        steps = value / scale
        if steps <= low:
            term = float(low)
        elif steps >= high:
            term = float(high)
        else:
            term = float(np.rint(steps)) - steps
        total += gradient * term
    return total / math.sqrt(x[0].numel() * high)


@pytest.mark.parametrize("scale", [0.5, 0.02])
def test_gradient_of_the_scale_is_that_of_lsq(scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 5, 7, generator=generator)
    came_in = torch.randn(2, 3, 5, 7, generator=generator)
    held = torch.tensor(scale, requires_grad=True)
    fake_quantize(x, symmetric(held)).backward(came_in)
    assert held.grad is not None
    expected = lsq(x, float(torch.tensor(scale)), came_in, -128, 127)
    assert held.grad.item() == pytest.approx(expected, rel=2e-4, abs=1e-5)
    clipped = bool((x.abs() > 127 * scale).any())
    assert clipped == (scale == 0.02), "one case clips, one does not"


def test_a_descent_along_the_gradient_of_the_scale_lowers_the_error() -> None:
    x = torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    logarithm = torch.tensor(math.log(0.2), requires_grad=True)  # far too coarse: 127 steps reach 25 sigma

    def error() -> Tensor:
        return (fake_quantize(x, symmetric(logarithm.exp())) - x).square().mean()

    before = error().item()
    optimizer = torch.optim.Adam([logarithm], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < 0.1 * before


def test_gradient_of_weights_passes_and_leaves_the_scale_alone() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    came_in = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    fake_quantize_weight(weight, 0).backward(came_in)
    assert weight.grad is not None
    assert torch.equal(weight.grad, came_in)


@pytest.mark.parametrize(("least", "most"), [(-1.0, 3.0), (0.5, 3.0), (-2.0, -1.0), (0.0, 0.0)])
def test_asymmetric_rounding_holds_zero_and_both_limits(least: float, most: float) -> None:
    held = asymmetric(torch.tensor(least), torch.tensor(most))
    x = torch.tensor([[0.0, least, most, least - 9, most + 9]])
    zero, low, high, below, above = fake_quantize(x, held)[0].tolist()
    assert zero == 0
    step = held.scale.item()
    assert abs(low - least) <= step / 2 + 1e-6
    assert abs(high - most) <= step / 2 + 1e-6
    widened = (min(least, 0.0), max(most, 0.0))
    assert (below, above) == pytest.approx(widened, abs=step / 2 + 1e-6) or widened == (0.0, 0.0)
    assert (held.high - held.low).item() == 255
