"""Physical bounds and order of the features of the heavy Higgs search, for maps that must respect them."""

from __future__ import annotations

from collections.abc import Mapping

from sbilib.models.preprocessing_base import Bound, Floor
from sbilib.simulation.bsm_response import BsmResponse
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS

__all__ = ["EVENT_FLOORS", "event_bounds"]

EVENT_FLOORS: Mapping[str, Floor] = {
    "jet_1_pt": (("jet_2_pt",),),
    "jet_2_pt": (("jet_3_pt",),),
    "jet_3_pt": (("jet_4_pt",),),
    "m_jjj": (("m_jj",),),
    "m_jlv": (("m_lv",),),
    "m_wbb": (("m_bb", "m_jj"), ("m_bb", "m_lv")),
    "m_wwbb": (("m_wbb",),),
}
"""Groups of features whose sum is never larger than a feature, by its name.

Our jets are sorted by momentum, and the mass of a system is at least the sum of the masses of its parts."""


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
