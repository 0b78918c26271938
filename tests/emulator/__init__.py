"""An emulated CUDA device: runs the PTX that nvcc emits on the CPU, and reports what a GPU would punish."""

from .compiler import missing_requirement
from .counters import Counters
from .errors import EmulatorError, UnsupportedPTX
from .library import Library, Session
from .module import Geometry, LaunchResult, Module
from .schedule import Schedule

__all__ = [
    "Counters",
    "EmulatorError",
    "Geometry",
    "LaunchResult",
    "Library",
    "Module",
    "Schedule",
    "Session",
    "UnsupportedPTX",
    "missing_requirement",
]
