"""Two, six and all 28 features, fixed and moving thresholds, with and without the number of events.

A unit is a threshold, a set of features and a method: pairs are trained together, and toys are fitted with
each of them and with their ensemble, by `fit_rates`.  What is kept is a summary per test point.  One more
unit takes scores from the classifiers of all features and asks which features hold the information.

The six features are those that `greedy_features` found: they always exist, are continuous, and none follows
from the others, so that flows can learn their density.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sbilib.components import ComponentDensities, LogComponents
from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.likelihood import NuisanceTable
from sbilib.likelihood.extended import ExpectedYields
from sbilib.likelihood.table import second_derivative_operator
from sbilib.models.ensemble import Ensemble, EvaluatedMembers
from sbilib.models.scaling import FeatureScaling, ScaledPair
from sbilib.problems import COMPONENTS
from sbilib.problems.higgs import PUBLISHED_FEATURES, HiggsTauTau
from sbilib.simulation.schema import FEATURES
from sbilib.studies.higgs_information import (
    EventScores,
    event_scores,
    explained_information,
    greedy_features,
    widths_of,
)
from sbilib.studies.higgs_models import CODE_OF_HIGGS_PAIRS
from sbilib.studies.higgs_rates import LIKELIHOODS, fit_rates
from sbilib.studies.higgs_recipes import higgs_recipe
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import ReservoirToys, problem_yields, summarize_toys
from sbilib.studies.higgs_training import fit_higgs_pairs
from sbilib.studies.pairs import FittedPair
from sbilib.studies.unit_results import UnitStudy

__all__ = [
    "FEATURE_SETS",
    "SCANNED_SCALES",
    "SIX_FEATURES",
    "THRESHOLDS",
    "FeaturePlan",
    "precision_table",
    "unit_studies",
]

SIX_FEATURES = (
    *PUBLISHED_FEATURES,
    "DER_mass_transverse_met_lep",
    "DER_pt_h",
    "DER_deltar_had_lep",
    "PRI_met",
)
"""The published pair and the four features that add most to it."""

FEATURE_SETS: Mapping[int, tuple[str, ...]] = {2: PUBLISHED_FEATURES, 6: SIX_FEATURES, 28: tuple(FEATURES)}
"""The sets by their number of features."""

CANDIDATES = (
    "PRI_lep_pt",
    "PRI_lep_eta",
    "PRI_had_pt",
    "PRI_had_eta",
    "PRI_met",
    "DER_mass_transverse_met_lep",
    "DER_pt_h",
    "DER_deltar_had_lep",
)
"""Continuous features of every event, without azimuths and without those that count jets."""

THRESHOLDS = ("published", "realistic")
SCANNED_SCALES = (0.85, 1.15)
"""Scanned range of the energy scale, inside the trained one."""

_ENSEMBLE = "ensemble"
_CODE = (
    *CODE_OF_HIGGS_PAIRS,
    "studies/higgs_features.py",
    "studies/higgs_information.py",
    "studies/higgs_rates.py",
)


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """Everything that decides the results, apart from the data.

    Args:
        thresholds: ``"published"``, ``"realistic"`` or both.
        classifier_sets: numbers of features of the classifiers, keys of `FEATURE_SETS`.
        flow_sets: numbers of features of the flows; absent jets exclude 28.
        n_pairs: pairs of each unit, trained together.
        classifier_steps: optimizer steps of the classifiers.
        classifier_batch: events of a batch of each.
        flow_steps: optimizer steps of the flows.
        flow_batch: events of a batch of each.
        n_toys: toys at each of the nine test points.
        n_events: expected events of a toy at a signal ratio of 0.2 and an energy scale of 1.
        n_tests: test splits that toys are drawn from, 1 to 5.
        n_nodes: energy scales at which the models are evaluated, from 0.85 to 1.15; the realistic threshold
            leaves intervals too wide for the published range of 0.9 to 1.1.
        n_scores: events of each component whose scores are used, at most.
        n_scaling: training events that means and widths of the features are taken from.
        normalize: normalize the classifiers and match their moments, which takes seconds.
        seed: of the toys.

    Raises:
        ParameterError: for an unknown name or a number out of range.

    Example:
        >>> FeaturePlan(thresholds=("realistic",), flow_sets=(2,)).units
        ['realistic-2-classifier', 'realistic-6-classifier', 'realistic-28-classifier', 'realistic-2-flow', \
'information']
    """

    thresholds: tuple[str, ...] = THRESHOLDS
    classifier_sets: tuple[int, ...] = (2, 6, 28)
    flow_sets: tuple[int, ...] = (2, 6)
    n_pairs: int = 2
    classifier_steps: int = 2000
    classifier_batch: int = 2048
    flow_steps: int = 1500
    flow_batch: int = 1024
    n_toys: int = 100
    n_events: int = 1000
    n_tests: int = 2
    n_nodes: int = 13
    n_scores: int = 40_000
    n_scaling: int = 100_000
    normalize: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("thresholds", "classifier_sets", "flow_sets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for threshold in self.thresholds:
            check_choice("threshold", threshold, THRESHOLDS)
        for number in (*self.classifier_sets, *self.flow_sets):
            if number not in FEATURE_SETS:
                raise ParameterError(f"sets have {list(FEATURE_SETS)} features, got {number}")
        if 28 in self.flow_sets:
            raise ParameterError("flows need features of every event; 28 holds absent jets, take 2 and 6")
        for name in ("n_pairs", "classifier_steps", "flow_steps", "n_toys", "n_events", "n_scores"):
            check_count(name, getattr(self, name), low=1)
        for name in ("classifier_batch", "flow_batch", "n_nodes", "n_scaling"):
            check_count(name, getattr(self, name), low=8)
        if check_count("n_tests", self.n_tests, low=1) > 5:
            raise ParameterError(f"there are five test splits, got n_tests = {self.n_tests}")

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> FeaturePlan:
        """The plan from the parameters of the page; others among them are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})

    @property
    def units(self) -> list[str]:
        """Names of the units: threshold, number of features, method; and the information."""
        sets = [("classifier", self.classifier_sets), ("flow", self.flow_sets)]
        units = [f"{t}-{n}-{method}" for t in self.thresholds for method, numbers in sets for n in numbers]
        if "realistic" in self.thresholds and 28 in self.classifier_sets:
            units.append("information")
        return units

    def study(self) -> UnitStudy:
        """The study, in units that are kept one by one (`make_units`, `finished_or_made`)."""
        facts = {name: value for name, value in asdict(self).items() if not isinstance(value, tuple)}
        facts["problem"] = repr(HiggsTauTau())
        facts["features"] = {str(number): list(names) for number, names in FEATURE_SETS.items()}
        return UnitStudy("higgs-more-features", facts, self.units, _CODE, self.make)

    def make(self, unit: str) -> pd.DataFrame:
        """Train and measure one unit.

        Returns:
            Rows of kind ``"training"`` (``member``, ``seconds_training``, ``signal loss``,
            ``background loss``), ``"toy"`` (a summary by `summarize_toys` with ``member``, ``likelihood``
            and ``scale``, "profiled" or "known") or, of the last unit, ``"information"``.
        """
        if unit == "information":
            return self._information()
        threshold, number, method = unit.split("-")
        problem = self.problem(threshold, int(number))
        pairs = self.fit(threshold, int(number), method)
        parts = [_training_rows(pairs), self._toys(problem, pairs)]
        rows = pd.concat(parts, ignore_index=True)
        return rows.assign(threshold=threshold, n_features=int(number), method=method)

    def problem(self, threshold: str, n_features: int) -> HiggsTauTau:
        """The problem of a unit, on its training split."""
        return HiggsTauTau(features=FEATURE_SETS[n_features], threshold=threshold)

    def fit(self, threshold: str, n_features: int, method: str) -> list[FittedPair]:
        """The pairs of a unit, from their checkpoint if they were trained before."""
        problem = self.problem(threshold, n_features)
        scaling = self._scaling(problem)
        steps = self.classifier_steps if method == "classifier" else self.flow_steps
        batch = self.classifier_batch if method == "classifier" else self.flow_batch
        n_coordinates = scaling.config.n_coordinates
        recipe = higgs_recipe(method, "modern", n_coordinates=n_coordinates, n_steps=steps, fine=False)
        training = replace(
            recipe.training,
            batch_size=batch,
            validation_size=2 * batch,
            validate_every=min(recipe.training.validate_every, steps),
        )
        return fit_higgs_pairs(
            problem,
            replace(recipe, training=training, normalize=recipe.normalize and self.normalize),
            seeds=range(1, self.n_pairs + 1),
            validation=problem.with_split("validation"),
            scaling=scaling,
        )

    def _scaling(self, problem: HiggsTauTau) -> FeatureScaling:
        return fit_scaling(problem, n_events=self.n_scaling)

    def _tests(self, problem: HiggsTauTau) -> list[HiggsTauTau]:
        return [problem.with_split(f"test-{number}") for number in range(1, self.n_tests + 1)]

    def _yields(self, problem: HiggsTauTau) -> ExpectedYields:
        return problem_yields(problem, n_events=self.n_events)

    def _toys(self, problem: HiggsTauTau, pairs: list[FittedPair]) -> pd.DataFrame:
        yields = self._yields(problem)
        toys = ReservoirToys(
            self._tests(problem), seed=self.seed, n_toys=self.n_toys, n_events=self.n_events, yields=yields
        )
        nodes = torch.linspace(*SCANNED_SCALES, self.n_nodes, dtype=torch.float64)
        members = [_quick(pair.densities, problem) for pair in pairs if not pair.diverged]
        parts = []
        for z in problem.test_nuisances:
            found = EvaluatedMembers.evaluate(members, toys.reservoir(z).events, nodes)
            tables = {
                str(k): _table(found.subset([k]).mean("mean_density"), nodes) for k in range(len(members))
            }
            tables[_ENSEMBLE] = _table(found.mean("mean_density"), nodes)
            for number, point in enumerate(toys.points):
                if point[1] != z:
                    continue
                index, sizes = toys.draw(number)
                for member, table in tables.items():
                    rows = _toy_rows(table, index, sizes, yields, point)
                    parts.append(rows.assign(member=member, k=toys.k(number)))
        by = ("member", "likelihood", "scale")
        summary = summarize_toys(pd.concat(parts, ignore_index=True), by=by)
        known = (summary["scale"] == "known") & (summary["parameter"] == "z")
        return summary[~known].assign(kind="toy")

    def _shuffled(self, events: list[Tensor]) -> Tensor:
        """Some of the events, without the order that the sample keeps."""
        joined = torch.cat(events)
        order = torch.randperm(len(joined), generator=torch.Generator().manual_seed(self.seed))
        return joined[order[: self.n_scores]]

    def _information(self) -> pd.DataFrame:
        """What features hold, at a signal ratio of 0.2 and an energy scale of 1."""
        problem = self.problem("realistic", 28)
        pairs = self.fit("realistic", 28, "classifier")
        ensemble = Ensemble([pair.densities for pair in pairs])
        tests = self._tests(problem)
        signal, background = (
            self._shuffled([test.all_events(name).events for test in tests]) for name in COMPONENTS
        )
        scores = event_scores(ensemble, signal, background, self._yields(problem))
        coordinates = self._scaling(problem)(torch.cat((signal, background)))
        rows = _information_rows(coordinates, scores)
        return pd.DataFrame(rows).assign(kind="information")


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the page with these parameters, by suffix of the folder of their table."""
    return {"": FeaturePlan.from_parameters(values).study()}


def precision_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean width and coverage over the test points, with errors.

    Args:
        table: rows of a finished `FeaturePlan`.

    Returns:
        A row per ``threshold``, ``n_features``, ``method``, ``likelihood``, ``scale`` (``"profiled"`` or
        ``"known"``) and ``parameter``: of the ensemble the mean ``width`` and ``coverage`` over the test
        points, the statistical ``width_error`` and ``coverage_error`` (toys and the common reservoir), the
        largest ``open`` fraction, the root mean square ``pull`` of the test points; and of the single pairs
        ``width_low``, ``width_high``, ``coverage_low`` and ``coverage_high``.
    """
    keys = ["threshold", "n_features", "method", "likelihood", "scale", "parameter"]
    toys = table[table["kind"] == "toy"]
    rows = []
    for values, part in toys.groupby(keys, sort=False):
        ensemble = part[part["member"] == _ENSEMBLE]
        single = part[part["member"] != _ENSEMBLE].groupby("member")[["width", "coverage"]].mean()
        n = len(ensemble)
        scatter = ensemble["error"].to_numpy(float) ** 2 + ensemble["reservoir_error"].to_numpy(float) ** 2
        rows.append(
            {
                **dict(zip(keys, cast(tuple[Any, ...], values), strict=True)),
                "width": float(ensemble["width"].mean()),
                "width_error": math.sqrt(float((ensemble["width_error"] ** 2).sum())) / n,
                "coverage": float(ensemble["coverage"].mean()),
                "coverage_error": math.sqrt(float(scatter.sum())) / n,
                "open": float(ensemble["open"].max()),
                "pull": math.sqrt(float((ensemble["pull"] ** 2).mean())),
                **{f"{name}_low": float(single[name].min()) for name in single},
                **{f"{name}_high": float(single[name].max()) for name in single},
            }
        )
    result = pd.DataFrame(rows)
    result["n_features"] = result["n_features"].astype(int)
    return result


