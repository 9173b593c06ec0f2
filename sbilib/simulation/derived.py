r"""The 12 derived quantities of the challenge schema, from the 16 primary ones.

All objects are massless.  The squared invariant mass of two of them,

.. math:: m^2 = 2 p_T^a p_T^b (\cosh\Delta\eta - \cos\Delta\phi)
              = 4 p_T^a p_T^b \left(\sinh^2\tfrac{\Delta\eta}{2} + \sin^2\tfrac{\Delta\phi}{2}\right),

is computed in the second form, which does not cancel; a transverse mass is the same without rapidities.
Sums of momenta are sums of transverse vectors.

- ``DER_mass_transverse_met_lep``: transverse mass of lepton and missing momentum.
- ``DER_mass_vis``: invariant mass of lepton and tau.
- ``DER_pt_h``: length of lepton + tau + missing momentum.
- ``DER_deltaeta_jet_jet``: :math:`|\eta_1 - \eta_2|` of the two leading jets.
- ``DER_mass_jet_jet``: their invariant mass.
- ``DER_prodeta_jet_jet``: :math:`\eta_1\eta_2`.
- ``DER_deltar_had_lep``: :math:`\sqrt{\Delta\eta^2 + \Delta\phi^2}` of lepton and tau.
- ``DER_pt_tot``: length of lepton + tau + missing momentum + the (at most two) leading jets.
- ``DER_sum_pt``: sum of the pt of lepton, tau and all jets.
- ``DER_pt_ratio_lep_had``: pt of the lepton over pt of the tau.
- ``DER_met_phi_centrality``: :math:`(A + B)/\sqrt{A^2 + B^2}` with
  :math:`A = s\sin(\phi_\mathrm{miss} - \phi_\ell)`, :math:`B = s\sin(\phi_\tau - \phi_\mathrm{miss})` and
  :math:`s` the sign of :math:`\sin(\phi_\tau - \phi_\ell)`: :math:`\sqrt 2` where the missing momentum halves
  the angle between lepton and tau, 1 where it is along one of them, less outside.
- ``DER_lep_eta_centrality``: :math:`\exp\{-4 (\eta_\ell - \bar\eta)^2 / (\eta_1 - \eta_2)^2\}`, where
  :math:`\bar\eta` is the mean of both jets.

Sources: documentation of the HiggsML data set (CERN Open Data 328, DOI 10.7483/OPENDATA.ATLAS.ZBP2.M5T8);
Bhimji et al., FAIR Universe HiggsML Uncertainty Challenge, arXiv:2410.02867.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

import torch
from torch import Tensor

from sbilib.errors import DataError, check_choice
from sbilib.simulation.schema import DERIVED, MISSING, PRIMARY, check_features, column

__all__ = ["derived_quantities", "feature_columns"]

_NUDGE = 1e-4
"""Turn of the lepton, in rad, that gives lepton and tau at one azimuth a sign; as in the challenge."""


class _Event:
    """The columns of a table of events by short name, in float64, and what several quantities share."""

    def __init__(self, primary: Tensor) -> None:
        self.primary = primary

    def __getattr__(self, name: str) -> Tensor:
        # Only what the dictionary of the object lacks comes here, so each column is converted once.
        if f"PRI_{name}" not in PRIMARY:
            raise AttributeError(name)
        values = self.primary[:, column(f"PRI_{name}")].double()
        self.__dict__[name] = values
        return values

    def vector(self, name: str, pt: Tensor) -> Tensor:
        """Transverse momentum ``(n, 2)`` of the object called ``name``."""
        phi: Tensor = getattr(self, f"{name}_phi")
        return torch.stack((pt * phi.cos(), pt * phi.sin()), dim=1)

    @cached_property
    def higgs(self) -> Tensor:
        """Sum ``(n, 2)`` of the transverse momenta of lepton, tau, and what is missing."""
        tau = self.vector("had", self.had_pt)
        return self.vector("lep", self.lep_pt) + tau + self.vector("met", self.met)

    def with_two_jets(self, values: Tensor) -> Tensor:
        """``values`` where there are two jets, `MISSING` elsewhere."""
        return torch.where(self.n_jets >= 2, values, MISSING)


def _mass(pt: Tensor, other_pt: Tensor, delta_eta: Tensor | float, delta_phi: Tensor) -> Tensor:
    half = torch.as_tensor(delta_eta, dtype=pt.dtype, device=pt.device) / 2
    return 2 * (pt * other_pt * (half.sinh().square() + (delta_phi / 2).sin().square())).sqrt()


def _transverse_mass(event: _Event) -> Tensor:
    return _mass(event.met, event.lep_pt, 0.0, event.met_phi - event.lep_phi)


def _visible_mass(event: _Event) -> Tensor:
    delta_eta, delta_phi = event.lep_eta - event.had_eta, event.lep_phi - event.had_phi
    return _mass(event.lep_pt, event.had_pt, delta_eta, delta_phi)


def _jet_mass(event: _Event) -> Tensor:
    delta_eta = event.jet_leading_eta - event.jet_subleading_eta
    delta_phi = event.jet_leading_phi - event.jet_subleading_phi
    # Two absent jets would be (-25)(-25) > 0, one absent jet a negative product: neither is a mass.
    product = event.with_two_jets(event.jet_leading_pt * event.jet_subleading_pt).clamp(min=0.0)
    return event.with_two_jets(_mass(product, torch.ones_like(product), delta_eta, delta_phi))


def _delta_r(event: _Event) -> Tensor:
    delta_phi = event.lep_phi - event.had_phi
    wrapped = torch.atan2(delta_phi.sin(), delta_phi.cos())
    distance: Tensor = torch.hypot(event.lep_eta - event.had_eta, wrapped)
    return distance


def _total_pt(event: _Event) -> Tensor:
    total: Tensor = event.higgs
    for number, name in enumerate(("jet_leading", "jet_subleading"), start=1):
        pt = torch.where(event.n_jets >= number, getattr(event, f"{name}_pt"), 0.0)
        total = total + event.vector(name, pt)
    length: Tensor = total.norm(dim=1)
    return length


def _met_phi_centrality(event: _Event) -> Tensor:
    aligned = (event.had_phi - event.lep_phi).sin() == 0
    lepton = event.lep_phi + _NUDGE * aligned
    sign = (event.had_phi - lepton).sin().sign()
    from_lepton = (event.met_phi - lepton).sin() * sign
    to_tau = (event.had_phi - event.met_phi).sin() * sign
    length = torch.hypot(from_lepton, to_tau)
    return torch.where(length > 0, (from_lepton + to_tau) / length.clamp(min=1e-300), MISSING)


def _lepton_eta_centrality(event: _Event) -> Tensor:
    gap = event.jet_leading_eta - event.jet_subleading_eta
    middle = (event.jet_leading_eta + event.jet_subleading_eta) / 2
    # Two jets at one rapidity leave no room between them: the limit is 0.
    safe = torch.where(gap == 0, 1.0, gap)
    inside = (-4 * ((event.lep_eta - middle) / safe).square()).exp()
    return event.with_two_jets(torch.where(gap == 0, 0.0, inside))


_QUANTITIES: dict[str, Callable[[_Event], Tensor]] = {
    "DER_mass_transverse_met_lep": _transverse_mass,
    "DER_mass_vis": _visible_mass,
    "DER_pt_h": lambda e: e.higgs.norm(dim=1),
    "DER_deltaeta_jet_jet": lambda e: e.with_two_jets((e.jet_leading_eta - e.jet_subleading_eta).abs()),
    "DER_mass_jet_jet": _jet_mass,
    "DER_prodeta_jet_jet": lambda e: e.with_two_jets(e.jet_leading_eta * e.jet_subleading_eta),
    "DER_deltar_had_lep": _delta_r,
    "DER_pt_tot": _total_pt,
    "DER_sum_pt": lambda e: e.lep_pt + e.had_pt + e.jet_all_pt,
    "DER_pt_ratio_lep_had": lambda e: e.lep_pt / e.had_pt,
    "DER_met_phi_centrality": _met_phi_centrality,
    "DER_lep_eta_centrality": _lepton_eta_centrality,
}


def derived_quantities(primary: Tensor, *, names: Iterable[str] = DERIVED) -> Tensor:
    """Derived quantities of events, computed in float64.

    Args:
        primary: events ``(n, 16)`` in the order of `PRIMARY`, in GeV and rad.
        names: which of the 12 quantities, all by default.

    Returns:
        Values ``(n, len(names))`` in the dtype of ``primary``; quantities of absent jets are `MISSING`.

    Raises:
        DataError: if the shape is wrong.
        ParameterError: for a name that is not a derived quantity.

    Example:
        Lepton and tau back to back at rapidity zero, the missing momentum along the tau:

        >>> event = torch.tensor([[30.0, 0, 0, 40.0, 0, torch.pi] + 6 * [MISSING] + [0, 0, 10.0, torch.pi]])
        >>> names = ["DER_mass_vis", "DER_pt_h", "DER_pt_ratio_lep_had", "DER_mass_jet_jet"]
        >>> [round(value, 3) for value in derived_quantities(event, names=names)[0].tolist()]
        [69.282, 20.0, 0.75, -25.0]
    """
    return feature_columns(primary, [check_choice("names", name, DERIVED) for name in names])


def feature_columns(primary: Tensor, names: Iterable[str]) -> Tensor:
    """Any of the 28 features of events ``primary`` (n, 16), in the order of ``names``; ``(n, len(names))``.

    Raises:
        DataError: if the shape is wrong.
        ParameterError: for an unknown or repeated name.
    """
    if primary.dim() != 2 or primary.shape[1] != len(PRIMARY):
        raise DataError(
            f"primary must have shape (n_events, {len(PRIMARY)}), got {tuple(primary.shape)}; give the "
            "columns of sbilib.simulation.schema.PRIMARY"
        )
    event = _Event(primary)
    columns = [
        _QUANTITIES[name](event).to(primary.dtype) if name in _QUANTITIES else primary[:, column(name)]
        for name in check_features(names)
    ]
    return torch.stack(columns, dim=1)
