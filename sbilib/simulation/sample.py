"""What to generate: the sizes of a data set, and the settings that fix every one of its events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.simulation.detector import DetectorResponse, detector_cut_flow, simulate_detector
from sbilib.simulation.files import HIGGS_FORMAT
from sbilib.simulation.generator import PROCESSES, GenerationSettings, GenerationSummary
from sbilib.simulation.schema import Rows
from sbilib.simulation.table_format import TableFormat
from sbilib.simulation.truth import TruthEvents

__all__ = ["ROUTES", "DetectedChunk", "SampleSettings", "SampleSizes", "Settings"]

ROUTES = ("fast", "plain")


class DetectedChunk(NamedTuple):
    """The events of a chunk that the detector keeps, and how they came about.

    Args:
        events: ``(n, columns)`` in the order of the format.
        cut_flow: events left after each step, from the produced ones on.
        cross_section: of what is produced, before any selection, in pb.
        pythia_version: version of Pythia.
    """

    events: Rows
    cut_flow: dict[str, int]
    cross_section: float
    pythia_version: str


class Settings(Protocol):
    """Everything that fixes the events of a data set of any kind, apart from how many there are."""

    @property
    def seed(self) -> int:
        """Seed of the data set."""
        ...

    @property
    def chunk_size(self) -> int:
        """Particle-level events in one chunk."""
        ...

    @property
    def table_format(self) -> TableFormat:
        """The tables of the data set."""
        ...

    @property
    def digest(self) -> str:
        """Chunks with the same digest belong together."""
        ...

    @property
    def common_efficiency(self) -> float:
        """A factor that every event would share and the simulation leaves out."""
        ...

    @property
    def manifest_fields(self) -> Mapping[str, Any]:
        """Fields of the manifest that are peculiar to the kind of data set."""
        ...

    def facts(self) -> dict[str, object]:
        """All settings as plain values, as the manifest keeps them."""
        ...

    def detect(self, parts: Sequence[tuple[Any, Any]], seed: list[int]) -> DetectedChunk:
        """Pass what a source yielded, particle-level events with summaries, through the detector."""
        ...


_VALIDATION_SHARE = 0.1
_TEST_SHARES = {"signal": 0.04, "background": 0.175}


@dataclass(frozen=True)
class SampleSizes:
    """How many events each split of each component gets.

    Args:
        signal: events in each of the splits ``train``, ``validation``, ``test-1`` ... ``test-5``; a split
            that is not named gets none.
        background: the same.

    Raises:
        ParameterError: for an unknown split or a negative size.

    Example:
        >>> sizes = SampleSizes.from_training(400_000, 400_000)
        >>> sizes.of("signal", "test-1"), sizes.of("background", "test-1"), sizes.total("signal")
        (16000, 70000, 520000)
    """

    signal: Mapping[str, int]
    background: Mapping[str, int]
    splits: ClassVar[tuple[str, ...]] = HIGGS_FORMAT.splits

    def __post_init__(self) -> None:
        for component in PROCESSES:
            for split, size in getattr(self, component).items():
                check_choice("split", split, self.splits)
                check_count(f"{component} {split}", size)
            object.__setattr__(self, component, dict(getattr(self, component)))

    @classmethod
    def from_training(cls, signal: int, background: int) -> SampleSizes:
        """Sizes in the proportions of the shipped sample.

        With N training events there are N/10 for validation, and 0.04 N of signal and 0.175 N of background
        in each of five test sets.

        Raises:
            ParameterError: if a number is negative.
        """
        sizes = {}
        for component, n_train in (("signal", signal), ("background", background)):
            check_count(component, n_train)
            parts = dict.fromkeys(cls.splits, round(n_train * _TEST_SHARES[component]))
            sizes[component] = parts | {"train": n_train, "validation": round(n_train * _VALIDATION_SHARE)}
        return cls(**sizes)

    def of(self, component: str, split: str) -> int:
        """Events of ``component`` in ``split``."""
        sizes: Mapping[str, int] = getattr(self, check_choice("component", component, PROCESSES))
        return sizes.get(check_choice("split", split, self.splits), 0)

    def total(self, component: str) -> int:
        """Events of ``component`` in all splits together."""
        return sum(self.of(component, split) for split in self.splits)


def _loose_generation() -> GenerationSettings:
    # The calibrated tau may have a third more than the true visible momentum, and 21 GeV are asked of it.
    return GenerationSettings(preselection_pt=14.0)


@dataclass(frozen=True)
class SampleSettings:
    """Everything that fixes the events of a data set, apart from how many there are.

    Events come in chunks with seeds of their own, so neither the number of workers nor an interrupt changes
    them, and with the same settings a larger data set begins with the events of a smaller one.

    Args:
        seed: seed of the data set, from 0.
        route: ``"fast"`` or ``"plain"``, see `sbilib.simulation.fast_route`.
        chunk_size: particle-level events in one chunk; about a third to a half pass the detector.
        generation: settings of Pythia.
        response: numbers of the detector.
        n_decays: leptonic and hadronic tau decays each in the library of the fast route.

    Raises:
        ParameterError: for an unknown route or a number out of range.
    """

    seed: int = 1
    route: str = "fast"
    chunk_size: int = 10_000
    generation: GenerationSettings = field(default_factory=_loose_generation)
    response: DetectorResponse = field(default_factory=DetectorResponse)
    n_decays: int = 200_000

    def __post_init__(self) -> None:
        check_count("seed", self.seed)
        check_choice("route", self.route, ROUTES)
        check_count("chunk_size", self.chunk_size, low=1)
        check_count("n_decays", self.n_decays, low=1)
        if self.generation.preselection_pt > min(self.response.lepton_pt_min, self.response.tau_pt_min):
            raise ParameterError(
                "the preselection of the generation must lie below the thresholds of the detector, got "
                f"{self.generation.preselection_pt} GeV against {self.response.lepton_pt_min} and "
                f"{self.response.tau_pt_min} GeV; lower GenerationSettings.preselection_pt"
            )

    @classmethod
    def for_sizes(cls, sizes: SampleSizes, *, seed: int = 1, route: str = "fast") -> SampleSettings:
        """Settings whose chunks are not much larger than the request, and small where generation is slow.

        Example:
            >>> SampleSettings.for_sizes(SampleSizes.from_training(100, 0)).chunk_size
            500
        """
        largest = max(sizes.total(name) for name in PROCESSES)
        limit = 10_000 if route == "fast" else 1_000
        small = largest < 10_000
        return cls(
            seed=seed,
            route=route,
            chunk_size=min(max(3 * largest, 500), limit),
            n_decays=20_000 if small else 200_000,
        )

    table_format: ClassVar[TableFormat] = HIGGS_FORMAT

    @property
    def common_efficiency(self) -> float:
        """Efficiencies that all events share, which the simulation leaves out."""
        return self.response.common_efficiency

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """The stored threshold of the tau."""
        return {"tau_threshold": self.response.tau_pt_min}

    def detect(
        self, parts: Sequence[tuple[TruthEvents, GenerationSummary]], seed: list[int]
    ) -> DetectedChunk:
        """Pass the events that a source yielded through the detector, with the random numbers of ``seed``."""
        truth, summary = TruthEvents.concatenate([part for part, _ in parts]), parts[-1][1]
        # Twice from the same seed: once for the events, once for the counts.
        primary, _ = simulate_detector(truth, self.response, np.random.default_rng(seed))
        counts = detector_cut_flow(truth, self.response, np.random.default_rng(seed))
        # The fast route may have a few more selected events than it hands over.
        produced = round(summary.n_produced * len(truth) / max(summary.n_selected, 1))
        return DetectedChunk(
            primary,
            {"produced": produced, **counts},
            summary.cross_section * summary.lepton_hadron_fraction,
            summary.pythia_version,
        )

    def facts(self) -> dict[str, object]:
        """All settings as plain values, as the manifest keeps them."""
        plain: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of the settings: chunks with the same digest belong together."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()
