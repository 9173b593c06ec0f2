r"""Log densities of many members tabulated over two features, for studies that need millions of events.

A log density of two features at a fixed nuisance value is a surface.  It is evaluated once on a grid of
spacing :math:`h` and continued by the cubic through the four nearest points in each direction,

.. math:: \ell(x) \approx \sum_{a=0}^{3} \sum_{b=0}^{3} w_a(t_1)\, w_b(t_2)\, \ell_{i+a,\,j+b} ,

with the weights :math:`w` of Lagrange at the place :math:`t` in the cell.  Polynomials of third degree are
exact, so Gaussian log densities are; the error of others falls as :math:`h^4` where they are smooth.  Events
outside the grid are given to the members themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sbilib.components import ComponentDensities
from sbilib.errors import DataError, check_events, check_range
from sbilib.models.ensemble import EvaluatedMembers

__all__ = ["TabulatedMembers"]

_MAX_POINTS = 1_000_000


class TabulatedMembers:
    """Members on a grid of two features and some nuisance values.

    Args:
        members: component densities of two features.
        nuisance: nuisance values, shape ``(m,)``.
        box: lowest and highest value of each feature that the grid covers, shape ``(2, 2)``, a row per
            feature.
        spacing: distance of grid points, in units of the features.

    Raises:
        ParameterError: if the spacing is not positive.
        DataError: if the box is not two increasing ranges, has too many points, or a member is not finite on
            it.

    Example:
        >>> from sbilib.problems import GaussianToy
        >>> toy, z = GaussianToy(0.5), torch.linspace(0.4, 1.2, 5, dtype=torch.float64)
        >>> box = torch.tensor([[-3.0, 3.0], [-3.0, 3.0]])
        >>> tables = TabulatedMembers([toy], z, box=box, spacing=0.5)
        >>> x = torch.tensor([[0.3, -1.7], [5.0, 0.0]], dtype=torch.float64)
        >>> exact, found = toy.log_components(x, z).signal, tables.evaluate(x).signal[0]
        >>> bool((exact - found).abs().max() < 1e-5)
        True
    """

    def __init__(
        self, members: Sequence[ComponentDensities], nuisance: Tensor, *, box: Tensor, spacing: float
    ) -> None:
        check_range("spacing", spacing, low=0.0, include_low=False)
        if box.shape != (2, 2) or not bool(box.isfinite().all() & (box[:, 1] > box[:, 0]).all()):
            raise DataError(f"box must be two increasing ranges, shape (2, 2), got {box.tolist()}")
        self.members, self.nuisance, self.spacing = tuple(members), nuisance, spacing
        self._start = box[:, 0].double()
        # At least four points, the stencil of a cubic, and one beyond the box.
        sizes = ((box[:, 1] - box[:, 0]) / spacing).ceil().long().clamp(min=3) + 1
        self._sizes = (int(sizes[0]), int(sizes[1]))
        if self._sizes[0] * self._sizes[1] > _MAX_POINTS:
            raise DataError(
                f"the grid would have {self._sizes[0]} x {self._sizes[1]} points, more than {_MAX_POINTS:,}; "
                "use a smaller box or a larger spacing"
            )
        axes = [
            self._start[k] + spacing * torch.arange(size, dtype=torch.float64)
            for k, size in enumerate(self._sizes)
        ]
        values = EvaluatedMembers.evaluate(self.members, torch.cartesian_prod(*axes), nuisance)
        # One row per grid point holds all members, components and nuisance values.
        both = torch.stack((values.signal.float(), values.background.float()), dim=1)
        self._table = both.permute(2, 0, 1, 3).reshape(self._sizes[0] * self._sizes[1], -1).contiguous()

    def evaluate(self, x: Tensor) -> EvaluatedMembers:
        """All members at events ``x`` (n, 2) and the nuisance values of the tables, to single precision.

        Raises:
            DataError: if the events are empty, not finite, or have another number of features.
        """
        check_events("x", x, 2)
        place = (x.double() - self._start) / self.spacing
        last = torch.tensor(self._sizes) - 1
        outside = ((place < 0) | (place > last)).any(dim=1)
        cell = (place.floor().long() - 1).clamp(min=torch.zeros(2, dtype=torch.long), max=last - 3)
        weights = _lagrange_weights(place - cell)
        steps = torch.arange(4)
        rows = (cell[:, :1] + steps)[:, :, None] * self._sizes[1] + (cell[:, 1:] + steps)[:, None, :]
        taps = weights[:, 0, :, None] * weights[:, 1, None, :]
        found = functional.embedding_bag(
            rows.flatten(1), self._table, per_sample_weights=taps.flatten(1).float(), mode="sum"
        )
        shape = (len(x), len(self.members), 2, len(self.nuisance))
        signal, background = found.view(shape).permute(2, 1, 0, 3).double().unbind()
        if bool(outside.any()):
            direct = EvaluatedMembers.evaluate(self.members, x[outside], self.nuisance)
            signal[:, outside], background[:, outside] = direct.signal, direct.background
        return EvaluatedMembers(signal, background)


def _lagrange_weights(t: Tensor) -> Tensor:
    """Weights of the values at 0, 1, 2, 3 of a cubic at places ``t``, shape ``(*t.shape, 4)``."""
    a, b, c, d = t, t - 1, t - 2, t - 3
    return torch.stack((-b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6), dim=-1)
