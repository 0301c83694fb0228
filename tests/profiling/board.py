"""A board of files: what a Jetson, an Intel machine and a Raspberry Pi show under /sys and /proc."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "729600",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7",
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51500\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "not now",
    "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device1/type": "pwm-fan",
    "sys/class/thermal/cooling_device1/cur_state": "3",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon3/in1_input": "5000",
    "sys/class/hwmon/hwmon3/curr1_input": "1200",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_NO_CURRENT",
    "sys/class/hwmon/hwmon3/in2_input": "5000",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "2500000",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0x50005",
    "proc/stat": "cpu  100 20 30 4000 50 6 7 0 0 0\ncpu0 1 2 3\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "var/lib/nvpmodel/status": "pmode:0001\n",
}


def write_board(root: Path, **changes: str) -> Path:
    for name, text in {**FILES, **changes}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
