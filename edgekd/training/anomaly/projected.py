"""`ProjectedNetwork`: RD++, reverse distillation behind projectors that pseudo-anomalies have trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cosine
from .network import AnomalyNetwork, Seen
from .pseudo_anomaly import pseudo_anomalies
from .transport import sinkhorn_divergence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .embedding import Embedding
    from .projector import Projector
    from .pyramid import Pyramid

WEIGHT = 0.2  # of what the projectors learn, beside the distillation
PARTS = {"transport": 1.0, "reconstruction": 0.01, "contrast": 0.1}
"""Weights among the projectors' losses; divided by their sum."""
MARGIN = 0.5


class ProjectedNetwork(AnomalyNetwork):
    """RD++ (Tien et al., CVPR 2023, section 3): the bottleneck reads what projectors leave of the teacher's features.

    The student predicts the teacher's own features, as in RD4AD, and the map is the same; what runs later has only the
    projectors more.

    Args:
        teacher: the only one.
        projector: of its channels.
        embedding: of the projected pyramid.
        student: predicts one pyramid.
        std: of the input's normalisation, in 0..255, in the order of its colours: noise is drawn for pixels in [0, 1].
    """

    accumulate = 2

    def __init__(
        self, teacher: Pyramid, projector: Projector, embedding: Embedding, student: nn.Module, std: Sequence[float]
    ) -> None:
        super().__init__([teacher], None, embedding, student, "single")
        self.projector = projector
        self.unit: Tensor
        self.register_buffer("unit", 255 / torch.tensor(std)[:, None, None], persistent=False)

    def look(self, images: Tensor) -> Seen:
        """Return the teacher's features and their prediction for normalised images `(B, 3, H, W)`."""
        (teacher,) = self.pyramids
        seen = teacher(images)
        return Seen([seen], self.student(self.embedding(self.projector(seen))), [])

    def loss(self, images: Tensor, kind: str = "global") -> tuple[Tensor, dict[str, Tensor]]:
        """Return the distillation and 0.2 times the projectors' losses; and by name, detached, each of these.

        Pseudo-anomalies and the halves of the batch are drawn from torch's generator on the CPU.
        """
        (teacher,) = self.pyramids
        clean, noisy = teacher(images), teacher(self.spoilt(images))
        projected = self.projector(clean)
        parts = projection_losses(projected, self.projector(noisy), noisy)
        distilled = cosine.loss(clean, self.student(self.embedding(projected))[0], kind)
        weighted = torch.stack([weight * parts[name] for name, weight in PARTS.items()]).sum() / sum(PARTS.values())
        return distilled + WEIGHT * weighted, {f"project.{name}": value.detach() for name, value in parts.items()}

    def spoilt(self, images: Tensor) -> Tensor:
        """Return the images, normalised, with a pseudo-anomaly in each."""
        rng = np.random.default_rng(int(torch.randint(1 << 62, ())))
        added = torch.from_numpy(pseudo_anomalies(len(images), images.shape[2], images.shape[3], rng))
        return images + self.unit * added.to(images.device)


def projection_losses(
    projected: Sequence[Tensor], projected_noisy: Sequence[Tensor], noisy: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the three losses of the projectors, summed over scales.

    "transport": normal images should look alike. Each projected map, flattened and through softmax, is one point, and
    the Sinkhorn divergence is taken between two halves of the batch at random. The published code takes it between the
    batch and a permutation of it: one cloud twice, so that the term is 0 and so is its gradient. "reconstruction": a
    pseudo-anomaly should look like the normal image, by 1 - cosine at each place. "contrast": the teacher's features
    of the pseudo-anomaly should have a cosine of at most `MARGIN` with the projected normal ones.

    Args:
        projected: of normal images, `(B, C_k, H_k, W_k)` a scale, B >= 2.
        projected_noisy: of the same images with pseudo-anomalies.
        noisy: the teacher's own features of these.
    """
    order = torch.randperm(len(projected[0])).to(projected[0].device)
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    transport, reconstruction, contrast = [], [], []
    for ours, theirs, raw in zip(projected, projected_noisy, noisy, strict=True):
        points = F.softmax(ours.float().flatten(1), dim=1)
        transport.append(sinkhorn_divergence(points[halves[0]], points[halves[1]]))
        reconstruction.append(cosine.distance(theirs, ours, (1,)).mean())
        contrast.append((1 - cosine.distance(raw, ours, (1, 2, 3)) - MARGIN).relu().mean())
    summed = (torch.stack(each).sum() for each in (transport, reconstruction, contrast))
    return dict(zip(PARTS, summed, strict=True))
