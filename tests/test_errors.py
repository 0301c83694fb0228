"""The exception tree: drawn, complete, with exit codes."""

from __future__ import annotations

import re

import pytest

from edgekd import errors


def _classes() -> list[type[errors.EdgekdError]]:
    return [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.EdgekdError)]


def test_the_drawing_names_every_class_with_its_exit_code() -> None:
    drawn = dict(re.findall(r"(\w+Error)\s+(?:exit code )?(\d)", errors.__doc__ or ""))
    assert drawn == {item.__name__: str(item.exit_code) for item in _classes()}


@pytest.mark.parametrize("kind", _classes())
def test_exit_codes_are_those_the_command_line_documents(kind: type[errors.EdgekdError]) -> None:
    assert kind.exit_code in (1, 2, 3, 4, 5)
    assert kind.__doc__


def test_the_drawing_has_the_real_parents() -> None:
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.search(r"(\w+Error)\s", line + " ")
        if not match:
            continue
        depth = match.start()
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            assert getattr(errors, match[1]).__base__.__name__ == stack[-1][1]
        stack.append((depth, match[1]))
