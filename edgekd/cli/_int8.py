"""Receipts of int8, and of what was judged as int8 is, in a terminal."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from ._text import plain, size, table

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMED = 6  # layers in floating point that are listed by name


def show_int8(receipt: Mapping[str, Any]) -> None:
    """Print what int8 lost on one target, which layers are not int8, and how fast it is."""
    said = receipt["quantization"]
    print(f"\n{plain(receipt['target'])} int8: {_layers(said)}")
    rows = [_gate(gate) for gate in said["gates"]]
    for name, samples in said["race"]["times_ms"].items():
        rows.append((f"{plain(name)} latency", f"{statistics.median(samples):.2f} ms", "", ""))
    for name, other in said.get("alternatives", {}).items():
        rows.append(
            (f"{plain(name)}, {size(other['size_bytes'])}", _lost(other), "", "holds" if other["passed"] else "FAILS")
        )
    table(("", "measured", "bound", ""), rows)
    print(f"  {_speed(receipt)}")
    validation, calibration = said["validation"], said["calibration"]
    print(
        f"  judged on {validation['images']} images of {plain(validation['name'])}, calibrated on "
        f"{calibration['images']} of {plain(calibration['name'])}, ranges {plain(said['ranges']['estimator'])}"
    )


def show_judgement(receipt: Mapping[str, Any]) -> None:
    """Print what an artifact lost that the golden set refused and validation images did not."""
    said = receipt["judgement"]
    where = (
        "; ONNX Runtime, rounding likewise, stood in for the target, which cannot run here" if said["emulated"] else ""
    )
    images = f"{said['validation']['images']} images of {plain(said['validation']['name'])}"
    print(
        f"\n{plain(receipt['target'])} {plain(receipt['precision'])}: exceeds the golden set's bound, and holds the "
        f"gates on {images}{where}"
    )
    table(("", "measured", "bound", ""), [_gate(gate) for gate in said["gates"]])


def _layers(said: Mapping[str, Any]) -> str:
    layers = said["layers"]
    floating = [plain(layer["name"]) for layer in layers if not layer["int8"]]
    if not floating:
        return f"all {len(layers)} layers"
    more = f" and {len(floating) - NAMED} more" if len(floating) > NAMED else ""
    return f"all but {len(floating)} of {len(layers)} layers; in floating point: {', '.join(floating[:NAMED])}{more}"


def _lost(other: Mapping[str, Any]) -> str:
    drop = other["gates"][0]
    value = "-" if drop["value"] is None else f"{drop['value']:.3g} {drop['unit']}"
    return plain(f"{drop['name']} {value}")


def _gate(gate: Mapping[str, Any]) -> tuple[str, str, str, str]:
    value = "-" if gate["value"] is None else f"{gate['value']:.3g} {gate['unit']}".rstrip()
    sign = ">=" if gate["name"] == "decisions" else "<="
    return plain(gate["name"]), plain(value), f"{sign} {gate['bound']:g}", "holds" if gate["passed"] else "FAILS"


def _speed(receipt: Mapping[str, Any]) -> str:
    race = receipt["quantization"]["race"]
    if race["speed_up"] is None:
        return (
            "speed was not measured: the target cannot run here, and ONNX Runtime's int8 kernels stood in for it; "
            "edgekd verify on the device compares"
        )
    ratio = f"{race['speed_up']:.2f} times as fast as {race['rival']}, the fastest other precision"
    return ratio if race["faster"] else f"NOT faster ({ratio}): load() takes the other"
