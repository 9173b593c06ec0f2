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

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sbilib.components import LogComponents
from sbilib.errors import ParameterError, check_choice, check_count, check_events

__all__ = ["ACTIVATION_FUNCTIONS", "Classifier", "ClassifierConfig", "ClassifierPair", "legendre"]

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}
"""The activation functions by name."""
_MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
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
        nuisance_degree: 0 makes the nuisance parameter an input like any other; a positive degree makes the
            logit a polynomial of that degree in it, with coefficients that are functions of the event.

    Raises:
        ParameterError: for sizes below one, no hidden layer, an unknown activation, or a polynomial in
            several nuisance parameters.
    """

    n_features: int = 2
    n_context: int = 1
    hidden: tuple[int, ...] = (120, 120, 120)
    activation: str = "relu"
    standardize: bool = False
    nuisance_degree: int = 0

    def __post_init__(self) -> None:
        check_count("n_features", self.n_features, low=1)
        check_count("n_context", self.n_context, low=1)
        check_choice("activation", self.activation, ACTIVATION_FUNCTIONS)
        if not self.hidden:
            raise ParameterError("hidden must name at least one layer, got (); pass for instance (64, 64)")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            check_count("hidden", width, low=1)
        check_count("nuisance_degree", self.nuisance_degree)
        if self.nuisance_degree > 0 and self.n_context != 1:
            raise ParameterError(
                f"nuisance_degree {self.nuisance_degree} needs one nuisance parameter, got {self.n_context}; "
                "pass nuisance_degree=0 to use several"
            )

    @classmethod
    def sluijter(cls) -> ClassifierConfig:
        """The published classifier: three hidden layers of 120 ReLU nodes (Sluijter 2024, section 3.2.1)."""
        return cls()

    @classmethod
    def modern(cls) -> ClassifierConfig:
        """Ours: smooth activations, and a log ratio that is a polynomial in the nuisance parameter.

        The polynomial has few degrees of freedom to fit noise with, and many nuisance values cost no more
        than one.
        """
        return cls(hidden=(64, 64, 64), activation="silu", standardize=True, nuisance_degree=5)

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
        polynomial = config.nuisance_degree > 0
        n_inputs = config.n_features + (0 if polynomial else config.n_context)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for n_in, n_out in pairwise((n_inputs, *config.hidden)):
                layers += [nn.Linear(n_in, n_out), _MODULES[config.activation]()]
            self.layers = nn.Sequential(*layers, nn.Linear(config.hidden[-1], config.nuisance_degree + 1))
        self.register_buffer("shift", torch.zeros(config.n_features + config.n_context))
        self.register_buffer("scale", torch.ones(config.n_features + config.n_context))

    def standardize(self, x: Tensor, z: Tensor) -> None:
        """Take shift and scale from events ``x`` (n, d) and ``z`` (n, c), if the config asks for it."""
        if self.config.standardize:
            inputs = torch.cat((x, z), dim=1)
            self.shift.copy_(inputs.mean(dim=0))
            self.scale.copy_(inputs.std(dim=0))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logit of events ``x`` (n, d) at nuisance values ``z`` (n, c); returns ``(n,)``."""
        if self.config.nuisance_degree > 0:
            return (self.coefficients(x) * self.basis(z)).sum(dim=1)
        inputs = torch.cat((x, z), dim=1)
        logit: Tensor = self.layers((inputs - self.shift) / self.scale if self.config.standardize else inputs)
        return logit.squeeze(1)

    def outer(self, x: Tensor, z: Tensor) -> Tensor:
        """Logit of every event ``x`` (n, d) at every nuisance value ``z`` (m, c); returns ``(n, m)``."""
        if self.config.nuisance_degree > 0:
            return self.coefficients(x) @ self.basis(z).T
        n, m = len(x), len(z)
        logit: Tensor = self(x.repeat_interleave(m, dim=0), z.repeat(n, 1))
        return logit.reshape(n, m)

    def coefficients(self, x: Tensor) -> Tensor:
        """Coefficients ``(n, k)`` of the polynomial in the nuisance parameter for events ``x`` (n, d)."""
        d = self.config.n_features
        outputs: Tensor = self.layers((x - self.shift[:d]) / self.scale[:d])
        return outputs

    def basis(self, z: Tensor) -> Tensor:
        """Legendre polynomials ``(n, k)`` at nuisance values ``z`` (n, 1), one per coefficient."""
        d = self.config.n_features
        return legendre((z - self.shift[d:]) / self.scale[d:], self.config.nuisance_degree)

    @torch.no_grad()
    def normalize(self, reference: Tensor) -> None:
        r"""Shift the log ratio so that its ratio averages to one over the reference, at every nuisance value.

        Any density ratio obeys :math:`E_\mathrm{ref}[r(x, z)] = 1`.  A learned one does so only nearly, and
        the rest acts like a change of yield that depends on z.

        Args:
            reference: events of the reference density, shape ``(n, d)``.

        Raises:
            ParameterError: if the logit is not a polynomial in the nuisance parameter.
        """
        degree = self.config.nuisance_degree
        if degree == 0:
            raise ParameterError(
                "only a classifier with nuisance_degree > 0 can be normalized; set it, or do without"
            )
        d, final = self.config.n_features, self.layers[-1]
        t = torch.linspace(-1, 1, 4 * degree + 1, device=self.shift.device).unsqueeze(1) * math.sqrt(3.0)
        z = self.shift[d:] + self.scale[d:] * t
        sums = [
            self.outer(chunk, z).double().logsumexp(dim=0)
            for chunk in torch.split(reference, _CHUNK // len(t))
        ]
        excess = torch.stack(sums).logsumexp(dim=0) - math.log(len(reference))
        basis = legendre(t.double(), degree)
        final.bias -= torch.linalg.lstsq(basis, excess.unsqueeze(1)).solution[:, 0].to(final.bias)


class ClassifierPair(nn.Module):
    """The signal and the background classifier of one problem, as component densities.

    Args:
        signal: classifier of signal at z against the reference.
        background: classifier of background at z against the reference.

    Raises:
        ParameterError: if the two configurations differ.
    """

    kind: ClassVar[str] = "classifier-pair"

    def __init__(self, signal: Classifier, background: Classifier) -> None:
        super().__init__()
        if signal.config != background.config:
            raise ParameterError(
                f"both classifiers of a pair must share one configuration, got {signal.config} and "
                f"{background.config}; build both from the same one"
            )
        self.config = signal.config
        self.signal = signal
        self.background = background

    @classmethod
    def from_config(cls, config: ClassifierConfig, *, seed: int = 0) -> Self:
        """Pair of new classifiers, with weights drawn from seeds ``2 seed`` (signal) and ``2 seed + 1``."""
        return cls(Classifier(config, seed=2 * seed), Classifier(config, seed=2 * seed + 1))

    @torch.no_grad()
    def log_components(self, x: Tensor, nuisance: Tensor) -> LogComponents:
        """Log ratios of every event to the reference at every nuisance value, in float64.

        Args:
            x: events, shape ``(n, d)``.
            nuisance: nuisance values, shape ``(m,)``.

        Returns:
            The logits of both classifiers, each ``(n, m)``.

        Raises:
            DataError: if events or nuisance values are empty, not finite, or of the wrong shape.
        """
        check_events("x", x, self.config.n_features)
        check_events("nuisance", nuisance.unsqueeze(-1), 1)
        x = x.to(self.signal.shift)
        z = nuisance.to(self.signal.shift).unsqueeze(1)
        chunks = torch.split(x, max(1, _CHUNK // max(1, len(z))))
        parts = [[model.outer(chunk, z) for chunk in chunks] for model in (self.signal, self.background)]
        return LogComponents(*(torch.cat(part).double() for part in parts))


def legendre(z: Tensor, degree: int) -> Tensor:
    """Legendre polynomials 0 to ``degree`` of standardized ``z``, which is uniform within root 3.

    Args:
        z: shape ``(..., 1)``.
        degree: highest degree, at least 1.

    Returns:
        Shape ``(..., degree + 1)``.
    """
    t = z.squeeze(-1) / math.sqrt(3.0)
    terms = [torch.ones_like(t), t]
    for k in range(1, degree):
        terms.append(((2 * k + 1) * t * terms[k] - k * terms[k - 1]) / (k + 1))
    return torch.stack(terms[: degree + 1], dim=-1)
