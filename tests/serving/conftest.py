"""A service on a free port of loopback, in a thread; and plain requests to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from edgekd._detector import load

from ..conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

    from edgekd._detector import Detector
    from edgekd._serving.app import Service

LIMIT_S = 60


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A service that can be asked."""

    port: int
    service: Service
    detector: Detector
    server: Any
    thread: threading.Thread

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            told = connection.getresponse()
            return Answer(told.status, {k.lower(): v for k, v in told.getheaders()}, told.read())

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()


def png(picture: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(picture).save(held, "PNG")
    return held.getvalue()


PICTURE = png(bundles.pictures(1)[0])


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start services; they end with the test."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from edgekd._serving.app import Limits, Service
    from edgekd._serving.server import Server, listen

    with contextlib.ExitStack() as stack:

        def start(
            *, token: str | None = None, queue: int = 16, max_body_bytes: int = 1 << 20,
            max_pixels: int = 50_000_000, timeout_ms: float = 30_000, **kind: bool,
        ) -> Running:  # fmt: skip
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
            bundles.portable(**kind).write(path)
            detector = stack.enter_context(load(path))
            service = Service(detector, Limits(queue, max_body_bytes, max_pixels, timeout_ms), token)
            listener = stack.enter_context(contextlib.closing(listen("127.0.0.1", 0)))
            listening = threading.Event()
            server = Server(service, listening.set)
            thread = threading.Thread(target=server.run_on, args=(listener,), name="service")
            thread.start()
            running = Running(listener.getsockname()[1], service, detector, server, thread)
            stack.callback(running.stop)
            assert listening.wait(LIMIT_S)
            return running

        yield start
