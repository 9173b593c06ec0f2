"""The part of a model that holds no yields: parameters, their order, and where each acts.

A structure depends on names, bin counts and settings only, so it is worked out once and kept; a training
loop that builds a model from new templates at every step pays for the templates alone (:mod:`templates`).

Parameters are ordered as in pyhf: by kind of modifier (histosys, lumi, normfactor, normsys, shapefactor,
shapesys, staterror), and within a kind by first use in channels, samples and names in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sbilib.errors import ParameterError
from sbilib.histfactory.interpolation import ADDITIVE_CODES, MULTIPLICATIVE_CODES
from sbilib.histfactory.specification import ParameterSettings

__all__ = ["Layout", "ParameterSet", "Structure", "Use", "compile_structure"]

_KINDS = ("histosys", "lumi", "normfactor", "normsys", "shapefactor", "shapesys", "staterror")
_PER_BIN = ("shapefactor", "shapesys", "staterror")
_BOUNDS = {
    "histosys": (-5.0, 5.0),
    "normsys": (-5.0, 5.0),
    "normfactor": (0.0, 10.0),
    "shapefactor": (0.0, 10.0),
    "shapesys": (1e-10, 10.0),
    "staterror": (1e-10, 10.0),
}

Layout = tuple[tuple[str, int, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]], ...]
"""Per channel: name, bins, samples; per sample: name, modifiers as (kind, name); in the user's order."""


@dataclass(frozen=True)
class Use:
    """One modifier of one sample of one channel, and where its numbers lie in the packed templates."""

    kind: str
    name: str
    channel: str
    sample: str
    first_bin: int
    n_bins: int
    sample_index: int
    yields_at: int
    data_at: int


@dataclass(frozen=True)
class ParameterSet:
    """The parameters of one name: a scalar, or one per bin.

    ``constraint`` is ``None``, ``"normal"`` or ``"poisson"``.  ``fixed``, ``auxdata``, ``sigmas`` and
    ``factors`` are ``None`` where the templates decide.
    """

    name: str
    kind: str
    size: int
    start: int
    inits: tuple[float, ...]
    bounds: tuple[tuple[float, float], ...]
    fixed: bool | None
    constraint: str | None
    auxdata: tuple[float, ...] | None
    sigmas: tuple[float, ...] | None
    factors: tuple[float, ...] | None

    @property
    def is_scalar(self) -> bool:
        """Whether the modifier has one parameter for all bins (then its name carries no index)."""
        return self.kind not in _PER_BIN


@dataclass(frozen=True, eq=False)
class Structure:
    """Names, order and places of everything in a model; see the module's text."""

    layout: Layout
    channels: tuple[tuple[str, int], ...]
    samples: tuple[str, ...]
    uses: tuple[Use, ...]
    sets: tuple[ParameterSet, ...]
    yields_at: dict[tuple[str, str], int]
    n_packed: int
    poi_index: int | None
    normsys_code: str
    histosys_code: str

    @property
    def n_bins(self) -> int:
        """Bins of all channels together."""
        return sum(bins for _, bins in self.channels)

    @property
    def n_parameters(self) -> int:
        """Scalar parameters of the model."""
        return sum(each.size for each in self.sets)

    def bin_name(self, index: int) -> str:
        """Name a main bin for messages: ``channel 'SR', bin 3``."""
        for name, bins in self.channels:
            if index < bins:
                return f"channel {name!r}, bin {index}"
            index -= bins
        return f"bin {index}"


