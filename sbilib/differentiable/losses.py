r"""Losses by name, and weighted sums of them.

Every loss of :data:`LOSSES` maps what a network makes of a batch to one number for each member of a stack:
losses of classification take the logits of the four samples, losses of inference the templates filled with
them.  Any combination is a loss again,

.. math:: L = \sum_k a_k L_k,

(Simpson 2023, section 7.5), and its terms share one HistFactory model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from sbilib.differentiable.classification import augmented_cross_entropy, binary_cross_entropy
from sbilib.differentiable.gaussianity import profile_gaussianity
from sbilib.differentiable.inference import ConditionalFit, asimov_q, cls_of, p0_of
from sbilib.differentiable.shape_model import shape_information, shape_q
from sbilib.differentiable.significance import asimov_significance
from sbilib.differentiable.templates import AnalysisSettings, Templates
from sbilib.differentiable.variances import constraint_deviation, generalized_variance, sigma_mu
from sbilib.errors import ParameterError, check_range
from sbilib.histfactory import Model
from sbilib.histfactory.asymptotics import root

__all__ = ["LOSSES", "Logits", "Loss", "make_loss"]


class Logits(NamedTuple):
    """Outputs of a network with one output, before the sigmoid, for each sample; each ``(*batch, n)``."""

    signal: Tensor
    background: Tensor
    up: Tensor
    down: Tensor


_TESTS = {"cls": (1.0, 0.0), "p0": (0.0, 1.0)}
"""Signal strength under test and in the Asimov data."""


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What the terms of one evaluation share; the model is built when the first of them asks for it."""

    logits: Logits | None
    templates: Templates | None
    settings: AnalysisSettings
    names: frozenset[str]

    @cached_property
    def outputs(self) -> Logits:
        if self.logits is None:
            raise ParameterError("this loss classifies events and needs logits; pass logits=Logits(...)")
        return self.logits

    @cached_property
    def filled(self) -> Templates:
        if self.templates is None:
            raise ParameterError("this loss needs templates; pass templates=Templates(...)")
        return self.templates

    @cached_property
    def model(self) -> Model:
        return self.filled.model(self.settings)

    @cached_property
    def fit(self) -> ConditionalFit | None:
        return self.filled.conditional_fit(self.settings)

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """The statistics q on Asimov data that the terms ask for, all from one batch of fits."""
        wanted = [kind for kind in _TESTS if {kind, f"log_{kind}"} & self.names]
        tested, true = zip(*(_TESTS[kind] for kind in wanted), strict=True)
        if self.filled.has_shape_only(self.settings):
            values = shape_q(*self.filled.floored(self.settings), tested=tested, true=true)
        else:
            values = asimov_q(self.model, tested=tested, true=true)
        return dict(zip(wanted, values, strict=True))

    @cached_property
    def closed_information(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Information of ``shape``, of ``mu``, and the determinant; None where there is no closed form."""
        if not self.filled.has_shape_only(self.settings):
            return None
        information = shape_information(*self.filled.floored(self.settings))
        shape, strength = information[..., 0, 0], information[..., 1, 1]
        return shape, strength, shape * strength - information[..., 0, 1].square()


def _sigma_mu(inputs: _Inputs) -> Tensor:
    if (known := inputs.closed_information) is None:
        return sigma_mu(inputs.model)
    shape, _, determinant = known
    return root(shape / determinant)


def _generalized_variance(inputs: _Inputs) -> Tensor:
    if (known := inputs.closed_information) is None:
        return generalized_variance(inputs.model)
    return 1.0 / known[2]


def _constraint(inputs: _Inputs) -> Tensor:
    if (known := inputs.closed_information) is None:
        return constraint_deviation(inputs.model)
    _, strength, determinant = known
    return (1.0 - root(strength / determinant)).square()


def _augmented(inputs: _Inputs) -> Tensor:
    signal, *backgrounds = inputs.outputs
    return augmented_cross_entropy(signal, backgrounds)


def _significance(inputs: _Inputs, *, uncertain: bool) -> Tensor:
    filled = inputs.filled
    spread = 0.5 * (filled.up - filled.down) if uncertain else None
    return -asimov_significance(filled.signal, filled.background + inputs.settings.floor, spread)


@dataclass(frozen=True)
class _Term:
    evaluate: Callable[[_Inputs], Tensor]
    needs: str
    samples: int
    meaning: str


_TERMS = {
    "bce": _Term(
        lambda i: binary_cross_entropy(i.outputs.signal, i.outputs.background),
        "logits",
        2,
        "binary cross-entropy of signal and nominal background",
    ),
    "bce_augmented": _Term(_augmented, "logits", 4, "binary cross-entropy, varied backgrounds included"),
    "cls": _Term(lambda i: cls_of(i.statistics["cls"], log=False), "templates", 4, "expected CLs"),
    "log_cls": _Term(lambda i: cls_of(i.statistics["cls"], log=True), "templates", 4, "logarithm of CLs"),
    "p0": _Term(lambda i: p0_of(i.statistics["p0"], log=False), "templates", 4, "expected discovery p-value"),
    "log_p0": _Term(lambda i: p0_of(i.statistics["p0"], log=True), "templates", 4, "logarithm of p0"),
    "sigma_mu": _Term(_sigma_mu, "templates", 4, "uncertainty of the signal strength"),
    "generalized_variance": _Term(
        _generalized_variance, "templates", 4, "inverse determinant of the information"
    ),
    "constraint": _Term(_constraint, "templates", 4, "constraint of alpha beyond its prior"),
    "gaussianity": _Term(
        lambda i: profile_gaussianity(i.model, conditional_fit=i.fit),
        "templates",
        4,
        "distance of the profile from a normal shape",
    ),
    "significance": _Term(
        lambda i: _significance(i, uncertain=False), "templates", 2, "negative Asimov significance"
    ),
    "significance_uncertain": _Term(
        lambda i: _significance(i, uncertain=True),
        "templates",
        4,
        "negative Asimov significance with an independent background uncertainty in each bin",
    ),
}

LOSSES: Mapping[str, str] = {name: term.meaning for name, term in _TERMS.items()}
"""Names of the losses and what each is; all are to be minimized."""


@dataclass(frozen=True)
class Loss:
    r"""A weighted sum of named losses, :math:`\sum_k a_k L_k`.

    Args:
        terms: pairs of a name of :data:`LOSSES` and a finite weight that is not zero; at least one.
        settings: how models are built from templates.

    Raises:
        ParameterError: for an unknown name, a name given twice, a weight that is zero or not finite, or no
            terms.

    Example:
        >>> loss = Loss((("cls", 1.0), ("p0", 2.0)))
        >>> loss.name, loss.needs_logits
        ('cls + 2 p0', False)
    """

    terms: tuple[tuple[str, float], ...]
    settings: AnalysisSettings = field(default_factory=AnalysisSettings)

    def __post_init__(self) -> None:
        if not self.terms:
            raise ParameterError(
                "a loss needs at least one term, got none; pass for instance (('cls', 1.0),)"
            )
        names = [name for name, _ in self.terms]
        for name, weight in self.terms:
            if name not in _TERMS:
                raise ParameterError(f"unknown loss {name!r}; choose from {', '.join(_TERMS)}")
            if names.count(name) > 1:
                raise ParameterError(f"the loss {name!r} is given twice; give it once, with one weight")
            if check_range(f"the weight of {name!r}", weight) == 0.0:
                raise ParameterError(f"the weight of {name!r} is zero; leave the term out")

    @property
    def name(self) -> str:
        """The sum in words, for tables and legends."""
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in self.terms)

    @property
    def needs_logits(self) -> bool:
        """Whether any term takes the outputs of the network event by event."""
        return any(_TERMS[name].needs == "logits" for name, _ in self.terms)

    @property
    def needs_templates(self) -> bool:
        """Whether any term takes templates, so that histograms must be filled."""
        return any(_TERMS[name].needs == "templates" for name, _ in self.terms)

    @property
    def needs_variations(self) -> bool:
        """Whether any term looks at the varied backgrounds."""
        return any(_TERMS[name].samples == 4 for name, _ in self.terms)

    def __call__(self, *, logits: Logits | None = None, templates: Templates | None = None) -> Tensor:
        """Value of the loss, ``(*batch,)``.

        Args:
            logits: outputs of a network for the four samples, each ``(*batch, n)``.
            templates: expected events, each ``(*batch, n_bins)``.

        Raises:
            ParameterError: if a term lacks what it needs.
            DataError: if templates are negative or not finite, or a sample has no events.
        """
        inputs = _Inputs(logits, templates, self.settings, frozenset(name for name, _ in self.terms))
        values = [weight * _TERMS[name].evaluate(inputs) for name, weight in self.terms]
        return sum(values[1:], start=values[0])


def make_loss(what: str | Mapping[str, float], *, settings: AnalysisSettings | None = None) -> Loss:
    """A loss from a name, or from names and weights.

    Args:
        what: a name of :data:`LOSSES`, or a mapping of such names to weights.
        settings: how models are built from templates; the defaults if None.

    Raises:
        ParameterError: for an unknown name, or a weight that is zero or not finite.

    Example:
        >>> make_loss({"log_cls": 1.0, "gaussianity": 0.1}).name
        'log_cls + 0.1 gaussianity'
    """
    terms = ((what, 1.0),) if isinstance(what, str) else tuple(what.items())
    return Loss(terms, AnalysisSettings() if settings is None else settings)
