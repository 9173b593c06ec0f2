r"""Independent toys from a finite reservoir of test events, and the coverage of any densities in them.

The energy scale of an event can be set exactly, so one reservoir of base events is a reservoir at each true
value.  Densities are evaluated once for each reservoir, on nodes in the nuisance parameter, for all toys.

Unweighted events are drawn without replacement: toys take the events of a random permutation one after the
other, and another permutation follows when all were used.  Weighted ones are drawn by weight.  Toys that
share a reservoir of :math:`k` times their size also share its fluctuation, which shifts all best fits of
a test point together by :math:`\delta \sim \mathcal N(0, 1/k)` standard deviations, so the coverage there is

.. math:: \Phi(1 - \delta) - \Phi(-1 - \delta) \approx 0.683 - \varphi(1)\,\delta^2 ,

with a mean of :math:`0.683 - 0.242/k` (the :math:`C(k)` of bootstrap sets in first order) and a standard
deviation of :math:`0.342/k`.  The smaller k of the two components is quoted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from sbilib.components import ComponentDensities
from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.likelihood import EventSets, Intervals, NuisanceTable, fit_event_sets
from sbilib.likelihood.extended import ExpectedYields, fit_extended
from sbilib.problems import COMPONENTS, Problem
from sbilib.studies.coverage import seeded_generator

__all__ = [
    "FiniteProblem",
    "Reservoir",
    "ReservoirToys",
    "problem_yields",
    "reservoir_error",
    "summarize_toys",
]

_TOYS_AT_ONCE = 100


class _Weighted(Protocol):
    @property
    def events(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor: ...


class FiniteProblem(Problem, Protocol):
    """A problem whose events are a finite sample that can be shifted, such as `HiggsTauTau`."""

    def all_events(self, component: str, nuisance: float) -> _Weighted:
        """All events at one nuisance value, and their weights."""
        ...


class Reservoir(NamedTuple):
    """Test events at one nuisance value, signal first."""

    events: Tensor
    """Events, float64, shape ``(n, n_features)``."""
    weights: Tensor
    """Their weights, shape ``(n,)``."""
    n_signal: int
    """How many of them are signal."""

    @classmethod
    def of_problems(cls, problems: Sequence[FiniteProblem], nuisance: float) -> Reservoir:
        """All events of several problems (test splits) at one nuisance value.

        Raises:
            ParameterError: if there are no problems.
        """
        if not problems:
            raise ParameterError("a reservoir needs at least one test split, got none")
        parts = {name: [p.all_events(name, nuisance) for p in problems] for name in COMPONENTS}
        events = [torch.cat([part.events for part in parts[name]]).double() for name in COMPONENTS]
        weights = [torch.cat([part.weights for part in parts[name]]).double() for name in COMPONENTS]
        return cls(torch.cat(events), torch.cat(weights), len(events[0]))

    def draw(self, counts: Tensor, component: str, generator: Generator) -> list[Tensor]:
        """Numbers of the events of one component in toys with ``counts`` (n_toys,) of them, one list each."""
        start = 0 if component == "signal" else self.n_signal
        stop = self.n_signal if component == "signal" else len(self.events)
        total, weights = int(counts.sum()), self.weights[start:stop]
        if stop == start:
            raise DataError(f"the reservoir has no {component} events; use more data")
        if bool((weights == weights[0]).all()):
            rounds = max(1, math.ceil(total / (stop - start)))
            order = torch.cat([torch.randperm(stop - start, generator=generator) for _ in range(rounds)])
        else:
            steps = weights.cumsum(0) / weights.sum()
            uniform = torch.rand(total, generator=generator, dtype=torch.float64)
            order = torch.searchsorted(steps, uniform).clamp(max=stop - start - 1)
        return list(torch.split(order[:total] + start, counts.tolist()))


class ReservoirToys:
    """Independent toys at the test points of a problem, the same for all densities.

    Args:
        problems: one or more test splits of one problem, all of whose events are one reservoir.
        seed: seed of the toys, not negative.
        n_toys: toys at each test point.
        n_events: events of a toy; its number of signal events is binomial.  With ``yields`` both numbers
            follow Poisson distributions instead, with ``n_events`` expected events at mu = 0.2, z = z0.
        yields: expected numbers of events for the extended likelihood (`problem_yields`); None for the
            likelihood of the mixture.
        n_nodes: nuisance values at which densities are evaluated, over the scanned range.

    Raises:
        ParameterError: for a number out of its range.

    Densities of two features that are slow to evaluate are best handed over as a `TabulatedPair`.
    """

    def __init__(
        self,
        problems: Sequence[FiniteProblem],
        *,
        seed: int,
        n_toys: int,
        n_events: int = 1000,
        yields: ExpectedYields | None = None,
        n_nodes: int = 21,
    ) -> None:
        if not problems:
            raise ParameterError("toys need at least one test split to be drawn from, got none")
        self.problems, self.problem = list(problems), problems[0]
        self.seed = check_count("seed", seed)
        self.n_toys = check_count("n_toys", n_toys, low=1)
        self.n_events = check_count("n_events", n_events, low=1)
        check_count("n_nodes", n_nodes, low=4)
        self.yields = yields
        self.nodes = torch.linspace(*self.problem.scan_range, n_nodes, dtype=torch.float64)
        self._reservoirs: dict[float, Reservoir] = {}

    @property
    def points(self) -> list[tuple[float, float]]:
        """The test points, pairs of signal ratio and nuisance value."""
        return [(mu, z) for mu in self.problem.test_signal_ratios for z in self.problem.test_nuisances]

    def reservoir(self, nuisance: float) -> Reservoir:
        """All test events at one nuisance value."""
        if nuisance not in self._reservoirs:
            self._reservoirs[nuisance] = Reservoir.of_problems(self.problems, nuisance)
        return self._reservoirs[nuisance]

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Toys of a test point: numbers of their events in its reservoir, toy after toy, and their sizes."""
        mu, z = self.points[number]
        generator = seeded_generator(self.seed, self.n_events, number)
        signal, background = self._counts(mu, z, generator)
        reservoir = self.reservoir(z)
        parts = [
            reservoir.draw(counts, name, generator)
            for name, counts in zip(COMPONENTS, (signal, background), strict=True)
        ]
        toys = [torch.cat(both) for both in zip(*parts, strict=True)]
        return torch.cat(toys), signal + background

    def k(self, number: int) -> float:
        """Events of the reservoir over those of a toy, for the component with fewer."""
        mu, z = self.points[number]
        reservoir, (signal, background) = self.reservoir(z), self._expected(mu, z)
        return min(reservoir.n_signal / signal, (len(reservoir.events) - reservoir.n_signal) / background)

    def fit(self, densities: Mapping[str, ComponentDensities], *, progress: bool = False) -> pd.DataFrame:
        """Best fits and intervals of all toys with each of several densities.

        Args:
            densities: methods by name: exact, pairs, ensembles, histograms.
            progress: show a progress bar.

        Returns:
            A row per method, test point (``mu``, ``z``) and toy, with best fits ``mu_hat``, ``z_hat``, edges
            ``mu_lower``, ``mu_upper``, ``z_lower``, ``z_upper`` (infinite where the interval leaves the
            scanned range), and ``k`` of the test point.

        Raises:
            ParameterError: if there are no densities.
            DataError: if densities are not finite.
        """
        if not densities:
            raise ParameterError("no densities to fit the toys with; pass at least one")
        jobs = [(name, z) for name in densities for z in self.problem.test_nuisances]
        parts = []
        for name, z in tqdm(jobs, desc=f"{self.problem.name}, toys", disable=not progress):
            table = self._table(densities[name], z)
            for number, (mu, at) in enumerate(self.points):
                if at == z:
                    rows = self._fit_point(table, number)
                    parts.append(rows.assign(method=name, mu=mu, z=z, k=self.k(number)))
        return pd.concat(parts, ignore_index=True)

    def _expected(self, mu: float, z: float) -> tuple[float, float]:
        if self.yields is None:
            fraction = mu / (1 + mu)
            return self.n_events * fraction, self.n_events * (1 - fraction)
        signal, background = self.yields.log_efficiencies(torch.tensor([z], dtype=torch.float64))
        total = self.yields.background
        return mu * total * float(signal.exp()), total * float(background.exp())

    def _counts(self, mu: float, z: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """Signal and background events of each toy."""
        expected = self._expected(mu, z)
        if self.yields is None:
            fraction = torch.full((self.n_toys,), expected[0] / self.n_events, dtype=torch.float64)
            size = torch.full_like(fraction, self.n_events)
            signal = torch.binomial(size, fraction, generator=generator).long()
            return signal, self.n_events - signal
        rates = torch.tensor(expected, dtype=torch.float64).repeat(self.n_toys, 1)
        drawn = torch.poisson(rates, generator=generator).long()
        return drawn[:, 0], drawn[:, 1]

    def _table(self, densities: ComponentDensities, z: float) -> NuisanceTable:
        return NuisanceTable.build(densities, self.reservoir(z).events, self.nodes)

    def _fit_point(self, table: NuisanceTable, number: int) -> pd.DataFrame:
        index, sizes = self.draw(number)
        ends = sizes.cumsum(0)
        parts = []
        for first in range(0, self.n_toys, _TOYS_AT_ONCE):
            last = min(first + _TOYS_AT_ONCE, self.n_toys)
            start = int(ends[first - 1]) if first else 0
            group = index[start : int(ends[last - 1])]
            if self.yields is None:
                found = fit_event_sets(EventSets.from_toys(_rows(table, group), last - first))
                intervals = (found.ratio_interval, found.nuisance_interval)
            else:
                offsets = ends[first:last] - sizes[first:last] - start
                extended = fit_extended(table, group, offsets, self.yields)
                intervals = (extended.ratio_interval, extended.nuisance_interval)
            parts.append(_columns(*intervals).assign(toy=range(first, last)))
        return pd.concat(parts, ignore_index=True)


def _rows(table: NuisanceTable, events: Tensor) -> NuisanceTable:
    """The events of these numbers, as a table."""
    return NuisanceTable(table.nodes, table.log_ratio[:, :, events], table.background[events])


def _columns(ratio: Intervals, nuisance: Intervals) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    for name, interval in (("mu", ratio), ("z", nuisance)):
        columns[f"{name}_hat"] = interval.best.numpy()
        columns[f"{name}_lower"] = torch.where(interval.lower_open, -math.inf, interval.lower).numpy()
        columns[f"{name}_upper"] = torch.where(interval.upper_open, math.inf, interval.upper).numpy()
    return pd.DataFrame(columns)


def problem_yields(
    problem: FiniteProblem, *, n_events: float = 1000.0, signal_ratio: float = 0.2
) -> ExpectedYields:
    """Expected yields of a problem whose thresholds make rates depend on the nuisance parameter.

    Args:
        problem: with ``efficiency(component, nuisance)``, such as `HiggsTauTau` of the training split.
        n_events: expected events at the reference value and ``signal_ratio``.
        signal_ratio: at which ``n_events`` are expected.

    Raises:
        ParameterError: if the problem has no efficiencies.
    """
    efficiency = getattr(problem, "efficiency", None)
    if efficiency is None:
        raise ParameterError("the problem must offer efficiency(component, nuisance); pass a HiggsTauTau")
    nodes = torch.linspace(*problem.nuisance_range, 17, dtype=torch.float64)
    signal, background = (efficiency(name, nodes).value for name in COMPONENTS)
    return ExpectedYields(n_events / (1 + signal_ratio), nodes, signal, background)


def reservoir_error(k: float) -> float:
    r"""Standard deviation of the coverage of toys from one reservoir of ``k`` times their size.

    >>> round(reservoir_error(100.0), 5)
    0.00342
    """
    check_range("k", k, low=0.0, include_low=False)
    return math.sqrt(2.0) * math.exp(-0.5) / math.sqrt(2 * math.pi) / k


def summarize_toys(table: pd.DataFrame, *, by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Coverage and mean width at each test point.

    Args:
        table: rows of `ReservoirToys.fit`, of one or several calls.
        by: columns that tell methods apart.

    Returns:
        A row per method, test point and parameter (``mu``, ``z``), with ``coverage``, its binomial standard
        error ``error``, the ``reservoir_error``, the mean ``width`` of closed intervals with its standard
        error ``width_error``, the mean of best fit minus truth over half the mean width ``pull``, ``open``,
        the fraction of intervals that leave the scanned range, ``k`` and ``n_toys``.
    """
    rows: list[dict[str, object]] = []
    for keys, part in table.groupby([*by, "mu", "z"], sort=False):
        labels = dict(zip([*by, "mu", "z"], keys, strict=True))
        n, k = len(part), float(part["k"].to_numpy()[0])
        for name in ("mu", "z"):
            truth = float(str(labels[name]))
            lower, upper = part[f"{name}_lower"], part[f"{name}_upper"]
            width = (upper - lower).replace(np.inf, np.nan)
            coverage = float(((lower <= truth) & (truth <= upper)).mean())
            rows.append(
                {
                    **labels,
                    "parameter": name,
                    "coverage": coverage,
                    "error": math.sqrt(coverage * (1 - coverage) / n),
                    "reservoir_error": reservoir_error(k),
                    "width": float(width.mean()),
                    "width_error": float(width.std()) / math.sqrt(max(1, int(width.count()))),
                    "pull": 2 * float((part[f"{name}_hat"] - truth).mean()) / float(width.mean()),
                    "open": float(width.isna().mean()),
                    "k": k,
                    "n_toys": n,
                }
            )
    return pd.DataFrame(rows)
