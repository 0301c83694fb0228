"""Which module a layer belongs to; how it is summed; what a runtime without times says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgekd
from edgekd.errors import SessionError
from edgekd.profiling import layers
from edgekd.profiling.layers import by_module, layer_times, module_of

from ..conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/backbone/stem/conv/Conv", "backbone.stem.conv"),
        ("/backbone/stage1/0/conv/Conv_output_0_nchwc", "backbone.stage1.0.conv"),
        ("images_abcd_acdb_/backbone/features/0/0/Conv", "backbone.features.0.0"),
        ("/stem/conv/Conv + /stem/act/Relu", "stem.conv"),
        ("PWN(/stem/act/Sigmoid, /stem/Mul)", "stem.act"),
        ("{ForeignNode[/head/decode/Mul.../head/Concat_3]}", "head.decode"),
        ("/model.0/conv/Conv_output_0", "model.0.conv"),
        ("/head/class_predictors/0/Conv/WithoutBiases", "head.class_predictors.0"),
        ("/head/box_tower/convs/0/Conv_1_output_0/WithoutBiases", "head.box_tower.convs.0"),
        ("/odd/names/conv2d_3", "odd.names"),
        ("/Concat_1", "(network)"),
        ("ReorderOutput_token_12", "(runtime)"),
        ("", "(runtime)"),
    ],
)
def test_the_module_is_read_off_the_layers_name(name: str, module: str) -> None:
    assert module_of(name) == module


def test_parts_of_the_network_add_up() -> None:
    rows = [
        {"module": "backbone.features.1.block.0", "ms": 1.0},
        {"module": "backbone.features.1.block.1.fc", "ms": 2.0},
        {"module": "neck.top.main", "ms": 4.0},
        {"module": "(runtime)", "ms": 0.5},
    ]
    assert by_module(rows) == {"neck.top": 4.0, "backbone.features.1": 3.0, "(runtime)": 0.5}
    assert list(by_module(rows)) == ["neck.top", "backbone.features.1", "(runtime)"]


def test_a_runtime_without_times_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    session = SimpleNamespace(info=SimpleNamespace(runtime="Mute 1.0"), close=lambda: closed.append(True))
    monkeypatch.setattr(layers, "start_chosen", lambda *_, **__: SimpleNamespace(session=session))
    image = np.zeros((8, 8, 3), np.uint8)
    found, why = layer_times(bundles.portable(), "auto", "auto", 0, image, 3)
    assert (found, why) == ([], "Mute 1.0 tells no times by layer from Python")
    assert closed == [True]


def test_an_engine_that_does_not_start_twice_costs_no_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise SessionError("the memory is full")

    monkeypatch.setattr(layers, "layer_times", full)
    bundles.portable().write(tmp_path / "model.bin")
    found = edgekd.profile(tmp_path / "model.bin", calls=3)
    assert len(found.start_s) == 3
    assert (found.layers, found.layers_missing) == ([], "the memory is full")
    assert edgekd.profile(tmp_path / "model.bin", calls=1, layers=0).layers_missing == "they were not asked for"
