"""A problem in the coordinates of a model: features transformed and standardized, nuisance values scaled.

Whatever trains on a `Problem` trains on a `StandardizedProblem`; a `ScaledPair` then takes physical events.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sbilib.components import FramedEvents, NuisanceMap
from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.models.scaling import FeatureScaling, ScalingConfig
from sbilib.problems import COMPONENTS, Problem
from sbilib.problems.base import uniform_nuisance
from sbilib.problems.higgs import WeightedEvents
from sbilib.problems.higgs_features import FEATURE_TRANSFORMS
from sbilib.simulation.schema import MISSING

__all__ = ["ScaledMap", "StandardizedProblem", "fit_scaling"]

N_SCALING_EVENTS = 200_000
_ROUNDING = 1e-6
_AZIMUTHS = "_phi"
_REFERENCE_AZIMUTH = "PRI_lep_phi"


def fit_scaling(
    problem: Problem, *, scale_nuisance: bool = True, seed: int = 0, n_events: int = N_SCALING_EVENTS
) -> FeatureScaling:
    """The scaling for the training events of a problem.

    Transforms are those of `sbilib.problems.higgs_features.FEATURE_TRANSFORMS`; features of other names are
    taken as they are.  If the azimuth of the lepton is a feature, all azimuths are relative to it.  Means
    and widths are those of the half-and-half mixture over the trained range of the nuisance parameter.

    Args:
        problem: of the training split.
        scale_nuisance: map the trained range of the nuisance parameter to -1 to 1, else leave it.
        seed: seed of the events.
        n_events: how many, at least 100.

    Raises:
        ParameterError: for a bad number.
        DataError: if a feature is the same in all events, or absent in all.
    """
    check_count("n_events", n_events, low=100)
    x = _mixture(problem, n_events, Generator().manual_seed(seed))
    absent = x == MISSING
    partly = absent.any(dim=0)
    if bool(absent.all(dim=0).any()):
        names = [name for name, gone in zip(problem.features, absent.all(dim=0), strict=True) if gone]
        raise DataError(f"features {names} are absent in all {n_events} events; leave them out")
    low, high = problem.nuisance_range
    config = ScalingConfig(
        tuple(_transform(name) for name in problem.features),
        azimuths=_azimuths(problem.features),
        missing=MISSING if bool(partly.any()) else None,
        indicators=_groups(absent),
        nuisance_center=problem.reference_nuisance if scale_nuisance else 0.0,
        nuisance_width=(high - low) / 2 if scale_nuisance else 1.0,
    )
    return FeatureScaling(config).fit(x)


def _mixture(problem: Problem, n_events: int, generator: Generator) -> Tensor:
    z = uniform_nuisance(problem, n_events, generator, torch.float32).tensor_split(2)
    return torch.cat(
        [problem.sample(name, part, generator) for name, part in zip(COMPONENTS, z, strict=True)]
    )


def _transform(name: str) -> str:
    return FEATURE_TRANSFORMS[name].kind if name in FEATURE_TRANSFORMS else "identity"


def _azimuths(features: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of azimuths, the reference first; none if the reference is not among them."""
    if _REFERENCE_AZIMUTH not in features:
        return ()
    first = features.index(_REFERENCE_AZIMUTH)
    others = [k for k, name in enumerate(features) if name.endswith(_AZIMUTHS) and k != first]
    return (first, *others)


def _groups(absent: Tensor) -> tuple[tuple[int, ...], ...]:
    """Features that are absent in the same events, in order of their first one."""
    groups: list[list[int]] = []
    for k in absent.any(dim=0).nonzero()[:, 0].tolist():
        for group in groups:
            if bool((absent[:, k] == absent[:, group[0]]).all()):
                group.append(k)
                break
        else:
            groups.append([k])
    return tuple(tuple(group) for group in groups)


@dataclass(frozen=True)
class ScaledMap:
    """A nuisance map in the coordinates of a model.

    Args:
        nuisance_map: the map of physical events.
        scaling: without indicators.
    """

    nuisance_map: NuisanceMap
    scaling: FeatureScaling

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        """Coordinates ``x`` (n, d) taken to the frame by their scaled ``nuisance`` (n,)."""
        physical = self.scaling.inverse(x)
        moved = self.nuisance_map.to_reference(physical, self.scaling.physical_nuisance(nuisance))
        log_det = moved.log_det + self.scaling.log_det(moved.events) - self.scaling.log_det(physical)
        return FramedEvents(self.scaling(moved.events), log_det)

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        """Coordinates ``u`` (n, d) of the frame taken to their scaled ``nuisance`` (n,)."""
        physical = self.scaling.inverse(u)
        moved = self.nuisance_map.from_reference(physical, self.scaling.physical_nuisance(nuisance))
        coordinates: Tensor = self.scaling(moved)
        return coordinates


