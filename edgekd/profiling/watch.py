"""`Watch`: a thread that reads the sensors while something else is measured."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .sensors import Sensors

EVERY_S = 0.2


class Watch:
    """Context manager; afterwards `rows` holds (seconds since `start_s`, values by sensor).

    Reading a dozen files five times a second takes a thousandth of a core.
    """

    def __init__(self, sensors: Sensors, every_s: float = EVERY_S) -> None:
        """Read every `every_s` seconds, and at the beginning and the end."""
        self.rows: list[tuple[float, dict[str, float]]] = []
        self.start_s = 0.0
        self._sensors, self._every_s = sensors, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgekd-watch", daemon=True)

    def __enter__(self) -> Self:
        self.start_s = time.perf_counter()
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._read()

    def _read(self) -> None:
        self.rows.append((time.perf_counter() - self.start_s, self._sensors.read()))
