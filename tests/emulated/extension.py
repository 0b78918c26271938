"""csrc compiled once more, with the tests' own device.cpp, as the operators of another torch.library."""

import fcntl
import importlib.machinery
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from alrp_cuda import registration

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
NAME = "alrp_emulated"


@dataclass(frozen=True)
class Extension:
    """What alrp_cuda.native has of the ordinary extension, and the functions of device.cpp."""

    _C: ModuleType
    operators: Any
    device: ModuleType


@cache
def extension() -> Extension:
    """Built where it is not, which takes minutes, and loaded."""
    from torch.utils import cpp_extension

    sources = [*CSRC.glob("*.cpp"), *CSRC.glob("cpu/*.cpp"), *CSRC.glob("torch/*.cpp"), HERE / "device.cpp"]
    sources.remove(CSRC / "torch" / "device.cpp")
    build = ROOT / "build" / "emulated" / torch.__version__
    build.mkdir(parents=True, exist_ok=True)
    flags = [
        "-std=c++20",
        "-O1",
        "-ffp-contract=off",
        "-fopenmp",
        "-fvisibility=hidden",
        f"-DALRP_LIBRARY={NAME}",
        "-DALRP_STATE_ALIGNMENT=256",
    ]
    with (build / "one-at-a-time").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        (build / "lock").unlink(missing_ok=True)  # torch's own, which outlives a build that was stopped
        module = cpp_extension.load(
            NAME, sorted(map(str, sources)), extra_cflags=flags, extra_include_paths=[str(CSRC)], build_directory=str(build)
        )
    registration.register(NAME)
    loader = importlib.machinery.ExtensionFileLoader(f"{NAME}_device", module.__file__)
    device = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(device)
    return Extension(module, getattr(torch.ops, NAME), device)
