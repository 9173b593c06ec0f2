"""Batches drawn from tensors that already sit on the device, and the losses they feed.

A stream is a pure function of the step: the same seed and step always give the same batch.  A resumed
training therefore needs no stored random state to see the same data as one that was never stopped.
Events are visited in a fresh random order each epoch, without replacement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
from numpy.polynomial import Legendre
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from sbilib.errors import DataError, ParameterError, check_range

__all__ = [
    "Batch",
    "ClassifierBatches",
    "FlowBatches",
    "PolynomialClassifierLoss",
    "StackedBatches",
    "TableBatches",
    "classifier_loss",
    "flow_loss",
]

Batch = tuple[Tensor, ...]
"""The tensors of one batch, in the order the loss takes them."""

_MIX = 1_000_003


class _Shuffle:
    """Random order over ``n`` rows, renewed each epoch, addressed by step."""

    def __init__(self, n: int, seed: int, device: torch.device) -> None:
        self._n = n
        self._seed = seed
        self._generator = Generator(device)
        self._order: tuple[int, Tensor] | None = None

    def rows(self, size: int, step: int) -> Tensor:
        """Row numbers of the batch at ``step``."""
        per_epoch = self._n // size
        if per_epoch == 0:
            self._generator.manual_seed(self._seed * _MIX + step)
            return torch.randint(self._n, (size,), generator=self._generator, device=self._generator.device)
        epoch, position = divmod(step, per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._generator.manual_seed(self._seed * _MIX + epoch)
            order = torch.randperm(self._n, generator=self._generator, device=self._generator.device)
            self._order = (epoch, order)
        return self._order[1][position * size : (position + 1) * size]


class FlowBatches:
    """Batches of events and nuisance values of one component.

    Args:
        x: events, shape ``(n, d)``.
        z: nuisance values, shape ``(n,)``.
        seed: seed of the order of events.

    Raises:
        DataError: if there are no events, or not as many nuisance values as events.
    """

    def __init__(self, x: Tensor, z: Tensor, *, seed: int) -> None:
        _check_lengths(x, z)
        self.tables: tuple[Tensor, ...] = (torch.cat((x, z.unsqueeze(1)), dim=1),)
        self._shuffle = _Shuffle(len(x), seed, x.device)

    def rows(self, size: int, step: int) -> tuple[Tensor, ...]:
        """Rows of each table that belong to ``step``."""
        return (self._shuffle.rows(size, step),)

    def assemble(self, chosen: tuple[Tensor, ...]) -> Batch:
        """The batch made of the chosen rows of each table; members of a stack stand in front."""
        return chosen[0][..., :-1], chosen[0][..., -1:]

    def batch(self, size: int, step: int) -> Batch:
        """Events ``(size, d)`` and nuisance values ``(size, 1)`` at ``step``."""
        return _batch(self, size, step)


class ClassifierBatches:
    """Batches for one classifier of a pair (Sluijter 2024, section 3.2.1).

    Half of a batch is the positive class: events of one component at their own nuisance values.  The other
    half is the negative class: events at the reference value, half signal and half background on average,
    each given the nuisance value of a positive event.

    Args:
        x: positive events, shape ``(n, d)``.
        z: their nuisance values, shape ``(n,)``.
        reference: signal and background events at the reference value, in equal numbers, shape ``(m, d)``.
        seed: seed of the order of events.
    """

    def __init__(self, x: Tensor, z: Tensor, reference: Tensor, *, seed: int) -> None:
        _check_lengths(x, z)
        _check_lengths(reference, reference)
        self.tables: tuple[Tensor, ...] = (torch.cat((x, z.unsqueeze(1)), dim=1), reference)
        self._positive = _Shuffle(len(x), 2 * seed, x.device)
        self._negative = _Shuffle(len(reference), 2 * seed + 1, x.device)

    def rows(self, size: int, step: int) -> tuple[Tensor, ...]:
        """Rows of each table that belong to ``step``."""
        half = size // 2
        return self._positive.rows(half, step), self._negative.rows(half, step)

    def assemble(self, chosen: tuple[Tensor, ...]) -> Batch:
        """The batch made of the chosen rows of each table; members of a stack stand in front."""
        positive, negative = chosen
        return classifier_batch(positive[..., :-1], positive[..., -1:], negative)

    def batch(self, size: int, step: int) -> Batch:
        """Events ``(size, d)``, nuisance values ``(size, 1)`` and labels ``(size,)`` at ``step``."""
        return _batch(self, size, step)


class TableBatches(Protocol):
    """A source of batches that are rows of tables; many of them can be drawn as one, by `StackedBatches`."""

    tables: tuple[Tensor, ...]

    def rows(self, size: int, step: int) -> tuple[Tensor, ...]:
        """Rows of each table that belong to ``step``."""
        ...

    def assemble(self, chosen: tuple[Tensor, ...]) -> Batch:
        """The batch made of the chosen rows of each table."""
        ...


def _batch(source: TableBatches, size: int, step: int) -> Batch:
    return source.assemble(
        tuple(table[rows] for table, rows in zip(source.tables, source.rows(size, step), strict=True))
    )


class StackedBatches:
    """Batches of all members of a stack, each as its own source gives it, in one gather per table.

    Args:
        sources: one source for each member, all of one class, on one device.

    Raises:
        ParameterError: if there are no sources.
    """

    def __init__(self, sources: Sequence[TableBatches]) -> None:
        if len(sources) == 0:
            raise ParameterError("a stack needs at least one source of batches, got none")
        self._sources = list(sources)
        self._tables, self._starts = [], []
        for tables in zip(*(source.tables for source in sources), strict=True):
            self._tables.append(torch.cat(tables))
            lengths = torch.tensor([0, *(len(table) for table in tables[:-1])], device=tables[0].device)
            self._starts.append(lengths.cumsum(0).unsqueeze(1))

    def batch(self, size: int, step: int) -> Batch:
        """Tensors of the batch at ``step``, each with the axis of the members in front."""
        of_members = zip(*(source.rows(size, step) for source in self._sources), strict=True)
        chosen = tuple(
            table[torch.stack(rows) + starts]
            for table, starts, rows in zip(self._tables, self._starts, of_members, strict=True)
        )
        return self._sources[0].assemble(chosen)


def classifier_batch(positive: Tensor, z: Tensor, negative: Tensor) -> Batch:
    """Join both classes, giving the negative events ``(h, d)`` the nuisance values ``z`` (h, 1).

    For a stack all three, and the batch, have the axis of the members in front.
    """
    labels = torch.cat((torch.ones_like(positive[..., 0]), torch.zeros_like(negative[..., 0])), dim=-1)
    return torch.cat((positive, negative), dim=-2), torch.cat((z, z), dim=-2), labels


def flow_loss(model: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    """Mean negative log density of events ``x`` (n, d) given ``z`` (n, 1); ``(M,)`` for a stack."""
    log_prob: Tensor = model.log_prob(x, z)  # type: ignore[operator]
    return -log_prob.mean(dim=-1)


def classifier_loss(model: nn.Module, x: Tensor, z: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the logits of ``x`` (n, d) given ``z`` (n, 1) with ``labels`` (n,).

    For a stack all three have the axis of the members in front, and the loss has shape ``(M,)``.
    """
    losses = nn.functional.binary_cross_entropy_with_logits(model(x, z), labels, reduction="none")
    return losses.mean(dim=-1)


