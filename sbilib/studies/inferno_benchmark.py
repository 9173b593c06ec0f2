r"""The benchmark of INFERNO as a study: networks for each case and initialization, measured with hard bins.

A unit of the study is a case and a group of seeds that train as one stack, so the members of a group see the
same batches and differ in their initial weights.  What is measured is

.. math:: \hat\sigma(s) = \sqrt{[(I + C)^{-1}]_{ss}}

on fresh events, each in the bin of its largest output (de Castro and Dorigo 2019, section 5.1, Table 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from sbilib.errors import check_count
from sbilib.models.summary import SummaryConfig
from sbilib.problems.inferno import INFERNO_CASES, InfernoBenchmark, sigma_of_signal
from sbilib.studies.inferno import InfernoStudy, train_inferno
from sbilib.studies.unit_results import UnitStudy

__all__ = ["BenchmarkPlan", "benchmark_limits", "published_inferno_table", "summarize_benchmark"]

_CODE = (
    "problems/inferno.py",
    "models/summary.py",
    "models/stack.py",
    "differentiable/variances.py",
    "studies/inferno.py",
    "studies/inferno_benchmark.py",
)
_TABLE_2 = {
    "NN classifier": (14.99, 18.94, 23.94, 21.54, 26.71),
    "INFERNO": (15.51, 16.79, 16.95, 16.89, 18.68),
    "optimal classifier": (14.97, 19.12, 24.93, 22.13, 27.98),
    "analytic likelihood": (14.71, 15.52, 15.65, 15.62, 16.89),
}


@dataclass(frozen=True)
class BenchmarkPlan:
    """Settings of every training, and how many there are.

    Args:
        n_initializations: networks of each case, with the seeds 0, 1, and so on.
        group: networks that train as one stack.
        n_bins: outputs of the network.
        hidden: nodes of the hidden layers.
        n_events: training events, half of them signal.
        n_steps: optimizer steps.
        batch_size: events in a batch, half of them signal.
        learning_rate: of Adam at the start.
        temperature: of the softmax.
        n_test: fresh events of each component in each of two test sets.
        seed: of training and test events.

    Raises:
        ParameterError: if a count is not positive.

    Example:
        >>> BenchmarkPlan(n_initializations=6, group=4).units[:2]
        ('B0-0000-0003', 'B1-0000-0003')
    """

    n_initializations: int = 20
    group: int = 5
    n_bins: int = 10
    hidden: tuple[int, ...] = (100, 100)
    n_events: int = 200_000
    n_steps: int = 1200
    batch_size: int = 2000
    learning_rate: float = 1e-2
    temperature: float = 1.0
    n_test: int = 200_000
    seed: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in ("n_initializations", "group", "n_test"):
            check_count(name, getattr(self, name), low=1)

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> BenchmarkPlan:
        """The plan from the parameters of the page; others among them are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})

    @classmethod
    def with_more_bins(cls, values: Mapping[str, Any]) -> BenchmarkPlan:
        """The second plan of the page, by its parameters that begin with ``more_``."""
        names = {
            "bins": "n_bins",
            "steps": "n_steps",
            "batch": "batch_size",
            "initializations": "n_initializations",
        }
        more = {name: values[f"more_{short}"] for short, name in names.items()}
        return replace(cls.from_parameters(values), **more, group=min(2, more["n_initializations"]))

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units: case, first and last seed."""
        return tuple(
            f"{case}-{first:04d}-{min(first + self.group, self.n_initializations) - 1:04d}"
            for first in range(0, self.n_initializations, self.group)
            for case in INFERNO_CASES
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All settings but the number of networks, as values that JSON has."""
        facts = {**asdict(self), "hidden": list(self.hidden)}
        return {name: value for name, value in facts.items() if name != "n_initializations"}

    def training(self, case: str) -> InfernoStudy:
        """What is trained for a case."""
        return InfernoStudy(
            case=INFERNO_CASES[case],
            network=replace(SummaryConfig.inferno(), hidden=self.hidden, n_outputs=self.n_bins),
            temperature=self.temperature,
            n_events=self.n_events,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )

    def study(self, name: str = "inferno-benchmark") -> UnitStudy:
        """The study in units, for :mod:`sbilib.studies.unit_results`."""
        return UnitStudy(name, self.facts, self.units, _CODE, self.make_unit)

    def make_unit(self, unit: str) -> pd.DataFrame:
        """Train and measure one unit.

        Args:
            unit: a name such as ``"B0-0000-0003"``.

        Returns:
            A row for each network, test set and case it is measured in, with the columns ``case`` (trained
            for), ``initialization``, ``test_set``, ``measured`` and ``sigma``.
        """
        case, first, last = unit.split("-")
        seeds = range(int(first), int(last) + 1)
        run = train_inferno(self.training(case), seeds=seeds, data_seed=3 * self.seed)
        rows = []
        for test_set in (0, 1):
            information = run.information(seed=3 * self.seed + 1 + test_set, n_events=self.n_test)
            for name, measured in INFERNO_CASES.items():
                sigma = sigma_of_signal(information, measured).tolist()
                rows += [
                    {
                        "case": case,
                        "initialization": seed,
                        "test_set": test_set,
                        "measured": name,
                        "sigma": value,
                    }
                    for seed, value in zip(seeds, sigma, strict=True)
                ]
        return pd.DataFrame(rows)


def published_inferno_table() -> pd.DataFrame:
    """Expected uncertainty of s by method and case (de Castro and Dorigo 2019, Table 2), in events.

    The row of INFERNO holds the summaries that were trained for the case they are measured in.

    Example:
        >>> float(published_inferno_table().loc["INFERNO", "B4"])
        18.68
    """
    return pd.DataFrame.from_dict(_TABLE_2, orient="index", columns=list(INFERNO_CASES))


def benchmark_limits(benchmark: InfernoBenchmark | None = None) -> pd.Series:
    """Least possible uncertainty of s in each case, by quadrature of the exact densities, in events."""
    information = (benchmark or InfernoBenchmark.published()).information()
    return pd.Series(
        {name: sigma_of_signal(information, case).item() for name, case in INFERNO_CASES.items()},
        name="limit",
    )


def summarize_benchmark(table: pd.DataFrame) -> pd.DataFrame:
    """Each case by the networks trained for it.

    Args:
        table: rows of :meth:`BenchmarkPlan.make_unit`.

    Returns:
        A row for each case with ``median`` over initializations, ``q16`` and ``q84``, ``error`` (standard
        error of the median from the spread), ``best``, ``worst`` and ``n``, all but ``n`` in events.
    """
    own = table[table.case == table.measured]
    means = own.groupby(["case", "initialization"]).sigma.mean()
    grouped = means.groupby("case")
    return pd.DataFrame(
        {
            "median": grouped.median(),
            "q16": grouped.quantile(0.16),
            "q84": grouped.quantile(0.84),
            # A normal distribution: the median scatters by the root of pi / 2 more than the mean.
            "error": 1.2533 * grouped.std() / grouped.count() ** 0.5,
            "best": grouped.min(),
            "worst": grouped.max(),
            "n": grouped.count(),
        }
    )


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the page with these parameters, by suffix of the folder of their table."""
    return {
        "": BenchmarkPlan.from_parameters(values).study(),
        "-more-bins": BenchmarkPlan.with_more_bins(values).study(),
    }
