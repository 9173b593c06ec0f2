r"""Training sets, test sets, bootstrap sets, and toys.

A test set of ``N`` events with signal ratio :math:`\mu` holds a fixed number of signal events,
:math:`N_\mathrm{sig} = \mathrm{int}(N\,\mu/(1+\mu))`, where int rounds to the nearest integer
(Sluijter 2024, section 3.1).  Bootstrap sets are drawn from it with replacement (section 3.1.3) and are
kept as the number of times each event occurs, never as copies of events.  Independent toys are fresh
events; their number of signal events is binomial unless asked otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sbilib.errors import check_choice, check_range
from sbilib.problems.base import Problem, uniform_nuisance

__all__ = [
    "TestSet",
    "TrainingSet",
    "bootstrap_counts",
    "make_test_set",
    "make_toys",
    "make_training_set",
    "published_test_sets",
    "signal_count",
]


@dataclass(frozen=True)
class TrainingSet:
    """Labeled events to train on, on one device."""

    signal: Tensor
    """Signal events, shape ``(n_signal, n_features)``."""
    signal_nuisance: Tensor
    """Nuisance value of each signal event, shape ``(n_signal,)``."""
    background: Tensor
    """Background events, shape ``(n_background, n_features)``."""
    background_nuisance: Tensor
    """Nuisance value of each background event, shape ``(n_background,)``."""

    def component(self, name: str) -> tuple[Tensor, Tensor]:
        """Events and nuisance values of the component called ``name``."""
        check_choice("component", name, ("signal", "background"))
        if name == "signal":
            return self.signal, self.signal_nuisance
        return self.background, self.background_nuisance


@dataclass(frozen=True)
class TestSet:
    """Unlabeled events whose true parameters are known."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    events: Tensor
    """Events, shape ``(n_events, n_features)``; signal first."""
    n_signal: int
    """How many of the events are signal."""
    signal_ratio: float
    """True signal ratio."""
    nuisance: float
    """True nuisance value."""


def signal_count(n_events: int, signal_ratio: float) -> int:
    """Number of signal events among ``n_events`` at ``signal_ratio``, to the nearest integer.

    Raises:
        ParameterError: if ``n_events`` is not positive or ``signal_ratio`` is negative.

    Example:
        >>> signal_count(9000, 0.2)
        1500
    """
    check_range("n_events", n_events, low=1)
    check_range("signal_ratio", signal_ratio, low=0.0)
    return round(n_events * signal_ratio / (1.0 + signal_ratio))


def make_training_set(
    problem: Problem,
    n_events: int,
    generator: Generator,
    *,
    nuisance: str = "uniform",
    dtype: torch.dtype = torch.float32,
) -> TrainingSet:
    """Draw a balanced training set on the device of ``generator``.

    Args:
        problem: the simulator.
        n_events: total number of events, half of them signal; at least 2.
        generator: source of randomness.
        nuisance: ``"uniform"`` over the trained range, or ``"reference"`` for z0 throughout.
        dtype: floating-point type of the events.
    """
    check_range("n_events", n_events, low=2)
    check_choice("nuisance", nuisance, ("uniform", "reference"))
    half = n_events // 2

    def draw(component: str) -> tuple[Tensor, Tensor]:
        if nuisance == "uniform":
            z = uniform_nuisance(problem, half, generator, dtype)
        else:
            z = torch.full((half,), problem.reference_nuisance, dtype=dtype, device=generator.device)
        return problem.sample(component, z, generator), z

    return TrainingSet(*draw("signal"), *draw("background"))


