"""Events from Pythia: making them, the detector's response, their schema, and files of them."""

from sbilib.simulation.bsm_features import high_level, high_level_of_four_jets
from sbilib.simulation.bsm_schema import (
    BSM_CONTINUOUS,
    BSM_FEATURES,
    BSM_FORMAT,
    BSM_HIGH_LEVEL,
    BSM_LOW_LEVEL,
    BSM_SPLITS,
    BSM_UNITS,
    bsm_columns,
    check_bsm,
    from_public_scale,
    to_public_scale,
)
from sbilib.simulation.derived import derived_quantities, feature_columns
from sbilib.simulation.energy_scale import scale_tau_energy
from sbilib.simulation.files import (
    HIGGS_FORMAT,
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
from sbilib.simulation.table_format import TableFormat

__all__ = [
    "BSM_CONTINUOUS",
    "BSM_FEATURES",
    "BSM_FORMAT",
    "BSM_HIGH_LEVEL",
    "BSM_LOW_LEVEL",
    "BSM_SPLITS",
    "BSM_UNITS",
    "DERIVED",
    "FEATURES",
    "HIGGS_FORMAT",
    "MANIFEST",
    "MISSING",
    "PRIMARY",
    "RESOLUTION",
    "SPLITS",
    "UNITS",
    "EventFile",
    "Manifest",
    "TableFormat",
    "bsm_columns",
    "check_bsm",
    "check_features",
    "check_primary",
    "derived_quantities",
    "feature_columns",
    "from_public_scale",
    "high_level",
    "high_level_of_four_jets",
    "read_events",
    "read_manifest",
    "read_split",
    "round_events",
    "scale_tau_energy",
    "to_public_scale",
    "write_events",
    "write_manifest",
]
