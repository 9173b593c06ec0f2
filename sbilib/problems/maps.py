r"""Maps that take the effect of a nuisance parameter away, and how to check one.

See `sbilib.components.NuisanceMap` for what such a map is good for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbilib.components import FramedEvents, NuisanceMap, check_framed
from sbilib.errors import DataError, check_events

__all__ = ["Rotation", "check_nuisance_map"]


@dataclass(frozen=True)
class Rotation:
    r"""The plane turned back by the nuisance parameter, an angle in rad.

    .. math:: T_z(x) = R(-z)\,x = (x_1\cos z + x_2\sin z,\; x_2\cos z - x_1\sin z), \qquad \det = 1 .

    Example:
        >>> import math
        >>> frame = Rotation().to_reference(torch.tensor([[0.0, 2.0]]), torch.tensor([0.5 * math.pi]))
        >>> torch.allclose(frame.events, torch.tensor([[2.0, 0.0]]), atol=1e-6), frame.log_det.tolist()
        (True, [0.0])
    """

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        """Events ``x`` (n, 2) turned by minus ``nuisance`` (n,), and the log Jacobian, zero."""
        return FramedEvents(self.from_reference(x, -nuisance), torch.zeros_like(nuisance))

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        """Events ``u`` (n, 2) of the frame turned by ``nuisance`` (n,)."""
        cosine, sine = nuisance.cos(), nuisance.sin()
        return torch.stack((u[:, 0] * cosine - u[:, 1] * sine, u[:, 0] * sine + u[:, 1] * cosine), dim=1)


def check_nuisance_map(
    nuisance_map: NuisanceMap, x: Tensor, nuisance: Tensor, *, tolerance: float = 1e-6
) -> None:
    """Check on some events that a map can be inverted and that its log Jacobian is right.

    The Jacobian is compared with that of automatic differentiation.  Run this once on a new map: an error in
    it would bias every likelihood without any other sign.

    Args:
        nuisance_map: the map.
        x: some events, shape ``(n, d)``, best in float64.
        nuisance: their nuisance values, shape ``(n,)``.
        tolerance: largest allowed difference, relative to values above one.

    Raises:
        DataError: if shapes are wrong, values are not finite, the inverse misses an event, or the log
            Jacobian is off; the message names the first such event.

    Example:
        >>> x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        >>> check_nuisance_map(Rotation(), x, torch.linspace(0, 1, 5, dtype=torch.float64))
    """
    check_events("x", x, x.shape[-1])
    events, log_det = check_framed(nuisance_map.to_reference(x, nuisance), x)
    back = nuisance_map.from_reference(events, nuisance)
    _compare("from_reference(to_reference(x))", back, x, tolerance)

    def moved(one: Tensor, value: Tensor) -> Tensor:
        return nuisance_map.to_reference(one.unsqueeze(0), value.unsqueeze(0)).events[0]

    jacobian = torch.func.vmap(torch.func.jacrev(moved))(x, nuisance)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    _compare("log_det", log_det.unsqueeze(1), expected.unsqueeze(1), tolerance)


def _compare(name: str, values: Tensor, expected: Tensor, tolerance: float) -> None:
    if values.shape != expected.shape:
        raise DataError(
            f"{name} must have shape {tuple(expected.shape)}, got {tuple(values.shape)}; "
            "return one row for each event"
        )
    bad = ~((values - expected).abs() <= tolerance * expected.abs().clamp(min=1.0)).all(dim=1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        raise DataError(
            f"{name} is wrong for {int(bad.sum())} of {len(values)} events (first: event {first}, expected "
            f"{expected[first].tolist()}, got {values[first].tolist()}); correct the map"
        )
