"""The service on a socket, with Uvicorn: it ends when what it accepted is answered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn

from ..errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .app import Service


class Server(uvicorn.Server):
    """Uvicorn, which ends with exit code 0 and tells when it can be asked."""

    def __init__(self, service: Service, ready: Callable[[], None]) -> None:
        """Serve a service; `ready` is called once it listens."""
        super().__init__(
            uvicorn.Config(
                service.app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
                server_header=False, proxy_headers=False, timeout_keep_alive=20,
            )
        )  # fmt: skip
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and wait for the answers."""
        self._service.draining = True
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGINT and SIGTERM. Uvicorn's own would raise the signal again, and so end the process by it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {
            each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def run_on(self, listener: socket.socket) -> None:
        """Serve until a signal, or `should_exit`."""
        asyncio.run(self.serve(sockets=[listener]))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        HostError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise HostError(f"cannot listen on {host} port {port}: {error}; --port 0 takes any that is free") from error
