"""Generative models of the background of the search: which ones, how trained, and on which events.

A training takes the 18 continuous features to normal coordinates with a map that is fitted to its own
training events, holds a tenth of them back to choose the best weights, and learns the density of the
coordinates.  A *bootstrapped* training draws both parts with replacement, so it never sees a held-out event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sbilib.errors import DataError, check_count
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS
from sbilib.studies.bsm_bounds import EVENT_FLOORS, event_bounds
from sbilib.studies.generative_fits import FittedGenerator, GenerativeRecipe, fit_generator
from sbilib.training import TrainConfig

__all__ = [
    "GENERATOR_RECIPES",
    "bootstrapped",
    "train_generator",
    "training_events",
]

HELD_OUT = 0.1
"""Part of the training events that chooses the weights."""
_LEAST_EVENTS = 20


def _one_cycle(batch_size: int, learning_rate: float) -> TrainConfig:
    """The number of steps follows from the events, see :func:`train_generator`."""
    return TrainConfig(
        n_steps=2,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="one_cycle",
        average=0.99,
        validate_every=1,
        keep="best",
    )


GENERATOR_RECIPES: Mapping[str, GenerativeRecipe] = {
    "small": GenerativeRecipe(
        model="mixture", size="small", preprocessing="ordered", training=_one_cycle(256, 3e-3)
    ),
    "modern": GenerativeRecipe(
        model="mixture", size="modern", preprocessing="ordered", training=_one_cycle(1024, 2.5e-3)
    ),
    "published": GenerativeRecipe(model="mixture", size="published", training=_one_cycle(1024, 3e-4)),
    "realnvp": GenerativeRecipe(
        model="real-nvp", size="modern", preprocessing="ordered", training=_one_cycle(1024, 2e-3)
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


def train_generator(events: Tensor, recipe: GenerativeRecipe, *, n_epochs: int, seed: int) -> FittedGenerator:
    """Fit the map and train the density.

    Args:
        events: the 18 continuous features in GeV and rad, ``(n, 18)``; the last tenth is held out.
        recipe: what to train, but for the number of steps.
        n_epochs: passes through the training events.
        seed: of initial weights and batches.

    Raises:
        DataError: if there are too few events, or some lie outside the physical bounds or below their floors.
        TrainingError: if the training fails.
    """
    check_count("n_epochs", n_epochs, low=1)
    if len(events) < _LEAST_EVENTS:
        raise DataError(f"a training needs at least {_LEAST_EVENTS} events, got {len(events)}; use more")
    first = _n_kept(len(events))
    n_steps = max(2, round(n_epochs * first / recipe.training.batch_size))
    training = replace(recipe.training, n_steps=n_steps, validate_every=max(1, n_steps // 40))
    return fit_generator(
        events[:first],
        events[first:],
        replace(recipe, training=training),
        names=BSM_CONTINUOUS,
        bounds=event_bounds(),
        floors=EVENT_FLOORS,
        seed=seed,
        device="cpu",
        keep=False,
    )


def _n_kept(n_events: int) -> int:
    return n_events - max(1, round(HELD_OUT * n_events))
