"""The extension module ``_C``, or an ImportError that says what to do."""

import torch

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        "alrp_cuda's kernels could not be imported: build them with `pip install --no-build-isolation .` in the source tree, "
        f"with the torch you run ({torch.__version__}); {error}"
    ) from error

__all__ = ["_C"]
