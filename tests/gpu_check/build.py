"""The extension for the device of this machine alone, built in place and kept with the results."""

import gzip
import shutil
import sys
import sysconfig
from pathlib import Path

from .source import BUILT_FROM, ROOT, digest
from .steps import Step

NAME = "_C" + str(sysconfig.get_config_var("EXT_SUFFIX"))
PLACE = ROOT / "alrp_cuda" / NAME


def architecture(capability: tuple[int, int]) -> str:
    """What TORCH_CUDA_ARCH_LIST says of a device."""
    return "{}.{}".format(*capability)


def key(torch_version: str, arch: str) -> str:
    """Changes with all that an extension is built from and for."""
    return f"{digest(BUILT_FROM)} {NAME} torch {torch_version} {arch}"


def step(arch: str) -> Step:
    """Build it in place, whatever lies there: its time says nothing of what it was built for."""
    environment = {"ALRP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": arch}
    return Step("build", (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"), environment)


def keep(folder: Path) -> None:
    """Put a copy of the extension into the folder of the results: the next machine may be a bare one."""
    with PLACE.open("rb") as source, gzip.open(folder / f"{NAME}.gz", "wb", compresslevel=6) as copy:
        shutil.copyfileobj(source, copy)


def restore(folder: Path) -> bool:
    """Put the copy back; False where there is none."""
    kept = folder / f"{NAME}.gz"
    if not kept.exists():
        return False
    PLACE.unlink(missing_ok=True)  # a process that has it loaded keeps its own
    with gzip.open(kept, "rb") as source, PLACE.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    return True
