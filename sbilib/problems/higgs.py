r"""Higgs to tau tau against Z to tau tau, with the energy scale of the hadronic tau as nuisance parameter.

Events are recorded at scale :math:`z = 1` and moved to any other (`sbilib.simulation.energy_scale`).  There
are two policies for the threshold of 26 GeV on the tau:

- ``"published"`` (Sluijter 2024, section 3.1.2): the cut is made at :math:`z = 1`, and the shift loses no
  event.  The rates do not depend on z.
- ``"realistic"``: the cut is made after the shift, as in data.  The expected number of events depends on z,

  .. math:: \epsilon(z) = \frac{\nu(z)}{\nu(1)}
                        = \frac{\sum_i w_i\,[z\,p_{T,i}^\tau > 26]}{\sum_i w_i\,[p_{T,i}^\tau > 26]} ,

  which the extended likelihood needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sbilib.errors import DataError, ParameterError, check_choice, check_count
from sbilib.problems.base import COMPONENTS, FrameSymmetry
from sbilib.problems.higgs_data import EventTable, HiggsData, default_data
from sbilib.problems.higgs_features import (
    FEATURE_TRANSFORMS,
    FeatureTransform,
    PowerScaling,
    tau_scale_powers,
)
from sbilib.simulation.derived import feature_columns
from sbilib.simulation.energy_scale import scale_tau_energy
from sbilib.simulation.files import SPLITS
from sbilib.simulation.schema import check_features

__all__ = ["PUBLISHED_FEATURES", "TAU_THRESHOLD", "Efficiency", "HiggsTauTau", "WeightedEvents"]

PUBLISHED_FEATURES = ("DER_mass_vis", "DER_pt_ratio_lep_had")
"""The two features of Sluijter 2024, section 3.1.2."""

TAU_THRESHOLD = 26.0
"""Threshold of the analysis on the pt of the tau, in GeV."""

_TRAINED = (0.8, 1.2)
_SCANNED = (0.9, 1.1)
_CHUNK = 1 << 18
"""Events moved at once: enough to be fast, few enough to need little memory."""

_DEGREE = 5
_N_FIT = 81


class Efficiency(NamedTuple):
    """Expected number of events at each nuisance value, relative to z = 1."""

    value: Tensor
    """A smooth function of z, float64, shape of the nuisance values."""
    error: Tensor
    """Its statistical error from the number of events in the sample, float64, same shape."""


class WeightedEvents(NamedTuple):
    """Events with weights."""

    events: Tensor
    """Features, float64, shape ``(n, n_features)``."""
    weights: Tensor
    """Weight of each event, float64, shape ``(n,)``."""


@dataclass(frozen=True, kw_only=True)
class HiggsTauTau:
    """Events of the Higgs case at any tau energy scale.

    Events are drawn from a finite sample, so toys are independent only while they are small against
    :meth:`count`.  Weighted events are drawn in proportion to their weights.

    Args:
        features: any of the 28 of `sbilib.simulation.schema.FEATURES`; by default the published pair.
        threshold: ``"published"`` or ``"realistic"``, see the module.
        split: the part of the data that events come from, one of `sbilib.simulation.files.SPLITS`.
        data: where the events come from; by default `default_data`.
        replacement: draw with replacement.  Without, no event comes twice in one draw, and a draw of more
            events than there are is refused.

    Raises:
        ParameterError: for an unknown feature, threshold or split.
        DataError: if there are no data, or they lack taus above the threshold.

    Example:
        >>> from sbilib.problems.higgs_data import EventTable, EventTables
        >>> event = torch.tensor([[30.0, 0, 0, 40.0, 0, 1.0] + 6 * [-25.0] + [0, 0, 10.0, 1.0]])
        >>> tables = {name: {"train": EventTable(event)} for name in COMPONENTS}
        >>> data = EventTables(tables, tau_threshold=21.0)
        >>> problem = HiggsTauTau(data=data)
        >>> z = torch.tensor([0.8, 1.0])
        >>> problem.sample("signal", z, torch.Generator().manual_seed(1))[:, 1]
        tensor([0.9375, 0.7500])
    """

    features: tuple[str, ...] = PUBLISHED_FEATURES
    threshold: str = "published"
    split: str = "train"
    data: HiggsData | None = None
    replacement: bool = True
    _tables: dict[tuple[str, str], EventTable] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", check_features(self.features))
        check_choice("threshold", self.threshold, ("published", "realistic"))
        check_choice("split", self.split, SPLITS)
        if self.data is None:
            object.__setattr__(self, "data", default_data())
        if self._source.tau_threshold > TAU_THRESHOLD:
            raise DataError(
                f"the data must hold all events with a tau above {TAU_THRESHOLD:g} GeV, but start at "
                f"{self._source.tau_threshold:g} GeV; use a sample with a lower threshold"
            )

    @property
    def name(self) -> str:
        """Short name, for instance ``higgs-published-2``; the last part is the number of features."""
        return f"higgs-{self.threshold}-{self.n_features}"

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.features)

    @property
    def nuisance_range(self) -> tuple[float, float]:
        """Trained range of z, 0.8 to 1.2; less if a realistic cut needs softer taus than the data have."""
        return (_TRAINED[0], min(_TRAINED[1], self._largest_scale))

    @property
    def scan_range(self) -> tuple[float, float]:
        """Scanned range of z, 0.9 to 1.1; less if a realistic cut needs softer taus than the data have."""
        return (_SCANNED[0], min(_SCANNED[1], self._largest_scale))

    @property
    def reference_nuisance(self) -> float:
        """Reference scale z0 = 1."""
        return 1.0

    @property
    def test_signal_ratios(self) -> tuple[float, ...]:
        """Signal ratios of the published test sets."""
        return (0.1, 0.2, 0.3)

    @property
    def test_nuisances(self) -> tuple[float, ...]:
        """Scales of the published test sets."""
        return (0.93, 1.0, 1.07)

    @property
    def transforms(self) -> tuple[FeatureTransform, ...]:
        """How a network may see each feature; `transform_features` applies them."""
        return tuple(FEATURE_TRANSFORMS[name] for name in self.features)

    @property
    def nuisance_map(self) -> PowerScaling:
        """The exact map to z = 1: the visible mass over root z, the ratio of pt times z.

        Raises:
            ParameterError: if a feature does not change by a power of z, or the threshold is realistic: the
                sample itself then depends on z, and no map takes that away.
        """
        powers = tau_scale_powers(self.features)
        if powers is None or self.threshold == "realistic":
            raise ParameterError(
                "the tau energy scale is a known map of feature space only for threshold 'published' and "
                f"features that change by a power of z; got {self.threshold!r} and {self.features}; use the "
                "published pair"
            )
        return PowerScaling(powers)

    @property
    def invariances(self) -> tuple[FrameSymmetry, ...]:
        """Exact symmetries of the densities in the reference frame: none known."""
        return ()

    @property
    def exchange(self) -> FrameSymmetry | None:
        """Map of signal to background in the reference frame: none."""
        return None

    def with_split(self, split: str) -> HiggsTauTau:
        """The same problem on another part of the data, for instance ``"test-1"``."""
        return replace(self, split=split)

    def count(self, component: str, nuisance: float = 1.0) -> int:
        """Number of events of a component in the split that pass the threshold at scale ``nuisance``."""
        table = self._table(component, torch.device("cpu"))
        z = self._check_nuisance(torch.tensor([nuisance], dtype=torch.float64))
        return int(table.n_above(self._cut(z)))

    def sample(self, component: str, nuisance: Tensor, generator: Generator) -> Tensor:
        """Draw one event per scale.

        Args:
            component: ``"signal"`` or ``"background"``.
            nuisance: scales z inside the trained range, shape ``(n,)``; its dtype is the result's.
            generator: source of randomness; events are made on its device.

        Returns:
            Features, GeV and rad, shape ``(n, n_features)``.

        Raises:
            ParameterError: for an unknown component or a scale outside the trained range.
            DataError: if no event passes, or, without replacement, fewer than asked for.
        """
        return self._sample(component, nuisance, generator, replacement=self.replacement)

    def take(self, component: str, n_events: int, nuisance: float, generator: Generator) -> Tensor:
        """Draw ``n_events`` different events, all at scale ``nuisance``; float64, ``(n_events, n_features)``.

        Raises:
            ParameterError: for an unknown component or a scale outside the trained range.
            DataError: if the split has fewer such events, or weighted ones.
        """
        check_count("n_events", n_events, low=1)
        z = torch.full((n_events,), nuisance, dtype=torch.float64, device=generator.device)
        return self._sample(component, z, generator, replacement=False)

    def all_events(self, component: str, nuisance: float = 1.0) -> WeightedEvents:
        """Every event of the split that passes at scale ``nuisance``, moved there, with its weight.

        Raises:
            ParameterError: for an unknown component or a scale outside the trained range.
        """
        table = self._table(component, torch.device("cpu"))
        index = torch.arange(self.count(component, nuisance))
        events = self._features(table.primary, index, torch.full(index.shape, nuisance, dtype=torch.float64))
        weights = torch.ones(len(index)) if table.weights is None else table.weights[: len(index)]
        return WeightedEvents(events, weights.double())

    def efficiency(self, component: str, nuisance: Tensor) -> Efficiency:
        """Expected number of events at each scale relative to z = 1, from the events of the split.

        Under the published policy it is one.  Under the realistic one it is a smooth function of z (a
        polynomial of degree 5 in z - 1 for its logarithm, 0 at z = 1, fitted by least squares to the counted
        yields), so that likelihoods can be differentiated; use the training split and all its events.

        Args:
            component: ``"signal"`` or ``"background"``.
            nuisance: scales inside the trained range, shape ``(m,)``.

        Returns:
            Values and their statistical errors, each ``(m,)`` in float64.

        Raises:
            ParameterError: for an unknown component or a scale outside the trained range.
            DataError: if no event passes at some scale.
        """
        check_choice("component", component, COMPONENTS)
        z = self._check_nuisance(nuisance).double()
        if self.threshold == "published":
            return Efficiency(torch.ones_like(z), torch.zeros_like(z))
        coefficients = self._yield_fit(component).to(z.device)
        powers = (z.unsqueeze(-1) - 1.0) ** torch.arange(1, _DEGREE + 1, device=z.device)
        return Efficiency((powers @ coefficients).exp(), self._yield_error(component, z.detach()))

    @property
    def _source(self) -> HiggsData:
        if self.data is None:
            raise ParameterError("data must be a source of events; leave it out for the default one")
        return self.data

    @property
    def _largest_scale(self) -> float:
        """Scale above which events below the threshold of the data would pass a realistic cut."""
        return TAU_THRESHOLD / self._source.tau_threshold if self.threshold == "realistic" else float("inf")

    def _cut(self, z: Tensor) -> Tensor:
        """Lowest pt of the tau at scale 1 that passes at each ``z``, in GeV."""
        return TAU_THRESHOLD / z if self.threshold == "realistic" else torch.full_like(z, TAU_THRESHOLD)

    def _table(self, component: str, device: torch.device) -> EventTable:
        check_choice("component", component, COMPONENTS)
        key = (component, str(device))
        if key not in self._tables:
            self._tables[key] = self._source.table(component, self.split).to(device)
        return self._tables[key]

    def _sample(self, component: str, nuisance: Tensor, generator: Generator, *, replacement: bool) -> Tensor:
        z = self._check_nuisance(nuisance).to(generator.device)
        table = self._table(component, generator.device)
        passing = table.n_above(self._cut(z.double()))
        if not bool((passing > 0).all()):
            raise DataError(f"no {component} event of {self.split!r} passes the threshold; use more data")
        if replacement:
            index = table.draw(passing, generator)
        else:
            index = self._different(component, table, passing, generator)
        return self._features(table.primary, index, z)

    def _different(self, component: str, table: EventTable, passing: Tensor, generator: Generator) -> Tensor:
        available, n_events = int(passing.min()), len(passing)
        if int(passing.max()) != available:
            raise ParameterError(
                "without replacement all events of a realistic draw must have one scale; draw scale by scale"
            )
        if table.weights is not None:
            raise DataError("weighted events cannot be drawn without replacement; use sample or all_events")
        if n_events > available:
            raise DataError(
                f"{n_events} {component} events were asked for, {self.split!r} has {available} that pass; "
                "ask for fewer, add more data with `sbilib simulate higgs`, or draw with replacement"
            )
        return torch.randperm(available, generator=generator, device=generator.device)[:n_events]

    def _features(self, primary: Tensor, index: Tensor, z: Tensor) -> Tensor:
        parts = [
            feature_columns(scale_tau_energy(primary[i].double(), scale), self.features).to(z.dtype)
            for i, scale in zip(torch.split(index, _CHUNK), torch.split(z, _CHUNK), strict=True)
        ]
        return torch.cat(parts)

    @cached_property
    def _fits(self) -> dict[str, Tensor]:
        return {}

    def _yield_fit(self, component: str) -> Tensor:
        """Coefficients of the polynomial for the logarithm of the relative yield."""
        if component not in self._fits:
            z = torch.linspace(*self.nuisance_range, _N_FIT, dtype=torch.float64)
            table = self._table(component, torch.device("cpu"))
            yields = table.sum_of_weights(table.n_above(self._cut(z)))
            nominal = table.sum_of_weights(table.n_above(self._cut(torch.ones_like(z))))
            if not bool((yields > 0).all()):
                raise DataError(f"no {component} event of {self.split!r} passes at some scale; use more data")
            powers = (z.unsqueeze(1) - 1.0) ** torch.arange(1, _DEGREE + 1)
            self._fits[component] = torch.linalg.lstsq(powers, (yields / nominal).log()).solution
        return self._fits[component]

    def _yield_error(self, component: str, z: Tensor) -> Tensor:
        """Error of the counted ratio: its numerator and denominator share the events that pass both cuts."""
        table = self._table(component, torch.device("cpu"))
        counts = table.n_above(self._cut(z.cpu())), table.n_above(self._cut(torch.ones_like(z.cpu())))
        (at_z, square_at_z), (at_one, square_at_one) = (
            (table.sum_of_weights(n), table.sum_of_weights(n, power=2)) for n in counts
        )
        shared = torch.minimum(square_at_z, square_at_one)
        ratio = at_z / at_one
        variance = (square_at_z - 2 * ratio * shared + ratio**2 * square_at_one) / at_one**2
        return variance.clamp(min=0.0).sqrt().to(z.device)

    def _check_nuisance(self, nuisance: Tensor) -> Tensor:
        low, high = self.nuisance_range
        tolerance = 1e-6
        # One reduction, one host sync: NaN fails both comparisons.
        inside = ((nuisance >= low - tolerance) & (nuisance <= high + tolerance)).all()
        if nuisance.dim() != 1 or not bool(inside):
            raise ParameterError(
                f"nuisance must be a 1-d tensor of tau energy scales in [{low:g}, {high:g}], got shape "
                f"{tuple(nuisance.shape)} with range [{nuisance.min().item():g}, {nuisance.max().item():g}]; "
                "choose scales inside the trained range"
            )
        return nuisance
