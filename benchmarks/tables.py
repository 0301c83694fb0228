"""Tables of results: where they stand in a page, and how figures of several seeds are written."""

from __future__ import annotations

import math
import statistics


def between(text: str, name: str, script: str, body: str) -> str:
    """Return a page with what stands between the marks `name` replaced by `body`."""
    begin, end = f"<!-- {name}: written by benchmarks/{script} table -->", f"<!-- /{name} -->"
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n\n{body}\n\n{end}{rest.split(end, 1)[1]}"


def spread(values: list[float], *, sign: bool = False, digits: int = 1) -> str:
    """Return "mean ± std", the one value, or nothing."""
    plus = "+" if sign else ""
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2:
        return f"{values[0]:{plus}.{digits}f}" if values else ""
    return f"{statistics.mean(values):{plus}.{digits}f} ± {statistics.stdev(values):.{digits}f}"
