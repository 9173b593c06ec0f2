r"""Do the two routes make the same events?  Two-sample tests of every feature, and their committed results.

Features with many values get a two-sample Kolmogorov-Smirnov test.  Features with few values get a
chi-squared test of the two rows of counts, because with ties the Kolmogorov-Smirnov p-values come out too
large.  Of m features tested at once the smallest p-value is small by chance; the bound

.. math:: p_\mathrm{all} = \min(1, m\, \min_i p_i)

(Bonferroni) allows for that whatever the correlations between the features are.

Stages: particle level after the preselection and with higher thresholds, and after the detector response,
with every object found and with the selection of the stored sample.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from sbilib.atomic import write_atomically
from sbilib.errors import DataError
from sbilib.problems.base import COMPONENTS
from sbilib.simulation.derived import feature_columns
from sbilib.simulation.detector import DetectorResponse, simulate_detector
from sbilib.simulation.schema import FEATURES, MISSING
from sbilib.simulation.truth import TruthEvents
from sbilib.studies.higgs_truth import DISCRETE_FEATURES, read_summaries, read_truth, truth_features

__all__ = [
    "ROUTE_STAGES",
    "compare_features",
    "compare_routes",
    "read_comparison",
    "summarize_comparison",
    "write_comparison",
]

Floats = NDArray[np.float64]
Sample = dict[str, Floats]

ROUTE_STAGES = (
    "particles, pt > 15 GeV",
    "particles, lepton > 20, tau > 21 GeV",
    "detector, all found",
    "detector, stored selection",
)
"""The stages at which the routes are compared, in order."""

TABLE, MANIFEST = "table.parquet", "manifest.json"
_N_BINS = 30
_MIN_EXPECTED = 10.0
_DETECTOR_SEEDS = {"plain": 1, "fast": 2}


def compare_features(plain: Mapping[str, Floats], fast: Mapping[str, Floats]) -> pd.DataFrame:
    """Test each feature of two samples, and count it in bins.

    Args:
        plain: values ``(n_i,)`` of each feature in the first sample.
        fast: the same features in the second.

    Returns:
        A row per feature with the columns ``feature``, ``test`` (``"ks"`` or ``"chi2"``), ``statistic``,
        ``p_value``, numbers, means and standard deviations of both samples, and ``edges`` (k + 1) with
        ``counts_plain`` and ``counts_fast`` (k).

    Raises:
        DataError: if the features differ or one has fewer than ten values.

    Example:
        >>> half = {"x": np.linspace(0.0, 1.0, 50)}
        >>> compare_features(half, half).p_value.tolist()
        [1.0]
    """
    if set(plain) != set(fast):
        raise DataError(f"the samples have different features: {sorted(set(plain) ^ set(fast))}")
    rows = []
    for name, first in plain.items():
        second = fast[name]
        if min(len(first), len(second)) < 10:
            raise DataError(f"{name} has {len(first)} and {len(second)} values; ten of each are needed")
        discrete = name in DISCRETE_FEATURES
        statistic, p_value = _chi_squared(first, second) if discrete else _kolmogorov(first, second)
        edges = _edges(first, second, discrete=discrete)
        row: dict[str, Any] = {"feature": name, "test": "chi2" if discrete else "ks"}
        row |= {"statistic": statistic, "p_value": p_value, "edges": edges}
        for route, values in (("plain", first), ("fast", second)):
            row |= {f"n_{route}": len(values), f"mean_{route}": values.mean(), f"std_{route}": values.std()}
            row[f"counts_{route}"] = np.histogram(values, bins=edges)[0].astype(np.int64)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_routes(
    plain: Mapping[str, TruthEvents],
    fast: Mapping[str, TruthEvents],
    *,
    response: DetectorResponse | None = None,
    seed: int = 1,
) -> pd.DataFrame:
    """Compare events of the plain and the fast route at each of `ROUTE_STAGES`.

    Args:
        plain: preselected events of one or both components.
        fast: of the same by the other route.
        response: the detector, the same for both.
        seed: of the detector's random numbers, which are independent for the two routes.

    Returns:
        The rows of :func:`compare_features` with the columns ``stage``, ``component``, and ``events_plain``
        and ``events_fast``, the numbers of selected events.

    Raises:
        DataError: if the components differ or a stage leaves too few events.
    """
    if set(plain) != set(fast):
        raise DataError(f"the routes have different components: {sorted(plain)} and {sorted(fast)}")
    response = response or DetectorResponse()
    tables = []
    for number, component in enumerate(COMPONENTS):
        if component not in plain:
            continue
        stages = {
            route: _stages(events[component], response, [seed, _DETECTOR_SEEDS[route], number])
            for route, events in (("plain", plain), ("fast", fast))
        }
        for stage in ROUTE_STAGES:
            (n_plain, first), (n_fast, second) = stages["plain"][stage], stages["fast"][stage]
            table = compare_features(first, second)
            tables.append(
                table.assign(stage=stage, component=component, events_plain=n_plain, events_fast=n_fast)
            )
    return pd.concat(tables, ignore_index=True)


def summarize_comparison(table: pd.DataFrame) -> pd.DataFrame:
    """For each stage and component: events, features, the smallest p-value, and that of all together.

    Args:
        table: from :func:`compare_routes`.

    Returns:
        Columns ``plain events``, ``fast events``, ``features``, ``smallest p``, ``feature``, ``p of all``.
    """
    rows = []
    for stage in ROUTE_STAGES:
        for component in COMPONENTS:
            part = table[(table.stage == stage) & (table.component == component)]
            if part.empty:
                continue
            worst = part.sort_values("p_value").iloc[0]
            rows.append(
                {
                    "stage": stage,
                    "component": component,
                    "plain events": int(worst.events_plain),
                    "fast events": int(worst.events_fast),
                    "features": len(part),
                    "smallest p": float(worst.p_value),
                    "feature": worst.feature,
                    "p of all": min(1.0, len(part) * float(worst.p_value)),
                }
            )
    return pd.DataFrame(rows).set_index(["stage", "component"])


def write_comparison(
    folder: Path,
    plain: Path,
    fast: Path,
    *,
    components: Sequence[str] = COMPONENTS,
    n_files: Mapping[str, int | None] | None = None,
    seed: int = 1,
    say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Compare the events in two folders and write table and manifest, the manifest last.

    Args:
        folder: where to write ``table.parquet`` and ``manifest.json``.
        plain: folder of events of the plain route, see `sbilib.studies.higgs_truth`.
        fast: folder of events of the fast route.
        components: which are compared.
        n_files: files of each component to read, by route; all if None.
        seed: of the detector's random numbers.
        say: takes a line before the tests begin.

    Raises:
        DataError: if there are no events, or something cannot be written.
    """
    limits = n_files or {}
    places = (("plain", plain, limits.get("plain")), ("fast", fast, limits.get("fast")))
    events = {
        route: {component: read_truth(place, component, limit) for component in components}
        for route, place, limit in places
    }
    if say is not None:
        say("testing every feature")
    response = DetectorResponse()
    table = compare_routes(events["plain"], events["fast"], response=response, seed=seed)
    buffer = io.BytesIO()
    table.to_parquet(buffer, compression="zstd", index=False)
    manifest = {
        "seed": seed,
        "runs": {
            route: {component: _runs(read_summaries(place, component, limit)) for component in components}
            for route, place, limit in places
        },
        "events": {
            route: {component: len(part) for component, part in of_route.items()}
            for route, of_route in events.items()
        },
        "response": asdict(response),
        "stages": list(ROUTE_STAGES),
        "table_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("sbilib", "numpy", "scipy", "pandas")},
        },
    }
    write_atomically(folder / TABLE, buffer.getvalue())
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return table


