"""What a HistFactory model is made of: channels, samples, modifiers and parameter settings.

A channel is a histogram of one selection; its expected yields are a sum over samples (physics processes),
and each sample carries modifiers that say how its yields depend on parameters.  For bin ``b`` of sample ``s``

    rate_sb = (yields_sb + sum of histosys shifts) * product of all other modifiers.

Source: K. Cranmer et al., HistFactory, CERN-OPEN-2012-016 (2012); the JSON form and its conventions are those
of pyhf (L. Heinrich et al., JOSS 6, 2823 (2021)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sbilib.errors import ParameterError

__all__ = [
    "Channel",
    "HistoSys",
    "Lumi",
    "Modifier",
    "NormFactor",
    "NormSys",
    "ParameterSettings",
    "Sample",
    "ShapeFactor",
    "ShapeSys",
    "StatError",
    "Values",
]

Values = Tensor | Sequence[float]
"""A template: a ``(*batch, bins)`` tensor or a plain sequence of ``bins`` numbers."""


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ParameterError(f"{what} needs a non-empty string as its name, got {name!r}; give it a name")


@dataclass(frozen=True, eq=False)
class NormFactor:
    """A free scale: the yields are multiplied by the parameter (start 1, bounds 0 to 10).

    Args:
        name: of the parameter; modifiers of the same name share it.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> NormFactor("mu").kind
    'normfactor'
    """

    name: str
    kind: ClassVar[str] = "normfactor"

    def __post_init__(self) -> None:
        _check_name("a normfactor", self.name)


@dataclass(frozen=True, eq=False)
class NormSys:
    """A normalization uncertainty: the yields are multiplied by a factor f(alpha), alpha ~ Normal(0, 1).

    Args:
        name: of the parameter alpha.
        low: factor at alpha = -1, positive; a number or a ``(*batch,)`` tensor.
        high: factor at alpha = +1, likewise.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> NormSys("scale", 0.9, 1.1).high
    1.1
    """

    name: str
    low: float | Tensor
    high: float | Tensor
    kind: ClassVar[str] = "normsys"

    def __post_init__(self) -> None:
        _check_name("a normsys", self.name)


@dataclass(frozen=True, eq=False)
class HistoSys:
    """A shape uncertainty: a shift delta(alpha) is added to the yields, alpha ~ Normal(0, 1).

    Args:
        name: of the parameter alpha.
        low: the yields at alpha = -1, ``(*batch, bins)``, events.
        high: the yields at alpha = +1, likewise.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> HistoSys("tilt", [9.0, 11.0], [11.0, 9.0]).low
    [9.0, 11.0]
    """

    name: str
    low: Values
    high: Values
    kind: ClassVar[str] = "histosys"

    def __post_init__(self) -> None:
        _check_name("a histosys", self.name)


@dataclass(frozen=True, eq=False)
class ShapeSys:
    """One factor per bin, each with a Poisson constraint of rate (yield / uncertainty)^2.

    A bin whose yield or uncertainty is zero has a fixed factor of one (as in pyhf).

    Args:
        name: of the parameters; a shapesys belongs to exactly one sample.
        uncertainties: absolute, ``(*batch, bins)``, events.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> ShapeSys("background", [3.0, 7.0]).kind
    'shapesys'
    """

    name: str
    uncertainties: Values
    kind: ClassVar[str] = "shapesys"

    def __post_init__(self) -> None:
        _check_name("a shapesys", self.name)


@dataclass(frozen=True, eq=False)
class StatError:
    """The statistical uncertainty of the templates: one factor per bin, shared by the samples of a channel.

    The width of its Gaussian constraint is sqrt(sum of uncertainties^2) / sum of yields over the samples that
    carry the modifier; a bin where that is zero has a fixed factor of one (as in pyhf).

    Args:
        name: of the parameters.
        uncertainties: absolute, ``(*batch, bins)``, events.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> StatError("staterror_SR", [1.0, 2.0]).kind
    'staterror'
    """

    name: str
    uncertainties: Values
    kind: ClassVar[str] = "staterror"

    def __post_init__(self) -> None:
        _check_name("a staterror", self.name)


@dataclass(frozen=True, eq=False)
class ShapeFactor:
    """A free factor per bin (start 1, bounds 0 to 10): a data-driven shape.

    Args:
        name: of the parameters; samples that share it share the factor of each bin.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> ShapeFactor("multijet").kind
    'shapefactor'
    """

    name: str
    kind: ClassVar[str] = "shapefactor"

    def __post_init__(self) -> None:
        _check_name("a shapefactor", self.name)


@dataclass(frozen=True, eq=False)
class Lumi:
    """The integrated luminosity: a common factor with a Gaussian constraint.

    Its measured value and uncertainty come from :class:`ParameterSettings` (``auxdata`` and ``sigmas``).

    Args:
        name: of the parameter; pyhf's schema allows only ``lumi``.

    Raises:
        ParameterError: if the name is not a non-empty string.

    >>> Lumi().name
    'lumi'
    """

    name: str = "lumi"
    kind: ClassVar[str] = "lumi"

    def __post_init__(self) -> None:
        _check_name("a lumi", self.name)


Modifier = NormFactor | NormSys | HistoSys | ShapeSys | StatError | ShapeFactor | Lumi


@dataclass(frozen=True, eq=False)
class Sample:
    """A physics process in one channel.

    Args:
        name: the same name in another channel means the same process there.
        yields: expected events per bin, ``(*batch, bins)``, non-negative.
        modifiers: how the yields depend on parameters.

    Raises:
        ParameterError: if the name is empty or something in ``modifiers`` is not a modifier.

    >>> Sample("signal", [1.0, 2.0], [NormFactor("mu")]).modifiers[0].name
    'mu'
    """

    name: str
    yields: Values
    modifiers: Sequence[Modifier] = ()

    def __post_init__(self) -> None:
        _check_name("a sample", self.name)
        for modifier in self.modifiers:
            if not isinstance(modifier, Modifier):
                raise ParameterError(
                    f"sample {self.name!r} has the modifier {modifier!r}, expected one of NormFactor, "
                    "NormSys, HistoSys, ShapeSys, StatError, ShapeFactor, Lumi; use one of these"
                )
        object.__setattr__(self, "modifiers", tuple(self.modifiers))


@dataclass(frozen=True, eq=False)
class Channel:
    """One histogram: the samples that are added up in it.

    Args:
        name: unique in a model.
        samples: at least one.

    Raises:
        ParameterError: if the name is empty or there is no sample.

    >>> Channel("SR", [Sample("background", [5.0])]).samples[0].name
    'background'
    """

    name: str
    samples: Sequence[Sample]

    def __post_init__(self) -> None:
        _check_name("a channel", self.name)
        if not self.samples:
            raise ParameterError(f"channel {self.name!r} has no samples; give it at least one Sample")
        object.__setattr__(self, "samples", tuple(self.samples))


@dataclass(frozen=True)
class ParameterSettings:
    """What a measurement may change about a parameter; ``None`` keeps the default of its modifier.

    Args:
        name: of the parameter set (one value per bin for shapesys, staterror, shapefactor).
        inits: start values.
        bounds: pairs (low, high).
        fixed: hold all its values fixed in fits.
        auxdata: the values measured by the auxiliary experiments (constrained parameters only).
        sigmas: widths of Gaussian constraints (lumi and staterror only).
        factors: rates of Poisson constraints (shapesys only).

    Raises:
        ParameterError: if the name is empty.

    >>> ParameterSettings("lumi", auxdata=[1.0], sigmas=[0.02]).sigmas
    (0.02,)
    """

    name: str
    inits: Sequence[float] | None = None
    bounds: Sequence[Sequence[float]] | None = None
    fixed: bool | None = None
    auxdata: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    factors: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_name("parameter settings", self.name)
        for field in ("inits", "auxdata", "sigmas", "factors"):
            values = getattr(self, field)
            if values is not None:
                object.__setattr__(self, field, tuple(float(value) for value in values))
        if self.bounds is not None:
            pairs = tuple((float(low), float(high)) for low, high in self.bounds)
            object.__setattr__(self, "bounds", pairs)
