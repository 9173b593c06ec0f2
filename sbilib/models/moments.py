r"""Match the moments of a learned log ratio to those of events, after training.

The log ratio :math:`\ell(x, z) = \sum_k c_k(x) P_k(z)` of a classifier with ``nuisance_degree`` > 0 makes a
density :math:`e^{\ell} q` of its reference density :math:`q`.  A training that ends before its minimum, or a
network that is too stiff, leaves this density with a mean score other than that of the events it was trained
on, and the best fit of :math:`z` shifted.  Cross-entropy hardly notices.  So the log ratio is changed to

.. math:: \ell(x, z) + \sum_k \bigl[a_k + b_k\, c_1(x)\bigr] P_k(z) ,

where :math:`c_1`, the coefficient of the linear term, is close to the score.  The extended log likelihood of
the changed density, which has the normalization in it, is concave in the coefficients,

.. math:: F(a, b) = \sum_j \Bigl\{ E_{p(x \mid z_j)}[\ell(x, z_j)] - E_q\bigl[e^{\ell(x, z_j)}\bigr] \Bigr\} .

At its maximum :math:`E_q[e^\ell] = 1` and :math:`E_q[e^\ell c_1] = E_p[c_1]` at all :math:`z_j`, up to what
polynomials of this degree cannot follow: the density is normalized and its slope has the right mean.
The change goes into the last layer, so the model remains one of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sbilib.errors import DataError, ParameterError, TrainingError, check_events
from sbilib.models.classifier import Classifier

__all__ = ["match_moments"]

_CHUNK = 50_000
_STEPS, _HALVINGS, _TOLERANCE = 30, 20, 1e-6


@torch.no_grad()
def match_moments(
    classifier: Classifier,
    nuisance: Tensor,
    samples: Sequence[tuple[Tensor, Tensor]],
    reference: tuple[Tensor, Tensor],
) -> None:
    """Change the last layer of a classifier so that its ratio has the moments of events.

    Args:
        classifier: whose logit is a polynomial in the nuisance parameter.
        nuisance: values, shape ``(m,)``, more than ``nuisance_degree``, in the units of the model.
        samples: for each of them, events of the positive class at that value ``(n, d)`` and weights ``(n,)``.
        reference: events ``(n, d)`` of the negative class and their weights ``(n,)``.

    Raises:
        ParameterError: if the logit is not a polynomial, or nuisance values are too few, equal or not finite.
        DataError: if there are not as many samples as values, or events or weights are bad.
        TrainingError: if no maximum was found, as for events where the reference has none.

    Example:
        >>> from sbilib.models.classifier import ClassifierConfig
        >>> model = Classifier(ClassifierConfig(1, hidden=(8,), nuisance_degree=1), seed=1)
        >>> x, one = torch.linspace(-1, 1, 100).unsqueeze(1), torch.ones(100)
        >>> match_moments(model, torch.tensor([-1.0, 0.0, 1.0]), [(x, one)] * 3, (x, one))
        >>> round(model(x, torch.ones(100, 1)).exp().mean().item(), 5)
        1.0
    """
    degree = classifier.config.nuisance_degree
    if degree == 0:
        raise ParameterError("moments need a classifier with nuisance_degree > 0; set it, or do without")
    if len(nuisance) <= degree:
        raise ParameterError(
            f"degree {degree} needs more than {degree} nuisance values, got {len(nuisance)}; add some"
        )
    if not bool(nuisance.isfinite().all()) or len(set(nuisance.tolist())) != len(nuisance):
        raise ParameterError(f"nuisance values must be finite and different, got {nuisance.tolist()}")
    if len(samples) != len(nuisance):
        raise DataError(f"got {len(samples)} samples for {len(nuisance)} nuisance values; give one for each")
    basis = classifier.basis(nuisance.to(classifier.shift).unsqueeze(1)).double()
    wanted = torch.stack([_mean(_slopes(classifier, x)[1], _weights(x, w)) for x, w in samples])
    coefficients, slopes = _slopes(classifier, reference[0])
    weights = _weights(*reference).to(slopes)
    change = _maximum(coefficients @ basis.T, slopes, weights, basis, wanted)
    final = cast("nn.Linear", classifier.layers[-1])
    constant, factor = change.to(final.weight).unbind(dim=1)
    final.bias.copy_(final.bias + constant + factor * final.bias[1])
    final.weight.copy_(final.weight + factor.unsqueeze(1) * final.weight[1])


def _maximum(logits: Tensor, moments: Tensor, weights: Tensor, basis: Tensor, wanted: Tensor) -> Tensor:
    """Coefficients ``(k, 2)`` of constant and slope, by Newton's method.

    Args:
        logits: of reference events at all nuisance values, ``(n, m)``.
        moments: one and the slope of each event, ``(n, 2)``.
        weights: of the events, with sum one, ``(n,)``.
        basis: polynomials at the nuisance values, ``(m, k)``.
        wanted: mean moments of the samples, ``(m, 2)``.
    """
    size = (basis.shape[1], 2)
    change = logits.new_zeros(size)
    close = _TOLERANCE * (1 + float(wanted.abs().max()))

    def tilted(trial: Tensor) -> tuple[float, Tensor]:
        tilt = basis @ trial
        ratios = weights[:, None] * (logits + moments @ tilt.T).exp()
        return float((wanted * tilt).sum() - ratios.sum()), ratios

    value, ratios = tilted(change)
    for number in range(_STEPS + 1):
        gradient = basis.T @ (wanted - ratios.T @ moments)
        if float(gradient.abs().max()) < close:
            return change
        if number == _STEPS:
            break
        second = torch.einsum("nj,na,nb->jab", ratios, moments, moments)
        hessian = torch.einsum("jk,jl,jab->kalb", basis, basis, second).reshape(2 * size[0], -1)
        step, failed = torch.linalg.solve_ex(hessian, gradient.reshape(-1))
        if int(failed):
            break
        for _ in range(_HALVINGS):
            found, trial_ratios = tilted(change + step.view(size))
            if found > value:
                break
            step = step / 2
        else:
            break
        change, value, ratios = change + step.view(size), found, trial_ratios
    raise TrainingError(
        "the moments of the classifier could not be matched; train it for longer, or see that the reference "
        "density covers the events"
    )


def _slopes(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """All coefficients of events ``x``, ``(n, k)``, and one and the slope, ``(n, 2)``, as float64."""
    check_events("events", x, classifier.config.n_features)
    parts = torch.split(x.to(classifier.shift), _CHUNK)
    coefficients = torch.cat([classifier.coefficients(part) for part in parts]).double()
    return coefficients, torch.stack((torch.ones_like(coefficients[:, 1]), coefficients[:, 1]), dim=1)


def _weights(x: Tensor, weights: Tensor) -> Tensor:
    """Weights with sum one."""
    fit = weights.shape == x.shape[:1] and bool((weights.isfinite() & (weights >= 0)).all())
    if not fit or float(weights.sum()) == 0:
        raise DataError(
            f"weights must be finite, not negative and not all zero, one for each of {len(x)} events, got "
            f"shape {tuple(weights.shape)}; correct them"
        )
    return weights.double() / weights.double().sum()


def _mean(moments: Tensor, weights: Tensor) -> Tensor:
    return weights.to(moments) @ moments
