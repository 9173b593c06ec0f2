"""What to generate: the sizes of a data set, and the settings that fix every one of its events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sbilib.errors import ParameterError, check_choice, check_count
from sbilib.simulation.detector import DetectorResponse
from sbilib.simulation.files import SPLITS
from sbilib.simulation.generator import PROCESSES, GenerationSettings

__all__ = ["ROUTES", "SampleSettings", "SampleSizes"]

ROUTES = ("fast", "plain")
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

    def __post_init__(self) -> None:
        for component in PROCESSES:
            for split, size in getattr(self, component).items():
                check_choice("split", split, SPLITS)
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
            parts = dict.fromkeys(SPLITS, round(n_train * _TEST_SHARES[component]))
            sizes[component] = parts | {"train": n_train, "validation": round(n_train * _VALIDATION_SHARE)}
        return cls(**sizes)

    def of(self, component: str, split: str) -> int:
        """Events of ``component`` in ``split``."""
        sizes: Mapping[str, int] = getattr(self, check_choice("component", component, PROCESSES))
        return sizes.get(check_choice("split", split, SPLITS), 0)

    def total(self, component: str) -> int:
        """Events of ``component`` in all splits together."""
        return sum(self.of(component, split) for split in SPLITS)


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

    def facts(self) -> dict[str, object]:
        """All settings as plain values, as the manifest keeps them."""
        plain: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of the settings: chunks with the same digest belong together."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()
