"""What the numbers among a method's options may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_numbers(method: str, options: object, *, at_least_0: Sequence[str] = (), above_0: Sequence[str] = ()) -> None:
    """Look at options by name; None is left alone.

    A negative weight would drive the student away from the teacher, and nothing in the log would say so.

    Raises:
        RecipeError: one is out of range or not finite.
    """
    for names, words, zero in ((at_least_0, "0 or above", True), (above_0, "above 0", False)):
        for name in names:
            value = getattr(options, name)
            if value is not None and not (0 < value < math.inf or (zero and value == 0)):
                raise RecipeError(f"{method}: {name} is {value}; it should be {words}, and finite")
