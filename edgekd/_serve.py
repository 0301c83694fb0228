"""`serve`: a bundle behind HTTP, for one board: a picture in, JSON out."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ._detector import load
from .errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEAST_TOKEN = 16  # characters


@dataclass(frozen=True)
class ServeReport:
    """What a service did.

    Attributes:
        accepted: pictures that were taken on.
        answered: of those; the same number, unless a second Ctrl-C cut it short.
        rejected: pictures that were refused before they were read: 413, 415 and 503.
        seconds: that it was there.
    """

    accepted: int
    answered: int
    rejected: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def serve(
    path: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    mode: str = "latency",
    cache: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    queue: int = 16,
    max_body_bytes: int = 10 << 20,
    max_pixels: int = 50_000_000,
    timeout_ms: float = 10_000,
    ready: Callable[[str], None] | None = None,
) -> ServeReport:
    """Serve a bundle over HTTP until SIGINT or SIGTERM; then answer what was accepted, and return.

    `POST /predict` takes a picture and gives JSON, `GET /metrics` is for Prometheus, `GET /healthz` for who watches,
    and `/` is a page that shows a camera, a picture or a video with what is found on it. See docs/serving.md.

    Args:
        path: `model.bin`.
        device: as in `load`.
        precision: as in `load`.
        threads: as in `load`.
        mode: as in `load`.
        cache: as in `load`.
        host: address to listen on; any but loopback needs a token.
        port: 0: any that is free.
        token: who asks must send it, `Authorization: Bearer TOKEN`; at least 16 characters. None: none is asked for.
        queue: pictures that are read, wait or run at once; more get 503 and Retry-After.
        max_body_bytes: of one picture; larger ones get 413.
        max_pixels: of one picture, as its header says; more get 413. Decoding takes up to 18 bytes for each.
        timeout_ms: for one picture; then it gets 504.
        ready: told the address once it can be asked.

    Returns:
        How many pictures were accepted, answered and rejected.

    Raises:
        UsageError: as `load`; a number out of its range; an address that needs a token, or a token that is too short.
        HostError: the address cannot be listened on.
        MissingPackageError: Starlette or Uvicorn is not installed.
        BundleError: as `load`.
    """
    try:
        from ._serving.app import Limits, Service
        from ._serving.gate import is_loopback
        from ._serving.server import Server, listen
    except ImportError as error:
        raise MissingPackageError("serving needs Starlette and Uvicorn: pip install 'edgekd[serve]'") from error

    _check(queue=queue, max_body_bytes=max_body_bytes, max_pixels=max_pixels, timeout_ms=timeout_ms)
    _check_token(token, loopback=is_loopback(host), host=host)
    with (
        listen(host, port) as listener,
        load(path, device, precision, threads=threads, mode=mode, cache=cache) as detector,
    ):
        detector.warmup()
        service = Service(detector, Limits(queue, max_body_bytes, max_pixels, timeout_ms), token)
        shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        start = time.monotonic()
        Server(service, lambda: ready(url) if ready is not None else None).run_on(listener)
        return ServeReport(service.accepted, service.answered, service.rejected, time.monotonic() - start)


def _check(**least_one: float) -> None:
    for name, value in least_one.items():
        if not 1 <= value < math.inf:
            raise UsageError(f"{name} should be at least 1 and finite, got {value}")


def _check_token(token: str | None, *, loopback: bool, host: str) -> None:
    if token is None and not loopback:
        raise UsageError(
            f"others can reach {host}, so a token is needed. To make one: python -c 'import secrets; "
            "print(secrets.token_urlsafe())' > token; then --token-file token"
        )
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UsageError(f"a token should be {LEAST_TOKEN} or more printable ASCII characters")
