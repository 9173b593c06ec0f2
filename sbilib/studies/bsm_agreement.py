r"""How near are our events of the heavy Higgs search to those of the public HIGGS file?

Two samples of sizes n and m are compared feature by feature by the largest difference of their cumulative
distributions, the Kolmogorov-Smirnov distance

.. math:: D = \max_x |F_n(x) - G_m(x)| .

If both have one density, D lies above :math:`1.358\sqrt{1/n + 1/m}` in one of twenty samples (less often for
features with few values).  The standard error of D is that of the difference at the place of the maximum.

The public file need not be at hand to read what was found: the results are moments, quantiles, counts in
bins and areas under ROC curves, not its rows.  Its jets are not always in the order of their momenta, so
features are compared with the jets of each event as they are stored and sorted by momentum.  A third
comparison takes back our correction of tagged jets, a factor on their momenta, which the mass of the two
tagged jets is proportional to.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sbilib.atomic import write_atomically
from sbilib.diagnostics import classifier_test
from sbilib.errors import DataError, ParameterError, check_count, check_range
from sbilib.problems.base import COMPONENTS
from sbilib.problems.bsm_data import BsmData, BsmTables
from sbilib.simulation.bsm_response import BsmResponse
from sbilib.simulation.bsm_schema import (
    BSM_CONTINUOUS,
    BSM_FEATURES,
    BSM_HIGH_LEVEL,
    BSM_LOW_LEVEL,
    BSM_SPLITS,
    TAG_STRENGTHS,
    bsm_columns,
    check_bsm,
)
from sbilib.simulation.schema import Rows

__all__ = [
    "AGREEMENT_LEVELS",
    "FEATURE_SETS",
    "JET_TREATMENTS",
    "UNCORRECTED_FEATURES",
    "Agreement",
    "compare_with_public",
    "jets_by_momentum",
    "read_agreement",
    "separation",
    "write_agreement",
]

JET_TREATMENTS = ("as stored", "by momentum", "tags uncorrected")
"""The jets of an event as the file has them; the hardest first; and ours without the factor on tagged jets,
the hardest first, for the features of `UNCORRECTED_FEATURES` alone."""

UNCORRECTED_FEATURES = (*(f"jet_{jet}_pt" for jet in range(1, 5)), "m_bb")
"""Features that the momenta of four jets fix, and that the factor on tagged jets changes."""

AGREEMENT_LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Levels of the quantiles that are kept of each feature."""

FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "low-level": BSM_LOW_LEVEL,
    "high-level": BSM_HIGH_LEVEL,
    "18 continuous": BSM_CONTINUOUS,
    "all": BSM_FEATURES,
}
"""Features that a classifier is given, by name of the set."""

SEPARATION, SAME = "signal against background", "ours against public"
_TABLES = ("features", "areas")
_MANIFEST = "manifest.json"
_N_BINS, _N_FOLDS = 30, 5
_KS_95 = 1.358

Floats = NDArray[np.float64]


class Agreement(NamedTuple):
    """What :func:`write_agreement` wrote."""

    features: pd.DataFrame
    """Rows of :func:`compare_with_public`."""
    areas: pd.DataFrame
    """Rows of :func:`separation` for both samples, and the areas of ours against the public events."""
    about: dict[str, Any]
    """The manifest: numbers of events, seed, digests and versions."""


