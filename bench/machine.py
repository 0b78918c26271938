"""What a figure was measured on."""

import os
import platform
from datetime import datetime
from pathlib import Path

import torch

import alrp_cuda


def cpu_model() -> str:
    """The CPU's name as Linux knows it, or what Python knows elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def heading(device: torch.device, dtype: str, command: str) -> dict[str, str]:
    """The lines that stand over the tables, by name."""
    machine = f"{cpu_model()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads used"
    if hasattr(os, "getloadavg"):  # Unix only; a machine that others use gives worse figures
        machine += f", load {os.getloadavg()[0]:.1f} before"
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}; {machine}"
    return {
        "measured": f"forward + backward, {dtype}, on {device.type}",
        "machine": machine,
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        "versions": f"alrp_cuda {alrp_cuda.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "backends": ", ".join(alrp_cuda.backends()),
        "command": command,
    }
