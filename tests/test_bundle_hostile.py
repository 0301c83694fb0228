"""Files that were damaged, cut or forged: each gets its own error, quickly and in little memory."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgekd._bundle import Bundle
from edgekd._container import (
    COUNT,
    FIELDS,
    HEADER_BYTES,
    LINE,
    MAGIC,
    PAGE,
    ROW,
    Chunk,
    encode_header,
    encode_toc,
    end_of,
    layout,
    parse,
    toc_bytes,
)
from edgekd._manifest import InputSpec, Manifest, OutputSpec
from edgekd._manifest_json import manifest_to_json
from edgekd.errors import BundleError, BundleVersionError, CorruptBundleError, NotABundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANIFEST = Manifest(
    name="toy",
    task="detect",
    classes=("gun",),
    input=InputSpec(height=32, width=48),
    outputs=(
        OutputSpec(name="boxes", kind="boxes", shape=(6, 4), layout="xyxy"),
        OutputSpec(name="scores", kind="scores", shape=(6, 1), activation="sigmoid"),
    ),
)
CONTENTS = {"graph.onnx": b"graph", "large": bytes(range(256)) * 260, "manifest.json": manifest_to_json(MANIFEST)}


def rows_of(contents: dict[str, bytes]) -> tuple[Chunk, ...]:
    return layout({name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()})


def body_of(rows: tuple[Chunk, ...], contents: dict[str, bytes]) -> bytes:
    """Return what lies behind the table of contents."""
    start = HEADER_BYTES + toc_bytes(contents)
    body = bytearray(end_of(rows) - start)
    for row in rows:
        body[row.offset - start : row.offset - start + row.length] = contents[row.name]
    return bytes(body)


ROWS = rows_of(CONTENTS)
BODY = body_of(ROWS, CONTENTS)


def forge(rows: tuple[Chunk, ...] | bytes = ROWS, body: bytes = BODY, version: int = 1) -> bytes:
    """Return a file with any table of contents, whose hashes and lengths are nevertheless right."""
    toc = rows if isinstance(rows, bytes) else encode_toc(rows)
    return encode_header(toc, HEADER_BYTES + len(toc) + len(body), None, version) + toc + body


def with_manifest(data: bytes) -> bytes:
    contents = {**CONTENTS, "manifest.json": data}
    rows = rows_of(contents)
    return forge(rows, body_of(rows, contents))


def edit(index: int, **changes: object) -> tuple[Chunk, ...]:
    return (*ROWS[:index], dataclasses.replace(ROWS[index], **changes), *ROWS[index + 1 :])


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Bundle]:
    def read_bytes(data: bytes) -> Bundle:
        (tmp_path / "model.bin").write_bytes(data)
        return Bundle.read(tmp_path / "model.bin")

    return read_bytes


def test_forged_file_without_a_lie_is_read(read: Callable[[bytes], Bundle]) -> None:
    """So that every refusal below is for its own reason."""
    with read(forge()) as bundle:
        assert bundle.manifest == MANIFEST
        assert {name: bytes(bundle.chunk(name)) for name in bundle.names()} == CONTENTS


def test_every_truncation_is_told(read: Callable[[bytes], Bundle]) -> None:
    data = forge()
    for length in (*range(1, HEADER_BYTES + 40, 7), 1000, PAGE - 1, PAGE, PAGE + 1, len(data) - 1):
        with pytest.raises(CorruptBundleError, match="truncated"):
            read(data[:length])


def test_bytes_behind_the_end_are_refused(read: Callable[[bytes], Bundle]) -> None:
    with pytest.raises(CorruptBundleError, match="longer than it says"):
        read(forge() + b"PK\x05\x06")


def test_every_flipped_bit_is_found() -> None:
    """Any bit of header, table, padding and chunks; 97 is prime, so the positions fall everywhere."""
    data = bytearray(forge())
    for position in sorted({*range(HEADER_BYTES + 300), *range(0, len(data), 97), len(data) - 1}):
        data[position] ^= 1 << position % 8
        with pytest.raises(NotABundleError if position < len(MAGIC) else CorruptBundleError):
            parse(memoryview(data), "x")
        data[position] ^= 1 << position % 8
    parse(memoryview(data), "x")


def test_newer_container_and_newer_manifest_ask_for_an_upgrade(read: Callable[[bytes], Bundle]) -> None:
    with pytest.raises(BundleVersionError, match=r"container version 2; .*upgrade edgekd"):
        read(forge(version=2))
    newer = json.dumps({**json.loads(CONTENTS["manifest.json"]), "format": 2, "novelty": 1}).encode()
    with pytest.raises(BundleVersionError, match=r"model\.bin: manifest format 2; .*upgrade edgekd"):
        read(with_manifest(newer))


def header(**changes: int | bytes) -> bytes:
    """Return a file whose header claims something else; its own hash is right."""
    toc = encode_toc(ROWS)
    fields = {
        "magic": MAGIC,
        "version": 1,
        "flags": 0,
        "file_length": HEADER_BYTES + len(toc) + len(BODY),
        "toc_length": len(toc),
        "toc_hash": hashlib.sha256(toc).digest(),
        "key": bytes(32),
        "signature": bytes(64),
        "reserved": bytes(64),
        **changes,
    }
    packed = FIELDS.pack(*fields.values())
    return packed + hashlib.sha256(packed).digest() + toc + BODY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "fields that version 1 does not know"),
        ({"flags": 2}, "fields that version 1 does not know"),
        ({"reserved": b"\x01" + bytes(63)}, "fields that version 1 does not know"),
        ({"key": b"\x01" + bytes(31)}, "fields that version 1 does not know"),
        ({"file_length": 1 << 63}, "truncated"),
        ({"toc_length": (1 << 64) - 1}, r"claims 18446744073709551615 bytes"),
        ({"toc_length": (1 << 20) + 1}, r"claims 1048577 bytes"),
        ({"toc_length": 200_000}, r"claims 200000 bytes \(file"),
        ({"toc_length": 4}, "table of contents is damaged"),
        ({"toc_hash": bytes(32)}, "table of contents is damaged"),
    ],
)
def test_header_that_lies_is_refused(changes: dict[str, int], message: str, read: Callable[[bytes], Bundle]) -> None:
    with pytest.raises(CorruptBundleError, match=message):
        read(header(**changes))


def raw_row(row: Chunk, alignment: int | None = None, name: bytes | None = None) -> bytes:
    name = row.name.encode() if name is None else name
    fixed = (row.offset, row.length, row.alignment if alignment is None else alignment, bytes.fromhex(row.sha256))
    return ROW.pack(*fixed, len(name)) + name


def named(name: bytes) -> bytes:
    """Return a table of contents whose first chunk has this name."""
    return COUNT.pack(3) + raw_row(ROWS[0], name=name) + b"".join(raw_row(row) for row in ROWS[1:])


TOCS = {
    "claims 4294967295 chunks": COUNT.pack(0xFFFFFFFF) + encode_toc(ROWS)[4:],
    "claims 4097 chunks": COUNT.pack(4097) + encode_toc(ROWS)[4:],
    "claims -1 chunks": b"\x01",
    "ends within a row": COUNT.pack(4) + encode_toc(ROWS)[4:],
    "bytes behind its rows": encode_toc(ROWS) + b"\0",
    "large claims bytes 65536 to 9223372036854841344 of": edit(1, length=1 << 63),
    "large claims bytes 9223372036854775808 to": edit(1, offset=1 << 63),
    "large claims bytes 65536 to 132097 of": edit(1, length=ROWS[1].length + 1),
    "puts chunk large at byte 0, not 65536": edit(1, offset=0),
    "puts chunk large at byte 65535, not 65536": edit(1, offset=ROWS[1].offset - 1),
    f"puts chunk graph.onnx at byte {ROWS[2].offset}, not": edit(0, offset=ROWS[2].offset),
    "puts chunk large at byte 65536, not 576": edit(1, length=PAGE - 1),
    "claims alignment 64, not 65536": COUNT.pack(3) + raw_row(ROWS[0]) + raw_row(ROWS[1], 64) + raw_row(ROWS[2]),
    "claims alignment 0, not 64": COUNT.pack(3) + raw_row(ROWS[0], 0) + raw_row(ROWS[1]) + raw_row(ROWS[2]),
    "not listed in order": (ROWS[1], ROWS[0], ROWS[2]),
    "in order, each once": (ROWS[0], ROWS[0], ROWS[2]),
    "differ only in case": (dataclasses.replace(ROWS[0], name="graph.onnX"), ROWS[0]),
    "graph.onnx is damaged": edit(0, sha256="00" * 32),
    r"b'\.\./x' is no chunk name": named(b"../x"),
    r"b'/etc/passwd' is no": named(b"/etc/passwd"),
    r"b'a/\.\./\.\./b' is no": named(b"a/../../b"),
    r"b'C:\\\\x' is no": named(b"C:\\x"),
    r"b'a\\x00b' is no": named(b"a\0b"),
    r"b'a\\nb' is no": named(b"a\nb"),
    r"b'a\\n' is no": named(b"a\n"),
    r"b'\\x1b\[2J' is no": named(b"\x1b[2J"),
    r"b'a\\xef\\xbc\\x8eb' is no": named("a．b".encode()),
    r"b'\\xff' is no": named(b"\xff"),
    r"b'' is no": named(b""),
    r"b'\.' is no": named(b"."),
    r"b'a/\.hidden' is no": named(b"a/.hidden"),
    r"b'xxx.* is no": named(b"x" * 129),
}  # fmt: skip


@pytest.mark.parametrize("message", TOCS)
def test_table_of_contents_that_lies_is_refused(message: str, read: Callable[[bytes], Bundle]) -> None:
    with pytest.raises(CorruptBundleError, match=message):
        read(forge(TOCS[message]))


def test_bytes_hidden_between_chunks_are_refused(read: Callable[[bytes], Bundle]) -> None:
    body = bytearray(BODY)
    body[PAGE - HEADER_BYTES - toc_bytes(CONTENTS) - 1] = 1
    with pytest.raises(CorruptBundleError, match="hidden bytes in front of chunk large"):
        read(forge(body=bytes(body)))
    with pytest.raises(CorruptBundleError, match="the chunks end at byte"):
        read(forge(body=BODY + bytes(PAGE)))


def test_bundle_without_a_manifest_is_refused(read: Callable[[bytes], Bundle]) -> None:
    contents = {"graph.onnx": b"graph"}
    rows = rows_of(contents)
    with pytest.raises(CorruptBundleError, match="holds no manifest"):
        read(forge(rows, body_of(rows, contents)))
    with pytest.raises(CorruptBundleError, match="holds no manifest"):
        read(forge(COUNT.pack(0), b""))


def test_manifest_that_names_a_missing_chunk_is_refused(read: Callable[[bytes], Bundle]) -> None:
    contents = {key: value for key, value in CONTENTS.items() if key != "graph.onnx"}
    rows = rows_of(contents)
    with pytest.raises(CorruptBundleError, match=r"model\.bin: manifest\.graph names the chunk 'graph\.onnx'"):
        read(forge(rows, body_of(rows, contents)))


BOMBS = {
    "nested deeper than 32": b"[" * 900_000,
    "nested deeper than 32 ": b'{"a":' * 170_000 + b"1" + b"}" * 170_000,
    "at most 1048576": b" " * ((1 << 20) + 1),
    "of 900000 digits": b'{"format":' + b"9" * 900_000 + b"}",
    "a key twice": b'{"format":1,"format":1}',
    "no strict JSON": b"[" + b"[]," * 300_000 + b"]",
    "should be an object": b"[" + b"[]," * 300_000 + b"[]]",
    "strict JSON": b'"' + b'\\"' * 450_000,
    "strict JSON: .*surrogates": b'{"a":"\\ud800"}',
    "strict JSON: .*utf-8": b'{"a":"\xff"}',
    "strict JSON:": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("message", BOMBS)
def test_json_bomb_is_refused_quickly_in_bounded_memory(message: str, read: Callable[[bytes], Bundle]) -> None:
    data = with_manifest(BOMBS[message])
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(CorruptBundleError, match=message.strip()):
        read(data)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 100 << 20


def test_lying_table_costs_no_memory(read: Callable[[bytes], Bundle]) -> None:
    files = [forge(toc) for toc in TOCS.values()] + [header(toc_length=1 << 60)]
    tracemalloc.start()
    for data in files:
        with pytest.raises(CorruptBundleError):
            parse(memoryview(data), "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    st.dictionaries(
        st.sampled_from("abcdefghij"), st.binary(max_size=9) | st.sampled_from([bytes(PAGE), bytes(PAGE + 9)])
    )
)
@QUICK
def test_layout_never_overlaps_and_wastes_little(contents: dict[str, bytes]) -> None:
    rows = rows_of(contents)
    assert [row.name for row in rows] == sorted(contents)
    stored = sorted({(row.offset, row.length) for row in rows})
    for (start, length), (following, _) in itertools.pairwise(stored):
        assert start + length <= following < start + length + PAGE
    assert all(row.offset % (PAGE if row.length >= PAGE else LINE) == 0 for row in rows)
    assert len(stored) <= len(set(contents.values()))
    parsed = parse(memoryview(forge(rows, body_of(rows, contents))), "x")
    assert parsed.chunks == rows


@given(start=st.sampled_from([b"", MAGIC]), rest=st.binary(max_size=400))
@example(start=MAGIC, rest=b"")
@QUICK
def test_random_bytes_raise_bundle_errors_only(read: Callable[[bytes], Bundle], start: bytes, rest: bytes) -> None:
    with pytest.raises(BundleError):
        read(start + rest)


@given(st.data())
@QUICK
def test_random_edits_of_rows_with_right_hashes_are_refused_or_harmless(data: st.DataObject) -> None:
    """Offsets, lengths, hashes, names and the order are anything; what still passes describes the very same chunks."""
    sizes = st.sampled_from([0, 1, 63, 64, PAGE - 1, PAGE, PAGE + 64, 1 << 32, (1 << 64) - 1]) | st.integers(0, 200_000)
    rows = list(ROWS)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(rows) - 1))
        field = data.draw(st.sampled_from(["offset", "length", "sha256", "name", "swap", "drop", "twice"]))
        if field in ("offset", "length"):
            rows[index] = dataclasses.replace(rows[index], **{field: data.draw(sizes)})
        elif field == "sha256":
            rows[index] = dataclasses.replace(rows[index], sha256=data.draw(st.sampled_from(ROWS)).sha256)
        elif field == "name":
            rows[index] = dataclasses.replace(rows[index], name=data.draw(st.text("a/.\\\0é", max_size=5)))
        elif field == "swap":
            rows.reverse()
        elif field == "drop" and len(rows) > 1:
            del rows[index]
        else:
            rows.insert(index, rows[index])
    try:
        toc = COUNT.pack(len(rows)) + b"".join(raw_row(row) for row in rows)
        contents = parse(memoryview(forge(toc)), "x")
    except BundleError:
        return
    assert all(
        hashlib.sha256(CONTENTS[row.name]).hexdigest() == row.sha256 for row in contents.chunks if row.name in CONTENTS
    )
    assert rows_of(CONTENTS) == contents.chunks


@given(st.data())
@QUICK
def test_splices_cuts_and_flips_are_refused(data: st.DataObject) -> None:
    original = forge()
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "splice", "grow", "zero"]))
        start = data.draw(st.integers(0, max(0, len(changed) - 1)))
        stop = min(len(changed), start + data.draw(st.sampled_from([1, 8, 64, 4096])))
        if kind == "flip" and changed:
            changed[start] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del changed[start:stop]
        elif kind == "splice":
            source = data.draw(st.integers(0, len(original)))
            changed[start:stop] = original[source : source + stop - start]
        elif kind == "grow":
            changed[start:start] = bytes(stop - start)
        else:
            changed[start:stop] = bytes(stop - start)
    if changed == original:
        return
    with pytest.raises(BundleError):
        parse(memoryview(bytes(changed)), "x")
