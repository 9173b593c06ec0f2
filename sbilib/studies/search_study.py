r"""The search with generated background in units: one training each, kept as histograms.

The unit ``score`` trains the classifier and bins the simulated signal and background.  Each further unit,
for instance ``modern-200000-000-nominal`` or ``modern-200000-000-boot03``, trains one generative model on one
training set or a bootstrap of it, draws events, and bins the score and :math:`m_{bb}` of those above the cut
for growing numbers of events.  For nominal trainings a classifier between training events and generated
ones gives weights, and the weighted histograms and those of the training set are kept too.  No event
is kept.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sbilib.errors import check_choice, check_count, check_range
from sbilib.models import TransformedDensity
from sbilib.models.sampling import sample_blocks
from sbilib.problems.bsm_data import BsmData, default_bsm_data
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS, SCALES
from sbilib.studies.amplified_limits import logarithmic_counts
from sbilib.studies.amplified_templates import Binning, bin_prefixes
from sbilib.studies.generative_fits import CODE_OF_GENERATORS
from sbilib.studies.pairs import cache_folder
from sbilib.studies.reweighting import EventWeights, RatioTraining, event_weights, train_log_ratio
from sbilib.studies.search_models import GENERATOR_RECIPES, bootstrapped, train_generator, training_events
from sbilib.studies.search_score import (
    EventScore,
    ScoreTraining,
    background_of_templates,
    score_facts,
    train_score,
)
from sbilib.studies.unit_results import UnitStudy

__all__ = ["OBSERVABLES", "SEARCH_CODE", "SearchPlan", "observable_binning"]

OBSERVABLES = ("score", "m_bb")
SEARCH_CODE = (
    *CODE_OF_GENERATORS,
    "models/classifier.py",
    "studies/amplified_templates.py",
    "studies/bsm_bounds.py",
    "studies/reweighting.py",
    "studies/search_models.py",
    "studies/search_score.py",
    "studies/search_study.py",
)
"""Modules that decide the content of the tables."""

_MASS = BSM_CONTINUOUS.index("m_bb")
_Array = NDArray[np.float64]


def observable_binning(observable: str, cut: float) -> Binning:
    """The 25 published bins: of the score above the cut, or of the mass up to three times its public scale.

    Raises:
        ParameterError: for another observable.

    Example:
        >>> observable_binning("m_bb", 0.55).label
        '$m_{bb}$ [GeV]'
    """
    if check_choice("observable", observable, OBSERVABLES) == "score":
        return Binning.score(cut=cut)
    return Binning.mass(high=3 * SCALES["m_bb"], unit="GeV")


class _Drawn(NamedTuple):
    """What is kept of generated events."""

    values: dict[str, _Array]
    weights: EventWeights | None


@dataclass(frozen=True)
class SearchPlan:
    """Settings of the search and its trainings.

    Args:
        seed: of everything random.
        score_shape: classifier, ``"modern"`` or ``"published"``.
        score_steps: its optimizer steps.
        cut: on the score.
        recipe: generative model, a name in :data:`~sbilib.studies.search_models.GENERATOR_RECIPES`.
        n_train: events that it is trained on.
        n_epochs: passes through them.
        n_models: bootstrapped trainings beside the nominal one, at least four.
        n_generated: events drawn from each model.
        n_points: numbers of events in logarithmic steps up to that, from a hundredth of it.
        most_weight: largest weight of a reweighted event.
        data: source of events; by default the shipped sample.

    Raises:
        ParameterError: for values out of range.

    Example:
        >>> SearchPlan(n_models=4).units[:3]
        ('score', 'modern-200000-000-nominal', 'modern-200000-000-boot00')
    """

    seed: int = 1
    score_shape: str = "modern"
    score_steps: int = 4000
    cut: float = 0.55
    recipe: str = "modern"
    n_train: int = 200_000
    n_epochs: int = 40
    n_models: int = 10
    n_generated: int = 1_000_000
    n_points: int = 30
    most_weight: float = 10.0
    data: BsmData | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("recipe", self.recipe, tuple(GENERATOR_RECIPES))
        check_count("n_models", self.n_models, low=4)
        check_count("n_train", self.n_train, low=20)
        check_count("n_epochs", self.n_epochs, low=1)
        check_count("n_generated", self.n_generated, low=100)
        check_count("n_points", self.n_points, low=2)
        check_range("cut", self.cut, low=0.0, high=1.0, include_high=False)
        check_range("most_weight", self.most_weight, low=1.0, include_low=False)

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> SearchPlan:
        """The plan from the parameters of a page; others among them are ignored."""
        names = set(cls.__dataclass_fields__) - {"data"}
        return cls(**{key: value for key, value in values.items() if key in names})

    @property
    def events(self) -> BsmData:
        """Where events come from."""
        return default_bsm_data() if self.data is None else self.data

    @property
    def counts(self) -> list[int]:
        """Numbers of generated events that have templates."""
        return logarithmic_counts(self.n_generated // 100, self.n_generated, self.n_points)

    @property
    def score_training(self) -> ScoreTraining:
        """How the classifier is trained."""
        return ScoreTraining(self.score_shape, n_steps=self.score_steps, seed=self.seed)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units of the search itself."""
        stem = f"{self.recipe}-{self.n_train}-000"
        boots = (f"{stem}-boot{number:02d}" for number in range(self.n_models))
        return ("score", f"{stem}-nominal", *boots)

    @property
    def common_facts(self) -> dict[str, Any]:
        """What decides every training of the search, and of its variations, as values that JSON has."""
        return {
            "seed": self.seed,
            "score": self.score_training.to_dict(),
            "cut": self.cut,
            "n_epochs": self.n_epochs,
            "most_weight": self.most_weight,
            "recipes": {name: asdict(recipe) for name, recipe in GENERATOR_RECIPES.items()},
            "data": self.events.digest,
        }

    def study(self, name: str = "generated-background-search") -> UnitStudy:
        """The study in units, for :mod:`sbilib.studies.unit_results`."""
        facts = {**self.common_facts, "counts": self.counts}
        return UnitStudy(name, facts, self.units, SEARCH_CODE, self.make_unit)

    def make_unit(self, unit: str) -> pd.DataFrame:
        """Train and bin one unit.

        Args:
            unit: a name such as ``"score"`` or ``"modern-200000-000-boot03"``.

        Returns:
            A row for each histogram: ``kind`` (``"reference"``, ``"signal"``, ``"training"``,
            ``"generated"`` or ``"reweighted"``), ``recipe``, ``n_train``, ``number`` of the training set,
            ``member``, ``observable``, ``n_events`` before the cut, ``total`` weight, ``counts`` and
            ``squares`` (lists over bins), and facts of the training.
        """
        if unit == "score":
            return self._simulated()
        return self.generated_unit(unit, self.counts)

    def generated_unit(self, unit: str, counts: Sequence[int]) -> pd.DataFrame:
        """Histograms of one generative model; see :meth:`make_unit`.

        Args:
            unit: name of the training.
            counts: numbers of generated events that get histograms.
        """
        recipe, size, number, member = unit.split("-")
        seed = zlib.crc32(f"{self.seed}-{unit}".encode()) >> 1
        sample = self.events.events("background", "train")
        events = training_events(sample, int(size), int(number), seed=self.seed)
        nominal = member == "nominal"
        chosen = events if nominal else bootstrapped(events, seed=seed)
        trained = train_generator(
            chosen, GENERATOR_RECIPES[recipe], n_epochs=self.n_epochs, seed=seed % 1_000_003
        )
        drawn = self._draw(trained.model, events.numpy() if nominal else None, counts[-1], seed)
        rows = self._rows("generated", drawn.values, counts, None)
        if drawn.weights is not None:
            rows += self._rows("reweighted", drawn.values, counts[-1:], drawn.weights)
            rows += self._rows("training", self._observed(events.numpy()), [len(events)], None)
        return pd.DataFrame(rows).assign(
            recipe=recipe,
            n_train=int(size),
            number=int(number),
            member=member,
            validation_loss=trained.validation_loss,
            best_step=trained.training.best_step,
            training_seconds=trained.training.seconds,
        )

    def _simulated(self) -> pd.DataFrame:
        """Histograms of the simulation that no training has seen, and the quality of the classifier."""
        rows, scores = [], {}
        samples = {
            "reference": background_of_templates(self.events),
            "signal": self.events.events("signal", "reference"),
        }
        for kind, events in samples.items():
            values = self._observed(events.numpy())
            scores[kind] = values["score"]
            rows += self._rows(kind, values, [len(values["score"])], None)
        area = _area(scores["signal"], scores["reference"])
        table = pd.DataFrame(rows).assign(auc=area)
        return table.assign(recipe="", n_train=0, number=0, member="")

    def _observed(self, events: NDArray[np.float32]) -> dict[str, _Array]:
        return {"score": self._score(events), "m_bb": events[:, _MASS].astype(np.float64)}

    @property
    def _score(self) -> EventScore:
        facts = json.dumps(score_facts(self.events, self.score_training), sort_keys=True)
        return _score_of(_Key(hashlib.sha256(facts.encode()).hexdigest()[:16], self))

    def _draw(
        self, density: TransformedDensity, real: NDArray[np.float32] | None, n_events: int, seed: int
    ) -> _Drawn:
        """Observables of generated events, and their weights if there are training events to compare with."""

        def coordinates(events: NDArray[np.float32]) -> NDArray[np.float32]:
            inside = density.transform(torch.from_numpy(events), outside="clamp")[0]
            result: NDArray[np.float32] = inside.float().numpy()
            return result

        ratio = None
        if real is not None:
            compared = np.concatenate(list(sample_blocks(density, len(real), seed=seed + 1)))
            ratio, _ = train_log_ratio(
                coordinates(real), coordinates(compared), _ratio_training(len(real), seed)
            )
        parts, logs = [], []
        for block in sample_blocks(density, n_events, seed=seed):
            parts.append(self._observed(block))
            if ratio is not None:
                logs.append(ratio(coordinates(block)))
        values = {name: np.concatenate([part[name] for part in parts]) for name in OBSERVABLES}
        weights = event_weights(np.concatenate(logs), most=self.most_weight) if logs else None
        return _Drawn(values, weights)

    def _rows(
        self,
        kind: str,
        values: Mapping[str, _Array],
        counts: Sequence[int],
        weights: EventWeights | None,
    ) -> list[dict[str, Any]]:
        rows = []
        for observable in OBSERVABLES:
            found = bin_prefixes(
                values[observable],
                observable_binning(observable, self.cut),
                counts,
                selected=values["score"] > self.cut,
                weights=None if weights is None else weights.values,
                name=f"{kind} {observable}",
            )
            for place, count in enumerate(counts):
                rows.append(
                    {
                        "kind": kind,
                        "observable": observable,
                        "n_events": count,
                        "total": float(found.totals[place]),
                        "counts": found.counts[place].tolist(),
                        "squares": found.squares[place].tolist(),
                        "n_effective": float(count) if weights is None else weights.n_effective,
                        "clipped": 0.0 if weights is None else weights.clipped,
                    }
                )
        return rows


@dataclass(frozen=True)
class _Key:
    """A plan that counts as equal to another if its classifier is the same."""

    digest: str
    plan: SearchPlan = field(compare=False)


@lru_cache(maxsize=4)
def _score_of(key: _Key) -> EventScore:
    checkpoint = cache_folder() / f"search-score-{key.digest}.safetensors"
    return train_score(key.plan.events, key.plan.score_training, checkpoint=checkpoint)


def _ratio_training(n_events: int, seed: int) -> RatioTraining:
    """The default classifier of the weights with twenty passes, within 50 steps and the default number."""
    default = RatioTraining()
    steps = round(20 * 2 * n_events / default.training.batch_size)
    fewer = replace(
        default.training, n_steps=min(max(50, steps), default.training.n_steps), validate_every=25
    )
    return replace(default, training=fewer, seed=seed % 1_000_003)


def _area(signal: _Array, background: _Array) -> float:
    """Area under the ROC curve: how often a signal event has the higher score."""
    order = np.sort(background)
    below = np.searchsorted(order, signal, side="left") + np.searchsorted(order, signal, side="right")
    return float(below.mean() / (2 * len(order)))


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the page with these parameters, by suffix of the folder of their table."""
    return {"": SearchPlan.from_parameters(values).study()}
