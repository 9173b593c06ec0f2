r"""Bin edges that can be learned and never get out of order.

The widths of the bins are a softmax of free numbers :math:`a_i`, with a share that each bin keeps,

.. math::

    w_i = (e_B - e_0)\left[\frac{f}{B} + (1 - f)\,\mathrm{softmax}(a)_i\right], \qquad
    e_i = e_0 + \sum_{j<i} w_j,

so every choice of the free numbers gives increasing edges between the same two ends.  (Simpson 2023, section
7.6.3, replaces edges that have overtaken their neighbor instead, which has no gradient there.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbilib.errors import ParameterError, check_count, check_range

__all__ = ["OrderedEdges"]


class OrderedEdges(nn.Module):
    """Learnable bin edges between two fixed ends, one set for each member of a stack.

    Args:
        n_bins: number of bins, at least 1.
        low: the first edge, fixed.
        high: the last edge, fixed.
        members: leading dimensions, for instance ``(9,)`` for a stack of nine networks.
        smallest: each bin keeps at least this fraction of the mean bin width, in (0, 1).

    Raises:
        ParameterError: if ``n_bins`` is not positive, the ends are not increasing, or ``smallest`` is not in
            its range.

    Example:
        >>> OrderedEdges(4)().tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    def __init__(
        self,
        n_bins: int,
        *,
        low: float = 0.0,
        high: float = 1.0,
        members: tuple[int, ...] = (),
        smallest: float = 0.01,
    ) -> None:
        super().__init__()
        self.n_bins = check_count("n_bins", n_bins, low=1)
        self.low = check_range("low", low)
        self.high = check_range("high", high, low=low, include_low=False)
        self.smallest = check_range(
            "smallest", smallest, low=0.0, high=1.0, include_low=False, include_high=False
        )
        self.free = nn.Parameter(torch.zeros(*members, n_bins, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The edges, ``(*members, n_bins + 1)`` in float64."""
        share = self.smallest / self.n_bins + (1 - self.smallest) * torch.softmax(self.free, dim=-1)
        inner = self.low + (self.high - self.low) * share[..., :-1].cumsum(-1)
        ends = inner.new_tensor([self.low, self.high]).expand(*self.free.shape[:-1], 2)
        return torch.cat([ends[..., :1], inner, ends[..., 1:]], dim=-1)

    @torch.no_grad()
    def set_edges(self, edges: Tensor) -> None:
        """Start from given edges ``(n_bins + 1,)`` or one set for each member.

        Raises:
            ParameterError: if their ends differ from those fixed, or a bin is narrower than it may become.
        """
        edges = edges.double()
        wanted = edges.diff(dim=-1) / (self.high - self.low) - self.smallest / self.n_bins
        ends = edges[..., [0, -1]] - edges.new_tensor([self.low, self.high])
        if wanted.shape[-1] != self.n_bins or not bool((wanted > 0).all()) or not bool((ends == 0).all()):
            raise ParameterError(
                f"edges must be {self.n_bins + 1} increasing numbers from {self.low:g} to {self.high:g}, "
                f"no bin narrower than {self.smallest:g} of the mean width, got {edges.tolist()}; "
                "move them apart"
            )
        self.free.copy_(wanted.log().expand_as(self.free))
