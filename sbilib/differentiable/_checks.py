"""Checks that the differentiable histograms share."""

from __future__ import annotations

import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError

__all__ = ["check_edges", "check_values", "check_weights", "positive"]


def check_values(name: str, values: Tensor) -> Tensor:
    """Return ``values`` in float64 if there is at least one and all are finite.

    Raises:
        DataError: if they are empty, not floating point, or not finite.
    """
    if values.dim() == 0 or values.shape[-1] == 0:
        raise DataError(
            f"{name} must hold at least one event in its last dimension, got shape {tuple(values.shape)}; "
            "check the selection that came before"
        )
    if not values.is_floating_point():
        raise DataError(f"{name} must be floating point, got {values.dtype}; convert it with .double()")
    values = values.double()
    # A sum is finite only if every term is, and costs less than a mask of all of them.
    if not bool(values.detach().sum().isfinite()):
        n_bad = int((~values.detach().isfinite()).sum())
        raise DataError(f"{name} has {n_bad} NaN or infinite entries; remove them before filling a histogram")
    return values


def check_edges(edges: Tensor) -> Tensor:
    """Return ``edges`` in float64 if there are at least two, finite and strictly increasing.

    Raises:
        ParameterError: if not.
    """
    if edges.dim() == 0 or edges.shape[-1] < 2:
        raise ParameterError(
            f"edges must hold at least two numbers, got shape {tuple(edges.shape)}; add edges"
        )
    edges = edges.double()
    steps = edges.detach().diff(dim=-1)
    if not bool(((steps > 0) & (steps < torch.inf)).all()):
        bad = int((~((steps > 0) & (steps < torch.inf))).nonzero()[0, -1])
        raise ParameterError(
            f"edges must be finite and strictly increasing, but edge {bad + 1} does not follow edge {bad} "
            f"in {edges.tolist() if edges.dim() == 1 else 'one of the rows'}; sort them and remove duplicates"
        )
    return edges


def check_weights(weights: Tensor | None, values: Tensor) -> Tensor | None:
    """Return event weights in float64 if they are finite, not negative and fit ``values``.

    Raises:
        DataError: if not.
    """
    if weights is None:
        return None
    if weights.dim() == 0 or weights.shape[-1] != values.shape[-1]:
        raise DataError(
            f"weights must have one entry for each of {values.shape[-1]} events, got shape "
            f"{tuple(weights.shape)}; give one weight an event"
        )
    weights = weights.double()
    good = (weights.detach() >= 0) & (weights.detach() < torch.inf)
    if not bool(good.all()):
        raise DataError(
            f"weights must be finite and not negative, got {float(weights.detach()[~good][0]):g}; a Poisson "
            "template cannot be filled with it, so remove or combine such events"
        )
    return weights


def positive(name: str, value: float | Tensor, reference: Tensor) -> Tensor:
    """Return ``value`` as a float64 tensor if all entries are positive and finite.

    Raises:
        ParameterError: if not.
    """
    result = torch.as_tensor(value, dtype=torch.float64, device=reference.device)
    good = (result.detach() > 0) & (result.detach() < torch.inf)
    if not bool(good.all()):
        shown = result.tolist()
        raise ParameterError(f"{name} must be positive and finite, got {shown}; pass a positive number")
    return result
