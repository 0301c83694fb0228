"""Who may ask: a token, and no other site's page through the user's browser."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    Headers = dict[str, str]

OPEN = ("/", "/overlay.js", "/overlay.css", "/healthz")  # tell nothing that is worth a token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """Lets in who has the token or, where none is asked for, who knows this machine by a loopback name.

    The name is checked because a page on the web may call its own server's name 127.0.0.1, and would then be asked for
    by the browser of whoever looks at it.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Stand before an app."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401 or 403."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope.get("headers", [])}
        status, problem = self._problem(scope.get("path", ""), headers)
        if not status:
            await self._app(scope, receive, send)
            return
        answer = JSONResponse({"error": problem}, status)
        if status == 401:
            answer.headers["WWW-Authenticate"] = "Bearer"
        await answer(scope, receive, send)

    def _problem(self, path: str, headers: Headers) -> tuple[int, str]:
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, f"a page of {origin} may not ask {host}"
        if self._token is None:
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
            return (0, "") if is_loopback(name) else (403, f"this service answers to localhost, not to {host!r}")
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if path in OPEN or hmac.compare_digest(given, self._token.encode()):
            return 0, ""
        return 401, "a token is needed: Authorization: Bearer TOKEN"
