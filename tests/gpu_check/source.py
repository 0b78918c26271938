"""What the outcomes of a check are of: the sources that lie here, and the commit that they are."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("csrc", "setup.py", "alrp_cuda/version.py")
CHECKED = ("csrc", "setup.py", "alrp_cuda", "bench", "tests")
SUFFIXES = {".py", ".pyi", ".h", ".cpp", ".cc", ".cu", ".cuh", ".json", ".txt"}


def files(paths: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The source files among and below the paths."""
    found = [path for name in paths for path in ((root / name).rglob("*") if (root / name).is_dir() else [root / name])]
    return sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())


def digest(paths: Iterable[str], root: Path = ROOT) -> str:
    """16 hexadecimal digits that change with any of the sources."""
    sha = hashlib.sha256()
    for path in files(paths, root):
        data = path.read_bytes()
        sha.update(f"{path.relative_to(root)} {len(data)}\n".encode() + data)
    return sha.hexdigest()[:16]


def commit(told: str | None) -> str:
    """The commit of these sources: as told, for there may be no git or no repository here, or as git describes it."""
    if told:
        return f"{told} (as told)"
    unknown = "not told, and git does not know"
    if not (ROOT / ".git").exists():  # git would describe a repository around this folder
        return unknown
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return unknown
