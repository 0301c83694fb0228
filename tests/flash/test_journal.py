"""The journal: it counts on whatever a power cut tore, and stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd._flash.journal import MAX_BYTES, Journal
from edgekd.device import Disk

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(0, 400), st.binary(max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_end_costs_that_line_alone(tmp_path: Path, cut: int, garbage: bytes) -> None:
    journal = Journal(tmp_path / "journal.jsonl", Disk())
    journal.path.unlink(missing_ok=True)
    for step in ("assemble", "verify", "commit"):
        journal.add(step, "ok", release="r1", who="ann")
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[: max(0, len(data) - cut)] + garbage)
    kept = len(journal.entries())
    journal.add("commit", "ok", release="r2", who="ann")
    entries = journal.entries()
    assert len(entries) == kept + 1
    assert entries[-1]["seq"] == (entries[-2]["seq"] if kept else 0) + 1
    assert journal.committed()[-1] == "r2"


def test_a_long_journal_loses_its_older_half(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", Disk())
    journal.trim()
    journal.add("verify", "ok", "x" * 1000)
    journal.path.write_bytes(journal.path.read_bytes() * (MAX_BYTES // 1000 + 10))
    journal.trim()
    assert MAX_BYTES // 3 < journal.path.stat().st_size < MAX_BYTES
    journal.add("commit", "ok")
    assert journal.entries()[-1]["step"] == "commit"