def jets_by_momentum(events: Rows) -> Floats:
    """Events ``(n, 28)`` with the four jets sorted by falling momentum; masses stay as they are.

    Raises:
        DataError: if the shape is wrong.

    Example:
        >>> event = np.ones((1, 28))
        >>> event[0, bsm_columns(["jet_1_pt", "jet_2_pt", "jet_2_btag"])] = 30.0, 50.0, 2.0
        >>> jets_by_momentum(event)[0, bsm_columns(["jet_1_pt", "jet_1_btag", "jet_2_pt"])].tolist()
        [50.0, 2.0, 30.0]
    """
    values = np.array(events, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(BSM_FEATURES):
        raise DataError(
            f"events must have shape (n_events, {len(BSM_FEATURES)}), got {values.shape}; give all features"
        )
    places = bsm_columns(f"jet_{jet}_{part}" for jet in range(1, 5) for part in ("pt", "eta", "phi", "btag"))
    jets = values[:, places].reshape(-1, 4, 4)
    order = np.argsort(-jets[..., 0], axis=1, kind="stable")
    values[:, places] = np.take_along_axis(jets, order[..., None], axis=1).reshape(len(values), -1)
    return values


def compare_with_public(
    ours: Mapping[str, Rows], public: Mapping[str, Rows], *, tag_factor: float
) -> pd.DataFrame:
    """Compare every feature of two samples, for each treatment of the jets.

    Args:
        ours: events ``(n, 28)`` of ``"signal"`` and ``"background"`` in GeV and rad.
        public: those of the other sample.
        tag_factor: by which the momenta of our tagged jets were multiplied.

    Returns:
        A row per component, treatment of `JET_TREATMENTS` and feature, with ``n_``, ``mean_``, ``std_``,
        ``quantiles_`` (at `AGREEMENT_LEVELS`) and ``counts_`` of ``ours`` and ``public``, the ``edges`` of
        the counts, the ``distance`` D with its ``error``, and the ``limit`` that D exceeds in 5% of samples
        if nothing differs.

    Raises:
        DataError: if a component is missing, or its events are not those of the schema.
        ParameterError: if the factor is not positive.
    """
    check_range("tag_factor", tag_factor, low=0.0, include_low=False)
    _check("ours", ours)
    _check("public", public)
    rows = []
    for component in COMPONENTS:
        pair = [np.asarray(sample[component], dtype=np.float64) for sample in (ours, public)]
        by_momentum = [jets_by_momentum(events) for events in pair]
        treated = (pair, by_momentum, (_uncorrected(pair[0], tag_factor), by_momentum[1]))
        for treatment, (first, second) in zip(JET_TREATMENTS, treated, strict=True):
            features = UNCORRECTED_FEATURES if treatment == JET_TREATMENTS[2] else BSM_FEATURES
            for name, column in zip(features, bsm_columns(features), strict=True):
                row = {"component": component, "jets": treatment, "feature": name}
                rows.append(row | _compared(name, first[:, column], second[:, column]))
    return pd.DataFrame(rows)


def separation(
    signal: Rows,
    background: Rows,
    *,
    seed: int,
    n_events: int | None = None,
    sets: Mapping[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Area under the ROC curve of boosted trees that tell one sample from another, by what they are given.

    Args:
        signal: events ``(n, 28)`` that shall have the higher score.
        background: the others, ``(m, 28)``.
        seed: of the choice of events, of folds and of trees.
        n_events: events of each sample, drawn at random; all of them if None.
        sets: names of features by name of the set; `FEATURE_SETS` if None.

    Returns:
        A row per set with ``features``, ``area`` (five-fold, on events that did not train), ``error`` (of the
        events scored, for the trees as trained), and ``n_events``, the smaller of both samples.

    Raises:
        DataError: if there are too few events.
        ParameterError: if a number is out of range or more events are asked for than there are.
    """
    generator = np.random.default_rng(seed)
    chosen = [_drawn(events, n_events, generator) for events in (signal, background)]
    rows = []
    for name, features in (FEATURE_SETS if sets is None else sets).items():
        columns = bsm_columns(features)
        pair = [each[:, columns] for each in chosen]
        test = classifier_test(*pair, seed=seed, names=features, n_folds=_N_FOLDS, n_permutations=1)
        rows.append(
            {"features": name, "area": test.auc, "error": test.error, "n_events": min(map(len, chosen))}
        )
    return pd.DataFrame(rows)


def write_agreement(
    folder: Path,
    ours: BsmData,
    public: BsmTables,
    *,
    split: str = "reference",
    tag_factor: float = BsmResponse().tag_factor,
    seed: int = 1,
    say: Callable[[str], None] | None = None,
) -> Agreement:
    """Compare our events with those of the public file; write two tables and a manifest, the manifest last.

    Args:
        folder: where to write.
        ours: our events.
        public: events of the public file, from `sbilib.problems.load_uci_higgs` or `load_labeled_csv`; all
            their splits are taken together.
        split: of our events.
        tag_factor: by which the momenta of our tagged jets were multiplied.
        seed: of the choice of events and of classifiers.
        say: takes a line before each step.

    Raises:
        DataError: if events are missing or too few, or something cannot be written.
        ParameterError: for an unknown split or a factor that is not positive.
    """
    say = say or (lambda line: None)
    mine = {name: ours.events(name, split, BSM_FEATURES).numpy() for name in COMPONENTS}
    theirs = {name: _all_events(public, name) for name in COMPONENTS}
    say("comparing every feature")
    features = compare_with_public(mine, theirs, tag_factor=tag_factor)
    say("training classifiers")
    tables = {"features": features, "areas": _areas(mine, theirs, seed)}
    contents = {name: _as_parquet(tables[name]) for name in _TABLES}
    about = {
        "seed": seed,
        "split": split,
        "tag_factor": tag_factor,
        "events": {"ours": _sizes(mine), "public": _sizes(theirs)},
        "digests": {"ours": ours.digest, "public": public.digest},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("sbilib", "numpy", "pandas")},
        },
    }
    for name, content in contents.items():
        write_atomically(folder / f"{name}.parquet", content)
    write_atomically(folder / _MANIFEST, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
    return Agreement(tables["features"], tables["areas"], about)


def read_agreement(folder: Path) -> Agreement:
    """The tables and the manifest that :func:`write_agreement` wrote.

    Raises:
        DataError: if they are missing, damaged or altered.
    """
    hint = "copy it again, or make it anew with write_agreement and the public file"
    tables = {}
    try:
        about = json.loads((folder / _MANIFEST).read_text())
        contents = {name: (folder / f"{name}.parquet").read_bytes() for name in _TABLES}
        sums = about["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no comparison with the public file ({error}); {hint}") from error
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums.get(name):
            raise DataError(f"{folder / name}.parquet is not the table that its manifest describes; {hint}")
        tables[name] = pd.read_parquet(io.BytesIO(content))
    return Agreement(tables["features"], tables["areas"], about)


def _check(sample: str, events: Mapping[str, Rows]) -> None:
    for component in COMPONENTS:
        if component not in events or len(events[component]) == 0:
            raise DataError(f"{sample} has no {component} events; give some of both components")
        check_bsm(f"{component} of {sample}", np.asarray(events[component], dtype=np.float64), ordered=False)


def _uncorrected(events: Rows, tag_factor: float) -> Floats:
    """Events without the factor on tagged jets; among the masses only m_bb follows."""
    values = np.array(events, dtype=np.float64)
    for jet in range(1, 5):
        momentum, tag = bsm_columns((f"jet_{jet}_pt", f"jet_{jet}_btag"))
        values[:, momentum] /= np.where(values[:, tag] > 0.0, tag_factor, 1.0)
    values[:, bsm_columns(["m_bb"])] /= tag_factor
    return jets_by_momentum(values)


def _compared(name: str, ours: Floats, public: Floats) -> dict[str, Any]:
    distance, error = _distance(ours, public)
    edges = _edges(name, ours, public)
    row: dict[str, Any] = {"distance": distance, "error": error, "edges": edges}
    row["limit"] = _KS_95 * float(np.sqrt(1 / len(ours) + 1 / len(public)))
    for sample, values in (("ours", ours), ("public", public)):
        row |= {f"n_{sample}": len(values), f"mean_{sample}": values.mean(dtype=np.float64)}
        row[f"std_{sample}"] = values.std(dtype=np.float64)
        row[f"quantiles_{sample}"] = np.quantile(values, AGREEMENT_LEVELS).astype(np.float64)
        row[f"counts_{sample}"] = np.histogram(values, bins=edges)[0].astype(np.int64)
    return row


def _distance(first: Floats, second: Floats) -> tuple[float, float]:
    """The Kolmogorov-Smirnov distance and its standard error."""
    places = np.unique(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (first, second)]
    worst = int(np.abs(shares[0] - shares[1]).argmax())
    at = [float(share[worst]) for share in shares]
    variance = sum(share * (1 - share) / len(each) for share, each in zip(at, (first, second), strict=True))
    return abs(at[0] - at[1]), float(np.sqrt(variance))


def _edges(name: str, first: Floats, second: Floats) -> Floats:
    if name.endswith("_btag"):
        return np.append(TAG_STRENGTHS, TAG_STRENGTHS[-1] + 1.0) - 0.5
    levels = (0.0, 1.0) if name.endswith(("_eta", "_phi")) else (0.0, 0.99)
    low, high = np.quantile(np.concatenate([first, second]).astype(np.float64), levels)
    return np.linspace(low, high if high > low else low + 1.0, _N_BINS + 1)


def _drawn(events: Rows, n_events: int | None, generator: np.random.Generator) -> Rows:
    if n_events is None:
        return events
    check_count("n_events", n_events, low=1)
    if n_events > len(events):
        raise ParameterError(f"n_events is {n_events}, but a sample has only {len(events)}; ask for fewer")
    return events[generator.permutation(len(events))[:n_events]]


def _areas(mine: Mapping[str, Rows], theirs: Mapping[str, Rows], seed: int) -> pd.DataFrame:
    """Equal numbers of events everywhere, as an area depends on how many there are to train with."""
    n_events = min(len(part) for sample in (mine, theirs) for part in sample.values())
    tables = []
    for sample, events in (("ours", mine), ("public", theirs)):
        sorted_jets = {name: jets_by_momentum(part) for name, part in events.items()}
        found = separation(sorted_jets["signal"], sorted_jets["background"], seed=seed, n_events=n_events)
        tables.append(found.assign(test=SEPARATION, sample=sample))
    for component in COMPONENTS:
        pair = (jets_by_momentum(events[component]) for events in (mine, theirs))
        found = separation(*pair, seed=seed, n_events=n_events)
        tables.append(found.assign(test=SAME, sample=component))
    return pd.concat(tables, ignore_index=True)


def _all_events(public: BsmTables, component: str) -> Rows:
    parts = [public.tables[component][split] for split in BSM_SPLITS if split in public.tables[component]]
    if not parts:
        raise DataError(f"the public events have no {component}; read more rows of the file")
    return np.concatenate([part.cpu().numpy() for part in parts])


def _sizes(events: Mapping[str, Rows]) -> dict[str, int]:
    return {name: len(part) for name, part in events.items()}


def _as_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, compression="zstd", index=False)
    return buffer.getvalue()
