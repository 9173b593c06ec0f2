"""Index tensors of a structure: which parameter acts on which bin of which sample, and where its numbers are.

The expected yields of a bin depend on a few parameters only (its slots), often three or four of fifty.  The
plan lists for each bin ``b`` its slots ``k``, so that derivatives are ``(bins, slots)`` and ``(bins, slots,
slots)`` arrays which are scattered into the full gradient and Hessian at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sbilib.histfactory.structure import ParameterSet, Structure, Use, iterate_bins

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, eq=False)
class Plan:
    """Index tensors; B bins, S samples, K slots, P parameters, N normsys uses, T staterror, J shapesys
    parameters.

    Attributes:
        shape: (B, S, K).
        slots: (B * K,) parameter of each slot (0 in unused ones).
        factors: (B * S * K,) place of each factor in [parameters, 1, normsys factors].
        table_slopes: (2, P + 1) first and second derivatives of [parameters, 1].
        linear: (B, S, K) one where the factor is the parameter itself.
        off_diagonal: (K, K) zero on the diagonal.
        yields: (B * S,) places of the nominal yields in the packed templates.
        shifts: (3, B * S * K) places of histosys low, nominal, high (0 where there is none), or None.
        normsys: (3, N) parameter, place of low, place of high.
        stat: (2, T, m) places of uncertainties and yields of up to m samples.
        shape_sys: (2, J) places of uncertainties and yields.
        gaussian, poisson: (2, n) parameter and auxiliary datum of each constraint.
        sigma, tau, auxiliary: places in [given numbers, template-dependent numbers].
        given_sigma, given_tau, given_auxiliary: the numbers from settings and defaults.
        gradient_at, hessian_at: flat places of [bins, Gaussian, Poisson] contributions.
        initial, bounds, fixed: (P,), (P, 2), (P,).
        fixed_by_templates: parameters of [stat, shape_sys] that are held where their bin is empty.
    """

    shape: tuple[int, int, int]
    slots: Tensor
    factors: Tensor
    table_slopes: Tensor
    linear: Tensor
    off_diagonal: Tensor
    yields: Tensor
    shifts: Tensor | None
    normsys: Tensor
    stat: Tensor
    shape_sys: Tensor
    gaussian: Tensor
    poisson: Tensor
    sigma: Tensor
    tau: Tensor
    auxiliary: Tensor
    given_sigma: Tensor
    given_tau: Tensor
    given_auxiliary: Tensor
    gradient_at: Tensor
    hessian_at: Tensor
    initial: Tensor
    bounds: Tensor
    fixed: Tensor
    fixed_by_templates: Tensor
    decided_by_templates: Tensor


@lru_cache(maxsize=128)
def make_plan(structure: Structure, device: torch.device) -> Plan:
    """Build the index tensors of a structure on a device."""
    fields = _bins(structure) | _constraints(structure) | _settings(structure)
    moved: dict[str, Any] = {
        name: value.to(device) if isinstance(value, Tensor) else value for name, value in fields.items()
    }
    return Plan(**moved)


def _parameter_of(structure: Structure) -> dict[str, ParameterSet]:
    return {each.name: each for each in structure.sets}


def _offsets(structure: Structure) -> dict[tuple[str, str], int]:
    """Return the first parameter of each (staterror name, channel) counted from the start of its set."""
    offsets: dict[tuple[str, str], int] = {}
    sizes: dict[str, int] = {}
    for use in structure.uses:
        if use.kind == "staterror" and (use.name, use.channel) not in offsets:
            offsets[use.name, use.channel] = sizes.get(use.name, 0)
            sizes[use.name] = sizes.get(use.name, 0) + use.n_bins
    return offsets


def _acting(structure: Structure) -> list[tuple[Use, int, int, int]]:
    """List (use, main bin, bin in the channel, parameter) for every modifier and bin it acts on."""
    sets, offsets = _parameter_of(structure), _offsets(structure)
    acting = []
    for use in structure.uses:
        start = sets[use.name].start
        for bin_index, local in iterate_bins(use):
            step = 0 if sets[use.name].is_scalar else local + offsets.get((use.name, use.channel), 0)
            acting.append((use, bin_index, local, start + step))
    return acting


def _bins(structure: Structure) -> dict[str, Any]:
    acting = _acting(structure)
    n_parameters = structure.n_parameters
    of_bin: list[list[int]] = [[] for _ in range(structure.n_bins)]
    for _, bin_index, _, parameter in acting:
        if parameter not in of_bin[bin_index]:
            of_bin[bin_index].append(parameter)
    n_slots = max(len(each) for each in of_bin)
    shape = (structure.n_bins, len(structure.samples), n_slots)
    slots = torch.tensor([sorted(each) + [0] * (n_slots - len(each)) for each in of_bin])
    slot_of = [{parameter: slot for slot, parameter in enumerate(sorted(each))} for each in of_bin]
    factors, normsys = _factor_places(acting, slot_of, shape, n_parameters)
    is_parameter = torch.arange(n_parameters + 1) < n_parameters
    return {
        "shape": shape,
        "slots": slots.flatten(),
        "factors": factors.flatten(),
        "table_slopes": torch.stack(
            [is_parameter.double(), torch.zeros(n_parameters + 1, dtype=torch.float64)]
        ),
        "linear": (factors < n_parameters).to(torch.float64),
        "off_diagonal": 1 - torch.eye(n_slots, dtype=torch.float64),
        "yields": _yield_places(structure),
        "shifts": _shift_places(acting, slot_of, shape),
        "normsys": normsys,
    } | _scatter(structure, slots)


def _factor_places(
    acting: list[tuple[Use, int, int, int]],
    slot_of: list[dict[int, int]],
    shape: tuple[int, int, int],
    n_parameters: int,
) -> tuple[Tensor, Tensor]:
    """Return the place of each factor, (B, S, K), and for each normsys its parameter and numbers, (3, N)."""
    factors = torch.full(shape, n_parameters).numpy()
    normsys: dict[tuple[str, str, str], int] = {}
    rows = []
    for use, bin_index, _, parameter in acting:
        if use.kind == "histosys":
            continue
        place = parameter
        if use.kind == "normsys":
            key = (use.channel, use.sample, use.name)
            if key not in normsys:
                normsys[key] = len(normsys)
                rows.append((parameter, use.data_at, use.data_at + 1))
            place = n_parameters + 1 + normsys[key]
        factors[bin_index, use.sample_index, slot_of[bin_index][parameter]] = place
    return torch.from_numpy(factors), torch.tensor(rows, dtype=torch.long).reshape(-1, 3).mT


def _shift_places(
    acting: list[tuple[Use, int, int, int]], slot_of: list[dict[int, int]], shape: tuple[int, int, int]
) -> Tensor | None:
    """Return the places of low, nominal and high of each histosys, (3, B * S * K), or None without any."""
    shifts = torch.zeros(3, *shape, dtype=torch.long).numpy()
    for use, bin_index, local, parameter in acting:
        if use.kind == "histosys":
            places = (use.data_at + local, use.yields_at + local, use.data_at + use.n_bins + local)
            shifts[:, bin_index, use.sample_index, slot_of[bin_index][parameter]] = places
    return torch.from_numpy(shifts).flatten(1) if shifts.any() else None


def _yield_places(structure: Structure) -> Tensor:
    places = torch.zeros(structure.n_bins, len(structure.samples), dtype=torch.long)
    first = 0
    for channel, n_bins in structure.channels:
        for index, sample in enumerate(structure.samples):
            at = structure.yields_at.get((channel, sample))
            if at is not None:
                places[first : first + n_bins, index] = torch.arange(at, at + n_bins)
        first += n_bins
    return places.flatten()


def _scatter(structure: Structure, slots: Tensor) -> dict[str, Any]:
    size = structure.n_parameters
    constrained = [
        each.start + i
        for kind in ("normal", "poisson")
        for each in structure.sets
        if each.constraint == kind
        for i in range(each.size)
    ]
    extra = torch.tensor(constrained, dtype=torch.long)
    pairs = (slots.unsqueeze(-1) * size + slots.unsqueeze(-2)).flatten()
    return {
        "gradient_at": torch.cat([slots.flatten(), extra]),
        "hessian_at": torch.cat([pairs, extra * (size + 1)]),
    }


def _constraints(structure: Structure) -> dict[str, Any]:
    gaussian: list[tuple[int, int]] = []
    poisson: list[tuple[int, int]] = []
    sigmas: list[tuple[float, int | None]] = []
    taus: list[tuple[float, int | None]] = []
    auxiliary: list[tuple[float, int | None]] = []
    stat_sets = [each for each in structure.sets if each.kind == "staterror"]
    stat_at = {each.name: sum(s.size for s in stat_sets[:i]) for i, each in enumerate(stat_sets)}
    n_stat = sum(each.size for each in stat_sets)
    shape_sets = [each for each in structure.sets if each.kind == "shapesys"]
    shape_at = {each.name: sum(s.size for s in shape_sets[:i]) for i, each in enumerate(shape_sets)}
    for each in structure.sets:
        for i in range(each.size):
            if each.constraint == "normal":
                gaussian.append((each.start + i, len(auxiliary)))
                sigmas.append(
                    (1.0, stat_at[each.name] + i) if each.sigmas is None else (each.sigmas[i], None)
                )
            elif each.constraint == "poisson":
                poisson.append((each.start + i, len(auxiliary)))
                taus.append(
                    (1.0, shape_at[each.name] + i) if each.factors is None else (each.factors[i], None)
                )
            if each.constraint is not None:
                rate = (1.0, shape_at.get(each.name, 0) + i)
                auxiliary.append(rate if each.auxdata is None else (each.auxdata[i], None))
    found: dict[str, Any] = {
        "gaussian": torch.tensor(gaussian, dtype=torch.long).reshape(-1, 2).mT,
        "poisson": torch.tensor(poisson, dtype=torch.long).reshape(-1, 2).mT,
        "stat": _stat_places(structure, n_stat, stat_at),
        "shape_sys": _shape_places(structure, shape_at),
    }
    for name, values in (("sigma", sigmas), ("tau", taus), ("auxiliary", auxiliary)):
        found[f"given_{name}"] = torch.tensor([value for value, _ in values], dtype=torch.float64)
        places = [i if at is None else len(values) + at for i, (_, at) in enumerate(values)]
        found[name] = torch.tensor(places, dtype=torch.long)
    return found


def _stat_places(structure: Structure, n_stat: int, stat_at: dict[str, int]) -> Tensor:
    sets = _parameter_of(structure)
    places: list[list[tuple[int, int]]] = [[] for _ in range(n_stat)]
    for use, _, local, parameter in _acting(structure):
        if use.kind == "staterror":
            row = stat_at[use.name] + parameter - sets[use.name].start
            places[row].append((use.data_at + local, use.yields_at + local))
    widest = max((len(each) for each in places), default=0)
    padded = [each + [(0, 0)] * (widest - len(each)) for each in places]
    return torch.tensor(padded, dtype=torch.long).reshape(n_stat, widest, 2).permute(2, 0, 1).contiguous()


def _shape_places(structure: Structure, shape_at: dict[str, int]) -> Tensor:
    uses = sorted((u for u in structure.uses if u.kind == "shapesys"), key=lambda use: shape_at[use.name])
    rows = [(use.data_at + local, use.yields_at + local) for use in uses for _, local in iterate_bins(use)]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, 2).mT.contiguous()


def _settings(structure: Structure) -> dict[str, Any]:
    initial = [value for each in structure.sets for value in each.inits]
    bounds = [pair for each in structure.sets for pair in each.bounds]
    fixed = [bool(each.fixed) for each in structure.sets for _ in range(each.size)]
    ordered = [e for kind in ("staterror", "shapesys") for e in structure.sets if e.kind == kind]
    by_templates = [each.start + i for each in ordered for i in range(each.size)]
    decided = [each.fixed is None for each in ordered for _ in range(each.size)]
    return {
        "initial": torch.tensor(initial, dtype=torch.float64),
        "bounds": torch.tensor(bounds, dtype=torch.float64),
        "fixed": torch.tensor(fixed, dtype=torch.bool),
        "fixed_by_templates": torch.tensor(by_templates, dtype=torch.long),
        "decided_by_templates": torch.tensor(decided, dtype=torch.bool),
    }
