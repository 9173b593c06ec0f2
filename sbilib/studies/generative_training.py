r"""Train generative models on the background of a search, and compare what they draw with simulation.

A unit is a model with a map of the features.  It is trained on the training events of the background alone,
draws events with a fixed seed, and every comparison of `sbilib.studies.generative_measures` with events of
the reference split is kept, with small histograms and no events.  One unit is the mean density of several
models with the common map (``"mixture+maf-ordered"`` for two of them).  Further units compare simulated
events themselves (``"simulation"``, what a perfect generator shows) and simulated events with one deliberate
fault.

How well a density describes held-out events is given as a gain over independent features,

.. math:: G = \frac1N \sum_i \Bigl[ \log p_\theta(x_i) - \sum_d \log q_d(x_{id}) \Bigr],

with the densities :math:`q_d` of each feature alone from its quantiles.  It has no unit, whatever those of
the features, and for the true density it is the information that features have about each other, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError, check_choice, check_count, check_range
from sbilib.models import GenerativeEnsemble, QuantileToNormal, TransformedDensity
from sbilib.models.sampling import sample_blocks
from sbilib.problems import BsmData, default_bsm_data
from sbilib.simulation import BSM_CONTINUOUS
from sbilib.studies.bsm_bounds import EVENT_FLOORS, event_bounds
from sbilib.studies.generative_distortions import DISTORTIONS, distorted_events
from sbilib.studies.generative_fits import (
    CODE_OF_GENERATORS,
    GENERATORS,
    MAPS,
    SIZES,
    FittedGenerator,
    GenerativeRecipe,
    fit_generator,
    network_work,
)
from sbilib.studies.generative_measures import MeasureSettings, measure_sample
from sbilib.studies.unit_results import UnitStudy

__all__ = [
    "MODEL_LABELS",
    "GenerativePlan",
    "likelihood_table",
    "unit_label",
    "unit_studies",
]

MODEL_LABELS = {
    "mixture": "mixture (MADEMOG)",
    "maf": "MAF",
    "nsf-ar": "NSF, autoregressive",
    "nsf-coupling": "NSF, coupling",
    "real-nvp": "RealNVP",
}
"""Names of the models in figures and tables."""

_CONTROL = "simulation"
_N_BLOCKS = 50
_CODE = (
    *CODE_OF_GENERATORS,
    "models/generative_ensemble.py",
    *(
        f"diagnostics/{name}.py"
        for name in ("_checks", "correlations", "divergences", "sliced", "tails", "two_sample")
    ),
    "studies/bsm_bounds.py",
    "studies/generative_*.py",
)


class _Events(NamedTuple):
    """Simulated events of the background."""

    train: Tensor
    validation: Tensor
    reference: Tensor
    """What samples are compared with."""
    spare: Tensor
    """All others of the reference split."""


@dataclass(frozen=True, kw_only=True)
class GenerativePlan:
    """Everything that decides the results, apart from the data.

    Args:
        models: kinds of models, keys of `GENERATORS`.
        preprocessing: their map of the features, one of `MAPS`.
        other_maps: further units, a model and its map, for instance ``"mixture-logit"``.
        ensemble: those of ``models`` whose mean density is compared too; none, or at least two.
        distortions: keys of `DISTORTIONS`.
        size: of the models, one of `SIZES`.
        n_train: training events, at most.
        n_steps: optimizer steps of each model.
        learning_rate: highest one.
        batch_size: events in a batch.
        n_compared: events that each model draws, and reference events they are compared with, at most.
        n_bins: bins of each feature in divergences.
        n_splits: pairs of simulated samples in a baseline.
        n_bootstrap: bootstraps of each error.
        n_directions: directions of the sliced distance.
        n_permutations: draws of each null distribution.
        seed: of models, their samples and all comparisons.

    Raises:
        ParameterError: for an unknown name or a number out of range.

    Example:
        >>> GenerativePlan(models=("maf",), other_maps=(), ensemble=(), distortions=("cut",)).units
        ['maf-ordered', 'simulation', 'distorted-cut']
    """

    models: tuple[str, ...] = tuple(GENERATORS)
    preprocessing: str = "ordered"
    other_maps: tuple[str, ...] = ("mixture-quantile", "mixture-logit")
    ensemble: tuple[str, ...] = ("mixture", "nsf-ar")
    distortions: tuple[str, ...] = tuple(DISTORTIONS)
    size: str = "modern"
    n_train: int = 200_000
    n_steps: int = 15_000
    learning_rate: float = 2.5e-3
    batch_size: int = 1024
    n_compared: int = 100_000
    n_bins: int = 50
    n_splits: int = 400
    n_bootstrap: int = 40
    n_directions: int = 30
    n_permutations: int = 200
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("models", "other_maps", "ensemble", "distortions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for unit in self.trained_units:
            model, _, preprocessing = unit.rpartition("-")
            check_choice("model", model, GENERATORS)
            check_choice("preprocessing", preprocessing, MAPS)
        for fault in self.distortions:
            check_choice("distortion", fault, DISTORTIONS)
        for model in self.ensemble:
            check_choice("ensemble", model, self.models)
        if len(self.ensemble) == 1:
            raise ParameterError(f"ensemble must be none or several of the models, got {self.ensemble}")
        check_choice("size", self.size, SIZES)
        for name in ("n_train", "n_compared"):
            check_count(name, getattr(self, name), low=100)
        check_count("n_steps", self.n_steps, low=1)
        check_count("batch_size", self.batch_size, low=2)
        check_range("learning_rate", self.learning_rate, low=0.0, include_low=False)
        check_count("seed", self.seed)
        self.settings  # noqa: B018  checks the rest

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> GenerativePlan:
        """The plan from the parameters of a page; others among them are ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})

    @property
    def trained_units(self) -> list[str]:
        """Names of the units that are trained: kind of model and map of the features."""
        units = [*(f"{name}-{self.preprocessing}" for name in self.models), *self.other_maps]
        return list(dict.fromkeys(units))

    @property
    def model_units(self) -> list[str]:
        """Names of the units that are models: those trained, and their ensemble."""
        joined = [f"{'+'.join(self.ensemble)}-{self.preprocessing}"] if self.ensemble else []
        return [*self.trained_units, *joined]

    @property
    def units(self) -> list[str]:
        """Names of all units: models, simulation itself, and simulation with a fault."""
        return [*self.model_units, _CONTROL, *(f"distorted-{fault}" for fault in self.distortions)]

    @property
    def settings(self) -> MeasureSettings:
        """Sizes of the comparisons."""
        names = {each.name for each in fields(MeasureSettings)}
        return MeasureSettings(**{key: value for key, value in vars(self).items() if key in names})

    def recipe(self, unit: str) -> GenerativeRecipe:
        """How the model of a unit is made."""
        model, _, preprocessing = unit.rpartition("-")
        make = GenerativeRecipe.published if self.size == "published" else GenerativeRecipe.modern
        recipe = make(model, preprocessing=preprocessing, n_steps=self.n_steps)
        training = replace(recipe.training, learning_rate=self.learning_rate, batch_size=self.batch_size)
        return replace(recipe, size=self.size, training=training)

    def study(self, data: BsmData | None = None) -> UnitStudy:
        """The study, in units that are kept one by one (`make_units`, `finished_or_made`).

        Args:
            data: events of the search; `default_bsm_data` if not given.

        Raises:
            DataError: if none are given and there are none.
        """
        source = default_bsm_data() if data is None else data
        facts = {name: value for name, value in asdict(self).items() if not isinstance(value, tuple)}
        del facts["preprocessing"]  # in the names of the units
        facts["data"] = source.digest
        facts["features"] = list(BSM_CONTINUOUS)
        return UnitStudy("generative-models", facts, self.units, _CODE, partial(self.make, data=source))

    def fit(self, unit: str, data: BsmData) -> FittedGenerator:
        """The trained model of a unit, from its checkpoint if it was trained before.

        Raises:
            DataError: if there are no events of the background to train with.
        """
        events = self._events(data)
        return fit_generator(
            events.train,
            events.validation,
            self.recipe(unit),
            names=BSM_CONTINUOUS,
            bounds=event_bounds(),
            floors=EVENT_FLOORS,
            seed=self.seed,
        )

    def make(self, unit: str, data: BsmData) -> pd.DataFrame:
        """Train a model, or take simulated events, and compare.

        Returns:
            Rows of `measure_sample`, and for a model also one of kind ``"model"`` (parameters, products,
            seconds of training, steps of the weights that are kept), rows of kind ``"training"`` (``step``,
            ``validation_gain``, ``training_gain``; not for an ensemble) and of kind ``"gain"`` (mean ``gain``
            of each block of ``n`` reference events, and of the training events in the one with block -1).
        """
        events = self._events(data)
        parts = []
        if unit == _CONTROL:
            sample = events.train[: len(events.reference)]
        elif unit.startswith("distorted-"):
            fault = unit.removeprefix("distorted-")
            sample = events.train[: len(events.reference)]
            sample = distorted_events(sample, fault, names=BSM_CONTINUOUS, seed=self.seed)
        else:
            joined, _, preprocessing = unit.rpartition("-")
            members = [self.fit(f"{name}-{preprocessing}", data) for name in joined.split("+")]
            models = [member.model for member in members]
            model = models[0] if len(models) == 1 else GenerativeEnsemble(models)
            blocks = sample_blocks(model, len(events.reference), seed=self.seed)
            sample = torch.from_numpy(np.concatenate(list(blocks)))
            parts = _model_rows(model, members, events)
        # The baseline compares simulated events only; those that play the sample are among them.
        spare = torch.cat([events.spare, events.train])
        measured = measure_sample(
            sample, events.reference, spare, BSM_CONTINUOUS, self.settings, seed=self.seed
        )
        return pd.concat([*parts, measured], ignore_index=True)

    def _events(self, data: BsmData) -> _Events:
        train = data.events("background", "train")[: self.n_train]
        held = data.events("background", "reference")
        n_compared = min(self.n_compared, len(held), len(train))
        if n_compared < 100:
            raise DataError(f"at least 100 events of each split are needed, got {n_compared}; make more")
        validation = data.events("background", "validation")[: max(100, self.n_train // 10)]
        return _Events(train, validation, held[:n_compared], held[n_compared:])


def likelihood_table(table: pd.DataFrame) -> pd.DataFrame:
    """Gain of each model over independent features, with errors.

    Args:
        table: rows of finished units.

    Returns:
        A row per model, the best first: ``gain`` on reference events in nats an event and its ``error``,
        ``behind`` the best model and ``behind_error`` of the difference on the same events,
        ``training_gain`` on training events, and the columns of its row of kind ``"model"``.

    Raises:
        DataError: if the table has no model.
    """
    rows = table[table["kind"] == "gain"]
    if rows.empty:
        raise DataError("the table has no models, so there is no likelihood; ask for one at least")
    held = rows[rows["block"] >= 0]
    gains = held.pivot(index="block", columns="unit", values="gain")
    weights = held.pivot(index="block", columns="unit", values="n").to_numpy()[:, :1]
    shares = weights / weights.sum()
    means = (gains * shares).sum()
    best = means.idxmax()
    behind = gains.rsub(gains[best], axis=0)
    facts = table[table["kind"] == "model"].set_index("unit")
    result = pd.DataFrame(
        {
            "gain": means,
            "error": gains.std() / math.sqrt(len(gains)),
            "behind": means[best] - means,
            "behind_error": behind.std() / math.sqrt(len(gains)),
            "training_gain": rows[rows["block"] < 0].set_index("unit")["gain"],
        }
    )
    columns = ["parameters", "density", "sampling", "passes", "seconds_training", "best_step"]
    return result.join(facts[columns]).sort_values("gain", ascending=False)


def unit_label(unit: str) -> str:
    """Name of a unit in figures and tables.

    Example:
        >>> unit_label("mixture-logit"), unit_label("nsf-ar-ordered"), unit_label("distorted-cut")
        ('mixture (MADEMOG), logit', 'NSF, autoregressive', 'cut')
    """
    model, _, preprocessing = unit.rpartition("-")
    if model == "distorted":
        return preprocessing
    if "+" in model:
        return f"ensemble of {model.count('+') + 1}"
    label = MODEL_LABELS.get(model, unit)
    return f"{label}, {preprocessing}" if preprocessing in ("quantile", "logit") else label


def unit_studies(values: Mapping[str, Any]) -> dict[str, UnitStudy]:
    """The trainings of the pages with these parameters, by suffix of the folder of their table."""
    return {"": GenerativePlan.from_parameters(values).study()}


def _model_rows(
    model: TransformedDensity | GenerativeEnsemble, members: Sequence[FittedGenerator], events: _Events
) -> list[pd.DataFrame]:
    """What is known of a model, or an ensemble of several, without looking at its events."""
    independent = QuantileToNormal.fit(events.train, names=BSM_CONTINUOUS, bounds=event_bounds())
    work = pd.DataFrame([network_work(member.model.density) for member in members])
    facts = {
        "kind": "model",
        "parameters": sum(each.numel() for member in members for each in member.model.density.parameters()),
        "seconds_training": sum(member.training.seconds for member in members),
        "best_step": members[0].training.best_step if len(members) == 1 else math.nan,
        # Each event is drawn from one member.
        "density": work["density"].sum(),
        "sampling": work["sampling"].mean(),
        "passes": work["passes"].mean(),
    }
    rows = [pd.DataFrame([facts]), _gain_rows(model, independent, events)]
    return rows if len(members) > 1 else [*rows, _training_rows(members[0], independent, events)]


def _training_rows(fitted: FittedGenerator, independent: QuantileToNormal, events: _Events) -> pd.DataFrame:
    model, record = fitted.model, fitted.training
    offset = {
        name: float((model.transform(each, outside="clamp")[1] - _independent(independent, each)).mean())
        for name, each in (("train", events.train), ("validation", events.validation))
    }
    steps = record.validation_steps.numpy()
    starts = np.concatenate(([0], steps[:-1]))
    losses = [float(record.training_loss[a:b].mean()) for a, b in zip(starts, steps, strict=True)]
    curve = pd.DataFrame(
        {
            "step": steps.astype(float),
            "validation_gain": offset["validation"] - record.validation_loss.numpy(),
            "training_gain": offset["train"] - np.array(losses),
        }
    )
    return curve.assign(kind="training")


def _gain_rows(
    model: TransformedDensity | GenerativeEnsemble, independent: QuantileToNormal, events: _Events
) -> pd.DataFrame:
    blocks = [*events.reference.tensor_split(min(_N_BLOCKS, len(events.reference))), events.train]
    gains = []
    for number, block in enumerate(blocks):
        gain = model.log_prob(block, outside="clamp") - _independent(independent, block)
        place = number if number < len(blocks) - 1 else -1
        gains.append({"kind": "gain", "block": place, "n": len(block), "gain": float(gain.double().mean())})
    return pd.DataFrame(gains)


def _independent(transform: QuantileToNormal, events: Tensor) -> Tensor:
    """Log density of events with each feature alone, ``(n,)``."""
    u, log_det = transform(events)
    constant = 0.5 * u.shape[1] * math.log(2 * math.pi)
    log_prob: Tensor = log_det - 0.5 * u.square().sum(dim=1) - constant
    return log_prob
