"""The wire: what was sent arrives, what was bent is not believed, and nothing makes the board stumble."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd._flash import wire
from edgekd._flash.board import VERBS, serve
from edgekd.device import Disk
from edgekd.errors import DeviceError, EdgekdError, GateError

if TYPE_CHECKING:
    from pathlib import Path


def sent(*contents: bytes) -> bytes:
    return b"".join(wire.frames((hashlib.sha256(item).hexdigest(), memoryview(item)) for item in contents))


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_frames_arrive(contents: list[bytes]) -> None:
    got = list(wire.read_frames(io.BytesIO(sent(*contents))))
    assert [item[1] for item in got] == contents
    assert all(fits for _, _, fits in got)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_bent_byte_is_never_believed(at: int, bits: int) -> None:
    data = bytearray(sent(b"a" * 50, b"b" * 70))
    data[at % len(data)] ^= bits
    for sha256, content, fits in wire.read_frames(io.BytesIO(bytes(data))):
        assert fits == (hashlib.sha256(content).hexdigest() == sha256)


def test_a_length_beyond_all_chunks_is_not_read() -> None:
    assert list(wire.read_frames(io.BytesIO(wire.FRAME.pack(bytes(32), 1 << 31) + bytes(100)))) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "broke off"), (b"{}", "broke off"), (b"[]\n", "is none"), (b"{\n", "no JSON"),
     (b"[" * 99999 + b"\n", "JSON"),
     (b'{"protocol": 2}\n', "speaks protocol 2, this board 1")],
)  # fmt: skip
def test_what_is_no_request_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        wire.read_request(io.BytesIO(data))


def test_errors_come_back_as_what_they_were_and_nothing_else_becomes_an_exception() -> None:
    assert type(wire.remote_error({"kind": "GateError", "message": "m"}, "b")) is GateError
    for kind in ("annotations", "Exception", None, 3, "NoSuchError"):
        assert type(wire.remote_error({"kind": kind, "message": "m"}, "b")) is DeviceError
    assert isinstance(wire.remote_error("text", "b"), EdgekdError)
    for line in ("Welcome to Ubuntu", "edgekd {", "edgekd 3", ""):
        assert wire.parse_reply(line) is None


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=3))


@given(
    st.sampled_from(VERBS),
    st.dictionaries(st.sampled_from(["file", "chunks", "who", "to", "flash", "keep"]), JSON, max_size=4),
    st.binary(max_size=60),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_makes_the_board_stumble(tmp_path: Path, verb: str, fields: dict[str, Any], rest: bytes) -> None:
    def refuse(*_: Any) -> Any:
        raise GateError("not reached")

    lines: list[str] = []
    data = wire.request(**fields, root="/r", name="n") + rest
    code = serve([verb], io.BytesIO(data), lines.append, Disk(), tmp_path, refuse)
    last = wire.parse_reply(lines[-1])
    assert last is not None
    assert ("error" in last) == (code != 0)
    json.dumps(last)
    shutil.rmtree(tmp_path / "r", ignore_errors=True)
