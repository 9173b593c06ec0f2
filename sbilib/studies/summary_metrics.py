"""What a summary statistic is worth: metrics of hard histograms on held-out events."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.differentiable import (
    AnalysisSettings,
    ExpectedYields,
    Logits,
    Templates,
    asimov_q,
    asimov_significance,
    binary_cross_entropy,
    expected_covariance,
    generalized_variance,
    hard_histogram,
    largest_output_histogram,
    profile_gaussianity,
    sigma_mu,
)
from sbilib.differentiable.inference import cls_of, p0_of

__all__ = ["SummaryMetrics", "evaluate_summary", "hard_templates"]


class SummaryMetrics(NamedTuple):
    """Metrics of each member of a stack, each ``(n_members,)`` in float64; small is good but for two of them.

    Attributes:
        cls: expected CLs of the signal without signal.
        p0: expected discovery p-value with signal.
        sigma_mu: expected uncertainty of the signal strength.
        generalized_variance: determinant of the covariance of all parameters.
        gaussianity: distance of the profile likelihood from its normal approximation.
        sigma_shape: uncertainty of the background parameter after the fit, 1 if not constrained.
        significance: Asimov significance without background uncertainty (large is good).
        cross_entropy: of signal and nominal background, NaN for a network with one output per bin.
        accuracy: fraction of signal and nominal background on the right side of logit zero (large is
            good), NaN for a network with one output per bin.
    """

    cls: Tensor
    p0: Tensor
    sigma_mu: Tensor
    generalized_variance: Tensor
    gaussianity: Tensor
    sigma_shape: Tensor
    significance: Tensor
    cross_entropy: Tensor
    accuracy: Tensor


def hard_templates(outputs: Logits, edges: Tensor | None, yields: ExpectedYields) -> Templates:
    """Templates of whole events.

    Args:
        outputs: of a stack for the four samples: logits ``(n_members, n)``, or ``(n_members, n, n_bins)``.
        edges: of the bins in the summary (the sigmoid of the logit), or None for one output per bin.
        yields: expected events in all.

    Raises:
        ParameterError: if edges are out of order.
        DataError: if a sample has no events or outputs are not finite.
    """
    if edges is None:
        counts = [largest_output_histogram(each) for each in outputs]
    else:
        counts = [hard_histogram(torch.sigmoid(each.double()), edges, overflow=True) for each in outputs]
    scaled = [
        count * ((yields.signal if number == 0 else yields.background) / each.shape[1])
        for number, (count, each) in enumerate(zip(counts, outputs, strict=True))
    ]
    spread = counts[1].sqrt() * (yields.background / outputs.background.shape[1])
    signal, background, up, down = scaled
    return Templates(signal, background, up, down, spread)


@torch.no_grad()
def evaluate_summary(
    outputs: Logits, edges: Tensor | None, *, yields: ExpectedYields, settings: AnalysisSettings
) -> SummaryMetrics:
    """All metrics of a stack, from ordinary histograms of the outputs for held-out events.

    Args:
        outputs: of the stack for the four samples: logits ``(n_members, n)``, or ``(n_members, n, n_bins)``.
        edges: of the bins in the summary, ``(n_bins + 1,)`` or one set for each member; None for one output
            per bin.
        yields: expected events in all.
        settings: how models are built from templates.

    Raises:
        ParameterError: if edges are out of order.
        DataError: if a sample has no events or outputs are not finite.
    """
    templates = hard_templates(outputs, edges, yields)
    model = templates.model(settings)
    covariance = expected_covariance(model)
    place = model.parameter_names.index("shape")
    if outputs.signal.dim() == 2:
        entropy = binary_cross_entropy(outputs.signal, outputs.background).double()
        right = (outputs.signal > 0).double().mean(-1) + (outputs.background <= 0).double().mean(-1)
        accuracy = 0.5 * right
    else:
        entropy = accuracy = torch.full(outputs.signal.shape[:1], torch.nan, dtype=torch.float64)
    # Faster than the general fit, which walls of negative rates in nearly empty bins can also stop.
    fit = templates.conditional_fit(settings)
    q_cls, q_p0 = asimov_q(model, tested=(1.0, 0.0), true=(0.0, 1.0), conditional_fit=fit)
    return SummaryMetrics(
        cls=cls_of(q_cls, log=False),
        p0=p0_of(q_p0, log=False),
        sigma_mu=sigma_mu(model),
        generalized_variance=generalized_variance(model),
        gaussianity=profile_gaussianity(model, conditional_fit=fit),
        sigma_shape=covariance[..., place, place].sqrt(),
        significance=asimov_significance(templates.signal, templates.background + settings.floor),
        cross_entropy=entropy,
        accuracy=accuracy,
    )
