"""What `edgekd flash --fleet` shows: a live table on a terminal, a line a board elsewhere."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from ._text import plain, table

if TYPE_CHECKING:
    import edgekd


class Live:
    """Takes each change of a rollout."""

    def __init__(self, *, terminal: bool) -> None:
        """Take whether lines can be drawn anew."""
        self.terminal = terminal
        self._running: dict[str, str] = {}
        self._ended = {"serves it": 0, "failed": 0}
        self._drawn = 0
        self._stage = 0

    def told(self, board: edgekd.FleetBoard, step: edgekd.FlashStep | None) -> None:
        """Show one change."""
        key = f"{board.device} {board.root} {board.name}"
        lines = []
        if board.stage != self._stage and board.state == "running":
            self._stage = board.stage
            lines.append(f"stage {board.stage}")
        if board.state in self._ended and step is None:
            self._running.pop(key, None)
            self._ended[board.state] += 1
            lines.append(ended(board))
        elif board.state == "running":
            detail = f"{step.name} {step.detail}" if step is not None else "begun"
            self._running[key] = f"  {plain(board.device)}  {plain(detail)}"
        self._show(lines)

    def done(self) -> None:
        """Wipe what was drawn for the time being."""
        self._running.clear()
        self._wipe()

    def _show(self, lines: list[str]) -> None:
        self._wipe()
        for line in lines:
            print(line, flush=not self.terminal)
        if not self.terminal:
            return
        columns, rows = shutil.get_terminal_size()
        counts = f"{self._ended['serves it']} serve it, {self._ended['failed']} failed, {len(self._running)} running"
        shown = [counts, *self._running.values()][: rows - 2]
        sys.stdout.write("".join(f"{line[: columns - 1]}\n" for line in shown))
        sys.stdout.flush()
        self._drawn = len(shown)

    def _wipe(self) -> None:
        if self._drawn:
            sys.stdout.write(f"\033[{self._drawn}A\033[J")
            self._drawn = 0


def ended(board: edgekd.FleetBoard) -> str:
    """Return the line of a board that has ended."""
    if board.state == "failed":
        return f"{'FAILED':<8}{plain(board.device)}  {plain(board.reason)}"
    said = f"release {board.release[:16]}" + ("" if board.changed else ", in service already")
    p99 = f", p99 {board.p99_ms:.2f} ms" if board.p99_ms is not None else ""
    return f"{'ok':<8}{plain(board.device)}  {said}{p99}, {board.sent_bytes} bytes sent, {board.seconds:.1f} s"


def show(found: edgekd.FleetReport) -> None:
    """Print how a rollout ended."""
    counts = ", ".join(f"{count} {_verb(state, count)}" for state, count in found.counts.items() if count)
    resumed = f" ({found.resumed} since an earlier run)" if found.resumed else ""
    boards, stages = _counted(len(found.boards), "board"), _counted(found.stages, "stage")
    print(f"\n{boards} in {stages}, {found.seconds:.1f} s: {counts}{resumed}")
    rows = [
        (str(board.stage), plain(board.device), plain(board.name), board.state, board.step, plain(board.reason))
        for board in found.boards
        if board.state in ("failed", "running")
    ]
    if rows:
        table(("stage", "device", "name", "state", "step", "reason"), rows)
    if found.stopped:
        print(f"stopped: {found.stopped}. To go on: mend the boards, and give the same command again")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _verb(state: str, count: int) -> str:
    return "serve it" if state == "serves it" and count != 1 else state
