"""One request to a program of edgekd on a board, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._flash import wire
from .errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .device import Device


def ask(
    device: Device,
    command: Sequence[str],
    stdin: Iterable[bytes],
    told: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run a program of edgekd there and return its result.

    Args:
        device: the board.
        command: Python on the board, "-m", the program's module, its arguments.
        stdin: the request, and what follows it.
        told: each line of the answer.

    Raises:
        EdgekdError: the board's own error, or DeviceError where there was no answer.
    """
    last: dict[str, Any] = {}

    def listen(line: str) -> None:
        found = wire.parse_reply(line)
        if found is not None:
            if told is not None:
                told(found)
            last.update({key: found[key] for key in ("error", "result") if key in found})

    done = device.run(command, stdin=stdin, listen=listen)
    if "error" in last:
        raise wire.remote_error(last["error"], device.name)
    if isinstance(last.get("result"), dict):
        return dict(last["result"])
    raise DeviceError(_no_answer(device.name, command[0], done.code, done.errors))


def _no_answer(device: str, python: str, code: int, errors: str) -> str:
    reason = errors.splitlines()[-1] if errors else "it gave no reason"
    if "No module named" in errors or code in (126, 127):
        return (
            f"{device}: {python} there has no edgekd of this version ({reason}): install it on the "
            "board (`pip install edgekd` and the runtime of your target), or name its interpreter with --python"
        )
    return f"{device}: the board's program ended with status {code} and no answer: {reason}"
