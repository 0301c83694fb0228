"""The optimiser of an anomaly network: what learns, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .matching import MatchingNetwork
from .projected import ProjectedNetwork

if TYPE_CHECKING:
    from torch import nn

    from ..._anomaly_recipe import AnomalyTrainConfig
    from .network import AnomalyNetwork

BETAS = (0.5, 0.999)  # RD4AD, section 4.1, and RD++
MOMENTUM, DECAY = 0.9, 1e-4  # STFPM, with a rate of 0.4


def build_optimizer(network: AnomalyNetwork, config: AnomalyTrainConfig) -> torch.optim.Optimizer:
    """Return Adam over all that learns; attention and fusion, and projectors, are groups at rates of their own.

    STFPM has SGD, with momentum and weight decay. RD++ has two Adams: as Adam looks at each parameter alone, two groups
    of one are the same.
    """
    if isinstance(network, MatchingNetwork):
        return torch.optim.SGD(network.student.parameters(), config.sgd_lr, MOMENTUM, weight_decay=DECAY)
    apart: list[tuple[nn.Module | None, float]] = [(network.fusion, config.fusion_lr)]
    if isinstance(network, ProjectedNetwork):
        apart.append((network.projector, config.projector_lr))
    held = [(list(module.parameters()), rate) for module, rate in apart if module is not None]
    known = {id(parameter) for parameters, _ in held for parameter in parameters}
    others = [each for each in network.parameters() if each.requires_grad and id(each) not in known]
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate} for parameters, rate in [(others, config.lr), *held] if parameters
    ]
    return torch.optim.Adam(groups, betas=BETAS)
