r"""What the tau energy scale does to each feature in closed form, and how a network may see each feature.

All objects are massless, so a scale :math:`z` multiplies the visible mass by :math:`\sqrt z`, the pt of the
tau by :math:`z` and the ratio of pt by :math:`1/z`.  Unchanged are those without the energy
of the tau, and :math:`p_T^H` and :math:`p_T^\mathrm{tot}`, whose sums hold tau and missing momentum together.
A set of such features changes by an exact map, whatever the event is.  Missing momentum, its azimuth, the
transverse mass, the sum of pt and the centrality in azimuth change in a way that depends on more than
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbilib.components import FramedEvents
from sbilib.errors import DataError, ParameterError, check_range
from sbilib.simulation.schema import FEATURES, MISSING, check_features

__all__ = ["FEATURE_TRANSFORMS", "FeatureTransform", "PowerScaling", "tau_scale_powers", "transform_features"]

_POWERS = {"DER_mass_vis": 0.5, "DER_pt_ratio_lep_had": -1.0, "PRI_had_pt": 1.0}
_NOT_POWERS = (
    "PRI_met",
    "PRI_met_phi",
    "DER_mass_transverse_met_lep",
    "DER_sum_pt",
    "DER_met_phi_centrality",
)


def tau_scale_powers(features: tuple[str, ...]) -> tuple[float, ...] | None:
    """Powers of z that multiply each feature, or None if one of them changes in another way.

    Example:
        >>> tau_scale_powers(("DER_mass_vis", "DER_pt_ratio_lep_had"))
        (0.5, -1.0)
        >>> tau_scale_powers(("DER_mass_vis", "PRI_met")) is None
        True
    """
    if any(name in _NOT_POWERS for name in check_features(features)):
        return None
    return tuple(_POWERS.get(name, 0.0) for name in features)


@dataclass(frozen=True)
class PowerScaling:
    r"""Features that a positive nuisance parameter multiplies by powers of itself.

    .. math:: T_z(x)_i = z^{-a_i} x_i, \qquad \log\bigl|\det\bigr| = -\log z \sum_i a_i .

    Args:
        powers: the :math:`a_i`, one for each feature.

    Example:
        >>> frame = PowerScaling((0.5, -1.0)).to_reference(torch.tensor([[66.0, 0.5]]), torch.tensor([1.21]))
        >>> [round(value, 4) for value in (*frame.events[0].tolist(), frame.log_det.item())]
        [60.0, 0.605, 0.0953]
    """

    powers: tuple[float, ...]

    def __post_init__(self) -> None:
        for power in self.powers:
            check_range("power", power)

    def to_reference(self, x: Tensor, nuisance: Tensor) -> FramedEvents:
        """Events ``x`` (n, d) at scales ``nuisance`` (n,), moved to z = 1, and the log Jacobian ``(n,)``."""
        log_det = -nuisance.log() * sum(self.powers)
        return FramedEvents(x * self._factors(nuisance.reciprocal()), log_det)

    def from_reference(self, u: Tensor, nuisance: Tensor) -> Tensor:
        """Events ``u`` (n, d) at z = 1, moved to scales ``nuisance`` (n,)."""
        return u * self._factors(nuisance)

    def _factors(self, z: Tensor) -> Tensor:
        return z.unsqueeze(1) ** torch.tensor(self.powers, dtype=z.dtype, device=z.device)


@dataclass(frozen=True)
class FeatureTransform:
    """How a network may see a feature; nothing here is fitted to data."""

    kind: str
    """``"identity"``, ``"log"`` for what is always positive, ``"log1p"``, log(1 + x), for what may be zero,
    or ``"asinh"`` for what has long tails on both sides."""
    absent: float | None = None
    """What stands for an absent jet: a value after the transform, just outside the range of jets that are
    there, so that it does not stretch the scale as -25 would; None if the feature always exists."""


def _transform_of(name: str) -> FeatureTransform:
    always_positive = ("PRI_lep_pt", "PRI_had_pt", "DER_mass_vis", "DER_sum_pt", "DER_pt_ratio_lep_had")
    of_jets = {
        "DER_deltaeta_jet_jet": FeatureTransform("identity", -2.0),
        "DER_mass_jet_jet": FeatureTransform("log1p", -2.0),
        "DER_prodeta_jet_jet": FeatureTransform("asinh", -5.0),
        "DER_lep_eta_centrality": FeatureTransform("identity", -0.5),
    }
    if name in of_jets:
        return of_jets[name]
    if name.startswith(("PRI_jet_leading", "PRI_jet_subleading")):
        if name.endswith("_pt"):
            return FeatureTransform("log1p", 2.0)
        return FeatureTransform("identity", -6.0 if name.endswith("_eta") else -4.0)
    if name in always_positive:
        return FeatureTransform("log")
    if name in ("PRI_met", "PRI_jet_all_pt", "DER_mass_transverse_met_lep", "DER_pt_h", "DER_pt_tot"):
        return FeatureTransform("log1p")
    return FeatureTransform("identity")


FEATURE_TRANSFORMS = {name: _transform_of(name) for name in FEATURES}
"""A `FeatureTransform` for each of the 28 features."""

_FUNCTIONS = {
    "identity": lambda x: x,
    "log": torch.log,
    "log1p": torch.log1p,
    "asinh": torch.asinh,
}


def transform_features(x: Tensor, features: tuple[str, ...]) -> Tensor:
    """Apply `FEATURE_TRANSFORMS` to events.

    Densities change by the Jacobian of this map, which is the same for signal and background and does not
    depend on z, so likelihood ratios stay as they are.

    Args:
        x: events ``(n, d)``, the columns being ``features``, in GeV and rad.
        features: names of the columns.

    Returns:
        Transformed events ``(n, d)``.

    Raises:
        ParameterError: if the number of names does not fit, or one is unknown.
        DataError: if a feature that is always positive is not.

    Example:
        >>> x = torch.tensor([[80.0, -25.0], [80.0, 50.0]])
        >>> transform_features(x, ("DER_mass_vis", "PRI_jet_leading_pt")).round(decimals=3).tolist()
        [[4.381999969482422, 2.0], [4.381999969482422, 3.931999921798706]]
    """
    if x.dim() != 2 or x.shape[1] != len(check_features(features)):
        raise ParameterError(
            f"x must have shape (n_events, {len(features)}) for these features, got {tuple(x.shape)}; "
            "name each column once"
        )
    columns = []
    for index, name in enumerate(features):
        values, transform = x[:, index], FEATURE_TRANSFORMS[name]
        absent = (
            values == MISSING if transform.absent is not None else torch.zeros_like(values, dtype=torch.bool)
        )
        # A missing value is replaced before the function too: log1p(-25) would put NaN into gradients.
        moved = _FUNCTIONS[transform.kind](torch.where(absent, 1.0, values))
        columns.append(torch.where(absent, transform.absent or 0.0, moved))
    result = torch.stack(columns, dim=1)
    if not bool(result.isfinite().all()):
        raise DataError(
            "a feature that is always positive is zero, negative or NaN; repair these events first"
        )
    return result