@lru_cache(maxsize=128)
def compile_structure(
    layout: Layout,
    poi: str | None,
    settings: tuple[ParameterSettings, ...],
    normsys_code: str,
    histosys_code: str,
) -> Structure:
    """Work out the structure of a model.

    Raises:
        ParameterError: for duplicate or incompatible names, unknown codes, parameter settings that do not
            fit, a POI that does not exist, or a model without parameters.
    """
    for what, code, known in (
        ("normsys", normsys_code, MULTIPLICATIVE_CODES),
        ("histosys", histosys_code, ADDITIVE_CODES),
    ):
        if code not in known:
            raise ParameterError(f"{what} interpolation has the codes {known}, got {code!r}; use one of them")
    _check_unique("channels of the model", [channel for channel, _, _ in layout])
    channels = tuple(sorted((name, bins) for name, bins, _ in layout))
    samples = tuple(sorted({sample for _, _, contents in layout for sample, _ in contents}))
    uses, yields_at, n_packed = _place(layout, dict(channels), samples)
    sets = _apply_settings(_parameter_sets(uses), settings)
    return Structure(
        layout,
        channels,
        samples,
        uses,
        sets,
        yields_at,
        n_packed,
        _find_poi(poi, sets),
        normsys_code,
        histosys_code,
    )


def _check_unique(what: str, names: Sequence[object]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"{what}: {name!r} appears {names.count(name)} times; rename or merge them")


def _place(
    layout: Layout, bins_of: dict[str, int], samples: tuple[str, ...]
) -> tuple[tuple[Use, ...], dict[tuple[str, str], int], int]:
    """List modifiers in pyhf's walking order, with places in the packed templates (0 holds a zero)."""
    first_bin, offset = {}, 0
    for name, bins in bins_of.items():
        first_bin[name], offset = offset, offset + bins
    uses, yields_at, at = [], {}, 1
    for channel, n_bins, contents in layout:
        _check_unique(f"samples of channel {channel!r}", [sample for sample, _ in contents])
        for sample, modifiers in contents:
            _check_unique(f"modifiers of sample {sample!r} in channel {channel!r}", modifiers)
            yields_at[channel, sample], here = at, at
            at += n_bins
            for kind, name in modifiers:
                place = (first_bin[channel], n_bins, samples.index(sample), here, at)
                uses.append(Use(kind, name, channel, sample, *place))
                at += {"normsys": 2, "histosys": 2 * n_bins, "shapesys": n_bins, "staterror": n_bins}.get(
                    kind, 0
                )
    return tuple(sorted(uses, key=lambda use: (use.channel, use.sample, use.name))), yields_at, at


def _parameter_sets(uses: tuple[Use, ...]) -> list[ParameterSet]:
    names: dict[str, list[Use]] = {}
    for kind in _KINDS:
        of_kind = [use for use in uses if use.kind == kind]
        if kind == "staterror":
            of_kind.sort(key=lambda use: use.name)
        for use in of_kind:
            names.setdefault(use.name, []).append(use)
    sets, start = [], 0
    for name, group in names.items():
        each = replace(_default_set(name, group), start=start)
        sets.append(each)
        start += each.size
    if not sets:
        raise ParameterError("the model has no parameters; add a modifier, for instance NormFactor('mu')")
    return sets


def _default_set(name: str, group: list[Use]) -> ParameterSet:
    kinds = sorted({use.kind for use in group})
    if len(kinds) > 1 and kinds != ["histosys", "normsys"]:
        where = "; ".join(f"{use.kind} in channel {use.channel!r}, sample {use.sample!r}" for use in group)
        raise ParameterError(
            f"modifier {name!r} is used with incompatible kinds ({where}); only normsys and histosys "
            "may share a parameter, so rename one of them"
        )
    kind = kinds[0]
    size = 1
    if kind == "shapesys" and len(group) > 1:
        where = ", ".join(f"channel {use.channel!r}, sample {use.sample!r}" for use in group)
        raise ParameterError(f"shapesys {name!r} is used in {where}; it belongs to one sample, so rename it")
    if kind == "shapesys":
        size = group[0].n_bins
    elif kind == "shapefactor":
        size = max(use.n_bins for use in group)
    elif kind == "staterror":
        size = sum({use.channel: use.n_bins for use in group}.values())
    init = 0.0 if kind in ("histosys", "normsys") else 1.0
    constraint = {"normfactor": None, "shapefactor": None, "shapesys": "poisson"}.get(kind, "normal")
    return ParameterSet(
        name=name,
        kind=kind,
        size=size,
        start=0,
        inits=(init,) * size,
        bounds=(_BOUNDS.get(kind, (0.0, 10.0)),) * size,
        fixed=None if kind in ("shapesys", "staterror") else False,
        constraint=constraint,
        auxdata=(init,) * size if constraint == "normal" else None,
        sigmas=(1.0,) * size if kind in ("histosys", "normsys") else None,
        factors=None,
    )


