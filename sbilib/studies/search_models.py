"""Generative models of the background of the search: which ones, how trained, and on which events.

A training takes the 18 continuous features to normal coordinates with a quantile map that is fitted to its
own training events, holds a tenth of them back to choose the best weights, and learns the density of the
coordinates.  A *bootstrapped* training draws both parts with replacement, so it never sees a held-out event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbilib.errors import DataError, check_choice, check_count, check_range
from sbilib.models import (
    AffineFlowConfig,
    GenerativeModel,
    MixtureAutoregressive,
    MixtureConfig,
    QuantileToNormal,
    RealNVP,
    TransformedDensity,
    density_loss,
)
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS
from sbilib.studies.bsm_bounds import event_bounds
from sbilib.training import TrainConfig, TrainingResult, train
from sbilib.training.streams import FlowBatches

__all__ = [
    "GENERATOR_RECIPES",
    "GeneratorRecipe",
    "TrainedGenerator",
    "bootstrapped",
    "train_generator",
    "training_events",
]

HELD_OUT = 0.1
"""Part of the training events that chooses the weights."""


@dataclass(frozen=True)
class GeneratorRecipe:
    """A generative model and how it is trained.

    Args:
        kind: ``"mixture"`` or ``"realnvp"``.
        network: fields of its configuration.
        batch_size: events in a batch.
        learning_rate: largest one of a one-cycle schedule.
        n_knots: knots of the quantile map of each feature, at most.

    Raises:
        ParameterError: for an unknown kind or values out of range.

    Example:
        >>> GENERATOR_RECIPES["published"].network["n_blocks"]
        30
    """

    kind: str
    network: Mapping[str, Any]
    batch_size: int = 1024
    learning_rate: float = 3e-3
    n_knots: int = 256

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, tuple(_BUILDERS))
        check_count("batch_size", self.batch_size, low=2)
        check_count("n_knots", self.n_knots, low=2)
        check_range("learning_rate", self.learning_rate, low=0.0, include_low=False)

    def build(self, *, seed: int) -> GenerativeModel:
        """A new network of this kind."""
        return _BUILDERS[self.kind](self.network, seed)

    def training(self, n_events: int, n_epochs: int) -> TrainConfig:
        """Optimizer settings for a number of training events and passes through them."""
        n_steps = max(2, round(n_epochs * n_events / self.batch_size))
        return TrainConfig(
            n_steps=n_steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            schedule="one_cycle",
            average=0.99,
            validate_every=max(1, n_steps // 40),
            validation_size=20_000,
            keep="best",
        )

    def to_dict(self) -> dict[str, Any]:
        """Fields as values that JSON has."""
        return {**asdict(self), "network": dict(self.network)}


_BUILDERS: dict[str, Callable[[Mapping[str, Any], int], GenerativeModel]] = {
    "mixture": lambda network, seed: MixtureAutoregressive(MixtureConfig(**network), seed=seed),
    "realnvp": lambda network, seed: RealNVP(AffineFlowConfig(**network), seed=seed),
}

GENERATOR_RECIPES: Mapping[str, GeneratorRecipe] = {
    "small": GeneratorRecipe(
        "mixture",
        {"hidden": 64, "n_blocks": 1, "n_components": 8, "activation": "silu"},
        batch_size=256,
        n_knots=64,
    ),
    "modern": GeneratorRecipe(
        "mixture", {"hidden": 128, "n_blocks": 2, "n_components": 12, "activation": "silu"}
    ),
    "published": GeneratorRecipe("mixture", {"n_blocks": 30}, learning_rate=3e-4),
    "realnvp": GeneratorRecipe(
        "realnvp", {"hidden": 128, "n_transforms": 6, "activation": "silu"}, learning_rate=2e-3, n_knots=64
    ),
}
"""The published mixture model (source 004; 30 blocks of 2 x 512), a smaller and a small one, and a flow."""


def training_events(sample: Tensor, n_events: int, number: int, *, seed: int) -> Tensor:
    """A training set of its own, cut from a sample.

    The sample is shuffled and cut into sets; when it is used up it is shuffled again.  So the first sets are
    disjoint, and two sets of different shuffles share ``n_events / len(sample)`` of their events on average.

    Args:
        sample: all events, ``(n, d)``.
        n_events: events in a set, at most n.
        number: which set, from zero.
        seed: of the shuffles.

    Raises:
        DataError: if the sample is too small.

    Example:
        >>> sample = torch.arange(6.0)[:, None]
        >>> sets = [training_events(sample, 3, number, seed=1) for number in (0, 1)]
        >>> sorted(torch.cat(sets).squeeze(1).tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    check_count("n_events", n_events, low=1)
    check_count("number", number)
    if n_events > len(sample):
        raise DataError(
            f"a training set of {n_events} events was asked for, the sample has {len(sample)}; "
            "ask for fewer, or simulate more"
        )
    shuffle, place = divmod(number, len(sample) // n_events)
    order = np.random.default_rng([seed, shuffle]).permutation(len(sample))
    return sample[torch.from_numpy(order[place * n_events : (place + 1) * n_events])]


def bootstrapped(events: Tensor, *, seed: int) -> Tensor:
    """As many events drawn with replacement, the kept and the held-out part each from itself.

    Args:
        events: training set, ``(n, d)``, whose last part is the one that is held out.
        seed: of the draw.

    Example:
        >>> drawn = bootstrapped(torch.arange(20.0)[:, None], seed=1)
        >>> bool((drawn[:18] < 18).all() and (drawn[18:] >= 18).all())
        True
    """
    random = np.random.default_rng(seed)
    first = _n_kept(len(events))
    kept = random.integers(first, size=first)
    held = random.integers(first, len(events), size=len(events) - first)
    return events[torch.from_numpy(np.concatenate([kept, held]))]


@dataclass(frozen=True, eq=False)
class TrainedGenerator:
    """A density of events in physical units, and the record of its training."""

    density: TransformedDensity
    """The map and the density of its coordinates."""
    record: TrainingResult
    """Losses and time."""

    @property
    def validation_loss(self) -> float:
        """Lowest mean negative log density of the held-out coordinates."""
        return float(self.record.validation_loss.min())


def train_generator(
    events: Tensor, recipe: GeneratorRecipe, *, n_epochs: int, seed: int, label: str = "generator"
) -> TrainedGenerator:
    """Fit the map and train the density.

    Args:
        events: the 18 continuous features in GeV and rad, ``(n, 18)``; the last tenth is held out.
        recipe: what to train.
        n_epochs: passes through the training events.
        seed: of initial weights and batches.
        label: for messages.

    Raises:
        DataError: if there are too few events, or some lie outside the physical bounds.
        TrainingError: if the training fails.
    """
    check_count("n_epochs", n_epochs, low=1)
    first = _n_kept(len(events))
    if first < 2 * 8 or len(events) == first:
        raise DataError(f"a training needs at least 20 events, got {len(events)}; use more")
    transform = QuantileToNormal.fit(
        events[:first],
        names=BSM_CONTINUOUS,
        bounds=event_bounds(),
        n_knots=min(recipe.n_knots, _most_knots(first)),
    )
    coordinates = transform(events)[0].float()
    none = torch.zeros(len(events))
    kept = FlowBatches(coordinates[:first], none[:first], seed=2 * seed)
    held = FlowBatches(coordinates[first:], none[first:], seed=2 * seed + 1)
    density = recipe.build(seed=seed)
    config = recipe.training(first, n_epochs)
    # All held-out events at each validation, so that noise does not choose the weights.
    config = TrainConfig(**{**asdict(config), "validation_size": min(20_000, len(events) - first)})
    record = train(density, density_loss, kept, held, config, label=label)
    return TrainedGenerator(TransformedDensity(transform, density), record)


def _n_kept(n_events: int) -> int:
    return n_events - max(1, round(HELD_OUT * n_events))


def _most_knots(n_events: int) -> int:
    r"""Knots so many that five events still lie between the first two of either end.

    The slope of a tail is that between its last two knots, which neighboring events would make arbitrary.
    The second knot has the rank :math:`n \sin^2(\pi / 2 (K - 1))`.
    """
    return max(4, int(0.5 * math.pi * math.sqrt(n_events / 5)) + 1)
