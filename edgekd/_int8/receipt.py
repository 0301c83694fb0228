"""The receipt of an int8 artifact: everything that was measured, as a row of the manifest."""

from __future__ import annotations

import math
import os
import platform
from typing import TYPE_CHECKING, Any

from .race import fastest_rival

if TYPE_CHECKING:
    from .._verify import ArtifactReport
    from .gates import Judgement
    from .search import Alternative, Found, Plan, Step

MARGIN = 1.03  # times as fast; less is noise
SHOWN = 4096  # shifts that the receipt keeps, evenly spread: enough for a histogram


def int8_row(plan: Plan, found: Found, parity: ArtifactReport, date: str) -> dict[str, Any]:
    """Return the receipt.

    Args:
        plan: what was shared by all targets.
        found: what the search found for this one.
        parity: differences on the golden set; `verify` compares with them later.
        date: ISO 8601, UTC.
    """
    drop = found.reported.gates[0]
    before, after = found.report_runs
    return {
        "what": f"int8 {drop.name}",
        "value": drop.value,
        "unit": drop.unit,
        "split": "test" if plan.bundle.manifest.task == "anomaly" else "val",
        "target": found.target,
        "precision": "int8",
        "compute": found.run.session.compute,
        "runtime": found.run.session.runtime,
        "machine": f"{platform.machine()} {platform.system()}",
        "date": date,
        "quantization": {
            "passed": found.judgement.passed,
            "emulated": found.emulated,
            "ranges": {"estimator": plan.estimator, "errors": _finite(plan.errors)},
            "calibration": plan.chosen.about,
            "validation": plan.judges.about,
            "layers": [
                {
                    "name": layer.weight,
                    "work": layer.work,
                    "weights": layer.weights,
                    "int8": layer.weight not in found.floating,
                    "error": _number(plan.sensitivity[layer.weight]) if "sensitivity" in vars(plan) else None,
                }
                for layer in plan.layers
            ],
            "gates": gate_rows(found.judgement),
            "reported": gate_rows(found.reported),
            "figures": {"float": _figures(before.figures), "int8": _figures(after.figures)},
            "decisions": vars(found.judgement.decisions),
            "shifts": [round(float(value), 5) for value in _spread(found.judgement)],
            "thresholds": _thresholds(plan, found),
            "steps": [_step(step, len(plan.layers)) for step in found.steps],
            "race": _race(found),
            "alternatives": {name: _alternative(item) for name, item in found.alternatives.items()},
            "golden": golden_row(parity),
        },
    }


def _race(found: Found) -> dict[str, Any]:
    times = found.times_ms
    rival, speed_up = fastest_rival(times) if times else (None, None)
    return {
        "times_ms": times,
        "threads": found.threads,
        "cores": os.cpu_count(),
        "processor": _processor(),
        "rival": rival,
        "speed_up": None if speed_up is None else round(speed_up, 4),
        "faster": speed_up is not None and speed_up > MARGIN,
    }


def _alternative(item: Alternative) -> dict[str, Any]:
    return {"passed": item.judgement.passed, "size_bytes": item.size_bytes, "gates": gate_rows(item.judgement)}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a file of the kernel
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _thresholds(plan: Plan, found: Found) -> dict[str, float]:
    """Return the threshold that decides, and the one at which int8 decides as often."""
    manifest = plan.bundle.manifest
    shipped = manifest.predict.conf if manifest.thresholds is None else manifest.thresholds.image
    return {"shipped": shipped, "refit": found.judgement.refit}


def gate_rows(judgement: Judgement) -> list[dict[str, Any]]:
    """Return the gates as a receipt has them."""
    return [{**vars(gate), "value": _number(gate.value)} for gate in judgement.gates]


def golden_row(parity: ArtifactReport) -> dict[str, float | None]:
    """Return the differences on the golden set as a receipt has them."""
    return {
        "score": _number(parity.score_difference),
        "box_px": _number(parity.box_difference_px),
        "map": _number(parity.map_difference),
    }


def _step(step: Step, layers: int) -> dict[str, Any]:
    return {
        "floating": len(step.floating),
        "of": layers,
        "passed": step.judgement.passed,
        "gates": gate_rows(step.judgement),
        "p50_ms": step.p50_ms,
    }


def _spread(judgement: Judgement) -> list[float]:
    values = sorted(judgement.shifts.tolist())
    return values[:: max(1, math.ceil(len(values) / SHOWN))]


def _figures(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures as JSON has them: numbers, or tables of numbers."""
    return {key: _finite(value) for key, value in figures.items() if isinstance(value, (dict, float, int, str))}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return _number(value) if isinstance(value, float) else value


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
