"""JSON that nobody vouches for, read strictly: bounds first, then types and ranges, and errors that name the field."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .errors import CorruptBundleError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_DIGITS = 20  # of an integer: 64 bits and a sign
# Control characters, line separators, direction overrides and lone surrogates: they forge lines in a terminal or a log.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
PRINTABLE = r"\S(?:.*\S)?"  # not empty, no blanks around it
_STEPS = np.zeros(256, np.int8)  # what each byte adds to the depth
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1

T = TypeVar("T")
Read = Callable[[object, str], T]
"""Reads one JSON value; the text says where it stands, for messages. Raises CorruptBundleError."""


def parse_json(data: bytes) -> Any:
    """Parse JSON: bounded in length and depth, no duplicate key, no NaN, no infinity, only well-formed text.

    Raises:
        CorruptBundleError: it is not that.
    """
    if len(data) > MAX_BYTES:
        raise CorruptBundleError(f"the JSON has {len(data)} bytes; at most {MAX_BYTES} are read")
    if _depth(data) > MAX_DEPTH:
        raise CorruptBundleError(f"the JSON is nested deeper than {MAX_DEPTH} levels")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_int=_int, parse_float=_float, parse_constant=_no_constant
        )
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates fail here
    except ValueError as error:
        raise CorruptBundleError(f"this is no strict JSON: {error}") from error
    return value


def _depth(data: bytes) -> int:
    """Return how deep brackets nest outside of strings, without recursion: `json` itself recurses in C."""
    no_escapes = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = b"".join(no_escapes.split(b'"')[::2])
    steps = _STEPS[np.frombuffer(structure, np.uint8)]
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has a key twice")
    return result


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:  # int() takes time quadratic in the digits
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond float64")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


class Table:
    """A JSON object being read: each key is taken once; a missing one and one left over are errors."""

    def __init__(self, value: object, where: str) -> None:
        self.rest = dict(table(value, where))
        self.where = where

    def take(self, key: str, read: Read[T]) -> T:
        """Remove a key and return its value as `read` gives it."""
        if key not in self.rest:
            raise CorruptBundleError(f"{self.where} lacks the key {key!r}")
        return read(self.rest.pop(key), f"{self.where}.{key}")

    def close(self) -> None:
        """Raise if a key was not taken."""
        if self.rest:
            raise CorruptBundleError(f"{self.where} has the unknown key {min(self.rest)!r}")


def wrong(where: str, expected: str, value: object) -> CorruptBundleError:
    """Return the error for a value of another kind than `expected`."""
    got = repr(value)
    return CorruptBundleError(f"{where} should be {expected}, got {got if len(got) <= 80 else got[:77] + '...'}")


def table(value: object, where: str) -> dict[str, Any]:
    """Read an object of any keys."""
    if not isinstance(value, dict):
        raise wrong(where, "an object", value)
    return value


def integer(low: int, high: int) -> Read[int]:
    """Read an integer in `low..high`."""

    def read(value: object, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise wrong(where, f"an integer from {low} to {high}", value)
        return value

    return read


def number(low: float, high: float) -> Read[float]:
    """Read a number in `low..high` as a float."""

    def read(value: object, where: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise wrong(where, f"a number from {low:g} to {high:g}", value)
        return float(value)

    return read


def text(limit: int, pattern: str = PRINTABLE) -> Read[str]:
    """Read printable text of at most `limit` characters that matches `pattern` as a whole."""

    def read(value: object, where: str) -> str:
        if not isinstance(value, str) or len(value) > limit or UNPRINTABLE.search(value):
            raise wrong(where, f"printable text of at most {limit} characters", value)
        if not re.fullmatch(pattern, value):
            raise wrong(
                where, "text without blanks around it" if pattern == PRINTABLE else f"text like {pattern}", value
            )
        return value

    return read


def choice(*options: str | None) -> Read[Any]:
    """Read one of a few strings, or null."""

    def read(value: object, where: str) -> Any:
        if value not in options:
            raise wrong(where, " or ".join("null" if item is None else repr(item) for item in options), value)
        return value

    return read


def many(read_item: Read[T], low: int, high: int) -> Read[tuple[T, ...]]:
    """Read a list of `low..high` items."""

    def read(value: object, where: str) -> tuple[T, ...]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise wrong(where, f"a list of {low} to {high} items", value)
        return tuple(read_item(item, f"{where}[{index}]") for index, item in enumerate(value))

    return read


def distinct(read_items: Read[tuple[str, ...]]) -> Read[tuple[str, ...]]:
    """Read a list of strings that holds none twice."""

    def read(value: object, where: str) -> tuple[str, ...]:
        items = read_items(value, where)
        name, count = max(Counter(items).items(), key=lambda item: item[1], default=("", 0))
        if count > 1:
            raise CorruptBundleError(f"{where} names {name!r} {count} times")
        return items

    return read


def mapping(read_key: Read[str], read_item: Read[T]) -> Read[dict[str, T]]:
    """Read an object of any keys, each checked, with values of one kind."""

    def read(value: object, where: str) -> dict[str, T]:
        items = table(value, where).items()
        return {read_key(key, f"a key of {where}"): read_item(item, f"{where}.{key}") for key, item in items}

    return read
