r"""Ensembles of component densities: one density from the mean of many.

Members :math:`m = 1 \dots M` give for each component :math:`c` (signal, background) the log density
:math:`\ell_m(x, z) = \log p_m(x \mid c, z) + a_m(x)`.  There are two natural means.

``mean_density`` averages densities,

.. math:: \ell(x, z) = \log \frac1M \sum_m e^{\ell_m(x, z)} .

The mean of normalized densities is normalized.  It presumes that all members have the same constant
:math:`a_m(x)` per event.  Flows have none.  Classifier pairs trained against the same reference share
:math:`a(x) = -\log p_\mathrm{ref}(x)` up to their learning errors, so the mean of their ratios is the mean
density over the reference density.  What is left of :math:`a_m(x) - a(x)` weights the members of an event
unequally, which changes :math:`\ell` in second order of the errors.

``mean_log_ratio`` averages logarithms,

.. math:: \ell(x, z) = \frac1M \sum_m \ell_m(x, z) ,

the geometric mean.  Constants average to one constant that both components share, so it also joins members
with different references.  But it is not normalized: with :math:`q = e^\ell`, the inequality of the means
says :math:`Z_c(z) = \int q(x \mid c, z)\,\mathrm dx \le 1`, and to second order in the differences between
the members

.. math:: -\log Z_c(z) \approx \tfrac12\, \mathbb E_{x \mid c, z}\bigl[\mathrm{Var}_m\, \ell_m(x, z)\bigr] .

In the likelihood of :math:`N` events this multiplies the signal ratio by :math:`Z_s/Z_b` and adds
:math:`-N \log Z_b(z)` to the NLL, which pulls :math:`z` to where the members agree.  Both kinds agree to
first order:
:math:`\log \tfrac1M \sum e^{\ell_m} - \tfrac1M \sum \ell_m \approx \tfrac12 \mathrm{Var}_m\, \ell_m \ge 0`
(Jensen).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import DataError, ParameterError, check_choice, check_count

__all__ = ["ENSEMBLE_KINDS", "Ensemble", "EvaluatedMembers", "mean_density", "mean_log_ratio"]

ENSEMBLE_KINDS = ("mean_density", "mean_log_ratio")
"""The two means of an ensemble."""


def mean_density(members: LogComponents) -> LogComponents:
    r"""Log of the mean density, :math:`\log \frac1M \sum_m e^{\ell_m}`, for each component.

    Args:
        members: log densities of all members, each component of shape ``(M, n_events, n_nuisance)``.

    Returns:
        Each component of shape ``(n_events, n_nuisance)``.

    Example:
        >>> two = torch.tensor([[[1.0]], [[3.0]]]).log()
        >>> round(mean_density(LogComponents(two, two)).signal.exp().item(), 6)
        2.0
    """
    shift = math.log(len(members.signal))
    return LogComponents(*(values.logsumexp(dim=0) - shift for values in members))


def mean_log_ratio(members: LogComponents) -> LogComponents:
    r"""Mean of the log densities, :math:`\frac1M \sum_m \ell_m`, for each component.

    Shapes are those of `mean_density`.

    Example:
        >>> two = torch.tensor([[[1.0]], [[4.0]]]).log()
        >>> round(mean_log_ratio(LogComponents(two, two)).signal.exp().item(), 6)
        2.0
    """
    return LogComponents(*(values.mean(dim=0) for values in members))


_MEANS = {"mean_density": mean_density, "mean_log_ratio": mean_log_ratio}


@dataclass(frozen=True)
class EvaluatedMembers:
    """Log densities of all members at the same events and nuisance values, computed once.

    Every sub-ensemble of either kind follows from them without another call of a network.

    Attributes:
        signal: log densities of signal, shape ``(M, n_events, n_nuisance)``.
        background: log densities of background, same shape.

    Raises:
        DataError: if the shapes differ or there is no member.
        ParameterError: if a sub-ensemble is empty or names a member that does not exist.

    Example:
        >>> values = torch.zeros(4, 3, 2)
        >>> EvaluatedMembers(values, values).subset([0, 2]).mean("mean_density").signal.shape
        torch.Size([3, 2])
    """

    signal: Tensor
    background: Tensor

    def __post_init__(self) -> None:
        if self.signal.dim() != 3 or self.signal.shape != self.background.shape or len(self.signal) == 0:
            raise DataError(
                "members need signal and background of one shape (n_members, n_events, n_nuisance), got "
                f"{tuple(self.signal.shape)} and {tuple(self.background.shape)}; stack at least one member"
            )

    @classmethod
    def evaluate(cls, members: Sequence[ComponentDensities], x: Tensor, nuisance: Tensor) -> Self:
        """Evaluate every member at events ``x`` (n, d) and ``nuisance`` values (m,), in float64.

        Raises:
            DataError: if a member returns another shape or a value that is not finite.
        """
        parts = [
            _checked(number, member.log_components(x, nuisance), (len(x), len(nuisance)))
            for number, member in enumerate(members)
        ]
        signal, background = (torch.stack(values) for values in zip(*parts, strict=True))
        return cls(signal, background)

    @property
    def n_members(self) -> int:
        """Number of members M."""
        return len(self.signal)

    def subset(self, numbers: Sequence[int]) -> EvaluatedMembers:
        """The members of these numbers, in this order."""
        chosen = _check_numbers(numbers, self.n_members)
        return EvaluatedMembers(self.signal[chosen], self.background[chosen])

    def mean(self, kind: str) -> LogComponents:
        """The ensemble of all members: ``"mean_density"`` or ``"mean_log_ratio"``."""
        check_choice("kind", kind, ENSEMBLE_KINDS)
        return _MEANS[kind](LogComponents(self.signal, self.background))


class Ensemble:
    """The mean of several component densities, as component densities itself.

    Args:
        members: exact densities, flow pairs, classifier pairs, or anything with ``log_components``.
        kind: ``"mean_density"`` or ``"mean_log_ratio"``.

    Raises:
        ParameterError: if there are no members, they are for different numbers of features, an unknown kind
            is asked for, or densities are to be averaged over members whose constants per event differ by
            construction (flows and classifiers together).

    Example:
        >>> from sbilib.models import FlowConfig, FlowPair
        >>> pairs = [FlowPair.from_config(FlowConfig.modern(), seed=seed) for seed in range(3)]
        >>> ensemble = Ensemble(pairs, kind="mean_density")
        >>> ensemble.first(2).log_components(torch.zeros(5, 2), torch.linspace(0, 1, 4)).signal.shape
        torch.Size([5, 4])
    """

    def __init__(self, members: Sequence[ComponentDensities], *, kind: str = "mean_density") -> None:
        check_choice("kind", kind, ENSEMBLE_KINDS)
        self.members = tuple(members)
        self.kind = kind
        if not self.members:
            raise ParameterError("an ensemble needs at least one member, got none; pass trained pairs")
        features = {n for n in map(_n_features, self.members) if n is not None}
        if len(features) > 1:
            raise ParameterError(
                f"all members must be for the same number of features, got members for {sorted(features)}; "
                "train them on the same events"
            )
        kinds = {getattr(member, "kind", "other").removeprefix("scaled-") for member in self.members}
        if kind == "mean_density" and {"flow-pair", "classifier-pair"} <= kinds:
            raise ParameterError(
                "a mean density needs members with the same constant per event, got flows (densities) and "
                "classifiers (ratios to a reference); average each kind alone or use kind='mean_log_ratio'"
            )

    @property
    def n_members(self) -> int:
        """Number of members M."""
        return len(self.members)

    def first(self, n_members: int) -> Ensemble:
        """The ensemble of the first ``n_members`` members, of the same kind."""
        check_count("n_members", n_members, low=1)
        return self.subset(range(n_members))

    def subset(self, numbers: Sequence[int]) -> Ensemble:
        """The ensemble of the members of these numbers, of the same kind."""
        chosen = _check_numbers(numbers, self.n_members)
        return Ensemble([self.members[number] for number in chosen], kind=self.kind)

    def evaluate(self, x: Tensor, nuisance: Tensor) -> EvaluatedMembers:
        """All members at events ``x`` (n, d) and ``nuisance`` values (m,), to form sub-ensembles from."""
        return EvaluatedMembers.evaluate(self.members, x, nuisance)

    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log densities of the ensemble.

        Args:
            x: events, shape ``(n, d)``.
            nuisance: nuisance values, shape ``(m,)``.

        Returns:
            Signal and background, each float64 of shape ``(n, m)``, up to one constant per event.

        Raises:
            DataError: if the events are bad, or a member returns values that are not finite.
        """
        return self.evaluate(x, nuisance).mean(self.kind)


def _n_features(member: object) -> int | None:
    """How many features a member expects, if it says so."""
    for holder in (member, getattr(member, "config", None)):
        for name in ("n_features", "features"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def _checked(number: int, components: LogComponents, shape: tuple[int, int]) -> LogComponents:
    for name, values in zip(components._fields, components, strict=True):
        if tuple(values.shape) != shape:
            raise DataError(
                f"member {number} must return {name} log densities of shape (n_events, n_nuisance) = "
                f"{shape}, got {tuple(values.shape)}; check its log_components"
            )
        if not bool(values.isfinite().all()):
            raise DataError(
                f"member {number} returns {int((~values.isfinite()).sum())} {name} log densities that are "
                "NaN or infinite; its training may have diverged: leave it out with subset()"
            )
    return LogComponents(components.signal.double(), components.background.double())


def _check_numbers(numbers: Sequence[int], n_members: int) -> list[int]:
    chosen = [int(number) for number in numbers]
    if not chosen or not all(0 <= number < n_members for number in chosen):
        raise ParameterError(
            f"a sub-ensemble needs one or more member numbers from 0 to {n_members - 1}, got {chosen}; "
            "choose among the members that exist"
        )
    return chosen
