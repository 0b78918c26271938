"""The extension module ``_C``, or an ImportError that says what to do."""

from pathlib import Path

import torch

# Leaves torch alone, and takes no wheel for another torch from a cache.
REBUILD = "`pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir .`"
RECORD = Path(__file__).with_name("_C.torch")  # written by setup.py

if not RECORD.exists():
    raise ImportError(f"alrp_cuda's kernels are not built: build them in the source tree by {REBUILD}")
built_for = RECORD.read_text()
try:
    # Asked before it is loaded: an extension for another torch need not lack a symbol to go wrong.
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        raise ImportError("torch's C++ interface holds within a minor version at best")
    from . import _C
except ImportError as error:
    raise ImportError(
        f"alrp_cuda's kernels, built for torch {built_for}, cannot be used with torch {torch.__version__}: {error}; "
        f"rebuild them in the source tree by {REBUILD}"
    ) from error

__all__ = ["_C", "built_for"]
