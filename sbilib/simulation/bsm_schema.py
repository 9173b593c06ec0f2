"""The columns of an event table of the heavy Higgs search: names, order, units, and the public file's scales.

An event has 21 low-level features, 7 masses made of them, and the columns are named and ordered as in the
public HIGGS file (Baldi, Sadowski, Whiteson, Nature Commun. 5 (2014) 4308; UCI data set 280).  Our tables are
in GeV and rad.  The public file divides each feature by a number, so that magnitudes have a mean of about 1
and angles a standard deviation of 1; `SCALES` are these numbers.  It also moves angles to a mean of 0, by a
few thousandths at most, which we leave out.

How the scales are known: the file keeps momenta in steps of 0.01 GeV and angles in steps of 0.001, as the LHC
Olympics format writes them, so the smallest difference of two values of a column is the step over the scale.
Those of the missing momentum and the masses follow, to about 2 in 10,000, as each mass is a function of the
momenta (`sbilib.simulation.bsm_features`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError, ParameterError
from sbilib.simulation.schema import Rows
from sbilib.simulation.table_format import TableFormat

__all__ = [
    "ANGLE_STEP",
    "BSM_CONTINUOUS",
    "BSM_FEATURES",
    "BSM_FORMAT",
    "BSM_HIGH_LEVEL",
    "BSM_LOW_LEVEL",
    "BSM_SPLITS",
    "BSM_UNITS",
    "MASS_STEP",
    "MOMENTUM_STEP",
    "SCALES",
    "TAG_STRENGTHS",
    "bsm_columns",
    "check_bsm",
    "from_public_scale",
    "round_bsm",
    "to_public_scale",
]

BSM_LOW_LEVEL = (
    "lepton_pT",
    "lepton_eta",
    "lepton_phi",
    "missing_energy_magnitude",
    "missing_energy_phi",
    *(f"jet_{number}_{part}" for number in range(1, 5) for part in ("pt", "eta", "phi", "btag")),
)
"""Lepton, missing momentum and the four hardest jets, in our files the hardest first."""

BSM_HIGH_LEVEL = ("m_jj", "m_jjj", "m_lv", "m_jlv", "m_bb", "m_wbb", "m_wwbb")
"""Masses of what the particles of signal and background decay to."""

BSM_FEATURES = BSM_LOW_LEVEL + BSM_HIGH_LEVEL
"""All 28 features, the columns of an event table."""

BSM_CONTINUOUS = tuple(name for name in BSM_FEATURES if not name.endswith(("_phi", "_btag")))
"""The 18 features without the six azimuths and the four tags, as in Gavranovic and Kersevan."""

BSM_SPLITS = ("train", "validation", "reference")
"""The disjoint parts of a data set; the reference stands for the truth a model is compared with."""

TAG_STRENGTHS = (0.0, 1.0, 2.0)
"""A jet without tag, one that passes the loose requirement only, and one that passes the tight one too."""

SCALES = {
    "lepton_pT": 54.642,
    "lepton_eta": 1.02663,
    "lepton_phi": 1.8021,
    "missing_energy_magnitude": 58.21,
    "missing_energy_phi": 1.8016,
    "jet_1_pt": 109.158,
    "jet_1_eta": 1.00983,
    "jet_1_phi": 1.8038,
    "jet_1_btag": 0.92037,
    "jet_2_pt": 79.428,
    "jet_2_eta": 1.02940,
    "jet_2_phi": 1.8025,
    "jet_2_btag": 0.90297,
    "jet_3_pt": 56.941,
    "jet_3_eta": 1.09856,
    "jet_3_phi": 1.8026,
    "jet_3_btag": 0.78485,
    "jet_4_pt": 41.083,
    "jet_4_eta": 1.20060,
    "jet_4_phi": 1.8021,
    "jet_4_btag": 0.64475,
    "m_jj": 87.694,
    "m_jjj": 179.683,
    "m_lv": 81.418,
    "m_jlv": 195.20,
    "m_bb": 126.567,
    "m_wbb": 336.197,
    "m_wwbb": 511.43,
}
"""Our value over that of the public file, in GeV, rad, or 1."""

_ANGLES = {name: index for index, name in enumerate(BSM_FEATURES) if name.endswith(("_eta", "_phi"))}
_TAGS = {name: index for index, name in enumerate(BSM_FEATURES) if name.endswith("_btag")}
_MAGNITUDES = {
    name: index for index, name in enumerate(BSM_FEATURES) if name not in _ANGLES and name not in _TAGS
}
_INDEX = {name: index for index, name in enumerate(BSM_FEATURES)}

BSM_UNITS = {
    name: "GeV" if name in _MAGNITUDES else "rad" if name.endswith("_phi") else "1" for name in BSM_FEATURES
}
"""Unit of each feature: ``"GeV"``, ``"rad"``, or ``"1"``."""

MOMENTUM_STEP, ANGLE_STEP, MASS_STEP = 0.01, 0.001, 0.001
"""Steps of the stored values: momenta and masses in GeV, azimuths in rad, and pseudorapidities."""

_STEPS = np.array(
    [
        1.0
        if name in _TAGS
        else ANGLE_STEP
        if name in _ANGLES
        else MASS_STEP
        if name in BSM_HIGH_LEVEL
        else MOMENTUM_STEP
        for name in BSM_FEATURES
    ]
)
_SCALE_VALUES = np.array([SCALES[name] for name in BSM_FEATURES])


def bsm_columns(names: Iterable[str]) -> list[int]:
    """Positions of features among `BSM_FEATURES`.

    Raises:
        ParameterError: if one is unknown or repeated, or there are none.

    Example:
        >>> bsm_columns(["lepton_pT", "m_bb"])
        [0, 25]
    """
    chosen = list(names)
    unknown = [name for name in chosen if name not in _INDEX]
    if unknown or not chosen or len(set(chosen)) != len(chosen):
        problem = f"unknown {unknown}" if unknown else f"got {chosen}"
        raise ParameterError(
            f"features must be one or more different names among {', '.join(BSM_FEATURES)}; {problem}"
        )
    return [_INDEX[name] for name in chosen]


def to_public_scale(events: Rows) -> NDArray[np.float64]:
    """Events ``(n, 28)`` in GeV and rad in the units of the public file, whose features are of order 1.

    Example:
        >>> float(to_public_scale(np.full((1, 28), 109.158))[0, 5].round(6))
        1.0
    """
    scaled: NDArray[np.float64] = np.asarray(events, dtype=np.float64) / _SCALE_VALUES
    return scaled


def from_public_scale(events: Rows) -> NDArray[np.float64]:
    """Events ``(n, 28)`` of the public file in GeV and rad, tags 0, 1, 2: undoes :func:`to_public_scale`."""
    values: NDArray[np.float64] = np.asarray(events, dtype=np.float64) * _SCALE_VALUES
    tags = list(_TAGS.values())
    values[:, tags] = np.round(values[:, tags])
    return values


def round_bsm(events: Rows) -> NDArray[np.float32]:
    """Events ``(n, 28)`` in the steps `MOMENTUM_STEP`, `ANGLE_STEP` and `MASS_STEP`.

    A magnitude that would round to zero becomes one step.

    Example:
        >>> event = np.full((1, 28), 1.23456)
        >>> [round(float(value), 6) for value in round_bsm(event)[0, [0, 1, 8]]]
        [1.23, 1.235, 1.0]
    """
    rounded = np.round(np.asarray(events, dtype=np.float64) / _STEPS) * _STEPS
    magnitudes = list(_MAGNITUDES.values())
    rounded[:, magnitudes] = np.maximum(rounded[:, magnitudes], _STEPS[magnitudes])
    # Minus zero would be a second spelling of zero.
    stored: NDArray[np.float32] = (rounded + 0.0).astype(np.float32)
    return stored


def check_bsm(name: str, events: Rows, *, ordered: bool = True) -> Rows:
    """Return ``events`` if its rows can be events of the schema.

    Args:
        name: what it is called in messages, for instance the file it comes from.
        events: ``(n, 28)`` in the order of `BSM_FEATURES`, GeV and rad.
        ordered: whether the hardest jet must come first, as in our files; in two of three events of the
            public file it does not.

    Raises:
        DataError: if the shape is wrong, a value is NaN or infinite, a momentum or mass is zero or negative,
            an azimuth is outside [-pi, pi], a tag is not among `TAG_STRENGTHS`, or the jets are not in order
            of falling momentum; the message names the column and the first such event.
    """
    if events.ndim != 2 or events.shape[1] != len(BSM_FEATURES):
        raise DataError(
            f"{name} must have shape (n_events, {len(BSM_FEATURES)}), got {events.shape}; give the columns "
            f"{', '.join(BSM_FEATURES)} in this order"
        )
    _raise_if(name, ~np.isfinite(events), "are NaN or infinite", events)
    bad = np.zeros(events.shape, dtype=np.bool_)
    magnitudes = list(_MAGNITUDES.values())
    bad[:, magnitudes] = events[:, magnitudes] <= 0
    _raise_if(name, bad, "are zero or negative, which no momentum or mass can be", events)
    bad[:] = False
    azimuths = [index for column, index in _ANGLES.items() if column.endswith("_phi")]
    bad[:, azimuths] = np.abs(events[:, azimuths]) > np.pi + 1e-3
    _raise_if(name, bad, "lie outside [-pi, pi] rad", events)
    bad[:] = False
    tags = list(_TAGS.values())
    bad[:, tags] = ~np.isin(events[:, tags], TAG_STRENGTHS)
    _raise_if(name, bad, "are not 0, 1 or 2, as a tag must be", events)
    bad[:] = False
    jets = bsm_columns(f"jet_{number}_pt" for number in range(1, 5))
    bad[:, jets[1:]] = ordered & (np.diff(events[:, jets], axis=1) > 0)
    _raise_if(name, bad, "are larger than that of the jet before, but the hardest comes first", events)
    return events


def _raise_if(name: str, bad: NDArray[np.bool_], what: str, events: Rows) -> None:
    if not bad.any():
        return
    event, index = (int(values[0]) for values in np.nonzero(bad))
    columns = ", ".join(BSM_FEATURES[position] for position in np.flatnonzero(bad.any(axis=0)))
    raise DataError(
        f"{name}: {int(bad.any(axis=1).sum())} of {len(events)} events have values of {columns} that {what} "
        f"(first: event {event}, {BSM_FEATURES[index]} = {float(events[event, index]):g}); remove or repair "
        "these events, or make the file again"
    )


_WIDE = [name for name in BSM_HIGH_LEVEL if name != "m_lv"]
"""Columns with nearly as many values as events, which a dictionary does not compress."""

_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 12,
    "use_dictionary": [name for name in BSM_FEATURES if name not in _WIDE],
    "use_byte_stream_split": _WIDE,
    "dictionary_pagesize_limit": 1 << 22,
    "row_group_size": 1 << 23,
    "write_statistics": False,
}

BSM_FORMAT = TableFormat(
    sample="higgs-bsm",
    columns=BSM_FEATURES,
    splits=BSM_SPLITS,
    command="simulate higgs-bsm",
    loaders=("load_uci_higgs", "load_labeled_csv"),
    check=check_bsm,
    rounded=round_bsm,
    encoding=_ENCODING,
)
"""The tables of the heavy Higgs search."""
