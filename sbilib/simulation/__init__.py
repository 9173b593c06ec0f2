"""Events of the Higgs case: making them, the detector's response, their schema, and files of them."""

from sbilib.simulation.derived import derived_quantities, feature_columns
from sbilib.simulation.energy_scale import scale_tau_energy
from sbilib.simulation.files import (
    MANIFEST,
    RESOLUTION,
    SPLITS,
    EventFile,
    Manifest,
    read_events,
    read_manifest,
    read_split,
    round_events,
    write_events,
    write_manifest,
)
from sbilib.simulation.schema import DERIVED, FEATURES, MISSING, PRIMARY, UNITS, check_features, check_primary

__all__ = [
    "DERIVED",
    "FEATURES",
    "MANIFEST",
    "MISSING",
    "PRIMARY",
    "RESOLUTION",
    "SPLITS",
    "UNITS",
    "EventFile",
    "Manifest",
    "check_features",
    "check_primary",
    "derived_quantities",
    "feature_columns",
    "read_events",
    "read_manifest",
    "read_split",
    "round_events",
    "scale_tau_energy",
    "write_events",
    "write_manifest",
]
