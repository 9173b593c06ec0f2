r"""Many descents of a few parameters at once: the loop behind the pages on analysis parameters.

The loss maps a stack of positions to one number for each.  The members of a stack do not know of each
other, so the gradient of their sum is the gradient of each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sbilib.errors import DataError, check_choice, check_count, check_range

__all__ = ["descend"]

_OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def descend(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    rate: float,
    n_steps: int,
    optimizer: str = "adam",
    limits: tuple[float, float] | None = None,
) -> Tensor:
    r"""Positions of descents, :math:`\phi_{i+1} = \phi_i - \eta\,\nabla\ell(\phi_i)` or its Adam form.

    Args:
        loss: maps positions ``(*batch, ...)`` to losses ``(*batch,)``, each of its own position only.
        start: where the descents begin, of the shape that ``loss`` takes.
        rate: learning rate, positive.
        n_steps: number of steps.
        optimizer: ``"adam"`` or ``"sgd"``.
        limits: positions are moved back inside these after each step.

    Returns:
        ``(n_steps + 1, *start.shape)`` in float64, detached, with the start in front.

    Raises:
        ParameterError: if the rate or the number of steps is not positive, or the optimizer unknown.
        DataError: if a gradient is not finite; the message names the step.

    Example:
        >>> path = descend(lambda x: x**2, torch.tensor([1.0, -2.0]), rate=0.25, n_steps=2, optimizer="sgd")
        >>> path.tolist()
        [[1.0, -2.0], [0.5, -1.0], [0.25, -0.5]]
    """
    check_range("rate", rate, low=0.0, include_low=False)
    check_count("n_steps", n_steps, low=1)
    kind = _OPTIMIZERS[check_choice("optimizer", optimizer, _OPTIMIZERS)]
    position = start.detach().double().clone().requires_grad_()
    stepper = kind([position], lr=rate)
    path = [position.detach().clone()]
    for step in range(n_steps):
        (position.grad,) = torch.autograd.grad(loss(position).sum(), position)
        if not bool(position.grad.isfinite().all()):
            raise DataError(f"the gradient is not finite at step {step}; start elsewhere or lower the rate")
        stepper.step()
        if limits is not None:
            with torch.no_grad():
                position.clamp_(*limits)
        path.append(position.detach().clone())
    return torch.stack(path)
