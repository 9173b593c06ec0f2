"""The columns of an event table: names, order, units, and the value that stands for an absent jet.

Events are rows of the 16 primary quantities of the FAIR Universe HiggsML challenge, in the order of its
files; the 12 derived quantities are functions of them (`sbilib.simulation.derived`).  Momenta and masses are
in GeV, azimuths in rad.

Source: Bhimji et al., FAIR Universe HiggsML Uncertainty Challenge (arXiv:2410.02867).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError, ParameterError

__all__ = [
    "DERIVED",
    "FEATURES",
    "MISSING",
    "PRIMARY",
    "UNITS",
    "check_features",
    "check_primary",
    "column",
]

PRIMARY = (
    "PRI_lep_pt",
    "PRI_lep_eta",
    "PRI_lep_phi",
    "PRI_had_pt",
    "PRI_had_eta",
    "PRI_had_phi",
    "PRI_jet_leading_pt",
    "PRI_jet_leading_eta",
    "PRI_jet_leading_phi",
    "PRI_jet_subleading_pt",
    "PRI_jet_subleading_eta",
    "PRI_jet_subleading_phi",
    "PRI_n_jets",
    "PRI_jet_all_pt",
    "PRI_met",
    "PRI_met_phi",
)
"""The 16 primary quantities, in the order of the columns of an event table."""

DERIVED = (
    "DER_mass_transverse_met_lep",
    "DER_mass_vis",
    "DER_pt_h",
    "DER_deltaeta_jet_jet",
    "DER_mass_jet_jet",
    "DER_prodeta_jet_jet",
    "DER_deltar_had_lep",
    "DER_pt_tot",
    "DER_sum_pt",
    "DER_pt_ratio_lep_had",
    "DER_met_phi_centrality",
    "DER_lep_eta_centrality",
)
"""The 12 derived quantities, in the order of the columns of the reference file."""

FEATURES = PRIMARY + DERIVED
"""All 28 features."""

MISSING = -25.0
"""Stands for a quantity of a jet that is not there; the sum of jet pt is 0 without jets instead."""

Rows = NDArray[np.float32] | NDArray[np.float64]

_GEV = {name for name in FEATURES if "_pt" in name or "mass" in name or name == "PRI_met"}
_GEV -= {"DER_pt_ratio_lep_had"}

UNITS = {name: "GeV" if name in _GEV else "rad" if name.endswith("_phi") else "1" for name in FEATURES}
"""Unit of each feature: ``"GeV"``, ``"rad"``, or ``"1"``."""

_INDEX = {name: index for index, name in enumerate(FEATURES)}


def column(name: str) -> int:
    """Position of a feature among `FEATURES`; for a primary quantity also its column in an event table.

    Raises:
        ParameterError: if there is no such feature.

    Example:
        >>> column("PRI_had_pt"), column("DER_mass_vis")
        (3, 17)
    """
    return _INDEX[check_features([name])[0]]


def check_features(names: Iterable[str]) -> tuple[str, ...]:
    """Return ``names`` as a tuple if each is one of the 28 features and none comes twice.

    Raises:
        ParameterError: if one is unknown or repeated, or there are none.
    """
    chosen = tuple(names)
    unknown = [name for name in chosen if name not in _INDEX]
    if unknown or not chosen or len(set(chosen)) != len(chosen):
        problem = f"unknown {unknown}" if unknown else f"got {list(chosen)}"
        raise ParameterError(
            f"features must be one or more different names among {', '.join(FEATURES)}; {problem}"
        )
    return chosen


def check_primary(name: str, primary: Rows) -> Rows:
    """Return ``primary`` if its rows can be events of the schema.

    Args:
        name: what it is called in messages, for instance the file it comes from.
        primary: events ``(n, 16)``, in the order of `PRIMARY`, GeV and rad.

    Raises:
        DataError: if the shape is wrong, a value is NaN or infinite, a momentum is zero or negative (an
            absent jet has `MISSING`, the sum of jet pt may be 0), an azimuth is outside [-pi, pi], or the
            number of jets does not fit the jets; the message names the column and the first such event.
    """
    if primary.ndim != 2 or primary.shape[1] != len(PRIMARY):
        raise DataError(
            f"{name} must have shape (n_events, {len(PRIMARY)}), got {primary.shape}; give the columns "
            f"{', '.join(PRIMARY)} in this order"
        )
    _raise_if(name, ~np.isfinite(primary), "are NaN or infinite", primary)
    n_jets = primary[:, _INDEX["PRI_n_jets"]]
    bad = np.zeros(primary.shape, dtype=np.bool_)
    for column_name in ("PRI_lep_pt", "PRI_had_pt", "PRI_met"):
        bad[:, _INDEX[column_name]] = primary[:, _INDEX[column_name]] <= 0
    for number, jet in enumerate(("leading", "subleading"), start=1):
        index = _INDEX[f"PRI_jet_{jet}_pt"]
        bad[:, index] = (n_jets >= number) & (primary[:, index] <= 0)
    bad[:, _INDEX["PRI_jet_all_pt"]] = primary[:, _INDEX["PRI_jet_all_pt"]] < 0
    _raise_if(name, bad, "are zero or negative, which no momentum can be", primary)
    bad[:] = False
    for index, column_name in enumerate(PRIMARY):
        if column_name.endswith("_phi"):
            bad[:, index] = (np.abs(primary[:, index]) > np.pi + 1e-3) & (primary[:, index] != MISSING)
    _raise_if(name, bad, "lie outside [-pi, pi] rad", primary)
    bad[:] = False
    bad[:, _INDEX["PRI_n_jets"]] = (n_jets < 0) | (n_jets != np.round(n_jets))
    for number, jet in enumerate(("leading", "subleading"), start=1):
        for part in ("pt", "eta", "phi"):
            index = _INDEX[f"PRI_jet_{jet}_{part}"]
            bad[:, index] = (primary[:, index] == MISSING) != (n_jets < number)
    _raise_if(name, bad, f"do not fit the number of jets (absent jets have {MISSING:g})", primary)
    return primary


def _raise_if(name: str, bad: NDArray[np.bool_], what: str, primary: Rows) -> None:
    if not bad.any():
        return
    event, index = (int(values[0]) for values in np.nonzero(bad))
    columns = ", ".join(PRIMARY[position] for position in np.flatnonzero(bad.any(axis=0)))
    raise DataError(
        f"{name}: {int(bad.any(axis=1).sum())} of {len(primary)} events have values of {columns} that {what} "
        f"(first: event {event}, {PRIMARY[index]} = {float(primary[event, index]):g}); remove or repair "
        "these events, or make the file again"
    )
