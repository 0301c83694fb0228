"""`AnomalyNetwork`: teachers, fusion, embedding and student as one module."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from . import cosine
from .fusion import AddFusion, AttentionalFusion, Equaliser
from .score import PeakScore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .pyramid import Pyramid

METHODS = ("rd", "rd++", "stfpm")
TARGETS = ("fused_sg", "both_raw", "single")


class Seen(NamedTuple):
    """What a batch looks like inside.

    Attributes:
        targets: a pyramid for each that the student predicts.
        students: what it predicted, alike.
        gates: of the first teacher in the fusion, one a scale; empty where nothing is gated.
    """

    targets: list[list[Tensor]]
    students: list[list[Tensor]]
    gates: list[Tensor]


class AnomalyNetwork(nn.Module):
    """Reverse distillation: a student predicts, from a bottleneck, what frozen teachers see, and fails on defects.

    Args:
        teachers: one, or two of different architectures.
        fusion: of two teachers; None with one.
        embedding: an `Embedding` of the pyramid that is fused, or of the only teacher's.
        student: predicts one pyramid, or with "both_raw" one a teacher.
        target: what it predicts. "single": the only teacher's features (RD4AD). "fused_sg": the fused ones, without
            gradient: with it the loss would fall by making the teachers say less. "both_raw": both teachers' own, which
            never move; fusion only feeds the embedding.

    Attributes:
        strides: of the pyramid and of the embedding; sides of the input are multiples of the last.
        accumulate: steps whose gradients the optimiser takes together.
    """

    strides = (4, 8, 16, 32)
    accumulate = 1

    def __init__(
        self,
        teachers: Sequence[Pyramid],
        fusion: AddFusion | AttentionalFusion | None,
        embedding: nn.Module,
        student: nn.Module,
        target: str,
    ) -> None:
        super().__init__()
        assert (len(teachers) == 1) == (target == "single") == (fusion is None)
        self.teachers = nn.ModuleList(teachers)
        channels = teachers[0].channels
        self.equalisers = nn.ModuleList(Equaliser(each.channels, channels) for each in teachers)
        self.fusion = fusion
        self.embedding = embedding
        self.student = student
        self.target = target
        self.score = PeakScore()

    @property
    def pyramids(self) -> list[Pyramid]:
        """The teachers."""
        return [cast("Pyramid", teacher) for teacher in self.teachers]

    def look(self, images: Tensor) -> Seen:
        """Return targets and predictions for normalised images `(B, 3, H, W)`."""
        raw = [teacher(images) for teacher in self.teachers]
        if self.fusion is None:
            return Seen(raw, self.student(self.embedding(raw[0])), [])
        fused, gates = self.fusion(*(scaled(each) for scaled, each in zip(self.equalisers, raw, strict=True)))
        students = self.student(self.embedding(fused))
        targets = raw if self.target == "both_raw" else [[each.detach() for each in fused]]
        return Seen(targets, students, gates)

    def loss(self, images: Tensor, kind: str = "global") -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss over the pyramids, and by name, detached: "gate.p2" ... the mean gates of the scales."""
        seen = self.look(images)
        parts = [cosine.loss(ours, theirs, kind) for ours, theirs in zip(seen.targets, seen.students, strict=True)]
        gates = {f"gate.p{level}": gate.detach().mean() for level, gate in enumerate(seen.gates, start=2)}
        return torch.stack(parts).mean(), gates

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw map `(B, 1, H / 4, W / 4)` and the score `(B,)` of normalised images `(B, 3, H, W)`."""
        seen = self.look(images)
        maps = [cosine.anomaly_map(ours, theirs) for ours, theirs in zip(seen.targets, seen.students, strict=True)]
        raw = maps[0] if len(maps) == 1 else 0.5 * (maps[0] + maps[1])
        return raw, self.score(raw)

    @torch.no_grad()
    def equalise(self, batches: Iterable[Tensor]) -> None:
        """Fit the scales of two teachers on normal images, `(B, 3, H, W)` normalised; with one teacher do nothing."""
        if self.fusion is None:
            return
        sums = [torch.zeros(3, dtype=torch.float64) for _ in self.teachers]
        count = 0
        for images in batches:
            count += len(images)
            for total, teacher, equaliser in zip(sums, self.teachers, self.equalisers, strict=True):
                total += len(images) * equaliser.energies(teacher(images)).cpu()  # type: ignore[operator]
        for total, equaliser in zip(sums, self.equalisers, strict=True):
            equaliser.fit((total / max(1, count)).to(equaliser.scales.device))  # type: ignore[operator, arg-type]

    def freeze_fusion(self) -> None:
        """Keep attention and fusion as they are from here on, where they are what moves the target."""
        if isinstance(self.fusion, AttentionalFusion) and self.target == "fused_sg":
            self.fusion.freeze()