def make_test_set(
    problem: Problem,
    *,
    signal_ratio: float,
    nuisance: float,
    generator: Generator,
    n_events: int = 9000,
) -> TestSet:
    """Draw a test set with the fixed signal count of :func:`signal_count`, in float64.

    Raises:
        ParameterError: for a negative ratio, or a nuisance value outside the trained range.
    """
    n_signal = signal_count(n_events, signal_ratio)
    low, high = problem.nuisance_range
    check_range("nuisance", nuisance, low=low, high=high)
    z = torch.full((n_events,), nuisance, dtype=torch.float64, device=generator.device)
    parts = [
        problem.sample(component, z[:count], generator)
        for component, count in (("signal", n_signal), ("background", n_events - n_signal))
        if count > 0
    ]
    return TestSet(torch.cat(parts), n_signal, float(signal_ratio), float(nuisance))


def published_test_sets(
    problem: Problem, generator: Generator, *, n_events: int = 9000, repeats: int = 1
) -> list[TestSet]:
    """The nine published test points (three ratios by three nuisance values), each ``repeats`` times.

    The order is ratio, then nuisance value, then repeat; five repeats give the published 45 test sets.
    """
    check_range("repeats", repeats, low=1)
    return [
        make_test_set(problem, signal_ratio=ratio, nuisance=nuisance, generator=generator, n_events=n_events)
        for ratio in problem.test_signal_ratios
        for nuisance in problem.test_nuisances
        for _ in range(repeats)
    ]


def bootstrap_counts(n_events: int, n_sets: int, set_size: int, generator: Generator) -> Tensor:
    """How often each of ``n_events`` occurs in each of ``n_sets`` bootstrap sets of ``set_size`` draws.

    Returns:
        Counts, int64, shape ``(n_sets, n_events)``; each row sums to ``set_size``.

    Raises:
        ParameterError: if any size is below one.

    Example:
        >>> bootstrap_counts(5, 2, 3, torch.Generator().manual_seed(1)).sum(dim=1)
        tensor([3, 3])
    """
    for name, value in (("n_events", n_events), ("n_sets", n_sets), ("set_size", set_size)):
        check_range(name, value, low=1)
    index = torch.randint(n_events, (n_sets, set_size), generator=generator, device=generator.device)
    counts = torch.zeros(n_sets, n_events, dtype=torch.int64, device=generator.device)
    return counts.scatter_add_(1, index, torch.ones_like(index))


def make_toys(
    problem: Problem,
    *,
    signal_ratio: float,
    nuisance: float,
    n_toys: int,
    n_events: int,
    generator: Generator,
    fixed_counts: bool = False,
) -> Tensor:
    """Draw independent toys, in float64.

    Args:
        problem: the simulator.
        signal_ratio: true ratio, at least 0.
        nuisance: true nuisance value inside the trained range.
        n_toys: number of toys.
        n_events: events in each toy.
        generator: source of randomness.
        fixed_counts: give every toy the same number of signal events (:func:`signal_count`) instead of a
            binomial one.

    Returns:
        Events, shape ``(n_toys, n_events, n_features)``; within a toy, signal and background are in
        random order only if counts are binomial.
    """
    check_range("n_toys", n_toys, low=1)
    n_signal = signal_count(n_events, signal_ratio)
    low, high = problem.nuisance_range
    check_range("nuisance", nuisance, low=low, high=high)
    device = generator.device
    if fixed_counts:
        is_signal = (torch.arange(n_events, device=device) < n_signal).expand(n_toys, n_events).reshape(-1)
    else:
        fraction = signal_ratio / (1.0 + signal_ratio)
        uniform = torch.rand(n_toys * n_events, generator=generator, dtype=torch.float64, device=device)
        is_signal = uniform < fraction
    total = int(is_signal.sum())
    z = torch.full((is_signal.numel(),), nuisance, dtype=torch.float64, device=device)
    events = torch.empty(is_signal.numel(), problem.n_features, dtype=torch.float64, device=device)
    if total > 0:
        events[is_signal] = problem.sample("signal", z[:total], generator)
    if total < is_signal.numel():
        events[~is_signal] = problem.sample("background", z[total:], generator)
    return events.reshape(n_toys, n_events, problem.n_features)