@dataclass(frozen=True)
class StandardizedProblem:
    """A problem behind a scaling; a `Problem` itself, and a `MappedProblem` if it was one.

    Args:
        problem: of physical events.
        scaling: fitted to its training events.

    Example:
        >>> from sbilib.problems import GaussianToy
        >>> toy = GaussianToy(2.0)
        >>> inner = StandardizedProblem(toy, fit_scaling(toy, n_events=1000))
        >>> [round(end, 6) for end in inner.nuisance_range]
        [-1.0, 1.0]
    """

    problem: Problem
    scaling: FeatureScaling

    def __repr__(self) -> str:
        shift, scale = self.scaling.shift.tolist(), self.scaling.scale.tolist()
        return f"StandardizedProblem({self.problem!r}, {self.scaling.config!r}, {shift}, {scale})"

    @property
    def name(self) -> str:
        """Name of the problem."""
        return self.problem.name

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the coordinates: of the features, and of one absent feature for each indicator."""
        names = self.problem.features
        return (*names, *(f"no {names[group[0]]}" for group in self.scaling.config.indicators))

    @property
    def n_features(self) -> int:
        """Number of coordinates."""
        return self.scaling.config.n_coordinates

    @property
    def nuisance_range(self) -> tuple[float, float]:
        """Trained range of the scaled nuisance parameter."""
        return self._scaled_pair(self.problem.nuisance_range)

    @property
    def scan_range(self) -> tuple[float, float]:
        """Scanned range of the scaled nuisance parameter."""
        return self._scaled_pair(self.problem.scan_range)

    @property
    def reference_nuisance(self) -> float:
        """The reference value, scaled."""
        return self._scaled(self.problem.reference_nuisance)

    @property
    def test_signal_ratios(self) -> tuple[float, ...]:
        """Signal ratios of the test sets."""
        return self.problem.test_signal_ratios

    @property
    def test_nuisances(self) -> tuple[float, ...]:
        """Nuisance values of the test sets, scaled."""
        return tuple(self._scaled(z) for z in self.problem.test_nuisances)

    @property
    def nuisance_map(self) -> ScaledMap:
        """The map of the problem, in these coordinates.

        Raises:
            ParameterError: if the problem has none.
        """
        found = getattr(self.problem, "nuisance_map", None)
        if found is None:
            raise ParameterError(
                f"{self.problem.name} has no known map of the nuisance parameter with the features "
                f"{self.problem.features}; choose the features that have one"
            )
        return ScaledMap(found, self.scaling)

    @property
    def invariances(self) -> tuple[()]:
        """None: symmetries of the physical frame need not keep volumes here."""
        return ()

    @property
    def exchange(self) -> None:
        """None, likewise."""
        return None

    def sample(self, component: str, nuisance: Tensor, generator: Generator) -> Tensor:
        """Draw one event per scaled nuisance value (n,); returns coordinates ``(n, n_features)``."""
        # Rounding must not take the ends of the range beyond it.
        physical = self.scaling.physical_nuisance(nuisance).clamp(*self.problem.nuisance_range)
        coordinates: Tensor = self.scaling(self.problem.sample(component, physical, generator))
        return coordinates

    def all_events(self, component: str, nuisance: float) -> WeightedEvents:
        """Coordinates of all events of a finite sample at one scaled nuisance value, and their weights.

        Raises:
            ParameterError: if the problem is a simulator, or for a value outside the trained range.
        """
        if not hasattr(self.problem, "all_events"):
            raise ParameterError(f"{self.problem.name} has no finite sample of events; draw from it instead")
        low, high = self.nuisance_range
        check_range("nuisance", nuisance, low=low - _ROUNDING, high=high + _ROUNDING)
        scaled = torch.tensor(nuisance, dtype=torch.float64)
        physical = self.scaling.physical_nuisance(scaled).clamp(*self.problem.nuisance_range)
        found = self.problem.all_events(component, float(physical))
        return WeightedEvents(self.scaling(found.events), found.weights)

    def _scaled(self, value: float) -> float:
        config = self.scaling.config
        return (value - config.nuisance_center) / config.nuisance_width

    def _scaled_pair(self, ends: tuple[float, float]) -> tuple[float, float]:
        return self._scaled(ends[0]), self._scaled(ends[1])
