"""The training loss as one module: what DistributedDataParallel wraps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .methods import Scene, Taps
from .models.heads.head import first_images
from .observe import gradient_norms, statistics
from .teacher import levels_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .distill import Distiller
    from .models import Detector, HeadOutputs


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

    def forward(
        self, pixels: Tensor, scene: Scene, teachers: Mapping[str, Taps], *, observe: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise and its parts by name, detached.

        Args:
            pixels: `(B, 3, H, W)` normalised float32.
            scene: boxes and labels of the batch.
            teachers: what each teacher showed for the same batch.
            observe: return the figures of `observe.py` too.
        """
        with torch.autocast(pixels.device.type, self.amp or torch.bfloat16, enabled=self.amp is not None):
            features = self.student.features(pixels)
            outputs = self.student.head_outputs(features)
        losses = self._detector_loss(outputs, scene)
        total = torch.stack(list(losses.values())).sum()
        values = {name: loss.detach() for name, loss in losses.items()}
        if self.distiller is None:
            return total, values
        levels = levels_of(self.student.strides)
        ours = Taps(dict(zip(levels, features, strict=True)), outputs, self.student)
        extra, parts = self.distiller(ours, teachers, scene)
        values.update(parts)
        if observe:
            values.update({f"neck.detect.{name}": norm for name, norm in gradient_norms(total, ours.features).items()})
            values.update({f"neck.distill.{name}": norm for name, norm in gradient_norms(extra, ours.features).items()})
            for seen in self.distiller.observe(ours, teachers, scene):
                values.update({f"observed.{seen.name}.{name}": value for name, value in statistics(seen).items()})
        return total + extra, values

    def _detector_loss(self, outputs: HeadOutputs, scene: Scene) -> dict[str, Tensor]:
        """Return the detector's own loss over the images that have targets."""
        if scene.labelled is not None:
            outputs = first_images(outputs, scene.labelled)
        return self.student.loss(outputs, scene.boxes[: scene.labelled], scene.labels[: scene.labelled])