class PolynomialClassifierLoss:
    r"""Cross-entropy of each positive event against several negatives, with a penalty on roughness in z.

    For classifiers whose logit is a polynomial :math:`\ell(x, t) = \sum_k c_k(x) P_k(t)` in the scaled
    nuisance parameter :math:`t \in [-1, 1]`.  Batches are those of :class:`ClassifierBatches`, but each
    of its negative events meets the nuisance values of :math:`K` positive events instead of one, at no cost
    for the network.  With :math:`K` negatives for a positive the optimal output is :math:`\ell - \log K`, so
    :math:`\ell` remains the log ratio, and the noise that the negative class adds falls as :math:`1/K`
    (Gutmann and Hyvarinen, JMLR 13 (2012) 307).  The penalty is

    .. math:: \lambda\; E_x\Bigl[\tfrac12\int_{-1}^{1} (\partial_t^3 \ell)^2 \,\mathrm dt\Bigr],

    as for smoothing splines: log ratios change smoothly with z, and noise in high orders is costly
    because what matters for z is the derivative.

    Args:
        n_negatives: number K of negatives for each positive event.
        roughness: strength :math:`\lambda` of the penalty.

    Raises:
        ParameterError: for fewer than one negative, or a negative strength.
    """

    def __init__(self, *, n_negatives: int = 1, roughness: float = 0.0) -> None:
        check_range("n_negatives", n_negatives, low=1)
        check_range("roughness", roughness, low=0.0)
        self._n, self._roughness = n_negatives, roughness

    def __call__(self, model: nn.Module, x: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        """Loss of one batch, ``()`` or ``(M,)``; ``labels`` are known from the order of the batch."""
        half, offset = x.shape[-2] // 2, math.log(self._n)
        coefficients: Tensor = model.coefficients(x)  # type: ignore[operator]
        basis: Tensor = model.basis(z[..., :half, :])  # type: ignore[operator]
        positive = (coefficients[..., :half, :] * basis).sum(dim=-1)
        total = softplus(offset - positive).sum(dim=-1)
        for number in range(self._n):
            others = basis.roll(number * half // self._n, dims=-2)
            logits = (coefficients[..., half:, :] * others).sum(dim=-1)
            total = total + softplus(logits - offset).sum(dim=-1)
        if self._roughness > 0:
            matrix = roughness_matrix(coefficients.shape[-1] - 1).to(coefficients)
            rough = (coefficients @ matrix * coefficients).sum(dim=(-2, -1))
            total = total + self._roughness * rough
        return total / x.shape[-2]


@cache
def roughness_matrix(degree: int) -> Tensor:
    r"""Matrix of half the integrals of products of third derivatives of Legendre polynomials.

    Example:
        >>> roughness_matrix(3)[3].tolist()
        [0.0, 0.0, 0.0, 225.0]
    """
    thirds = [Legendre.basis(k).deriv(3) for k in range(degree + 1)]
    integrals = [[(a * b).integ() for b in thirds] for a in thirds]
    return torch.tensor([[float(f(1.0) - f(-1.0)) / 2 for f in row] for row in integrals])


def _check_lengths(x: Tensor, z: Tensor) -> None:
    if len(x) == 0 or len(x) != len(z):
        raise DataError(
            f"training needs as many nuisance values as events and at least one, "
            f"got {len(x)} events and {len(z)} values"
        )
