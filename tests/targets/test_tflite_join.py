"""Two LiteRT models joined to one, without a converter."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import BuildError

from ..importing.litert_models import ROW, Writer, written

pytest.importorskip("ai_edge_litert")

ROWS = np.arange(12, dtype=np.float32).reshape(1, 3, 4)


def tail() -> Writer:
    """Return a model of two inputs: difference = first - second, twice = second + second."""
    writer = Writer((1, 3, 4))
    writer.main.tensors[0].name = b"first"
    writer.main.inputs.append(writer.tensor("second", (1, 3, 4)))
    for name, operator, inputs in (("difference", "SUB", [0, 1]), ("twice", "ADD", [1, 1])):
        writer.main.outputs.append(writer.tensor(name, (1, 3, 4)))
        writer.operator(operator, inputs, writer.main.outputs[-1], f"{operator.title()}Options")
    return writer


@pytest.mark.parametrize("shape", [(1, 32, 6, 3), (1, 3, 32, 6)])
@pytest.mark.parametrize("swapped", [False, True])
def test_joined_model_computes_one_after_the_other(shape: tuple[int, ...], swapped: bool) -> None:
    from edgekd.targets.tflite import _join
    from edgekd.targets.tflite._graph import model_bytes, read_model
    from edgekd.targets.tflite._session import started

    model = read_model(written({"a": ROWS, "b": ROWS[:, ::-1] * 2}, shape, weight=2.0))
    a, b = (int(item) for item in model.subgraphs[0].outputs)
    _join.append(model, tail().model, [b, a] if swapped else [a, b])
    if shape[3] == 3:
        _join.put_channels_first(model)
    _join.name_ends(model, [b"minus", b"double"])
    runner = started(model_bytes(model), 1).get_signature_runner()
    images = np.random.default_rng(0).random((1, 3, 32, 6), np.float32)
    light = 2 * images[:, 0, ROW].mean()
    first, second = ROWS + light, ROWS[:, ::-1] * 2 + light
    if swapped:
        first, second = second, first
    found = runner(images=images)
    np.testing.assert_allclose(found["minus"], first - second, atol=1e-5)
    np.testing.assert_allclose(found["double"], 2 * second, atol=1e-5)


def test_tail_of_several_subgraphs_is_refused() -> None:
    from edgekd.targets.tflite import _join
    from edgekd.targets.tflite._graph import read_model

    last = tail().model
    last.subgraphs.append(last.subgraphs[0])
    with pytest.raises(BuildError, match="2 subgraphs instead of one"):
        _join.append(read_model(written({"a": ROWS})), last, [0, 0])
