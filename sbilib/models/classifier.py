r"""Classifiers whose logit is a log density ratio that depends on a nuisance parameter.

A classifier trained with binary cross-entropy on balanced classes has the log ratio of the class densities
as its optimal logit (the likelihood-ratio trick),

.. math:: \ell(x, z) = \log \frac{p(x, z \mid +)}{p(x, z \mid -)} .

The positive class of :math:`f_\mathrm{sig}` is :math:`p(x \mid \mathrm{sig}, z)\,p_z(z)`, that of
:math:`f_\mathrm{bkg}` is :math:`p(x \mid \mathrm{bkg}, z)\,p_z(z)`.  The negative class of both is the
half-and-half mixture at the reference value :math:`z_0`, with an independent :math:`z` drawn from the same
:math:`p_z` (Sluijter 2024, section 2.3.3).  Both log ratios therefore share their denominator, which is
constant for an event and drops out of the likelihood.  The logit itself is used throughout;
:math:`\log(f / (1 - f))` would lose it to rounding for confident outputs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sbilib.components import LogComponents
from sbilib.errors import ParameterError, check_choice, check_events, check_range

__all__ = ["Classifier", "ClassifierConfig", "ClassifierPair"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
_CHUNK = 200_000


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of a classifier.

    Args:
        n_features: features of an event.
        n_context: nuisance parameters.
        hidden: nodes of each hidden layer.
        activation: ``"relu"``, ``"silu"`` or ``"tanh"``.
        standardize: shift and scale all inputs by constants taken from the training data.

    Raises:
        ParameterError: for sizes below one, no hidden layer, or an unknown activation.
    """

    n_features: int = 2
    n_context: int = 1
    hidden: tuple[int, ...] = (120, 120, 120)
    activation: str = "relu"
    standardize: bool = False

    def __post_init__(self) -> None:
        check_range("n_features", self.n_features, low=1)
        check_range("n_context", self.n_context, low=1)
        check_choice("activation", self.activation, _ACTIVATIONS)
        if not self.hidden:
            raise ParameterError("hidden must name at least one layer, got (); pass for instance (64, 64)")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            check_range("hidden", width, low=1)

    @classmethod
    def sluijter(cls) -> ClassifierConfig:
        """The published classifier: three hidden layers of 120 ReLU nodes (Sluijter 2024, section 3.2.1)."""
        return cls()

    @classmethod
    def modern(cls) -> ClassifierConfig:
        """Ours: smooth activations, so that the log ratio is smooth in the nuisance parameter too."""
        return cls(hidden=(64, 64, 64), activation="silu", standardize=True)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ClassifierConfig:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})


class Classifier(nn.Module):
    """A fully connected classifier of events given a nuisance value.

    Args:
        config: shape of the network.
        seed: seed of the initial weights.

    Example:
        >>> model = Classifier(ClassifierConfig.sluijter(), seed=1)
        >>> model(torch.zeros(5, 2), torch.zeros(5, 1)).shape
        torch.Size([5])
    """

    kind: ClassVar[str] = "classifier"
    shift: Tensor
    scale: Tensor

    def __init__(self, config: ClassifierConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        n_inputs = config.n_features + config.n_context
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for n_in, n_out in pairwise((n_inputs, *config.hidden)):
                layers += [nn.Linear(n_in, n_out), _ACTIVATIONS[config.activation]()]
            self.layers = nn.Sequential(*layers, nn.Linear(config.hidden[-1], 1))
        self.register_buffer("shift", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(n_inputs))

    def standardize(self, x: Tensor, z: Tensor) -> None:
        """Take shift and scale from events ``x`` (n, d) and ``z`` (n, c), if the config asks for it."""
        if self.config.standardize:
            inputs = torch.cat((x, z), dim=1)
            self.shift.copy_(inputs.mean(dim=0))
            self.scale.copy_(inputs.std(dim=0))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logit of events ``x`` (n, d) at nuisance values ``z`` (n, c); returns ``(n,)``."""
        inputs = torch.cat((x, z), dim=1)
        if self.config.standardize:
            inputs = (inputs - self.shift) / self.scale
        logit: Tensor = self.layers(inputs)
        return logit.squeeze(1)


class ClassifierPair(nn.Module):
    """The signal and the background classifier of one problem, as component densities.

    Args:
        signal: classifier of signal at z against the reference.
        background: classifier of background at z against the reference.
    """

    def __init__(self, signal: Classifier, background: Classifier) -> None:
        super().__init__()
        self.signal = signal
        self.background = background

    @torch.no_grad()
    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log ratios of every event to the reference at every nuisance value, in float64.

        Args:
            x: events, shape ``(n, d)``.
            nuisance: nuisance values, shape ``(m,)``.

        Returns:
            The logits of both classifiers, each ``(n, m)``.

        Raises:
            DataError: if the events are empty, not finite, or of the wrong width.
        """
        check_events("x", x, self.signal.config.n_features)
        x = x.to(self.signal.shift)
        z = nuisance.to(self.signal.shift)
        chunks = torch.split(x, max(1, _CHUNK // max(1, len(z))))
        parts = [[_outer(model, chunk, z) for chunk in chunks] for model in (self.signal, self.background)]
        return LogComponents(*(torch.cat(part).double() for part in parts))


def _outer(model: Classifier, x: Tensor, z: Tensor) -> Tensor:
    """Logits of ``x`` (n, d) at each of ``z`` (m,); returns ``(n, m)``."""
    n, m = len(x), len(z)
    events = x.repeat_interleave(m, dim=0)
    contexts = z.repeat(n).unsqueeze(1)
    logit: Tensor = model(events, contexts)
    return logit.reshape(n, m)
