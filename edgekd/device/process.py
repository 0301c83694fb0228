"""One child process: input in pieces, output by lines, errors kept. `subprocess` is imported on use: it costs time."""

from __future__ import annotations

import contextlib
import threading
from typing import IO, TYPE_CHECKING

from ..errors import HostError
from .device import Done

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .device import Listen

ERROR_BYTES = 4000  # kept of standard error, from its end
LINE_BYTES = 1 << 22  # a longer line is cut: no output can fill the memory


def run_process(command: Sequence[str], stdin: Iterable[bytes], listen: Listen | None, *, apart: bool = False) -> Done:
    """Run a program of this machine to its end.

    An interrupt kills it; one that runs `apart`, away from the terminal and its ^C, goes on, and nobody listens to it.

    Raises:
        HostError: there is no such program.
    """
    import subprocess

    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=apart
        )
    except OSError as error:
        raise HostError(f"cannot start {command[0]}: {error.strerror}; install it or put it on the PATH") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = bytearray()
    failures: list[BaseException] = []
    feeder = threading.Thread(target=_feed, args=(process.stdin, stdin, failures), daemon=True)
    drain = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
    feeder.start()
    drain.start()
    try:
        for line in iter(lambda: process.stdout.readline(LINE_BYTES), b""):  # type: ignore[union-attr]
            if listen is not None:
                listen(line.decode("utf-8", errors="replace").rstrip("\r\n"))
        code = process.wait()
    except BaseException:  # an interrupt, or the listener gave up: nobody waits for the child any more
        if apart:
            threading.Thread(target=process.wait, daemon=True).start()  # but for this, which takes notice of its end
        else:
            process.kill()
            process.wait()
        raise
    finally:
        process.stdout.close()
    feeder.join()
    drain.join()
    if failures:
        raise failures[0]
    return Done(code, bytes(errors).decode("utf-8", errors="replace").strip())


def _feed(pipe: IO[bytes], pieces: Iterable[bytes], failures: list[BaseException]) -> None:
    """Write until the end, or until the child stops reading; what the pieces raise is kept for the caller."""
    try:
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                pipe.write(piece)
    except Exception as error:  # raised again by the thread that waits
        failures.append(error)
    finally:
        with contextlib.suppress(OSError):
            pipe.close()


def _drain(pipe: IO[bytes], kept: bytearray) -> None:
    for piece in iter(lambda: pipe.read1(1 << 16), b""):  # type: ignore[attr-defined]
        kept += piece
        del kept[:-ERROR_BYTES]
    pipe.close()
