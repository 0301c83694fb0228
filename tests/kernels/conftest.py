"""Every kernel test runs once for each compiled implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgekd import ops

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPILED = [name for name in ops.IMPLEMENTATIONS if name != "numpy reference"]


@pytest.fixture(scope="module", params=COMPILED)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in ops.available():
        pytest.skip(f"{request.param} is not available here: {ops.available()}")
    ops.select(request.param)
    yield request.param
    ops.select("auto")