def _quick(densities: ComponentDensities, problem: HiggsTauTau) -> ComponentDensities:
    """The densities, tabulated where they have two features."""
    if not isinstance(densities, ScaledPair) or problem.n_features != 2:
        return densities
    return TabulatedPair(densities, densities.scaling, nuisance_range=SCANNED_SCALES)


def _table(components: LogComponents, nodes: Tensor) -> NuisanceTable:
    log_ratio = (components.signal - components.background).T.contiguous()
    return NuisanceTable(
        nodes, torch.stack((log_ratio, second_derivative_operator(nodes) @ log_ratio)), components.background
    )


def _toy_rows(
    table: NuisanceTable, index: Tensor, sizes: Tensor, yields: ExpectedYields, point: tuple[float, float]
) -> pd.DataFrame:
    """Fits of all toys of a test point with one table: both likelihoods, z profiled and known."""
    parts = []
    fits = fit_rates(table, index, sizes, yields, nuisance=point[1])
    for likelihood in LIKELIHOODS:
        rows = fits[likelihood].rows()
        fixed = {f"mu_{end}": rows[f"fixed_{end}"] for end in ("hat", "lower", "upper")}
        # The columns of z repeat those of the profiled fit; `summarize_toys` needs them.
        for scale, each in (("profiled", rows), ("known", rows.assign(**fixed))):
            parts.append(each.assign(likelihood=likelihood, scale=scale))
    return pd.concat(parts, ignore_index=True).assign(mu=point[0], z=point[1])


