"""What a check was made on."""

import os
import platform
import shutil
import subprocess
from datetime import datetime

from .source import CHECKED, commit, digest


def no_gpu() -> str | None:
    """Why nothing can be checked here, or None"""
    try:
        import torch
    except ImportError as error:
        return f"{error}: it takes a torch with CUDA"
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


def said(*command: str) -> str:
    """What a command that describes the machine prints, on one line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())


def sanitizer() -> str:
    """compute-sanitizer, of PATH or of the CUDA toolkit, which need not be on it."""
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    places = [None, *(f"{home}/bin" for home in homes if home)]
    found = (shutil.which("compute-sanitizer", path=place) for place in places)
    return next(filter(None, found), "compute-sanitizer")


def capability() -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability()


def torch_version() -> str:
    import torch

    return torch.__version__


def about(sanitizer: str, told_commit: str | None) -> dict[str, str]:
    """The lines that head the report, by name."""
    import torch

    return {
        "device": f"{torch.cuda.get_device_name()}, compute capability {'.'.join(map(str, capability()))}",
        "driver": said("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
        "versions": f"torch {torch.__version__} (CUDA {torch.version.cuda}), Python {platform.python_version()}",
        "compute-sanitizer": said(sanitizer, "--version"),
        "commit": commit(told_commit),
        "sources": digest(CHECKED),
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
    }
