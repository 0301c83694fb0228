"""What lint returns: `Finding`, `SplitSummary`, `LintReport`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in one split, or between two.

    Attributes:
        kind: a fixed word, e.g. "leak"; see `edgekd.training.data.lint`.
        severity: "error" (training or its metric would be wrong) or "warning".
        split: where.
        message: what it is and what to do.
        places: every file or object concerned.
    """

    kind: str
    severity: str
    split: str
    message: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class SplitSummary:
    """Numbers of one split; `classes` counts the objects of each class, `empty` the images without any."""

    name: str
    task: str
    images: int
    objects: int
    empty: int
    classes: dict[str, int]


@dataclass(frozen=True)
class LintReport:
    """Everything lint found, errors first."""

    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity "error"."""
        return tuple(item for item in self.findings if item.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may be."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready dicts and lists: ok, splits, findings."""
        return {
            "ok": self.ok,
            "splits": [dataclasses.asdict(item) for item in self.splits],
            "findings": [{**dataclasses.asdict(item), "places": list(item.places)} for item in self.findings],
        }
