"""From channels to tensors: packing, checking, and the numbers a likelihood needs of its templates.

All yields and uncertainties of a model are packed into one ``(*batch, n)`` tensor.  Everything else is
picked from it by index, so a model can be rebuilt from new templates, moved to other rows of a batch, or
detached, at the cost of a few tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sbilib.errors import DataError
from sbilib.histfactory.interpolation import additive_coefficients, factor_coefficients
from sbilib.histfactory.plan import Plan
from sbilib.histfactory.specification import Channel, HistoSys, Modifier, NormSys, Sample, ShapeSys, StatError
from sbilib.histfactory.structure import Layout

__all__ = ["Terms", "detached", "layout_of", "make_terms", "pack"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Terms(NamedTuple):
    """What the likelihood needs of the templates, each with the batch dimensions of the templates in front.

    Attributes:
        yields: (B, S) nominal yields.
        shifts: histosys coefficients S and D, two of (B, S, K), or None.
        factors: (2 or 23, N) normsys coefficients, or None.
        sigma: (G,) widths of the Gaussian constraints.
        precision: (G,) 1 / sigma^2.
        offset: () sum of ln(sigma sqrt(2 pi)).
        tau: (Q,) rates of the Poisson constraints.
        auxiliary: (A,) measured auxiliary data.
        held: (T + J,) staterror and shapesys parameters without effect or without uncertainty.
    """

    yields: Tensor
    shifts: tuple[Tensor, Tensor] | None
    factors: Tensor | None
    sigma: Tensor
    precision: Tensor
    offset: Tensor
    tau: Tensor
    auxiliary: Tensor
    held: Tensor


def layout_of(channels: Sequence[Channel]) -> Layout:
    """Return the names and bin counts of channels, which decide the structure of a model."""
    return tuple(
        (
            channel.name,
            _length(channel.samples[0].yields),
            tuple((s.name, tuple((m.kind, m.name) for m in s.modifiers)) for s in channel.samples),
        )
        for channel in channels
    )


def _length(values: object) -> int:
    return values.shape[-1] if isinstance(values, Tensor) and values.dim() else len(values)  # type: ignore[arg-type]


def _numbers(modifier: Modifier) -> tuple[tuple[str, object], ...]:
    if isinstance(modifier, NormSys | HistoSys):
        return ("low", modifier.low), ("high", modifier.high)
    if isinstance(modifier, ShapeSys | StatError):
        return (("uncertainties", modifier.uncertainties),)
    return ()


def _entries(channels: Sequence[Channel]) -> Iterator[tuple[Channel, Sample, Modifier | None, str, object]]:
    """Walk over all numbers in the order of the packed tensor."""
    for channel in channels:
        for sample in channel.samples:
            yield channel, sample, None, "yields", sample.yields
            for modifier in sample.modifiers:
                for field, values in _numbers(modifier):
                    yield channel, sample, modifier, field, values


def _where(channel: Channel, sample: Sample, modifier: Modifier | None, field: str) -> str:
    place = f"channel {channel.name!r}, sample {sample.name!r}"
    return f"{place}, {field}" if modifier is None else f"{place}, {modifier.kind} {modifier.name!r}, {field}"


def pack(channels: Sequence[Channel]) -> Tensor:
    """Pack all numbers of channels into one checked ``(*batch, n)`` float64 tensor, with a zero in front.

    Raises:
        DataError: if a template has the wrong number of bins, is NaN, infinite or negative (histosys
            variations may be negative), a normsys factor is not positive, or batch dimensions do not
            broadcast.
    """
    device = next(
        (values.device for *_, values in _entries(channels) if isinstance(values, Tensor)),
        torch.device("cpu"),
    )
    parts = [torch.zeros(1, dtype=torch.float64, device=device)]
    for channel, sample, modifier, field, values in _entries(channels):
        part = torch.as_tensor(values, dtype=torch.float64, device=device)
        expected = 1 if isinstance(modifier, NormSys) else _length(channel.samples[0].yields)
        part = part.unsqueeze(-1) if isinstance(modifier, NormSys) else part
        if part.dim() == 0 or part.shape[-1] != expected:
            raise DataError(
                f"{_where(channel, sample, modifier, field)}: expected {expected} bins as in the first "
                f"sample of the channel, got {_length(values)}; give one value per bin"
            )
        parts.append(part)
    packed = _joined(parts, channels)
    _check(packed, channels)
    return packed


def _joined(parts: list[Tensor], channels: Sequence[Channel]) -> Tensor:
    if all(part.dim() == 1 for part in parts):
        return torch.cat(parts)
    try:
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        found = ", ".join(
            f"{_where(*entry[:4])} {tuple(part.shape[:-1])}"
            for part, entry in zip(parts[1:], _entries(channels), strict=True)
        )
        raise DataError(
            f"the batch dimensions of the templates do not broadcast: {found}; make them equal"
        ) from error
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], dim=-1)


def _check(packed: Tensor, channels: Sequence[Channel]) -> None:
    values = packed.detach()
    # Most templates are finite and positive, so one reduction is the usual cost and the slow search is for
    # messages.
    if bool(((values[..., 1:] > 0) & (values[..., 1:] < torch.inf)).all()):
        return
    at = 1
    for channel, sample, modifier, field, numbers in _entries(channels):
        n = 1 if isinstance(modifier, NormSys) else _length(numbers)
        here = values[..., at : at + n]
        at += n
        finite = here.isfinite()
        good = finite
        expected = "finite numbers"
        if isinstance(modifier, NormSys):
            good, expected = finite & (here > 0), "a positive factor (the code takes its logarithm)"
        elif not isinstance(modifier, HistoSys):
            good, expected = finite & (here >= 0), "finite, non-negative numbers"
        if not bool(good.all()):
            index = int((~good).nonzero()[0, -1])
            wrong = float(here[~good][0])
            place = _where(channel, sample, modifier, field)
            place += "" if isinstance(modifier, NormSys) else f", bin {index}"
            raise DataError(
                f"{place}: expected {expected}, got {wrong:g}; correct or merge this bin before fitting"
            )


def detached(terms: Terms) -> Terms:
    """Return the terms without their gradients."""
    shifts = None if terms.shifts is None else (terms.shifts[0].detach(), terms.shifts[1].detach())
    factors = None if terms.factors is None else terms.factors.detach()
    return Terms(terms.yields.detach(), shifts, factors, *(each.detach() for each in terms[3:]))


def make_terms(plan: Plan, packed: Tensor, normsys_code: str) -> Terms:
    """Compute the terms of a packed tensor of templates."""
    batch = packed.shape[:-1]
    n_bins, n_samples, n_slots = plan.shape
    yields = packed.index_select(-1, plan.yields).view(*batch, n_bins, n_samples)
    shifts: tuple[Tensor, Tensor] | None = None
    factors = None
    if plan.shifts is not None:
        low, nominal, high = (packed.index_select(-1, places) for places in plan.shifts)
        half, bend = additive_coefficients(low, nominal, high)
        shape = (*batch, n_bins, n_samples, n_slots)
        shifts = half.view(shape), bend.view(shape)
    if plan.normsys.shape[1]:
        low, high = (packed.index_select(-1, places) for places in plan.normsys[1:])
        factors = factor_coefficients(normsys_code, low, high)
    stat, stat_held = _stat_widths(plan, packed)
    rate, rate_held = _shape_rates(plan, packed)
    sigma = _merged(plan.given_sigma, stat, plan.sigma)
    return Terms(
        yields,
        shifts,
        factors,
        sigma,
        sigma.pow(-2),
        sigma.log().sum(-1) + sigma.shape[-1] * _HALF_LOG_TWO_PI,
        _merged(plan.given_tau, rate, plan.tau),
        _merged(plan.given_auxiliary, rate, plan.auxiliary),
        torch.cat([stat_held, rate_held], dim=-1),
    )


def _merged(given: Tensor, computed: Tensor, places: Tensor) -> Tensor:
    if not computed.shape[-1]:
        return given.expand(*computed.shape[:-1], -1)
    return torch.cat([given.expand(*computed.shape[:-1], -1), computed], dim=-1).index_select(-1, places)


def _stat_widths(plan: Plan, packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relative widths of staterrors, one where they vanish (as in pyhf), and where that is."""
    if not plan.stat.shape[1]:
        nothing = packed[..., :0]
        return nothing, nothing.bool()
    shape = (*packed.shape[:-1], *plan.stat.shape)
    uncertainty, total = packed.index_select(-1, plan.stat.flatten()).view(shape).unbind(-3)
    square, total = uncertainty.square().sum(-1), total.sum(-1)
    held = ~((square > 0) & (total > 0))
    one = torch.ones((), dtype=packed.dtype, device=packed.device)
    width = torch.where(held, one, square).sqrt() / torch.where(held, one, total)
    return width, held


def _shape_rates(plan: Plan, packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rates (yield / uncertainty)^2 of shapesys, one where undefined, and where that is."""
    if not plan.shape_sys.shape[1]:
        nothing = packed[..., :0]
        return nothing, nothing.bool()
    uncertainty, nominal = (packed.index_select(-1, places) for places in plan.shape_sys)
    held = ~((uncertainty > 0) & (nominal > 0))
    one = torch.ones((), dtype=packed.dtype, device=packed.device)
    return (torch.where(held, one, nominal) / torch.where(held, one, uncertainty)).square(), held
