"""What is read of a board, in which unit."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from edgekd.profiling.sensors import UNITS, Sensors
from edgekd.profiling.watch import Watch

from .board import write_board

if TYPE_CHECKING:
    from pathlib import Path


def test_every_sensor_is_read_in_its_unit(tmp_path: Path) -> None:
    found = Sensors(write_board(tmp_path)).read()
    process = found.pop("busy process")
    assert process == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert found == pytest.approx(
        {
            "clock cpu0": 1510.4,
            "clock cpu1": 729.6,
            "clock 17000000.gpu": 624.75,
            "temperature cpu-thermal": 51.5,
            "throttle cpu0": 7,
            "throttle cpu-throttle-alert": 0,
            "throttle firmware": 0x50005,
            "power VDD_IN": 6.0,
            "energy package-0": 2.5,
            "busy machine": 163 / os.sysconf("SC_CLK_TCK"),
        }
    )
    assert {name.partition(" ")[0] for name in found} <= set(UNITS)


def test_settings_name_governor_mode_and_board(tmp_path: Path) -> None:
    assert Sensors(write_board(tmp_path)).settings() == {
        "governor": "schedutil",
        "power mode": "pmode:0001",
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
    }


def test_a_bare_machine_has_no_sensor_but_the_process(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    assert [sensor.name for sensor in sensors.found] == ["busy process"]
    assert sensors.settings() == {}


def test_this_machine_can_be_read() -> None:
    found = Sensors().read()
    assert found["busy machine"] >= found["busy process"] - 1


def test_a_sensor_that_goes_to_sleep_is_left_out(tmp_path: Path) -> None:
    sensors = Sensors(write_board(tmp_path))
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("")
    assert "temperature cpu-thermal" not in sensors.read()


def test_watch_reads_at_both_ends_and_between(tmp_path: Path) -> None:
    with Watch(Sensors(write_board(tmp_path)), every_s=0.01) as watch:
        time.sleep(0.05)
        (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("60000")
    times = [at for at, _ in watch.rows]
    assert len(watch.rows) >= 3
    assert times == sorted(times)
    assert (watch.rows[0][1]["temperature cpu-thermal"], watch.rows[-1][1]["temperature cpu-thermal"]) == (51.5, 60.0)
