"""Train densities in the reference frame of a problem whose nuisance parameter acts as a known map.

Each training event is taken to the frame by its own nuisance value, so that all of them are samples of one
density.  Declared symmetries of the frame enter twice: the training set holds the images of every event, and
the learned density is averaged over them, which makes it symmetric exactly.  If signal and background are
exchanged by a map, one model learns both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import qmc
from torch import Generator, Tensor

from sbilib.components import check_framed
from sbilib.digest import code_digest
from sbilib.errors import ParameterError, check_choice, check_count, check_range
from sbilib.models.classifier import Classifier, ClassifierConfig
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.models.framed import (
    FlowDensity,
    FramedPair,
    MeanDensity,
    MovedDensity,
    NormalDensity,
    RatioDensity,
    Whitening,
)
from sbilib.problems import COMPONENTS, MappedProblem, make_training_set
from sbilib.problems.base import FrameSymmetry, uniform_nuisance
from sbilib.studies.pairs import cache_folder, facts_digest
from sbilib.studies.recipes import METHODS
from sbilib.training import (
    FlowBatches,
    TrainConfig,
    TrainingResult,
    classifier_loss,
    flow_loss,
    resolve_device,
    train,
)
from sbilib.training.streams import Batch, classifier_batch

__all__ = ["FittedFramedPair", "FramedRecipe", "fit_framed_pair", "frame_events"]

_CODE_THAT_DECIDES = (
    "components.py",
    "models/classifier.py",
    "models/flow.py",
    "models/framed.py",
    "models/made.py",
    "models/spline.py",
    "problems/*.py",
    "studies/framed.py",
    "training/checkpoint.py",
    "training/loop.py",
    "training/schedule.py",
    "training/streams.py",
)


_N_NEGATIVES = 2**18


@dataclass(frozen=True)
class FramedRecipe:
    """How to make one pair of densities in the frame.

    All training events are trained on, and the last weights are kept: nothing is held out.

    Args:
        method: ``"flow"`` or ``"classifier"``.
        model: shape of each network; its context is fed with zeros.
        training: how each of them is trained.
        widening: standard deviations of the known density of the negative class of a classifier, in units of
            those of the training events.  One leaves the network least to learn where the events are nearly
            normal; heavy tails need more.

    Raises:
        ParameterError: for an unknown method, a model that does not fit it, a widening that is not positive,
            or a training that keeps the best weights.
    """

    method: str
    model: ClassifierConfig | FlowConfig
    training: TrainConfig
    widening: float = 1.0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        expected = FlowConfig if self.method == "flow" else ClassifierConfig
        if not isinstance(self.model, expected):
            raise ParameterError(
                f"a {self.method} recipe needs a {expected.__name__}, got {type(self.model).__name__}"
            )
        check_range("widening", self.widening, low=0.0, include_low=False)
        if self.training.keep != "last":
            raise ParameterError(
                f'keep must be "last", got {self.training.keep!r}: to choose the best weights would take '
                "events that the training set does not have"
            )

    @classmethod
    def of(cls, method: str) -> FramedRecipe:
        """Ours, for two features: networks of a few hundred weights, which need no early stopping.

        They are meant for densities that are nearly normal in the frame.  Others need more bins of the flow,
        or more nodes and a larger ``widening`` of the classifier.

        Example:
            >>> FramedRecipe.of("classifier").model.hidden
            (16, 16)
        """
        if check_choice("method", method, METHODS) == "flow":
            flow = FlowConfig(
                n_transforms=1,
                hidden=16,
                n_blocks=1,
                n_bins=2,
                tail_bound=5.0,
                activation="silu",
                ordering="alternating",
            )
            training = TrainConfig(600, 1e-2, 2048, "one_cycle", average=0.99, validation_size=4000)
            return cls(method, flow, training)
        classifier = ClassifierConfig(hidden=(16, 16), activation="silu")
        training = TrainConfig(1000, 5e-3, 4096, "one_cycle", average=0.99, validation_size=20_000)
        return cls(method, classifier, training)


@dataclass(frozen=True)
class FittedFramedPair:
    """A trained pair of densities in the frame and the record of its training."""

    densities: FramedPair
    """The pair, as the likelihood takes it."""
    recipe: FramedRecipe
    """How it was made."""
    n_events: int
    """Training events, half of them signal."""
    seed: int
    """Seed of its data, initial weights and order of events."""
    training: dict[str, TrainingResult]
    """Losses and timing by component; signal alone if a map exchanges it with background."""

    @property
    def seconds(self) -> float:
        """Training time of all networks together, in seconds."""
        return sum(result.seconds for result in self.training.values())


def fit_framed_pair(
    problem: MappedProblem,
    recipe: FramedRecipe,
    *,
    n_events: int,
    seed: int,
    symmetries: bool = True,
    device: str = "auto",
    progress: bool = False,
) -> FittedFramedPair:
    """Train one pair of densities in the frame, on a training set of its own.

    The training set is that of `fit_pair` for the same seed and device: events at nuisance values uniform
    over the trained range, half of them signal.  Validation losses are those of fresh events and decide
    nothing.

    Args:
        problem: a simulator with a known map of the nuisance parameter.
        recipe: shape of the networks and way of training.
        n_events: events in the training set, at least 10.
        seed: seed of training set, initial weights, order of events and validation events, not negative.
        symmetries: use the declared invariances and exchange of the frame too.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: show a progress bar.

    Returns:
        The pair, on the CPU, and the record of its training.  Finished and interrupted trainings are kept, as
        by `fit_pair`.

    Raises:
        ParameterError: for a bad number, a network of other dimensions, or an unknown device.
        DataError: if the map returns events that are not finite or of another shape.
        DeviceError: if CUDA is asked for and there is none.
        TrainingError: if a loss becomes NaN or infinite.
        CheckpointError: if a checkpoint is damaged or cannot be written.
    """
    check_count("n_events", n_events, low=10)
    check_count("seed", seed)
    _check_dimensions(recipe, problem.n_features)
    target = resolve_device(device)
    data = make_training_set(problem, n_events, Generator(target).manual_seed(seed))
    frame = {name: frame_events(problem, *data.component(name)) for name in COMPONENTS}
    invariances = problem.invariances if symmetries else ()
    exchange = problem.exchange if symmetries else None
    if exchange is not None:
        frame = {"signal": torch.cat((frame["signal"], exchange(frame["background"])))}
    densities: dict[str, torch.nn.Module] = {}
    records: dict[str, TrainingResult] = {}
    for number, (name, u) in enumerate(frame.items()):
        images = torch.cat((u, *(move(u) for move in invariances)))
        identity = {
            "problem": repr(problem),
            "recipe": asdict(recipe),
            "component": name,
            "n_events": n_events,
            "seed": seed,
            "symmetries": symmetries,
            "code": code_digest(*_CODE_THAT_DECIDES),
            "device": target.type,
        }
        fit = _Fit(problem, recipe, name, 10 * seed + number, identity)
        densities[name], records[name] = fit.run(images, invariances, progress)
    if exchange is not None:
        densities["background"] = MovedDensity(densities["signal"], exchange)
    pair = FramedPair(
        densities["signal"], densities["background"], problem.nuisance_map, n_features=problem.n_features
    )
    return FittedFramedPair(pair.cpu(), recipe, n_events, seed, records)


def frame_events(problem: MappedProblem, x: Tensor, nuisance: Tensor) -> Tensor:
    """Events ``x`` (n, d) taken to the frame, each by its own ``nuisance`` (n,); returns ``(n, d)``.

    Raises:
        DataError: if the map returns events that are not finite or of another shape.
    """
    return check_framed(problem.nuisance_map.to_reference(x, nuisance), x).events


def _check_dimensions(recipe: FramedRecipe, n_features: int) -> None:
    model = recipe.model
    features = model.features if isinstance(model, FlowConfig) else model.n_features
    if features != n_features:
        raise ParameterError(
            f"the recipe is for events of {features} features, the problem has {n_features}; "
            "set the number of features of its model"
        )


@dataclass(frozen=True)
class _Fit:
    """One network in the frame and its training."""

    problem: MappedProblem
    recipe: FramedRecipe
    component: str
    seed: int
    identity: dict[str, Any]

    def run(
        self, u: Tensor, invariances: tuple[FrameSymmetry, ...], progress: bool
    ) -> tuple[torch.nn.Module, TrainingResult]:
        """The density learned from events ``u`` (n, d) of the frame, averaged over its images."""
        whitening, recipe = Whitening.of_events(u), self.recipe
        reference = NormalDensity(whitening, recipe.widening)
        density: FlowDensity | RatioDensity
        loss: Callable[..., Tensor]
        if isinstance(recipe.model, FlowConfig):
            density, loss = FlowDensity(ConditionalFlow(recipe.model, seed=self.seed), whitening), flow_loss
        else:
            model = Classifier(recipe.model, seed=self.seed)
            density, loss = RatioDensity(model, reference), classifier_loss
        density.to(u.device)
        widening = recipe.widening if recipe.method == "classifier" else 0.0
        name = f"{self.problem.name}-framed-{recipe.method}-{self.component}-{facts_digest(self.identity)}"
        result = train(
            density.model,
            loss,
            _FrameBatches(whitening(u), widening, self.seed),
            _FreshFrameEvents(self.problem, self.component, whitening, widening, self.seed),
            recipe.training,
            checkpoint=cache_folder() / f"{name}.safetensors",
            identity=self.identity,
            progress=progress,
            label=f"framed {recipe.method}, {self.component}",
        )
        if isinstance(density, RatioDensity):
            density.normalize(Generator(u.device).manual_seed(self.seed))
        return MeanDensity.symmetrized([density], invariances), result


class _FrameBatches:
    """Batches of whitened events of the frame, with negatives of the known density for a classifier.

    The negatives are blocks of a scrambled Sobol sequence, which fill the density far more evenly than random
    points would, so they add little noise to that of the training events.
    """

    def __init__(self, v: Tensor, widening: float, seed: int) -> None:
        self._events = FlowBatches(v, v.new_zeros(len(v)), seed=seed)
        self._negatives: Tensor | None = None
        if widening > 0:
            sobol = qmc.Sobol(v.shape[1], seed=seed)
            inside = torch.from_numpy(sobol.random(_N_NEGATIVES)).clamp(1e-9, 1 - 1e-9)
            self._negatives = torch.special.ndtri(inside).to(v) * widening

    def batch(self, size: int, step: int) -> Batch:
        """The batch of ``size`` events that belongs to ``step``."""
        if self._negatives is None:
            return self._events.batch(size, step)
        v, zeros = self._events.batch(size // 2, step)
        n = len(v)
        start = step * n % (_N_NEGATIVES - n + 1)
        return classifier_batch(v, zeros, self._negatives[start : start + n])


class _FreshFrameEvents:
    """Validation batches of events that no training has seen, for the record."""

    def __init__(
        self, problem: MappedProblem, component: str, whitening: Whitening, widening: float, seed: int
    ) -> None:
        self._problem, self._component, self._whitening = problem, component, whitening
        self._widening, self._seed = widening, seed
        self._generator = Generator(whitening.mean.device)

    def batch(self, size: int, step: int) -> Batch:
        """A validation batch of ``size`` events."""
        # Negative seeds keep these events apart from those of every training set.
        self._generator.manual_seed(-(self._seed * 1_000_003 + step + 1))
        n = size // 2 if self._widening > 0 else size
        z = uniform_nuisance(self._problem, n, self._generator, torch.float32)
        x = self._problem.sample(self._component, z, self._generator)
        v = self._whitening(frame_events(self._problem, x, z))
        batches = _FrameBatches(v, self._widening, self._seed)
        return batches.batch(size, step)