def _apply_settings(
    sets: list[ParameterSet], settings: tuple[ParameterSettings, ...]
) -> tuple[ParameterSet, ...]:
    _check_unique("parameter settings", [each.name for each in settings])
    by_name = {each.name: each for each in settings}
    return tuple(_configured(each, by_name.get(each.name, ParameterSettings(each.name))) for each in sets)


def _configured(each: ParameterSet, wanted: ParameterSettings) -> ParameterSet:
    # pyhf ignores settings of parameters that a model lacks, so that one measurement serves pruned
    # workspaces.
    allowed = {"inits", "bounds"} | ({"auxdata"} if each.constraint else set())
    allowed |= {"sigmas"} if each.kind in ("lumi", "staterror") else set()
    allowed |= {"factors"} if each.kind == "shapesys" else set()
    given: dict[str, Any] = {}
    for field in ("inits", "bounds", "auxdata", "sigmas", "factors"):
        values = getattr(wanted, field)
        if values is None:
            continue
        if field not in allowed:
            raise ParameterError(f"parameter {each.name!r} ({each.kind}) has no {field}; remove that setting")
        if len(values) != each.size:
            raise ParameterError(
                f"parameter {each.name!r} needs {each.size} {field}, got {len(values)}; give one for each"
            )
        given[field] = values
    _check_settings(each, given)
    if wanted.fixed is not None:
        given["fixed"] = wanted.fixed
    if each.kind == "lumi":
        given = _lumi_defaults(each.name, given)
    return replace(each, **given)


def _check_settings(each: ParameterSet, given: dict[str, Any]) -> None:
    for field in ("sigmas", "factors"):
        if any(not value > 0 for value in given.get(field, ())):
            raise ParameterError(
                f"parameter {each.name!r} has {field} {given[field]}, expected positive numbers; correct them"
            )
    for low, high in given.get("bounds", ()):
        if not low < high:
            raise ParameterError(
                f"parameter {each.name!r} has bounds ({low}, {high}), expected low < high; "
                "to hold it use fixed=True"
            )


def _lumi_defaults(name: str, given: dict[str, Any]) -> dict[str, Any]:
    if "auxdata" not in given or "sigmas" not in given:
        raise ParameterError(
            f"lumi {name!r} needs its measured value and uncertainty; pass "
            f"ParameterSettings({name!r}, auxdata=[1.0], sigmas=[0.02]) with your numbers"
        )
    (value,) = given["auxdata"]
    return {"inits": (value,), "bounds": ((0.0, 10.0 * value),), **given}


def _find_poi(poi: str | None, sets: tuple[ParameterSet, ...]) -> int | None:
    if poi is None:
        return None
    for each in sets:
        if each.name == poi and each.size == 1:
            return each.start
        if each.name == poi:
            raise ParameterError(f"the POI {poi!r} has {each.size} components; choose a parameter with one")
    known = ", ".join(repr(each.name) for each in sets if each.size == 1)
    raise ParameterError(
        f"the POI {poi!r} is no parameter of the model (it has {known}); name one of these, or pass poi=None"
    )


def iterate_bins(use: Use) -> Iterator[tuple[int, int]]:
    """Yield (main bin, bin within the channel) of a modifier."""
    for local in range(use.n_bins):
        yield use.first_bin + local, local
