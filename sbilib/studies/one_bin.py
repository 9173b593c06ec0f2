r"""The one-bin analysis whose background gets smaller and less certain: its model, and toys of it.

.. math:: n \sim \mathrm{Pois}(\mu\, s(\phi) + \gamma\, b(\phi)),

with the yields of :func:`sbilib.problems.one_bin_yields` and a constraint on :math:`\gamma` of the relative
width :math:`\sigma_b/b` (Simpson 2023, section 7.1.1 and eq. 7.2).  The source gives no constraint in full,
so the usual three of HistFactory can be chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import check_choice
from sbilib.histfactory import (
    Channel,
    HistoSys,
    Model,
    NormFactor,
    NormSys,
    Sample,
    ShapeSys,
    q0,
    sample_data,
)
from sbilib.problems import one_bin_yields

__all__ = ["CONSTRAINTS", "ToyDiscovery", "one_bin_model", "toy_discovery"]

CONSTRAINTS = ("none", "poisson", "normal", "log-normal")
"""Kinds of constraint: none, shapesys, histosys, and normsys."""


def one_bin_model(phi: Tensor, constraint: str = "poisson") -> Model:
    r"""The HistFactory model of the one-bin analysis, one for each value of its parameter.

    Args:
        phi: the parameter, ``(*batch,)``, in [-15, 22.5]; gradients flow through.
        constraint: ``"none"`` for a background known exactly, ``"poisson"`` for a control region that counts
            :math:`(b/\sigma_b)^2` events, ``"normal"`` for :math:`b + \alpha \sigma_b` with a unit normal
            :math:`\alpha`, ``"log-normal"`` for factors :math:`1 \pm \sigma_b/b` interpolated exponentially.

    Returns:
        A model with signal strength ``mu`` and batch shape ``(*batch,)``.

    Raises:
        ParameterError: if ``phi`` is out of its range or the constraint unknown.
        DataError: for ``"normal"`` and ``"log-normal"``, where the background varied down is negative.

    Source:
        Simpson 2023, section 7.1.1.

    Example:
        >>> one_bin_model(torch.tensor([0.0, 5.0])).batch_shape
        torch.Size([2])
    """
    check_choice("constraint", constraint, CONSTRAINTS)
    signal, background, spread = (each.unsqueeze(-1) for each in one_bin_yields(phi))
    relative = (spread / background).squeeze(-1)
    modifiers: list[ShapeSys | HistoSys | NormSys] = []
    if constraint == "poisson":
        modifiers = [ShapeSys("background", spread)]
    elif constraint == "normal":
        modifiers = [HistoSys("background", background - spread, background + spread)]
    elif constraint == "log-normal":
        modifiers = [NormSys("background", 1 - relative, 1 + relative)]
    samples = [
        Sample("signal", signal, [NormFactor("mu")]),
        Sample("background", background, modifiers),
    ]
    return Model([Channel("SR", samples)])


class ToyDiscovery(NamedTuple):
    """Median discovery p-value from toys, for each value of the analysis parameter."""

    p_value: Tensor
    """Share of toys without signal at least as signal-like as the median toy with it, ``(*batch,)``."""
    error: Tensor
    """Statistical error of the share, ``(*batch,)``."""


def toy_discovery(
    phi: Tensor, n_toys: int, *, constraint: str = "poisson", generator: torch.Generator
) -> ToyDiscovery:
    """Median expected p-value of a discovery from toys, with no asymptotic formula.

    The toys vary counts and auxiliary data with the nuisance parameter at its nominal value.

    Args:
        phi: the parameter, ``(*batch,)``.
        n_toys: toys of each hypothesis.
        constraint: as in :func:`one_bin_model`.
        generator: of the random numbers.

    Returns:
        p-values with errors, each ``(*batch,)``.

    Raises:
        ParameterError: as :func:`one_bin_model`, and if ``n_toys`` is not a positive integer.
    """
    model = one_bin_model(phi, constraint)
    values = []
    for strength in (0.0, 1.0):
        truth = model.initial.clone()
        truth[..., model.poi_index] = strength
        values.append(q0(sample_data(truth, model, n_toys, generator=generator), model))
    background, signal = values
    share = (background >= signal.median(0).values).double().mean(0)
    return ToyDiscovery(share, (share * (1 - share) / n_toys).sqrt())