def read_comparison(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and manifest that :func:`write_comparison` wrote.

    Raises:
        DataError: if they are missing, damaged or altered.
    """
    hint = "copy it again or make it anew with `sbilib simulate compare-routes`"
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        content = (folder / TABLE).read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no comparison of the routes ({error}); {hint}") from error
    if hashlib.sha256(content).hexdigest() != manifest.get("table_sha256"):
        raise DataError(f"{folder / TABLE} is not the table that its manifest describes; {hint}")
    return pd.read_parquet(io.BytesIO(content)), manifest


def _runs(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs behind a sample of one route and component, in short."""
    produced = sum(run["n_produced"] for run in summaries)
    selected = sum(run["n_selected"] for run in summaries)
    return {
        "seeds": [run["seed"] for run in summaries],
        "n_produced": produced,
        "n_selected": selected,
        "cross_section": float(np.mean([run["cross_section"] for run in summaries])) if summaries else None,
        "pythia": sorted({run["pythia_version"] for run in summaries}),
    }


def _stages(
    events: TruthEvents, response: DetectorResponse, seed: list[int]
) -> dict[str, tuple[int, Sample]]:
    """Number of events and values of every feature at each stage."""
    preselected = events.select(events.preselected())
    harder = preselected.select((preselected.lepton[:, 0] > 20.0) & (preselected.tau[:, 0] > 21.0))
    found = simulate_detector(preselected, _perfect_finding(response), np.random.default_rng([*seed, 0]))
    stored = simulate_detector(preselected, response, np.random.default_rng([*seed, 1]))
    samples = (
        (len(preselected), truth_features(preselected)),
        (len(harder), truth_features(harder)),
        (len(found.primary), _schema_features(found.primary)),
        (len(stored.primary), _schema_features(stored.primary)),
    )
    return dict(zip(ROUTE_STAGES, samples, strict=True))


def _perfect_finding(response: DetectorResponse) -> DetectorResponse:
    """The same resolutions, but every lepton and tau is found and no threshold removes one."""
    return replace(
        response,
        electron_efficiency=(1.0, 1.0),
        muon_efficiency=(1.0, 1.0),
        tau_efficiency=(1.0, 1.0),
        isolation=0.0,
        lepton_pt_min=0.0,
        tau_pt_min=0.0,
        lepton_eta_max=10.0,
        tau_eta_max=10.0,
    )


def _schema_features(primary: NDArray[np.float32]) -> Sample:
    """The 28 features, each without the events that lack the jets it needs."""
    values = feature_columns(torch.from_numpy(primary).double(), FEATURES).numpy()
    sample = {name: values[:, index] for index, name in enumerate(FEATURES)}
    sample = {name: column[column != MISSING] for name, column in sample.items()}
    # Zero stands for no jets: an atom that only the number of jets should test.
    sample["PRI_jet_all_pt"] = sample["PRI_jet_all_pt"][sample["PRI_n_jets"] > 0]
    return sample


def _kolmogorov(first: Floats, second: Floats) -> tuple[float, float]:
    result = stats.ks_2samp(first, second, method="asymp")
    return float(result.statistic), float(result.pvalue)


def _chi_squared(first: Floats, second: Floats) -> tuple[float, float]:
    """Test of the two rows of counts; the rarest values are joined until enough are expected in each."""
    values = np.unique(np.concatenate([first, second]))
    counts = np.array([[np.sum(sample == value) for value in values] for sample in (first, second)])
    counts = counts[:, np.argsort(counts.sum(axis=0))]
    share = counts.sum(axis=1).min() / counts.sum()
    while counts.shape[1] > 1 and counts[:, 0].sum() * share < _MIN_EXPECTED:
        joined = counts[:, :1] + counts[:, 1:2]
        counts = np.concatenate([joined, counts[:, 2:]], axis=1)
    if counts.shape[1] == 1:
        return 0.0, 1.0
    result = stats.chi2_contingency(counts, correction=False)
    return float(result.statistic), float(result.pvalue)


def _edges(first: Floats, second: Floats, *, discrete: bool) -> Floats:
    both = np.concatenate([first, second])
    if discrete:
        return np.arange(both.min(), both.max() + 2.0) - 0.5
    low, high = np.quantile(both, [0.0, 0.995])
    return np.linspace(low, high if high > low else low + 1.0, _N_BINS + 1)
