r"""The classifier of the search, which tells signal from background.

Trained on equal numbers of simulated signal and background events, its output is the score

.. math:: s(x) = \frac{p_\mathrm{sig}(x)}{p_\mathrm{sig}(x) + p_\mathrm{bkg}(x)} ,

in which the search cuts at 0.55 (Gavranovič and Kerševan, source 004, section 5; three layers of 512 nodes in
their code).  Magnitudes enter by their logarithm.

A classifier knows the events it was trained with, and gives those of the background too low a score.  So its
background is neither that of the generative models, whose histogram is compared with what they generate, nor
that of the templates: it has the first sixth of the reference split to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbilib.digest import code_digest
from sbilib.errors import check_choice, check_count, check_events, check_range
from sbilib.models.classifier import Classifier, ClassifierConfig
from sbilib.problems.bsm_data import BsmData
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS
from sbilib.training import TrainConfig, train
from sbilib.training.streams import ClassifierBatches, classifier_loss

__all__ = [
    "SCORE_SHAPES",
    "EventScore",
    "ScoreTraining",
    "background_of_score",
    "background_of_templates",
    "score_facts",
    "train_score",
]

SCORE_SHAPES: Mapping[str, ClassifierConfig] = {
    "modern": ClassifierConfig(
        n_features=len(BSM_CONTINUOUS), hidden=(128, 128, 128), activation="silu", standardize=True
    ),
    "published": ClassifierConfig(
        n_features=len(BSM_CONTINUOUS), hidden=(512, 512, 512), activation="relu", standardize=True
    ),
}
"""Three layers of 512 ReLU nodes as published, and a smaller network with smooth activations."""
_CODE = (
    "models/classifier.py",
    *(f"training/{name}.py" for name in ("checkpoint", "loop", "schedule", "streams")),
    "studies/search_score.py",
)
"""Patterns of the modules that decide a trained classifier."""
_HELD_OUT = 0.1
_SHARE_OF_SCORE = 6
"""One of so many events of the reference split trains the score."""
_CHUNK = 16_384
_MAGNITUDES = torch.tensor([not name.endswith("_eta") for name in BSM_CONTINUOUS])
_LEAST = 0.1
"""GeV; nothing is gained by telling smaller momenta and masses apart."""


@dataclass(frozen=True)
class ScoreTraining:
    """How the classifier is trained.

    Args:
        shape: name in :data:`SCORE_SHAPES`.
        n_steps: optimizer steps.
        batch_size: events in a batch, half of them signal.
        learning_rate: largest one of a one-cycle schedule.
        seed: of initial weights and batches.

    Raises:
        ParameterError: for an unknown shape or values out of range.
    """

    shape: str = "modern"
    n_steps: int = 4000
    batch_size: int = 1024
    learning_rate: float = 3e-3
    seed: int = 1

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, tuple(SCORE_SHAPES))
        check_count("n_steps", self.n_steps, low=1)
        check_count("batch_size", self.batch_size, low=2)
        check_count("seed", self.seed)
        check_range("learning_rate", self.learning_rate, low=0.0, include_low=False)

    @property
    def training(self) -> TrainConfig:
        """Optimizer settings."""
        return TrainConfig(
            n_steps=self.n_steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            schedule="one_cycle",
            validate_every=max(1, self.n_steps // 20),
            keep="best",
        )

    def to_dict(self) -> dict[str, Any]:
        """Fields as values that JSON has."""
        return asdict(self)


class EventScore:
    """The score of events, a function.

    Args:
        model: a classifier of the features after :func:`_inputs`.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model.eval()

    @torch.no_grad()
    def __call__(self, events: ArrayLike) -> NDArray[np.float64]:
        """Score of each event, between 0 and 1.

        Args:
            events: the 18 continuous features in GeV and rad, ``(n, 18)``.

        Returns:
            ``(n,)``.

        Raises:
            DataError: if events have the wrong shape or are not finite.
        """
        x = torch.as_tensor(np.asarray(events, dtype=np.float32))
        check_events("events", x, len(BSM_CONTINUOUS))
        pieces = [
            self.model(_inputs(piece), piece.new_zeros(len(piece), 1)) for piece in torch.split(x, _CHUNK)
        ]
        result: NDArray[np.float64] = torch.cat(pieces).double().sigmoid().numpy()
        return result


def score_facts(data: BsmData, config: ScoreTraining) -> dict[str, Any]:
    """All that decides a trained classifier, its code too."""
    return {"data": data.digest, "score": config.to_dict(), "code": code_digest(*_CODE)}


def background_of_score(data: BsmData) -> Tensor:
    """Background ``(n, 18)`` that trains the classifier and nothing else."""
    events = data.events("background", "reference")
    return events[: len(events) // _SHARE_OF_SCORE]


def background_of_templates(data: BsmData) -> Tensor:
    """Background ``(n, 18)`` that no training has seen."""
    events = data.events("background", "reference")
    return events[len(events) // _SHARE_OF_SCORE :]


def train_score(data: BsmData, config: ScoreTraining, *, checkpoint: Path | None = None) -> EventScore:
    """Train the classifier on the training split of signal and a part of background of its own.

    Args:
        data: where events come from.
        config: how to train.
        checkpoint: file to keep progress in and to go on from.

    Raises:
        DataError: if there are no such events.
        TrainingError: if the training fails.
    """
    parts = [_halves(_inputs(each)) for each in (data.events("signal", "train"), background_of_score(data))]
    (signal, held_signal), (background, held_background) = parts
    model = Classifier(SCORE_SHAPES[config.shape], seed=config.seed)
    smallest = min(len(signal), len(background))
    both = torch.cat([signal[:smallest], background[:smallest]])
    # The nuisance parameter that the classifier could have is not used here: zero, or standardized noise.
    model.standardize(both, torch.linspace(-1, 1, len(both))[:, None])
    batches, validation = (
        ClassifierBatches(positive, torch.zeros(len(positive)), negative, seed=2 * config.seed + number)
        for number, (positive, negative) in enumerate(((signal, background), (held_signal, held_background)))
    )
    train(
        model,
        classifier_loss,
        batches,
        validation,
        config.training,
        checkpoint=checkpoint,
        identity=score_facts(data, config),
        label="score",
    )
    return EventScore(model)


def _inputs(events: Tensor) -> Tensor:
    """Logarithms of magnitudes in GeV, and pseudorapidities as they are."""
    return torch.where(_MAGNITUDES, events.clamp_min(_LEAST).log(), events)


def _halves(events: Tensor) -> tuple[Tensor, Tensor]:
    first = len(events) - max(1, round(_HELD_OUT * len(events)))
    return events[:first], events[first:]
