r"""Simulated events with one deliberate fault each, to see which comparison finds it.

- ``scaled``: the mass of the two b jets times 1.03, as a wrong energy scale would make it.  Correlations do
  not change.
- ``shuffled``: every tenth event gets the mass of the two b jets of another one of these.  No feature alone
  changes.
- ``copula``: normal scores of all features, drawn anew from a normal density with their correlations, and
  mapped back by the quantiles.  Features alone and correlations stay nearly as they are; everything else
  that events know is gone.
- ``cut``: no event above the 99.9% quantile of the mass of all decay products; others are repeated instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor

from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.models import QuantileToNormal

__all__ = ["DISTORTIONS", "distorted_events"]

_SCALE = 1.03
_EVERY = 10
_TAIL = 0.999


def distorted_events(events: Tensor, fault: str, *, names: Sequence[str], seed: int) -> Tensor:
    """Events with a fault.

    Args:
        events: simulated events, ``(n, features)``.
        fault: one of `DISTORTIONS`.
        names: of the features, ``"m_bb"`` and ``"m_wwbb"`` among them.
        seed: of all that is random in the fault.

    Returns:
        As many events, a new tensor.

    Raises:
        ParameterError: for an unknown fault or missing features.

    Example:
        >>> events = torch.rand(40, 2, generator=Generator().manual_seed(1))
        >>> shuffled = distorted_events(events, "shuffled", names=("m_bb", "m_wwbb"), seed=2)
        >>> torch.equal(shuffled.sort(dim=0).values, events.sort(dim=0).values), torch.equal(shuffled, events)
        (True, False)
    """
    check_choice("fault", fault, DISTORTIONS)
    missing = {"m_bb", "m_wwbb"} - set(names)
    if missing:
        raise ParameterError(
            f"faults are made in m_bb and m_wwbb, but {sorted(missing)} is not among {names}"
        )
    generator = Generator().manual_seed(check_count("seed", seed))
    return DISTORTIONS[fault](events.clone(), list(names), generator)


def _scaled(events: Tensor, names: list[str], generator: Generator) -> Tensor:
    events[:, names.index("m_bb")] *= _SCALE
    return events


def _shuffled(events: Tensor, names: list[str], generator: Generator) -> Tensor:
    rows = torch.arange(0, len(events), _EVERY)
    others = rows[torch.randperm(len(rows), generator=generator)]
    column = names.index("m_bb")
    events[rows, column] = events[others, column]
    return events


def _copula(events: Tensor, names: list[str], generator: Generator) -> Tensor:
    scores = QuantileToNormal.fit(events, names=names, n_knots=min(256, len(events)))
    factor = torch.linalg.cholesky(torch.corrcoef(scores(events)[0].double().T))
    normal = torch.randn(events.shape, generator=generator, dtype=torch.float64)
    return scores.inverse((normal @ factor.T).to(events)).clamp(events.amin(dim=0), events.amax(dim=0))


def _cut(events: Tensor, names: list[str], generator: Generator) -> Tensor:
    mass = events[:, names.index("m_wwbb")]
    beyond = mass > mass.double().sort().values[int(_TAIL * len(mass))].to(mass)
    kept = events[~beyond]
    again = torch.randint(len(kept), (int(beyond.sum()),), generator=generator)
    return torch.cat([kept, kept[again]])


DISTORTIONS: Mapping[str, Callable[[Tensor, list[str], Generator], Tensor]]
DISTORTIONS = {"scaled": _scaled, "shuffled": _shuffled, "copula": _copula, "cut": _cut}
"""The faults by name."""
