r"""The many models of the Higgs case behind two pages: which are trained, in which units, and what is kept.

Units are groups of pairs that are trained together (`HiggsModels`), then the ensembles of the modern pairs of
a method, that of classifiers before their moments are matched, then the template fit.  All of them are
measured in the same independent toys and, but for the last ensemble, bootstrap sets.
Published recipes may be trained with fewer steps :math:`T` than published, at the constant rate

.. math:: \eta = \eta_\mathrm{published}\, \frac{T_\mathrm{published}}{T}

or another one: a step of Adam moves a weight by about the rate, so the product says how far it can get.

Two variants of the published flow, with everything else as published, show what cures its blind spot:
``"alternating"`` exchanges the features after every layer instead of at random, ``"context"`` also lets half
of the hidden units see the nuisance parameter alone, so that every feature of every layer depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
import torch

from sbilib.components import ComponentDensities
from sbilib.errors import ParameterError, check_count, check_range
from sbilib.likelihood import ScanGrid
from sbilib.models.ensemble import ENSEMBLE_KINDS, Ensemble
from sbilib.models.flow import FlowConfig
from sbilib.models.histogram import HistogramPair
from sbilib.models.scaling import ScaledPair
from sbilib.problems import COMPONENTS
from sbilib.problems.higgs import HiggsTauTau
from sbilib.studies.evaluation import evaluate_pair
from sbilib.studies.higgs_models import CODE_OF_HIGGS_PAIRS, HiggsModels, HiggsSplits, higgs_test_sets
from sbilib.studies.higgs_recipes import higgs_recipe
from sbilib.studies.higgs_scaling import fit_scaling
from sbilib.studies.higgs_tables import TabulatedPair
from sbilib.studies.higgs_toys import FiniteProblem, ReservoirToys, summarize_toys
from sbilib.studies.higgs_training import fit_higgs_pairs
from sbilib.studies.pairs import FittedPair
from sbilib.studies.recipes import METHODS
from sbilib.studies.unit_results import UnitStudy

__all__ = ["CURES", "CoveragePlan", "FlowVariant", "held_out_losses", "unit_studies"]

CURES: Mapping[str, Mapping[str, Any]] = {
    "alternating": {"ordering": "alternating"},
    "context": {"ordering": "alternating", "context_units": 0.5},
}
"""Changes of the published flow, by name of the variant."""

_CODE = (*CODE_OF_HIGGS_PAIRS, "studies/higgs_coverage.py", "studies/higgs_models.py")
_FITTED = [f"{name}_{part}" for name in ("mu", "z") for part in ("hat", "lower", "upper")]
_LOSS_NODES, _LOSS_EVENTS = 20, 20_000
_OTHERS = 5
_COUNTS = ("modern_pairs", "published_flows", "published_classifiers", "cured_flows")
_STEPS = ("modern_flow", "modern_classifier", "published_flow", "published_classifier")


@dataclass(frozen=True, kw_only=True)
class FlowVariant(HiggsModels):
    """Pairs of the published flow with a change of its architecture.

    Args:
        variant: a name in :data:`CURES`.

    Example:
        >>> FlowVariant(methods=("flow",), recipe="sluijter", variant="context").variant
        'context'
    """

    variant: str = "alternating"

    def fit(self, method: str, seeds: Sequence[int], splits: HiggsSplits) -> list[FittedPair]:
        """The pairs of these seeds, from their checkpoint if they were trained before."""
        rate = None if self.learning_rates is None else self.learning_rates[0]
        recipe = higgs_recipe(
            method,
            self.recipe,
            n_steps=self.n_steps,
            learning_rate=rate,
            compile_models=self.compile_models,
        )
        if not isinstance(recipe.model, FlowConfig):
            raise ParameterError(f"variants are of flows, got method {method!r}; pass 'flow'")
        recipe = replace(recipe, model=replace(recipe.model, **CURES[self.variant]))
        scaling = fit_scaling(splits.train, scale_nuisance=False)
        return fit_higgs_pairs(
            splits.train, recipe, seeds=list(seeds), validation=splits.validation, scaling=scaling
        )


@dataclass(frozen=True, kw_only=True)
class CoveragePlan:
    """How many models there are, how they are trained, and how they are measured.

    Args:
        seed: seed of toys and test sets; the seeds of the pairs are 1, 2, and so on.
        modern_pairs: modern pairs of each method; all of them form the ensembles.
        published_flows: pairs of published flows.
        published_classifiers: pairs of published classifiers.
        cured_flows: pairs of each variant of the published flow.
        pairs_per_unit: pairs that are trained together.
        modern_flow_steps: optimizer steps.
        modern_classifier_steps: optimizer steps.
        published_flow_steps: optimizer steps; 100 000 were published.
        published_classifier_steps: optimizer steps.
        published_flow_rate: constant learning rate; 3e-6 was published.
        published_classifier_rate: constant learning rate; 1e-4 was published.
        matched: match the moments of modern classifiers after the training, which takes seconds each.
        n_toys: independent toys of each pair at each test point, kept one by one.
        n_ensemble_toys: further ones of the ensembles of mean densities, of which coverage and width are
            kept; a fifth of them for the other kind of mean and the template fit.
        n_events: events of a toy and of a bootstrap set.
        n_bootstrap: bootstrap sets of each test set; 0 for none.
        n_test_events: events of a test set.
        n_test_splits: test splits of the data that are used, from 1 to 5.
        table_spacing: spacing of the tables of densities, in standard deviations of the features.
        compile_models: compile the stacks of models.

    Raises:
        ParameterError: if a number is out of range.

    Example:
        >>> CoveragePlan(modern_pairs=2, published_flows=4, published_classifiers=1, cured_flows=0).units
        ... # doctest: +NORMALIZE_WHITESPACE
        ['modern-flow-1-2', 'modern-classifier-1-2', 'sluijter-flow-1-4', 'sluijter-classifier-1-1',
         'ensemble-flow', 'ensemble-classifier', 'as-trained', 'template-fit']
    """

    seed: int = 1
    modern_pairs: int = 8
    published_flows: int = 12
    published_classifiers: int = 8
    cured_flows: int = 4
    pairs_per_unit: int = 4
    modern_flow_steps: int = 2000
    modern_classifier_steps: int = 6000
    published_flow_steps: int = 3000
    published_classifier_steps: int = 4000
    published_flow_rate: float = 1e-4
    published_classifier_rate: float = 2.5e-3
    matched: bool = True
    n_toys: int = 100
    n_ensemble_toys: int = 5000
    n_events: int = 1000
    n_bootstrap: int = 40
    n_test_events: int = 9000
    n_test_splits: int = 5
    table_spacing: float = 0.05
    compile_models: bool = True

    def __post_init__(self) -> None:
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        for name in ("modern_pairs", "pairs_per_unit", "n_toys", "n_ensemble_toys", "n_events"):
            check_count(name, getattr(self, name), low=1)
        check_range("n_test_splits", self.n_test_splits, low=1, high=5)
        for name in _STEPS:
            check_count(f"{name}_steps", getattr(self, f"{name}_steps"), low=1)

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> CoveragePlan:
        """The plan from the parameters of a page; others among them are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})

    @property
    def models(self) -> dict[str, HiggsModels]:
        """The models by recipe and method, for instance ``"sluijter-flow"``, of which there are any."""
        found = {f"modern-{method}": self._models("modern", method, self.modern_pairs) for method in METHODS}
        counts = (self.published_flows, self.published_classifiers)
        for method, count in zip(METHODS, counts, strict=True):
            if count:
                found[f"sluijter-{method}"] = self._models("sluijter", method, count)
        for name in CURES if self.cured_flows else ():
            basis = self._models("sluijter", "flow", self.cured_flows)
            found[f"{name}-flow"] = FlowVariant(**vars(basis), variant=name)
        return found

    @property
    def units(self) -> list[str]:
        """Names of the units, in the order in which they are made."""
        pairs = [
            f"{name.rpartition('-')[0]}-{unit}" for name, some in self.models.items() for unit in some.units
        ]
        return [*pairs, *(f"ensemble-{method}" for method in METHODS), "as-trained", "template-fit"]

    @property
    def facts(self) -> dict[str, Any]:
        """All settings but the numbers of published and cured pairs, which add units and change none."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in (*_COUNTS[1:], "compile_models")
        }

    def study(self, splits: HiggsSplits | None = None) -> UnitStudy:
        """The study in units, for `sbilib.studies.unit_results`.

        Args:
            splits: the problem on its parts; those of the published pair of features if None.
        """
        chosen = HiggsSplits.of(HiggsTauTau()) if splits is None else splits
        chosen = replace(chosen, tests=chosen.tests[: self.n_test_splits])

        def make(unit: str) -> pd.DataFrame:
            return self.make(unit, chosen)

        return UnitStudy("higgs-coverage", {**self.facts, "problem": repr(chosen)}, self.units, _CODE, make)

    def make(self, unit: str, splits: HiggsSplits) -> pd.DataFrame:
        """Train and measure one unit.

        Args:
            unit: a name in :attr:`units`.
            splits: the problem on its parts.

        Returns:
            Rows with ``kind``, ``method``, ``recipe`` and ``seed``: those of `HiggsModels.make`, with the
            losses of `held_out_losses` for flows; and of ensembles (``recipe`` their kind of mean, ``seed``
            0) and the template fit (``method`` and ``recipe`` ``"template fit"``) the kinds ``"toy"``,
            ``"bootstrap"`` and ``"summary"``, coverage and width in the further toys (`summarize_toys`).  Of
            the modern classifiers before their moments are matched (``recipe`` ``"as trained"``) the ensemble
            of mean densities has the last kind alone.
        """
        if unit == "template-fit":
            return _small(self._template_fit(splits))
        if unit == "as-trained":
            return _small(self._as_trained(splits))
        name, _, rest = unit.partition("-")
        if name == "ensemble":
            return _small(self._ensembles(rest, splits))
        method = rest.partition("-")[0]
        models = self.models[f"{name}-{method}"]
        table = models.make(rest, splits).assign(recipe=name)
        if method == "flow":
            table = self._with_losses(table, models, rest, splits)
        return _small(table)

    def _models(self, recipe: str, method: str, count: int) -> HiggsModels:
        kind = "modern" if recipe == "modern" else "published"
        rate = getattr(self, f"{kind}_{method}_rate", None)
        return HiggsModels(
            methods=(method,),
            recipe=recipe,
            n_pairs=count,
            pairs_per_unit=self.pairs_per_unit,
            n_steps=getattr(self, f"{kind}_{method}_steps"),
            learning_rates=None if rate is None else (rate,),
            compile_models=self.compile_models,
            matched=self.matched,
            n_toys=self.n_toys,
            n_events=self.n_events,
            n_bootstrap=self.n_bootstrap,
            n_test_events=self.n_test_events,
            table_spacing=self.table_spacing,
            seed=self.seed,
        )

    def _with_losses(
        self, table: pd.DataFrame, models: HiggsModels, unit: str, splits: HiggsSplits
    ) -> pd.DataFrame:
        for pair in models.fit_unit(unit, splits):
            if pair.diverged:
                continue
            chosen = (table["kind"] == "training") & (table["seed"] == pair.seed)
            for component, loss in held_out_losses(pair.densities, splits.tests).items():
                table.loc[chosen, f"{component} held-out loss"] = loss
        return table

    def _ensembles(self, method: str, splits: HiggsSplits) -> pd.DataFrame:
        members = _sound_members(self.models[f"modern-{method}"], splits)
        parts = []
        for kind in ENSEMBLE_KINDS:
            table = self._tabulated(Ensemble(members, kind=kind), splits)
            share = 1 if kind == ENSEMBLE_KINDS[0] else _OTHERS
            parts.append(self._measured(table, splits, share).assign(method=method, recipe=kind, seed=0))
        return pd.concat(parts, ignore_index=True)

    def _as_trained(self, splits: HiggsSplits) -> pd.DataFrame:
        models = replace(self.models["modern-classifier"], matched=False)
        members = _sound_members(models, splits)
        table = self._tabulated(Ensemble(members, kind=ENSEMBLE_KINDS[0]), splits)
        return self._summary(table, splits, 1).assign(method="classifier", recipe="as trained", seed=0)

    def _tabulated(self, densities: Ensemble, splits: HiggsSplits) -> ComponentDensities:
        first = densities.members[0]
        if not isinstance(first, ScaledPair):
            return densities
        span, spacing = splits.train.scan_range, self.table_spacing
        return TabulatedPair(densities, first.scaling, nuisance_range=span, spacing=spacing)

    def _template_fit(self, splits: HiggsSplits) -> pd.DataFrame:
        problem = splits.train

        def shifted(component: str, z: float) -> tuple[torch.Tensor, torch.Tensor]:
            found = problem.all_events(component, z)
            return found.events, found.weights

        pair = HistogramPair.of_shifted(
            shifted, nuisance_range=problem.nuisance_range, reference=problem.reference_nuisance
        )
        names = {"method": "template fit", "recipe": "template fit"}
        return self._measured(pair, splits, _OTHERS).assign(**names, seed=0)

    def _measured(self, densities: ComponentDensities, splits: HiggsSplits, share: int) -> pd.DataFrame:
        """Toys one by one, the summary of more toys with another seed, and the published metrics."""
        common = ReservoirToys(splits.tests, seed=self.seed, n_toys=self.n_toys, n_events=self.n_events)
        parts = [common.fit({"here": densities}).assign(kind="toy"), self._summary(densities, splits, share)]
        if self.n_bootstrap:
            table = evaluate_pair(
                densities,
                higgs_test_sets(splits, seed=self.seed, n_events=self.n_test_events),
                exact=None,
                n_bootstrap=self.n_bootstrap,
                set_size=self.n_events,
                seed=self.seed,
                grid=ScanGrid.uniform(nuisance_range=splits.train.scan_range),
            )
            parts.append(table.assign(kind="bootstrap"))
        return pd.concat(parts, ignore_index=True)

    def _summary(self, densities: ComponentDensities, splits: HiggsSplits, share: int) -> pd.DataFrame:
        """Coverage and width in more toys with another seed."""
        count = max(1, self.n_ensemble_toys // share)
        more = ReservoirToys(splits.tests, seed=self.seed + 1, n_toys=count, n_events=self.n_events)
        summary = summarize_toys(more.fit({"here": densities}))
        return summary.drop(columns="method").assign(kind="summary")


def _sound_members(models: HiggsModels, splits: HiggsSplits) -> list[ComponentDensities]:
    """All pairs that did not diverge."""
    pairs = [pair for unit in models.units for pair in models.fit_unit(unit, splits)]
    return [pair.densities for pair in pairs if not pair.diverged]


def held_out_losses(densities: ComponentDensities, tests: Sequence[FiniteProblem]) -> dict[str, float]:
    r"""Mean of :math:`-\log p` over test events at nuisance values over the trained range, in nats an event.

    The events are the same for all densities, so differences are known far better than the values.  For a
    `ScaledPair` the density is that of its coordinates, and models of the same scaling can be compared.

    Args:
        densities: densities, not ratios.
        tests: the test splits.

    Returns:
        A loss for ``"signal"`` and one for ``"background"``.
    """
    low, high = tests[0].nuisance_range
    nodes = low + (high - low) * (torch.arange(_LOSS_NODES, dtype=torch.float64) + 0.5) / _LOSS_NODES
    share = _LOSS_EVENTS // (_LOSS_NODES * len(tests))
    losses = {}
    for component in COMPONENTS:
        generator = torch.Generator().manual_seed(1)
        parts = [part.sample(component, nodes.repeat_interleave(share), generator) for part in tests]
        events = torch.stack([part.view(_LOSS_NODES, share, -1) for part in parts], dim=1).flatten(1, 2)
        values = [
            getattr(densities.log_components(events[k], nodes[k : k + 1]), component)
            for k in range(_LOSS_NODES)
        ]
        losses[component] = -float(torch.cat(values).mean())
    return losses


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the pages with these parameters, by suffix of the folder of their table."""
    return {"": CoveragePlan.from_parameters(values).study()}


def _small(table: pd.DataFrame) -> pd.DataFrame:
    """Fits of toys in single precision, far finer than their errors: half the size of the file."""
    columns = [name for name in _FITTED if name in table]
    return table.astype(dict.fromkeys(columns, "float32"))
