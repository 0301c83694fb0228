"""`Sensors`: clocks, temperatures, power, throttling and other load, as Linux shows them. Absent ones are left out.

Jetson boards have their rails behind INA3221 (hwmon) and the GPU's clock under devfreq, Intel and AMD chips energy
counters under powercap, the Raspberry Pi its firmware's throttle word.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNITS = {
    "clock": "MHz",
    "temperature": "°C",
    "power": "W",
    "energy": "J",  # a counter
    "throttle": "",  # a counter or a state: more than at the beginning is bad
    "busy": "s",  # counters of processor time: of the machine, and of this process
}


@dataclass(frozen=True)
class Sensor:
    """One quantity: `kind` of `UNITS`, what it belongs to, and how it is read."""

    kind: str
    of: str
    read: Callable[[], float]

    @property
    def name(self) -> str:
        """Kind and owner, for example "temperature cpu-thermal"."""
        return f"{self.kind} {self.of}"


class Sensors:
    """Everything that can be read here, found once."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Look for sensors below `root`."""
        self._root = root
        found: dict[str, Sensor] = {}
        for sensor in (*self._clocks(), *self._thermal(), *self._rails(), *self._energy(), *self._load()):
            if _value(sensor) is not None:
                found.setdefault(sensor.name, sensor)  # of two zones with one name the first
        self.found = tuple(found.values())

    def read(self) -> dict[str, float]:
        """Return name -> value of what can be read right now."""
        values = {sensor.name: _value(sensor) for sensor in self.found}
        return {name: value for name, value in values.items() if value is not None}

    def settings(self) -> dict[str, str]:
        """Return what does not change by itself: governors, power mode, board."""
        governors = {_text(path) for path in self._glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")}
        found = {
            "governor": ", ".join(sorted(governors - {""})),
            "power mode": _text(self._root / "var/lib/nvpmodel/status"),
            "board": _text(self._root / "proc/device-tree/model"),
        }
        return {name: value for name, value in found.items() if value}

    def _glob(self, pattern: str) -> list[Path]:
        return sorted(self._root.glob(pattern))

    def _clocks(self) -> Iterator[Sensor]:
        for path in self._glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"):
            yield Sensor("clock", path.parts[-3], _scaled(path, 1e-3))  # kHz
        for path in self._glob("sys/class/devfreq/*/cur_freq"):
            yield Sensor("clock", path.parent.name, _scaled(path, 1e-6))  # Hz

    def _thermal(self) -> Iterator[Sensor]:
        for path in self._glob("sys/class/thermal/thermal_zone*/temp"):
            yield Sensor("temperature", _text(path.parent / "type") or path.parent.name, _scaled(path, 1e-3))
        for path in self._glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"):
            yield Sensor("throttle", path.parts[-3], _scaled(path, 1.0))
        for path in self._glob("sys/class/thermal/cooling_device*/cur_state"):
            kind = _text(path.parent / "type")
            if "throttle" in kind or "alert" in kind:
                yield Sensor("throttle", kind, _scaled(path, 1.0))
        for path in self._glob("sys/devices/platform/soc/*/get_throttled"):
            yield Sensor("throttle", "firmware", _word(path))

    def _rails(self) -> Iterator[Sensor]:
        for label in self._glob("sys/class/hwmon/hwmon*/in[0-9]*_label"):
            number = label.name[2 : -len("_label")]
            volts, amperes = label.parent / f"in{number}_input", label.parent / f"curr{number}_input"
            if volts.exists() and amperes.exists():
                yield Sensor("power", _text(label), _product(volts, amperes))

    def _energy(self) -> Iterator[Sensor]:
        for path in self._glob("sys/class/powercap/intel-rapl:*/energy_uj"):
            yield Sensor("energy", _text(path.parent / "name"), _scaled(path, 1e-6))

    def _load(self) -> Iterator[Sensor]:
        stat = self._root / "proc/stat"
        yield Sensor("busy", "machine", lambda: _machine_seconds(stat))
        yield Sensor("busy", "process", lambda: sum(os.times()[:2]))


def _scaled(path: Path, factor: float) -> Callable[[], float]:
    return lambda: factor * float(path.read_text())


def _word(path: Path) -> Callable[[], float]:
    return lambda: float(int(path.read_text(), 16))


def _product(volts: Path, amperes: Path) -> Callable[[], float]:
    return lambda: 1e-6 * float(volts.read_text()) * float(amperes.read_text())  # mV, mA


def _machine_seconds(stat: Path) -> float:
    """Return the processor time that all cores together have spent on anything."""
    user, nice, system, _idle, _iowait, irq, softirq = map(float, stat.read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _value(sensor: Sensor) -> float | None:
    try:
        return sensor.read()
    except (OSError, ValueError):  # no permission, a device that sleeps, a file of another form
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""
