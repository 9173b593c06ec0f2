"""Particle-level events of either route in folders, and their features.

A folder holds, for each component, archives ``signal-0000.npz``, ... of `TruthEvents`, and beside them the
summaries of the generator as JSON, each written after its archive: events without summary are not finished,
and nothing reads them.  The comparison of the routes (`sbilib.studies.higgs_routes`) reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.atomic import write_atomically
from sbilib.errors import DataError, check_choice, check_count
from sbilib.problems.base import COMPONENTS
from sbilib.simulation.chunks import PythiaSource
from sbilib.simulation.generator import GenerationSettings
from sbilib.simulation.sample import SampleSettings
from sbilib.simulation.truth import TruthEvents
from sbilib.simulation.workers import worker_pool

__all__ = [
    "DISCRETE_FEATURES",
    "make_truth",
    "n_truth_files",
    "read_summaries",
    "read_truth",
    "truth_features",
]

Floats = NDArray[np.float64]

DISCRETE_FEATURES = ("lepton is a muon", "tau charged hadrons", "jets", "PRI_n_jets")
"""Features with few values, for which a chi-squared test is apt and a Kolmogorov-Smirnov test is not."""

_CHUNK = {"fast": 5000, "plain": 1000}
_FIRST_SEED = {"fast": 400_000_000, "plain": 500_000_000}


def truth_features(events: TruthEvents) -> dict[str, Floats]:
    """Every feature of lepton, tau, missing momentum and jets at particle level, and combinations of them.

    Args:
        events: n events.

    Returns:
        By name, one value an event, GeV and rad; what belongs to a jet has values only for events with that
        jet.  The mass of the visible tau counts here, unlike in the features of the challenge.

    Example:
        >>> features = truth_features(TruthEvents.empty())
        >>> len(features), features["visible mass"].shape
        (29, (0,))
    """
    return {**_single_objects(events), **_combinations(events), **_of_jets(events)}


def _single_objects(events: TruthEvents) -> dict[str, Floats]:
    lepton, tau = events.lepton.astype(np.float64).T, events.tau.astype(np.float64).T
    missing = events.invisible.astype(np.float64)
    missing_phi = np.arctan2(missing[:, 1], missing[:, 0])
    return {
        "lepton pt": lepton[0],
        "lepton eta": lepton[1],
        "lepton phi": lepton[2],
        "lepton is a muon": events.lepton_is_muon.astype(np.float64),
        "tau pt": tau[0],
        "tau eta": tau[1],
        "tau phi": tau[2],
        "tau mass": tau[3],
        "tau charged hadrons": events.n_charged.astype(np.float64),
        "missing pt": np.hypot(*missing.T),
        "missing phi from lepton": _wrapped(missing_phi - lepton[2]),
        "missing phi from tau": _wrapped(missing_phi - tau[2]),
    }


def _combinations(events: TruthEvents) -> dict[str, Floats]:
    lepton, tau = events.lepton.astype(np.float64), events.tau.astype(np.float64)
    missing = events.invisible.astype(np.float64)
    visible = _transverse(lepton) + _transverse(tau)
    distance = _wrapped(lepton[:, 2] - tau[:, 2]), lepton[:, 1] - tau[:, 1]
    tau_energy = np.hypot(tau[:, 0] * np.cosh(tau[:, 1]), tau[:, 3])
    energy = lepton[:, 0] * np.cosh(lepton[:, 1]) + tau_energy
    longitudinal = lepton[:, 0] * np.sinh(lepton[:, 1]) + tau[:, 0] * np.sinh(tau[:, 1])
    mass_squared = energy**2 - longitudinal**2 - (visible**2).sum(axis=1)
    missing_pt = np.hypot(*missing.T)
    # The scalar product of lepton and missing momentum stands for the angle between them.
    along = (_transverse(lepton) * missing).sum(axis=1)
    return {
        "visible mass": np.sqrt(np.maximum(mass_squared, 0.0)),
        "pt ratio": lepton[:, 0] / tau[:, 0],
        "delta phi": np.abs(distance[0]),
        "delta eta": np.abs(distance[1]),
        "delta R": np.hypot(*distance),
        "product of eta": lepton[:, 1] * tau[:, 1],
        "transverse mass": np.sqrt(np.maximum(2.0 * (lepton[:, 0] * missing_pt - along), 0.0)),
        "pt of lepton, tau, missing": np.hypot(*(visible + missing).T),
        "pt of lepton and tau": np.hypot(*visible.T),
        "sum of pt": lepton[:, 0] + tau[:, 0],
        "recoil": np.hypot(*events.recoil.astype(np.float64).T),
    }


def _of_jets(events: TruthEvents) -> dict[str, Floats]:
    jets = events.jets.astype(np.float64)
    number = (jets[..., 0] > 0.0).sum(axis=1)
    one, two = number >= 1, number >= 2
    return {
        "jets": number.astype(np.float64),
        "jet 1 pt": jets[one, 0, 0],
        "jet 1 eta": jets[one, 0, 1],
        "jet 1 phi from lepton": _wrapped(jets[one, 0, 2] - events.lepton[one, 2]),
        "jet 2 pt": jets[two, 1, 0],
        "sum of jet pt": jets[one, :, 0].sum(axis=1),
    }


def read_truth(folder: Path, component: str, n_files: int | None = None) -> TruthEvents:
    """The finished events of a component in a folder.

    Args:
        folder: of the events.
        component: ``"signal"`` or ``"background"``.
        n_files: read the first so many files only; all if None.

    Raises:
        DataError: if there are none, or fewer files, or one is damaged.
    """
    files = _finished_files(folder, component, n_files)
    return TruthEvents.concatenate([TruthEvents.load(file) for file in files])


def read_summaries(folder: Path, component: str, n_files: int | None = None) -> list[dict[str, Any]]:
    """What the generator wrote about the events that `read_truth` reads, one mapping per file.

    Raises:
        DataError: as `read_truth`, or if a summary cannot be read.
    """
    return [_read_summary(path.with_suffix(".json")) for path in _finished_files(folder, component, n_files)]


def _finished_files(folder: Path, component: str, n_files: int | None) -> list[Path]:
    check_choice("component", component, COMPONENTS)
    found = sorted(folder.glob(f"{component}-*.npz"))
    files = [path for path in found if path.with_suffix(".json").is_file()][:n_files]
    if len(files) < (n_files or 1):
        raise DataError(
            f"{folder} holds {len(files)} finished files of {component} events ({component}-*.npz with "
            f"their *.json), and {n_files or 1} or more are needed; make them with `sbilib simulate "
            "compare-routes` and a number of events, or name another folder"
        )
    return files


def n_truth_files(route: str, n_events: int) -> int:
    """How many files :func:`make_truth` makes for so many events of a component.

    Example:
        >>> n_truth_files("plain", 1500)
        2
    """
    return -(-n_events // _CHUNK[route])


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"the summary {path} cannot be read ({error}); delete it and make it anew") from error


def make_truth(
    folder: Path,
    route: str,
    n_events: int,
    *,
    components: Sequence[str] = COMPONENTS,
    seed: int = 0,
    workers: int = 1,
    say: Callable[[str], None] | None = None,
) -> None:
    """Generate ``n_events`` preselected events of each component by one route; finished files are kept.

    The same arguments give the same events, whatever the number of workers.

    Args:
        folder: where the files go; a run that was stopped goes on with the files that are missing.
        route: ``"fast"`` or ``"plain"``.
        n_events: events of each component, rounded up to whole files of 5000 (fast) or 1000 (plain).
        components: which are made.
        seed: different seeds give independent events.
        workers: processes that generate; with 1 this process does.
        say: takes a line for each finished file.

    Raises:
        DependencyError: if Pythia is not installed.
        ParameterError: for an unknown route or component, a negative number or no workers.
        DataError: if the folder has events of another seed, or a summary cannot be read.
        SbilibError: if a worker process dies.
    """
    size = _CHUNK[check_choice("route", route, ("fast", "plain"))]
    check_count("n_events", n_events, low=1)
    check_count("seed", seed)
    check_count("workers", workers, low=1)
    for name in components:
        check_choice("component", name, COMPONENTS)
    folder.mkdir(parents=True, exist_ok=True)
    first = _FIRST_SEED[route] + 1_000_000 * seed
    tasks = [
        (folder / f"{component}-{number:04d}.npz", size, first + 2 * number + which)
        for number in range(n_truth_files(route, n_events))
        for which, component in enumerate(COMPONENTS)
        if component in components
    ]
    tasks = [task for task in tasks if not _is_finished(task[0], task[2])]
    # Stored samples have a looser preselection, a margin for what the detector adds to a momentum.
    settings = SampleSettings(seed=seed, route=route, generation=GenerationSettings())
    source = PythiaSource(settings, folder / f"tau-decays-{settings.n_decays}-seed-{seed}.npz")
    if tasks and source.must_prepare():
        if say is not None:
            say("making the library of tau decays, which takes some minutes")
        source.prepare()
    for path in _make_files(source, tasks, workers):
        if say is not None:
            say(f"{route} route: {path.name}")


def _is_finished(path: Path, seed: int) -> bool:
    """Whether a file of events was finished, by a run of this seed."""
    if not path.with_suffix(".json").is_file():
        return False
    found = _read_summary(path.with_suffix(".json")).get("seed")
    if found != seed:
        raise DataError(
            f"{path} was made with another --seed or by the other route (Pythia's seed is {found}, not "
            f"{seed}); give the --seed and the route it was made with, or another folder"
        )
    return True


def _make_files(source: PythiaSource, tasks: Sequence[tuple[Path, int, int]], workers: int) -> Iterator[Path]:
    """Make all files, and yield each when it is finished."""
    if workers == 1:
        for task in tasks:
            yield _make_file(source, *task)
        return
    with worker_pool(workers) as pool:
        for future in as_completed([pool.submit(_make_file, source, *task) for task in tasks]):
            yield future.result()


def _make_file(source: PythiaSource, path: Path, size: int, seed: int) -> Path:
    """Generate the events of one file, and write their summary last."""
    parts = list(source.events(path.name.partition("-")[0], size, seed))
    TruthEvents.concatenate([part for part, _ in parts]).save(path)
    # Written last: a file without its summary is made again.
    write_atomically(path.with_suffix(".json"), json.dumps(asdict(parts[-1][1])).encode())
    return path


def _transverse(momentum: Floats) -> Floats:
    pt, phi = momentum[:, 0], momentum[:, 2]
    return np.stack([pt * np.cos(phi), pt * np.sin(phi)], axis=1)


def _wrapped(phi: Floats) -> Floats:
    return np.asarray((phi + np.pi) % (2.0 * np.pi) - np.pi)
