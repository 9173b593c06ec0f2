"""Physical bounds of the features of the heavy Higgs search, for maps that must respect them."""

from __future__ import annotations

from sbilib.models.preprocessing_base import Bound
from sbilib.simulation.bsm_response import BsmResponse
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS

__all__ = ["event_bounds"]


def event_bounds(response: BsmResponse | None = None) -> dict[str, Bound]:
    """Smallest and largest value that the selection, or physics, leaves each continuous feature.

    Args:
        response: thresholds of the selection, by default those of our sample.

    Example:
        >>> event_bounds()["lepton_pT"], event_bounds()["m_bb"]
        ((15.0, None), (0.0, None))
    """
    chosen = BsmResponse() if response is None else response
    momentum = {"lepton": chosen.lepton_pt_min, "jet": chosen.jet_pt_min}
    angle = {"lepton": chosen.lepton_eta_max, "jet": chosen.jet_eta_max}
    bounds: dict[str, Bound] = {}
    for name in BSM_CONTINUOUS:
        particle = name.split("_")[0]
        if name.endswith("_eta"):
            bounds[name] = (-angle[particle], angle[particle])
        else:
            bounds[name] = (momentum.get(particle, 0.0), None)
    return bounds
