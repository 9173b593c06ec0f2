r"""What a generated event is worth: the amplification factor of a template.

The distance of a template :math:`t` from the true parts :math:`\pi` of all events in the bins is

.. math:: D = \sum_i \frac{(t_i - \pi_i)^2}{c_i}, \qquad c_i = \pi_i \text{ (chi2)} \quad \text{or} \quad 1 ,

and that of a histogram of :math:`N` true events is on average
:math:`E_N = \sum_i \pi_i (1 - \pi_i) / (c_i N)`.  A generated template is worth the number of true events
with the same expected distance, and the amplification is that number over the number of events the model
was trained on,

.. math:: N_\mathrm{eq} = \frac{N E_N}{E[D]}, \qquad G = \frac{N_\mathrm{eq}}{N_\mathrm{train}} .

For a shape in :math:`b` bins and an efficient fit of :math:`d` parameters :math:`G \approx (b - 1) / d`: an
assumption, not the number of generated events, makes the gain (the idea: Butter et al., SciPost Phys. 10,
139 (2021), arXiv:2008.06545).  The truth is a reference sample of :math:`N_\mathrm{ref}` simulated events,
so :math:`E_{N_\mathrm{ref}}` is subtracted from the mean distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError, check_choice, check_range
from sbilib.studies.amplified_templates import BinnedSample, check_filled

__all__ = [
    "Amplification",
    "Distance",
    "SmallestTraining",
    "amplification",
    "equivalent_events",
    "smallest_training",
    "template_distance",
]

_Array = NDArray[np.float64]
_DISTANCES = ("chi2", "squared")


class Distance(NamedTuple):
    """Expected distance of a template from the truth, without the noise of the reference."""

    value: float
    """Mean over the trainings; may be negative where the distance is small beside that noise."""
    error: float
    """Standard deviation, from the spread of the trainings and the noise of the reference."""
    one_event: float
    """Expected distance of a single true event; that of N events is an N-th."""


class Amplification(NamedTuple):
    """How many true events a template is worth."""

    n_equivalent: float
    """True events, before the selection, whose template is as good; infinite if none measurably worse."""
    low: float
    """Number for a distance one standard deviation larger."""
    high: float
    """Number for a distance one standard deviation smaller; infinite if that is not positive."""
    n_train: float
    """Events the model was trained on, before the selection."""

    @property
    def factor(self) -> float:
        """The amplification G."""
        return self.n_equivalent / self.n_train

    @property
    def interval(self) -> tuple[float, float]:
        """G one standard deviation of the distance to both sides."""
        return self.low / self.n_train, self.high / self.n_train


def template_distance(
    generated: BinnedSample,
    reference: BinnedSample,
    *,
    distance: str = "chi2",
    shape_only: bool = False,
    subtract_sampling: bool = False,
) -> Distance:
    """Expected distance of generated templates from the truth.

    Args:
        generated: templates of trainings on different training sets, ``(n_trainings, n_bins)``, or one
            template ``(n_bins,)``, whose error then lacks the spread of trainings.  Bootstrapped models
            would count the fluctuation of their training set twice.
        reference: simulated events that no training has seen, without weights, in all bins.
        distance: ``"chi2"`` or ``"squared"``.
        shape_only: compare templates of sum one instead of parts of all events.
        subtract_sampling: subtract the noise of the finite generated sample too, for the limit of infinitely
            many generated events.

    Raises:
        ParameterError: for an unknown distance.
        DataError: if binnings differ, or the reference has an empty bin.
    """
    check_choice("distance", distance, _DISTANCES)
    check_filled(reference)
    if generated.binning != reference.binning or reference.totals.ndim or generated.totals.ndim > 1:
        raise DataError(
            "a distance needs generated templates (n_trainings, n_bins) and one reference of the same "
            f"binning, got {generated.counts.shape} and {reference.counts.shape}; bin them alike"
        )
    truth, size = _parts(reference, shape_only)
    found, _ = _parts(generated, shape_only)
    found = np.atleast_2d(found)
    weight = 1 / truth if distance == "chi2" else np.ones_like(truth)
    one_event = float((weight * truth * (1 - truth)).sum())
    noise = one_event / float(size)
    single = (weight * (found - truth) ** 2).sum(1)
    if subtract_sampling:
        single = single - _sampling(generated, found, weight, shape_only)
    value = float(single.mean()) - noise
    variance = _reference_variance(weight * (found.mean(0) - truth), weight, truth, float(size))
    if len(single) > 1:
        variance += float(single.var(ddof=1)) / len(single)
    # A shape of n selected events stands for n / efficiency events before the selection.
    per_event = one_event / (float(reference.efficiency) if shape_only else 1.0)
    return Distance(value, variance**0.5, per_event)


def _parts(sample: BinnedSample, shape_only: bool) -> tuple[_Array, _Array]:
    """Template and number of events behind it."""
    if shape_only:
        return sample.fractions / sample.efficiency[..., None], sample.counts.sum(-1)
    return sample.fractions, sample.totals


def _sampling(generated: BinnedSample, found: _Array, weight: _Array, shape_only: bool) -> _Array:
    """Expected distance by the finite number of generated events, (n_trainings,)."""
    error = generated.errors / (generated.efficiency[..., None] if shape_only else 1.0)
    result: _Array = (weight * np.atleast_2d(error) ** 2 * (1 - found)).sum(1)
    return result


def _reference_variance(pull: _Array, weight: _Array, truth: _Array, size: float) -> float:
    r"""Variance of the mean distance by the multinomial noise of the reference.

    With :math:`r = \pi + \epsilon` and covariance :math:`S` the distance has the terms
    :math:`-2 p^\top \epsilon + \epsilon^\top W \epsilon`, of variance :math:`4 p^\top S p + 2
    \operatorname{tr}(W S)^2`.  The pulls :math:`p` are measured with the same noise, which raises the first
    term by twice the second on average; that is taken off again.
    """
    covariance = (np.diag(truth) - np.outer(truth, truth)) / size
    product = weight[:, None] * covariance
    square = float(np.trace(product @ product))
    linear = float(pull @ covariance @ pull)
    return max(4 * linear - 2 * square, 2 * square)


def equivalent_events(distance: Distance, n_train: float) -> Amplification:
    """Number of true events whose template has the same expected distance.

    Args:
        distance: of the generated template.
        n_train: events the model was trained on, before the selection.

    Raises:
        ParameterError: if ``n_train`` is not positive.

    Example:
        >>> found = equivalent_events(Distance(0.002, 0.001, 8.0), 1000)
        >>> found.n_equivalent, found.factor, found.high
        (4000.0, 4.0, 8000.0)
    """
    check_range("n_train", float(n_train), low=0.0, include_low=False)

    def number(value: float) -> float:
        return distance.one_event / value if value > 0 else float("inf")

    value, error, _ = distance
    return Amplification(number(value), number(value + error), number(value - error), float(n_train))


def amplification(
    generated: BinnedSample,
    reference: BinnedSample,
    n_train: float,
    *,
    distance: str = "chi2",
    shape_only: bool = False,
    subtract_sampling: bool = False,
) -> Amplification:
    """Amplification factor of a generated template; see :func:`template_distance` for the arguments.

    Args:
        generated: templates of trainings on different training sets.
        reference: simulated events that no training has seen.
        n_train: events each model was trained on, before the selection.
        distance: ``"chi2"`` or ``"squared"``.
        shape_only: compare templates of sum one.
        subtract_sampling: for infinitely many generated events.

    Raises:
        ParameterError, DataError: as :func:`template_distance`.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning
        >>> binning = Binning("x", (0.0, 0.5, 1.0))
        >>> truth = BinnedSample(binning, [5e8, 5e8], [5e8, 5e8], 1e9)
        >>> made = BinnedSample(binning, [5.1e8, 4.9e8], [5.1e8, 4.9e8], 1e9)
        >>> round(amplification(made, truth, 500).factor, 2)
        5.0
    """
    measured = template_distance(
        generated,
        reference,
        distance=distance,
        shape_only=shape_only,
        subtract_sampling=subtract_sampling,
    )
    return equivalent_events(measured, n_train)


class SmallestTraining(NamedTuple):
    """Smallest training sample for which the generated template is the better one."""

    n_train: float
    """Events; infinite if no training was large enough."""
    low: float
    """By the upper ends of the numbers of equivalent events."""
    high: float
    """By their lower ends."""
    at_edge: bool
    """Whether the smallest training of all was large enough, so that the number is an upper bound."""


def smallest_training(
    results: Sequence[Amplification], *, n_simulated: float | None = None
) -> SmallestTraining:
    r"""Where a generated template starts to beat a simulated one, by interpolation in logarithms.

    Args:
        results: amplifications of trainings of increasing size.
        n_simulated: events of the simulated template; by default the training sample itself, so that the
            question is where G exceeds one.

    Returns:
        The first crossing from below.

    Raises:
        ParameterError: if there are no results or their sizes do not increase.

    Example:
        >>> results = [Amplification(50.0, 40.0, 60.0, 100.0), Amplification(1e4, 1e4, 1e4, 1000.0)]
        >>> round(smallest_training(results).n_train)
        170
    """
    sizes = np.array([each.n_train for each in results])
    if not len(sizes) or (np.diff(sizes) <= 0).any():
        raise ParameterError(f"smallest_training needs trainings of increasing size, got {sizes.tolist()}")
    needed = sizes if n_simulated is None else np.full(len(sizes), float(n_simulated))

    def crossing(values: Sequence[float]) -> float:
        return _crossing(sizes, np.array(values) / needed)

    first = crossing([each.n_equivalent for each in results])
    return SmallestTraining(
        first,
        crossing([each.high for each in results]),
        crossing([each.low for each in results]),
        bool(first == sizes[0]),
    )


def _crossing(sizes: ArrayLike, ratio: _Array) -> float:
    """First size at which the ratio reaches one."""
    x = np.asarray(sizes, dtype=np.float64)
    if not (ratio >= 1).any():
        return float("inf")
    place = int((ratio >= 1).argmax())
    if place == 0 or not np.isfinite(ratio[place]):
        return float(x[place])
    before, after = np.log(ratio[place - 1 : place + 1])
    part = -before / (after - before)
    return float(np.exp((1 - part) * np.log(x[place - 1]) + part * np.log(x[place])))
