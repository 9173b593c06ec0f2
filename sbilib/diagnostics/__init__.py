"""Is this density, or this ratio, right?"""

from sbilib.diagnostics.calibration import RatioCalibration, ratio_calibration

__all__ = ["RatioCalibration", "ratio_calibration"]
