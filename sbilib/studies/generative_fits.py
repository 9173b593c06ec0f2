r"""Train one generative model on events in physical units, with the common training loop.

A recipe is a kind of model, its size, the map of the features and the training.  The map is fitted to the
training events, the density to their coordinates, by maximum likelihood,

.. math:: \min_\theta\; -\frac1N \sum_{i=1}^N \log p_\theta(x_i)

(Gavranovic and Kersevan 2024, section 3).  A finished or interrupted training is kept as a checkpoint below
``SBILIB_CACHE``, named by a digest of recipe, seed, events and code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from sbilib.digest import code_digest
from sbilib.errors import DataError, ParameterError, check_choice, check_count
from sbilib.models import (
    AffineFlowConfig,
    FeatureTransform,
    GenerativeModel,
    LogitStandardize,
    MaskedAutoregressiveFlow,
    MixtureAutoregressive,
    MixtureConfig,
    QuantileToNormal,
    RealNVP,
    SplineAutoregressiveFlow,
    SplineCouplingFlow,
    SplineFlowConfig,
    TransformedDensity,
    density_loss,
)
from sbilib.models.autoregressive_network import MaskedNetwork, ResidualNetwork
from sbilib.models.preprocessing_base import Bound, Floor, TransformConfig
from sbilib.studies.pairs import cache_folder, facts_digest
from sbilib.training import FlowBatches, TrainConfig, TrainingResult, resolve_device, train
from sbilib.training.streams import Batch

__all__ = [
    "CODE_OF_GENERATORS",
    "GENERATORS",
    "MAPS",
    "SIZES",
    "FittedGenerator",
    "GenerativeRecipe",
    "NetworkWork",
    "fit_generator",
    "network_work",
]

GENERATORS: Mapping[str, tuple[Callable[..., GenerativeModel], type[MixtureConfig] | type[AffineFlowConfig]]]
GENERATORS = {
    "mixture": (MixtureAutoregressive, MixtureConfig),
    "maf": (MaskedAutoregressiveFlow, AffineFlowConfig),
    "nsf-ar": (SplineAutoregressiveFlow, SplineFlowConfig),
    "nsf-coupling": (SplineCouplingFlow, SplineFlowConfig),
    "real-nvp": (RealNVP, AffineFlowConfig),
}
"""Class and configuration of each kind of model, by its short name."""

MAPS: Mapping[str, type[QuantileToNormal] | type[LogitStandardize]]
MAPS = {"ordered": QuantileToNormal, "quantile": QuantileToNormal, "logit": LogitStandardize}
"""Maps of the features by their short names; ``"ordered"`` acts on what they have above their floors."""

SIZES = ("small", "modern", "published")

CODE_OF_GENERATORS = (
    "models/autoregressive*.py",
    "models/coupling.py",
    "models/generative.py",
    "models/generative_[cpt]*.py",
    "models/made.py",
    "models/mixture.py",
    "models/preprocessing*.py",
    "models/sampling.py",
    "models/spline.py",
    *(f"training/{name}.py" for name in ("checkpoint", "loop", "schedule", "streams")),
    "studies/generative_fits.py",
)
"""Patterns of the modules that decide what a trained model draws."""


@dataclass(frozen=True, kw_only=True)
class GenerativeRecipe:
    """How one generative model is made.

    Args:
        model: one of `GENERATORS`.
        size: one of `SIZES`.
        preprocessing: one of `MAPS`.
        training: number of steps, rate and so on.

    Raises:
        ParameterError: for an unknown name.

    Example:
        >>> GenerativeRecipe.published("mixture").config(features=18).n_blocks
        30
    """

    model: str
    size: str = "modern"
    preprocessing: str = "quantile"
    training: TrainConfig = field(default_factory=lambda: _modern_training(15_000))

    def __post_init__(self) -> None:
        check_choice("model", self.model, GENERATORS)
        check_choice("size", self.size, SIZES)
        check_choice("preprocessing", self.preprocessing, MAPS)

    @classmethod
    def modern(
        cls, model: str, *, preprocessing: str = "quantile", n_steps: int = 15_000
    ) -> GenerativeRecipe:
        """Our recipe: one cycle of the learning rate, and the mean of the weights over the last steps."""
        return cls(model=model, preprocessing=preprocessing, training=_modern_training(n_steps))

    @classmethod
    def published(
        cls, model: str, *, preprocessing: str = "quantile", n_steps: int = 29_000
    ) -> GenerativeRecipe:
        """Sizes and rates of Gavranovic and Kersevan 2024.

        Their 150 epochs of 200,000 events are 29,000 steps.  The loop has no restarts of the learning rate,
        so one half cosine takes the place of theirs; the best weights on validation events are kept, which
        their early stopping aims at.
        """
        training = TrainConfig(
            n_steps=n_steps,
            learning_rate=3e-4,
            batch_size=1024,
            schedule="one_cycle",
            weight_decay=1e-7,
            validate_every=max(1, n_steps // 60),
            keep="best",
        )
        return cls(model=model, size="published", preprocessing=preprocessing, training=training)

    def config(self, features: int) -> MixtureConfig | AffineFlowConfig:
        """The architecture for a number of features."""
        config = GENERATORS[self.model][1]
        makes = {"small": config.small, "modern": config.modern, "published": config.gavranovic}
        return makes[self.size](features)

    def build(self, features: int, *, seed: int) -> GenerativeModel:
        """The model with its initial weights."""
        return GENERATORS[self.model][0](self.config(features), seed=seed)


def _modern_training(n_steps: int) -> TrainConfig:
    return TrainConfig(
        n_steps=n_steps,
        learning_rate=2.5e-3,
        batch_size=1024,
        schedule="one_cycle",
        average=0.999,
        validate_every=max(1, n_steps // 60),
        keep="best",
    )


@dataclass(frozen=True)
class FittedGenerator:
    """A trained model and the record of its training."""

    model: TransformedDensity
    """The model in physical units, on the CPU."""
    recipe: GenerativeRecipe
    """How it was made."""
    training: TrainingResult
    """Losses are mean negative log densities of the coordinates, in nats an event."""

    @property
    def validation_loss(self) -> float:
        """The lowest on validation events."""
        return float(self.training.validation_loss.min())


class NetworkWork(NamedTuple):
    """Products of a weight and a number that the networks of a model need for one event."""

    density: int
    """To evaluate the density."""
    sampling: int
    """To draw an event, each unit computed once."""
    passes: int
    """To draw an event with a whole pass of the networks for each feature in turn."""


def network_work(model: GenerativeModel) -> NetworkWork:
    """Count the products that masks leave, over all networks of a model.

    An autoregressive network has to know a feature before it gives the parameters of the next one.  A whole
    pass for each of ``D`` features costs ``D`` times the density; where only the units that a new feature
    completes are computed, all of them together are one pass.

    Example:
        >>> network_work(RealNVP(AffineFlowConfig(features=4, n_transforms=2, hidden=8)))
        NetworkWork(density=352, sampling=352, passes=352)
    """
    networks = [module for module in model.modules() if isinstance(module, ResidualNetwork)]
    ones = passes = 0
    for network in networks:
        masked = isinstance(network, MaskedNetwork)
        names = (("initial", network.initial_weight), ("final", network.final_weight))
        found = sum(int(network._mask(name, weight).sum()) for name, weight in names)
        blocks = network.block_weight
        found += blocks.shape[0] * 2 * int(network._mask("blocks", blocks[0, 0]).sum()) if len(blocks) else 0
        ones += found
        passes += found * (model.features if masked else 1)
    return NetworkWork(ones, ones, passes)


class _SameEvents:
    """Validation batches that are the same events each time."""

    def __init__(self, events: Tensor) -> None:
        self._events = events

    def batch(self, size: int, step: int) -> Batch:
        return (self._events[:size],)


def fit_generator(
    events: Tensor,
    validation: Tensor,
    recipe: GenerativeRecipe,
    *,
    names: tuple[str, ...],
    bounds: Mapping[str, Bound],
    floors: Mapping[str, Floor] | None = None,
    seed: int,
    device: str = "auto",
    keep: bool = True,
    progress: bool = False,
) -> FittedGenerator:
    """Train a generative model.

    Args:
        events: training events in physical units, ``(n, features)``, the only ones that the map of the
            features sees.
        validation: events for validation losses and the choice of weights, ``(m, features)``.
        recipe: what to train, and how.
        names: of the features.
        bounds: physical bounds by name of the feature.
        floors: groups of features below a feature, by its name, for the map ``"ordered"``.
        seed: of initial weights and order of events.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        keep: whether progress and result are kept in a file.
        progress: show a progress bar.

    Returns:
        The model on the CPU, and the record of its training; a finished training is read back.

    Raises:
        DataError: if events are too few, not finite, or outside the bounds.
        ParameterError: for a bad seed or device, or the map ``"ordered"`` without floors.
        TrainingError: if the loss becomes NaN or infinite.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    check_count("seed", seed)
    if events.shape[1:] != (len(names),):
        raise DataError(
            f"events must have a column for each of {len(names)} names, got shape {tuple(events.shape)}"
        )
    if recipe.preprocessing != "ordered":
        floors = None
    elif not floors:
        raise ParameterError("the map 'ordered' needs floors; pass them, or choose the map 'quantile'")
    transform: FeatureTransform
    transform = MAPS[recipe.preprocessing].fit(events, names=names, bounds=bounds, floors=floors)
    target = resolve_device(device)
    density = recipe.build(len(names), seed=seed).to(target)
    inside, held = (transform(each, outside="clamp")[0].to(target) for each in (events, validation))
    batches = FlowBatches(inside, inside.new_zeros(len(inside)), seed=seed)
    config = replace(recipe.training, validation_size=len(held))
    facts = _identity(recipe, seed, transform.config, events, validation)
    name = f"generator-{recipe.model}-{facts_digest(facts)}.safetensors"
    record = train(
        density,
        density_loss,
        batches,
        _SameEvents(held),
        config,
        checkpoint=cache_folder() / name if keep else None,
        identity=facts,
        progress=progress,
        label=recipe.model,
    )
    model = TransformedDensity(transform, density.cpu()).eval().requires_grad_(False)
    return FittedGenerator(model, recipe, record)


def _identity(
    recipe: GenerativeRecipe, seed: int, config: TransformConfig, *samples: Tensor
) -> dict[str, Any]:
    content = [hashlib.sha256(each.cpu().contiguous().numpy().tobytes()).hexdigest() for each in samples]
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "map": config.to_dict(),
        "events": content,
        "code": code_digest(*CODE_OF_GENERATORS),
    }
