"""A data set of the heavy Higgs search: its sizes, its settings, and where its events come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from sbilib.errors import ParameterError, check_count
from sbilib.simulation.bsm_generator import BsmGeneration, BsmSummary, generate_bsm
from sbilib.simulation.bsm_response import BsmResponse, simulate_bsm_detector
from sbilib.simulation.bsm_schema import BSM_FORMAT
from sbilib.simulation.bsm_truth import BsmTruth
from sbilib.simulation.generator import PROCESSES, import_pythia
from sbilib.simulation.sample import DetectedChunk, SampleSizes
from sbilib.simulation.table_format import TableFormat

__all__ = ["BsmSettings", "BsmSizes", "BsmSource"]

_BACKGROUND_SHARES = {"validation": 0.1, "reference": 1.2}
_SIGNAL_SHARES = {"reference": 1.0}
_LARGEST_CHUNK = 5_000


@dataclass(frozen=True)
class BsmSizes(SampleSizes):
    """How many events each split of each component gets.

    Args:
        signal: events in each of the splits ``train``, ``validation`` and ``reference``; a split that is not
            named gets none.
        background: the same.

    Raises:
        ParameterError: for an unknown split or a negative size.

    Example:
        >>> BsmSizes.from_training(40_000, 200_000).background
        {'train': 200000, 'validation': 20000, 'reference': 240000}
    """

    splits: ClassVar[tuple[str, ...]] = BSM_FORMAT.splits

    @classmethod
    def from_training(cls, signal: int, background: int) -> BsmSizes:
        """Sizes in the proportions of the shipped sample.

        With N training events of background there are N/10 for validation and 1.2 N as reference; with N of
        signal another N as reference.

        Raises:
            ParameterError: if a number is negative.
        """
        sizes = {}
        for component, n_train, shares in (
            ("signal", signal, _SIGNAL_SHARES),
            ("background", background, _BACKGROUND_SHARES),
        ):
            check_count(component, n_train)
            sizes[component] = {"train": n_train} | {
                split: round(n_train * share) for split, share in shares.items()
            }
        return cls(**sizes)


@dataclass(frozen=True)
class BsmSettings:
    """Everything that fixes the events of a data set, apart from how many there are.

    Events come in chunks with seeds of their own, so neither the number of workers nor an interrupt changes
    them, and with the same settings a larger data set begins with the events of a smaller one.

    Args:
        seed: seed of the data set, from 0.
        chunk_size: particle-level events in one chunk; about a third passes the detector.
        generation: settings of Pythia.
        response: numbers of the detector and thresholds.

    Raises:
        ParameterError: if a number is out of range, or the preselection is not below the thresholds.

    Example:
        >>> BsmSettings(chunk_size=500).facts()["generation"]["beam_energy"]
        8000.0
    """

    seed: int = 1
    chunk_size: int = _LARGEST_CHUNK
    generation: BsmGeneration = field(default_factory=BsmGeneration)
    response: BsmResponse = field(default_factory=BsmResponse)
    table_format: ClassVar[TableFormat] = BSM_FORMAT

    def __post_init__(self) -> None:
        check_count("seed", self.seed)
        check_count("chunk_size", self.chunk_size, low=1)
        if self.generation.preselection_pt > self.response.lepton_pt_min:
            raise ParameterError(
                "the preselection of the generation must lie below the threshold of the detector, got "
                f"{self.generation.preselection_pt} GeV against {self.response.lepton_pt_min} GeV; lower "
                "BsmGeneration.preselection_pt"
            )

    @classmethod
    def for_sizes(cls, sizes: SampleSizes, *, seed: int = 1) -> BsmSettings:
        """Settings whose chunks are not much larger than the request.

        Example:
            >>> BsmSettings.for_sizes(BsmSizes.from_training(40, 0)).chunk_size
            320
        """
        largest = max(sizes.total(name) for name in PROCESSES)
        return cls(seed=seed, chunk_size=min(max(4 * largest, 200), _LARGEST_CHUNK))

    @property
    def common_efficiency(self) -> float:
        """The best efficiency to find a lepton, which all events share and the simulation leaves out."""
        return self.response.best_lepton_efficiency

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """The kind of data set."""
        return {"sample": self.table_format.sample}

    def detect(self, parts: Sequence[tuple[BsmTruth, BsmSummary]], seed: list[int]) -> DetectedChunk:
        """Pass the events that a source yielded through the detector, with the random numbers of ``seed``."""
        truth, summary = BsmTruth.concatenate([part for part, _ in parts]), parts[-1][1]
        selected = simulate_bsm_detector(truth, self.response, np.random.default_rng(seed))
        counts = {"produced": summary.n_produced, **selected.cut_flow}
        return DetectedChunk(selected.events, counts, summary.cross_section, summary.pythia_version)

    def facts(self) -> dict[str, object]:
        """All settings as plain values, as the manifest keeps them."""
        plain: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of the settings: chunks with the same digest belong together."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class BsmSource:
    """Particle-level events from Pythia; see `sbilib.simulation.chunks.EventSource`.

    Args:
        settings: how to generate.
    """

    settings: BsmSettings

    def must_prepare(self) -> bool:
        """Nothing takes long."""
        return False

    def prepare(self) -> None:
        """See that Pythia is there.

        Raises:
            DependencyError: if it is not installed.
        """
        import_pythia()

    def events(self, component: str, n_events: int, seed: int) -> Iterator[tuple[BsmTruth, BsmSummary]]:
        """Yield ``n_events`` preselected events in parts, with the summary so far."""
        return generate_bsm(component, n_events, seed, self.settings.generation, chunk=n_events)
