"""The extension module ``_C``, or an ImportError that says what to do."""

from importlib import import_module
from pathlib import Path
from typing import Any

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
    _C: Any = import_module("._C", __package__)
except ImportError as error:
    raise ImportError(
        f"alrp_cuda's kernels, built for torch {built_for}, cannot be used with torch {torch.__version__}: {error}; "
        f"rebuild them in the source tree by {REBUILD}"
    ) from error

# The operators, which the extension registers with their autograd. Who calls them, or functions of _C that run kernels, looks
# them up here at each call: tests put the emulated device in their place.
operators: Any = getattr(torch.ops, _C.library)


def backends() -> tuple[str, ...]:
    """Names of the backends that this installation has: "cpu" and, where it was built so, "cuda". A tensor's device chooses.

    Example:
        >>> import alrp_cuda
        >>> "cpu" in alrp_cuda.backends()
        True
    """
    return tuple(_C.built_backends)


def set_debug(enabled: bool) -> None:
    """Make asynchronous devices raise for what depends on values, as the CPU does, at the price of a synchronisation a call.

    On a CUDA device an impossible label, or a wrong number of positives, cannot raise without making the host wait. It makes
    losses and gradients NaN instead; under this switch, or with ``ALRP_CUDA_DEBUG=1`` in the environment when the package is
    imported, it raises the ValueError that the CPU raises.

    Args:
        enabled: whether to check.

    Example:
        >>> import alrp_cuda
        >>> alrp_cuda.set_debug(True)
        >>> alrp_cuda.set_debug(False)
    """
    _C.set_debug(bool(enabled))
