"""The extension for the device of this machine alone, built in place and kept with the results."""

import sys
import sysconfig
import tarfile
from pathlib import Path

from .source import BUILT_FROM, ROOT, digest
from .steps import Step

NAME = "_C" + str(sysconfig.get_config_var("EXT_SUFFIX"))
PLACE = ROOT / "alrp_cuda" / NAME
RECORD = "_C.torch"  # which setup.py writes beside it
ARCHIVE = "extension.tar.gz"


def architecture(capability: tuple[int, int]) -> str:
    """What TORCH_CUDA_ARCH_LIST says of a device."""
    return "{}.{}".format(*capability)


def key(torch_version: str, arch: str) -> str:
    """Changes with all that an extension is built from and for."""
    return f"{digest(BUILT_FROM)} {NAME} torch {torch_version} {arch}"


def step(arch: str) -> Step:
    """Build it in place, whatever lies there."""
    environment = {"ALRP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": arch}
    return Step("build", (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"), environment)


def keep(folder: Path) -> None:
    """Put a copy of the extension into the folder of the results: the next machine may be a bare one."""
    with tarfile.open(folder / ARCHIVE, "w:gz", compresslevel=6) as archive:
        for path in (PLACE, PLACE.with_name(RECORD)):
            if path.exists():
                archive.add(path, path.name)


def restore(folder: Path) -> bool:
    """Put the copy back; False where there is none."""
    if not (folder / ARCHIVE).exists():
        return False
    PLACE.unlink(missing_ok=True)  # not overwritten: a process may have it loaded
    with tarfile.open(folder / ARCHIVE) as archive:
        archive.extractall(PLACE.parent, filter="data")
    return True
