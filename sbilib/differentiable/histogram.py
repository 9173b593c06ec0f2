r"""Histograms of network outputs: soft bins by softmax for training, ordinary ones for results.

A network with one output for each bin shares every event among the bins,

.. math:: n_i = \sum_k w_k \frac{e^{y_i(x_k)/\tau}}{\sum_j e^{y_j(x_k)/\tau}},

and at temperature :math:`\tau \to 0` the event goes to the bin of its largest output (de Castro and Dorigo
2019, arXiv:1806.04743, eq. 11; Simpson 2023, eq. 7.5-7.6).  The order of such bins means nothing.

An ordinary histogram is filled with whole events.  Its counts are sums of weights, so that

.. math:: \sigma_i^2 = \sum_{k \in i} w_k^2

is the variance of bin :math:`i` if the number of events is Poisson distributed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.differentiable._checks import check_edges, check_values, check_weights, positive
from sbilib.errors import ParameterError

__all__ = ["hard_histogram", "largest_output_histogram", "softmax_histogram"]


def softmax_histogram(outputs: Tensor, *, temperature: float = 1.0, weights: Tensor | None = None) -> Tensor:
    r"""Soft counts of a network with one output for each bin, :math:`\sum_k w_k\,\mathrm{softmax}(y/\tau)_i`.

    Args:
        outputs: ``(*batch, n_events, n_bins)``.
        temperature: how soft the bins are, positive; small values give whole events.
        weights: of the events, ``(n_events,)`` or ``(*batch, n_events)``, not negative; 1 if None.

    Returns:
        Counts ``(*batch, n_bins)`` in float64.

    Raises:
        ParameterError: if the temperature is not positive.
        DataError: if there are no events, or outputs or weights are not finite, or a weight is negative.

    Source:
        de Castro and Dorigo 2019, eq. 11; Simpson 2023, eq. 7.6.

    Example:
        >>> softmax_histogram(torch.zeros(6, 2))
        tensor([3., 3.], dtype=torch.float64)
    """
    _check_outputs(outputs)
    weights = check_weights(weights, outputs[..., 0])
    share = torch.softmax(outputs / positive("temperature", temperature, outputs).to(outputs.dtype), dim=-1)
    if weights is None:
        return share.sum(-2, dtype=torch.float64)
    return (weights.unsqueeze(-2) @ share.double()).squeeze(-2)


def largest_output_histogram(outputs: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Counts of events in the bin of their largest output; the limit of zero temperature.

    Args:
        outputs: ``(*batch, n_events, n_bins)``.
        weights: of the events, ``(n_events,)`` or ``(*batch, n_events)``, not negative; 1 if None.

    Returns:
        Counts ``(*batch, n_bins)`` in float64, without gradient.

    Raises:
        DataError: if there are no events, or outputs or weights are not finite, or a weight is negative.

    Example:
        >>> largest_output_histogram(torch.tensor([[0.0, 1.0], [3.0, 2.0], [4.0, 0.0]])).tolist()
        [2.0, 1.0]
    """
    _check_outputs(outputs)
    weights = check_weights(weights, outputs[..., 0])
    return _fill(outputs.argmax(dim=-1), outputs.shape[-1], weights)


def hard_histogram(
    values: Tensor, edges: Tensor, *, weights: Tensor | None = None, overflow: bool = False
) -> Tensor:
    """Ordinary counts of events in bins ``[e_i, e_(i+1))``; the last bin includes its upper edge.

    Args:
        values: one number an event, ``(*batch, n_events)``.
        edges: increasing bin edges, ``(n_bins + 1,)`` or ``(*batch, n_bins + 1)``, same units.
        weights: of the events, ``(n_events,)`` or ``(*batch, n_events)``, not negative; 1 if None.
        overflow: whether the outermost bins also count what lies beyond them; otherwise it is dropped.

    Returns:
        Counts ``(*batch, n_bins)`` in float64, without gradient.

    Raises:
        ParameterError: if edges are out of order.
        DataError: if there are no events, or events or weights are not finite, or a weight is negative.

    Example:
        >>> hard_histogram(torch.tensor([0.2, 0.7, 1.0, 2.0]), torch.tensor([0.0, 0.5, 1.0])).tolist()
        [1.0, 2.0]
    """
    values, edges = check_values("values", values).detach(), check_edges(edges).detach()
    weights = check_weights(weights, values)
    batch = torch.broadcast_shapes(values.shape[:-1], edges.shape[:-1])  # type: ignore[no-untyped-call]
    values, edges = values.expand(*batch, -1), edges.expand(*batch, -1)
    n_bins = edges.shape[-1] - 1
    places = torch.searchsorted(edges.contiguous(), values.contiguous(), right=True)
    places = torch.where(values == edges[..., -1:], n_bins, places)
    if overflow:
        return _fill(places.clamp(1, n_bins) - 1, n_bins, weights)
    return _fill(places, n_bins + 2, weights)[..., 1:-1]


def _fill(places: Tensor, n_bins: int, weights: Tensor | None) -> Tensor:
    counts = torch.zeros(*places.shape[:-1], n_bins, dtype=torch.float64, device=places.device)
    ones = counts.new_ones(())
    contents = (ones if weights is None else weights.detach()).expand(places.shape)
    return counts.scatter_add_(-1, places, contents)


def _check_outputs(outputs: Tensor) -> None:
    if outputs.dim() < 2 or outputs.shape[-1] < 2:
        raise ParameterError(
            f"outputs must have shape (*batch, n_events, n_bins) with at least two bins, got "
            f"{tuple(outputs.shape)}; use binned_kde for a network with one output"
        )
    check_values("outputs", outputs[..., 0])
    if not bool(outputs.detach().sum().isfinite()):
        check_values("outputs", outputs.flatten())
