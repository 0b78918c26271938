"""``python -m alrp_cuda``: what is installed, in the form that a bug report needs."""

import platform

import torch

from . import __version__
from .native import _C, built_for


def main() -> None:
    """Print version, backends built, torch and CUDA versions, architectures."""
    cuda = "cuda" in _C.built_backends
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none present"
    print(f"alrp_cuda      {__version__}")
    print(f"backends       {', '.join(_C.built_backends)}")
    print(f"architectures  {_C.cuda_architectures if cuda else '- (built without CUDA)'}")
    print(f"torch          {torch.__version__} (built for {built_for})")
    print(f"CUDA           {torch.version.cuda or '-'} (GPU: {device})")
    print(f"python         {platform.python_version()} on {platform.system()} {platform.machine()}")


if __name__ == "__main__":
    main()
