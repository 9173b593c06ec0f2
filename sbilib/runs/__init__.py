"""Run studies: find them, execute them with parameters, publish them, and know where each came from."""

from sbilib.runs.catalog import (
    SET_NAMES,
    Study,
    find_root,
    load_studies,
    load_study,
    parameter_catalog_markdown,
    published_path,
    study_names,
)
from sbilib.runs.execute import RunError, convert_study, execute_study, run_study
from sbilib.runs.parameters import Parameter, format_value, parse_parameters
from sbilib.runs.provenance import Provenance, read_provenance
from sbilib.runs.publish import Status, publish_study, published_status, read_published, refresh_text

__all__ = [
    "SET_NAMES",
    "Parameter",
    "Provenance",
    "RunError",
    "Status",
    "Study",
    "convert_study",
    "execute_study",
    "find_root",
    "format_value",
    "load_studies",
    "load_study",
    "parameter_catalog_markdown",
    "parse_parameters",
    "publish_study",
    "published_path",
    "published_status",
    "read_provenance",
    "read_published",
    "refresh_text",
    "run_study",
    "study_names",
]
