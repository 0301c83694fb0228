"""The training loss as one module: what DistributedDataParallel wraps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .methods import Scene, Taps
from .teacher import levels_of

if TYPE_CHECKING:
    from .distill import Distiller
    from .models import Detector


class Objective(nn.Module):
    """Student and adapters; `forward` returns the loss of one batch.

    Args:
        student: the detector that is trained.
        distiller: the distillation, or None.
        amp: arithmetic of autocast, or None for fp32.
    """

    def __init__(self, student: Detector, distiller: Distiller | None, amp: torch.dtype | None) -> None:
        super().__init__()
        self.student = student
        self.distiller = distiller
        self.amp = amp

    def forward(self, pixels: Tensor, scene: Scene, teacher: Taps | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise and its parts by name, detached.

        Args:
            pixels: `(B, 3, H, W)` normalised float32.
            scene: boxes and labels of the batch.
            teacher: what the teacher showed for the same batch, if there is a distiller.
        """
        with torch.autocast(pixels.device.type, self.amp or torch.bfloat16, enabled=self.amp is not None):
            features = self.student.features(pixels)
            outputs = self.student.head_outputs(features)
        losses = self.student.loss(outputs, scene.boxes, scene.labels)
        total = torch.stack(list(losses.values())).sum()
        values = {name: loss.detach() for name, loss in losses.items()}
        if self.distiller is not None and teacher is not None:
            ours = Taps(dict(zip(levels_of(self.student.strides), features, strict=True)), outputs, self.student)
            extra, parts = self.distiller(ours, teacher, scene)
            total = total + extra
            values.update(parts)
        return total, values
