"""`Parser`: argparse whose options with an optional value leave the word behind them alone if it is not theirs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Parser(argparse.ArgumentParser):
    """Takes `predict model.bin --json picture.png`, where argparse would read the picture as the value of --json.

    The parsers of the commands are of this class too, since argparse makes them of their parent's.
    """

    def parse_known_args(  # type: ignore[override]  # typeshed has an overload for each kind of namespace
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse words after giving each option that stands without its optional value the one that it then means."""
        return super().parse_known_args(None if args is None else list(self._completed(args)), namespace)

    def _completed(self, words: Sequence[str]) -> Iterator[str]:
        optional = {name: action for action in self._actions if action.nargs == "?" for name in action.option_strings}
        last = words.index("--") if "--" in words else len(words)
        for index, word in enumerate(words):
            action = optional.get(word) if index < last else None
            if action is None or (index + 1 < last and _takes(action, words[index + 1])):
                yield word
            else:
                yield f"{word}={action.const}"


def _takes(action: argparse.Action, word: str) -> bool:
    """Whether a word can be the value of an option."""
    try:
        value = action.type(word) if callable(action.type) else word
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        return False
    return action.choices is None or value in action.choices
