"""A device whose every latency is known: the profile says just that, and keeps what is slow."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.profiling import run
from edgekd.profiling.run import Pace, measure
from edgekd.profiling.sensors import Sensors

from .board import write_board

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Device:
    """Takes as long as it is told, by a clock that only it and sleep move."""

    def __init__(self, latencies_ms: Iterator[float]) -> None:
        self.now, self.latencies_ms, self.shown = 100.0, latencies_ms, []
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def predict(self, image: Any) -> Any:
        self.shown.append(image)
        taken = next(self.latencies_ms)
        self.now += taken / 1e3
        return SimpleNamespace(timings_ms={"letterbox": 0.1 * taken, "infer": 0.8 * taken, "total": 0.9 * taken})


def measured(device: Device, pace: Pace, root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> run.Measured:
    monkeypatch.setattr(run, "time", device)
    return measure(device.predict, ["a", "b", "c"], pace, Sensors(root), **options)


def test_every_sample_is_kept_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    given = np.where(np.arange(500) % 100 == 50, 400.0, rng.lognormal(2, 0.3, 500))
    device = Device(iter(given.tolist()))
    found = measured(device, Pace(500, 0, None), tmp_path, monkeypatch)
    np.testing.assert_allclose(found.stages_ms["total"], given, rtol=1e-6)
    np.testing.assert_allclose(found.stages_ms["infer"], 0.8 * given, rtol=1e-6)
    np.testing.assert_allclose(found.stages_ms["other"], 0.1 * given, rtol=1e-4)
    assert max(found.stages_ms["total"]) == pytest.approx(400)
    np.testing.assert_allclose(found.start_s, np.concatenate([[0], np.cumsum(given[:-1]) / 1e3]), atol=1e-9)
    assert device.shown[:4] == ["a", "b", "c", "a"]
    assert not device.slept


def test_a_camera_pace_waits_for_the_next_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(iter([20.0, 20.0, 250.0, 20.0, 20.0, 20.0]))
    found = measured(device, Pace(6, 0, 10.0), tmp_path, monkeypatch)
    np.testing.assert_allclose(found.start_s, [0, 0.1, 0.2, 0.45, 0.47, 0.5], atol=1e-9)  # catches up, then waits again


def test_a_soak_lasts_as_long_as_asked_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, int]] = []
    device = Device(iter([50.0] * 1000))
    found = measured(device, Pace(3, 5.0, None), tmp_path, monkeypatch, progress=lambda *row: told.append(row))
    assert len(found.start_s) in (100, 101)  # the sum of a hundred twentieths may fall short of five
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert 3 <= len(told) <= 5


def test_throttling_meanwhile_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hot() -> Iterator[float]:
        for index in range(200):
            if index == 100:
                write_board(tmp_path, **{"sys/class/thermal/cooling_device0/cur_state": "2"})
            yield 10.0

    found = measured(Device(hot()), Pace(200, 0, None), write_board(tmp_path), monkeypatch)
    assert found.problems == ["it throttled (cpu-throttle-alert): cool it, or lower the power mode until it holds"]
    assert found.conditions["throttle cpu-throttle-alert"][0] == 0
    assert len(found.conditions["time_s"]) == len(found.conditions["power VDD_IN"]) >= 2


def test_a_sensor_that_failed_once_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleepy() -> Iterator[float]:
        yield 1.0
        (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("")
        yield 1.0

    found = measured(Device(sleepy()), Pace(2, 0, None), write_board(tmp_path), monkeypatch)
    assert "temperature cpu-thermal" not in found.conditions
    assert "power VDD_IN" in found.conditions


def test_the_machine_is_described(tmp_path: Path) -> None:
    about = run.machine(Sensors(write_board(tmp_path)))
    assert about["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert about["packages"]["edgekd"]
    assert about["processor"]
    assert run.peak_memory_bytes() > 10 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is only ru_maxrss")
def test_peak_memory_when_a_large_program_started_this_one_then_it_is_its_own() -> None:
    child = "from edgekd.profiling.run import peak_memory_bytes; print(peak_memory_bytes())"
    parent = f"import subprocess, sys; held = b'x' * (600 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    found = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True).stdout
    assert 10 << 20 < int(found) < 400 << 20
