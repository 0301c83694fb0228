"""The routes: a picture in, JSON out; metrics, health, and a page that shows it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .._preprocess import pixel_count
from ..errors import ClosedError, DeadlineError, EdgekdError, ImageError, UsageError
from .answer import FORMS, options_of
from .gate import Gate
from .metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from .._detector import Detector

GONE = 499  # as nginx counts it: no fault of the service
READ_S = 30.0  # for a whole body: who sends slower holds a place that others want
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; media-src blob:; connect-src 'self'"
)
PAGE = {"/": ("overlay.html", "text/html"), "/overlay.js": ("overlay.js", "text/javascript")}
PAGE |= {"/overlay.css": ("overlay.css", "text/css")}


@dataclass(frozen=True)
class Limits:
    """What the service takes on.

    Attributes:
        queue: pictures that are read, wait or run at once.
        max_body_bytes: of one picture.
        max_pixels: of one picture; a small file may hold very many.
        timeout_ms: from the picture's arrival to its answer.
    """

    queue: int
    max_body_bytes: int
    max_pixels: int
    timeout_ms: float


class _Refused(Exception):  # noqa: N818 - no error of ours: an answer
    """An answer other than 200."""

    def __init__(self, status: int, problem: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem)
        self.answer = JSONResponse({"error": problem}, status, headers)


class Service:
    """A detector behind routes. Every picture that is accepted is answered."""

    def __init__(self, detector: Detector, limits: Limits, token: str | None) -> None:
        """Compose the app; `draining` is set by who ends the service."""
        self._detector, self._limits = detector, limits
        ran = detector.info.session
        about = {"model": detector.manifest.name, "target": ran.target, "precision": ran.precision}
        self.metrics = Metrics({**about, "device": ran.device, "runtime": ran.runtime})
        self.accepted = self.answered = self.rejected = 0
        self.draining = False
        routes = [Route(path, self._page, methods=["GET"]) for path in PAGE]
        routes += [
            Route("/predict", self._predict, methods=["POST"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        self.app: ASGIApp = Gate(Starlette(routes=routes), token)

    @property
    def under_way(self) -> int:
        """Pictures that were accepted and not answered yet."""
        return self.accepted - self.answered

    async def _predict(self, request: Request) -> Response:
        try:
            self._admit(request)
        except _Refused as refused:
            self.rejected += 1
            return refused.answer
        self.accepted += 1
        start = time.perf_counter()
        answer: Response = JSONResponse({"error": "the service failed"}, 500)
        try:
            answer = await self._answer(request)
        except _Refused as refused:
            answer = refused.answer
        finally:
            self.answered += 1
            self.metrics.answered(answer.status_code, time.perf_counter() - start)
        return answer

    def _admit(self, request: Request) -> None:
        """Refuse before the body is read what cannot be taken on."""
        if self.draining or self.under_way >= self._limits.queue:
            reason = "draining" if self.draining else "busy"
            self.metrics.rejected(reason)
            seconds = max(1, math.ceil(self.under_way * self.metrics.mean_s))
            problem = f"{reason}: {self.under_way} pictures are under way, of at most {self._limits.queue}"
            raise _Refused(503, problem, {"Retry-After": str(seconds)})
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.max_body_bytes:
            self.metrics.rejected("too large")
            raise _Refused(413, self._too_large())
        kind = request.headers.get("content-type", "")
        if kind.startswith(("multipart/", "application/json")):
            self.metrics.rejected("type")
            raise _Refused(415, f"send the picture itself, not {kind.partition(';')[0]}: curl --data-binary @bag.jpg")

    async def _answer(self, request: Request) -> Response:
        form, options = self._options(request)
        body = await self._body(request)
        if not body:
            raise _Refused(400, "no picture was sent: curl --data-binary @bag.jpg")
        await self._check_pixels(body)
        try:
            found = await self._detector.apredict(body, timeout_ms=self._limits.timeout_ms, **options)
        except DeadlineError as error:
            raise _Refused(504, str(error)) from error
        except ClosedError as error:
            raise _Refused(503, str(error), {"Retry-After": "1"}) from error
        except UsageError as error:
            raise _Refused(400, str(error)) from error
        except EdgekdError as error:
            raise _Refused(500, str(error)) from error
        self.metrics.found(found)
        return JSONResponse(FORMS[form](found))

    def _options(self, request: Request) -> tuple[str, dict[str, Any]]:
        try:
            return options_of(request.query_params)
        except UsageError as error:
            raise _Refused(400, str(error)) from error

    async def _body(self, request: Request) -> bytes:
        async def read() -> bytes:
            pieces: list[bytes] = []
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > self._limits.max_body_bytes:  # sent in pieces, without a length
                    raise _Refused(413, self._too_large())
                pieces.append(piece)
            return b"".join(pieces)

        try:
            return await asyncio.wait_for(read(), READ_S)
        except ClientDisconnect as error:
            raise _Refused(GONE, "the client went away amid its picture") from error  # read by nobody, and counted
        except asyncio.TimeoutError as error:
            raise _Refused(408, f"the picture did not arrive within {READ_S:g} s") from error

    async def _check_pixels(self, body: bytes) -> None:
        """Refuse by its header a picture that would take too much memory; in a thread, as a header may be long."""
        try:
            count = await asyncio.to_thread(pixel_count, body)
        except ImageError as error:
            raise _Refused(400, str(error)) from error
        if count > self._limits.max_pixels:
            raise _Refused(
                413,
                f"the picture has {count / 1e6:.4g} megapixels, of at most {self._limits.max_pixels / 1e6:.4g}; "
                "send it smaller, or serve with --max-megapixels",
            )

    def _too_large(self) -> str:
        return f"a picture may have {self._limits.max_body_bytes} bytes; send it smaller, or serve with --max-body-mb"

    async def _metrics(self, _: Request) -> Response:
        gauges = {
            "edgekd_under_way": ("Pictures that are read, wait or run.", self.under_way),
            "edgekd_queue_depth": ("Pictures that wait for a thread.", self._detector.waiting),
            "edgekd_queue_limit": ("Pictures under way at most; more are rejected.", self._limits.queue),
        }
        return PlainTextResponse(self.metrics.render(gauges), media_type="text/plain; version=0.0.4")

    async def _health(self, _: Request) -> Response:
        state = "draining" if self.draining else "ok"
        return JSONResponse({"status": state, "model": self._detector.manifest.name}, 503 if self.draining else 200)

    async def _page(self, request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return Response(text, media_type=kind, headers=headers)