def _training_rows(pairs: list[FittedPair]) -> pd.DataFrame:
    rows = []
    for number, pair in enumerate(pairs):
        losses = {
            f"{name} loss": float(np.asarray(pair.training[name].validation_loss)[-1]) for name in COMPONENTS
        }
        seconds = max(record.seconds for record in pair.training.values())
        rows.append({"member": str(number), "diverged": pair.diverged, "seconds_training": seconds, **losses})
    return pd.DataFrame(rows).assign(kind="training")


def _information_rows(coordinates: Tensor, scores: EventScores) -> list[dict[str, Any]]:
    names = FEATURE_SETS[28]
    shape, rate = scores.shape_information(), scores.rate_information()
    found = {"rate": rate, "28 features": shape, "28 features and rate": shape + rate}
    for label, chosen in (("2 features", PUBLISHED_FEATURES), ("6 features", SIX_FEATURES)):
        columns = coordinates[:, [names.index(name) for name in chosen]]
        found[label] = explained_information(columns, scores)
    rows: list[dict[str, Any]] = []
    for label, matrix in found.items():
        elements = {"mu_mu": matrix[0, 0].item(), "mu_z": matrix[0, 1].item(), "z_z": matrix[1, 1].item()}
        # The number of events alone cannot tell two parameters apart.
        widths = {} if label == "rate" else widths_of(matrix)._asdict()
        rows.append({"step": label, **elements, **widths})
    added = greedy_features(
        coordinates, names, scores, start=PUBLISHED_FEATURES, candidates=CANDIDATES, n_features=8
    )
    return rows + [{"step": "added", "feature": name, **widths._asdict()} for name, widths in added]
