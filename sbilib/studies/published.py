"""Published numbers, to stand beside ours."""

from __future__ import annotations

import pandas as pd

from sbilib.errors import check_choice
from sbilib.studies.metrics import METRICS

__all__ = ["sluijter_table_4_2", "sluijter_table_4_3"]

_TABLE_4_2 = {
    ("flow", "large"): (0.95, 0.47, 0.47, 0.65, 0.52, 0.035, 0.032),
    ("flow", "small"): (0.55, 0.41, 0.29, 0.61, 0.50, 0.096, 0.15),
    ("classifier", "large"): (0.94, 0.52, 0.52, 0.66, 0.60, 0.036, 0.031),
    ("classifier", "small"): (0.69, 0.47, 0.41, 0.64, 0.63, 0.089, 0.17),
}


def sluijter_table_4_2(case: str) -> pd.DataFrame:
    """Metrics of one example pair of each method (Sluijter 2024, Table 4.2).

    Args:
        case: ``"large"`` or ``"small"``.

    Returns:
        A row per method (``flow``, ``classifier``), a column per metric.

    Raises:
        ParameterError: for another case.

    Example:
        >>> float(sluijter_table_4_2("large").loc["flow", "total overlap"])
        0.47
    """
    check_choice("case", case, ("large", "small"))
    rows = {method: values for (method, name), values in _TABLE_4_2.items() if name == case}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(METRICS))


_TABLE_4_3 = {
    ("flow", "good"): (0.68, 0.66, 0.095, 0.014),
    ("flow", "bad"): (0.56, 0.59, 0.087, 0.014),
    ("classifier", "good"): (0.67, 0.68, 0.098, 0.014),
    ("classifier", "bad"): (0.60, 0.48, 0.085, 0.13),
}


def sluijter_table_4_3() -> pd.DataFrame:
    """Metrics of a good and a bad example pair of each method in the Higgs case (Sluijter 2024, Table 4.3).

    The mean width of z of the bad classifier is printed as 0.13, most likely for 0.013.

    Returns:
        A row per method and example, a column per metric.

    Example:
        >>> float(sluijter_table_4_3().loc[("flow", "good"), "mu coverage"])
        0.68
    """
    rows = pd.DataFrame.from_dict(_TABLE_4_3, orient="index", columns=list(METRICS[3:]))
    rows.index = pd.MultiIndex.from_tuples(rows.index, names=["method", "example"])
    return rows
