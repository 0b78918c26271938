"""Runs nvcc and g++, and keeps what they make, by content."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import EmulatorError

PACKAGE = Path(__file__).parent
RUNTIME = PACKAGE / "runtime"

# Instructions that the generated code uses directly: fused multiply-add and half-precision conversions. No
# contraction, no reordering: every PTX operation rounds by itself.
CXX_FLAGS = (
    "-std=c++17",
    "-w",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-frounding-math",
    "-fno-tree-vectorize",
    "-mfma",
    "-mf16c",
    "-mavx2",
    "-mno-avx512f",
)


def cache_directory() -> Path:
    """$EMULATOR_CACHE, or .cache/emulator in the repository"""
    chosen = os.environ.get("EMULATOR_CACHE")
    directory = Path(chosen).resolve() if chosen else PACKAGE.parents[1] / ".cache" / "emulator"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def digest(*parts: str | bytes) -> str:
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()[:24]


@cache
def nvcc() -> str:
    """The path of nvcc: $NVCC, on PATH, or in $CUDA_HOME"""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    found = os.environ.get("NVCC") or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if not found:
        raise EmulatorError("nvcc is needed and not found (on PATH, or in $CUDA_HOME/bin)")
    return found


@cache
def toolkit() -> Path:
    """The root of the CUDA toolkit, as nvcc itself finds it (the one on PATH may be a wrapper)"""
    result = subprocess.run([nvcc(), "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True)
    m = re.search(r"^#\$ TOP=(.*)$", result.stderr, re.M)
    if not m:
        raise EmulatorError(f"{nvcc()} --dryrun does not say where the toolkit is:\n{result.stderr[:2000]}")
    return Path(m[1].strip()).resolve()


def missing_requirement() -> str | None:
    """Why the emulator cannot run here, or None"""
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() != "Linux":
        return "the emulated device runs on x86-64 Linux only"
    processor = Path("/proc/cpuinfo")
    missing = {"fma", "f16c", "avx2"} - set(processor.read_text().split() if processor.exists() else ())
    if missing:
        return f"the processor lacks {', '.join(sorted(missing))}"
    if not shutil.which(cxx()):
        return f"{cxx()} is not found"
    try:
        nvcc()
    except EmulatorError as error:
        return str(error)
    return None


def cxx() -> str:
    return os.environ.get("CXX", "g++")


def run(command: Sequence[str], what: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise EmulatorError(f"{what} failed:\n{' '.join(command)}\n{(result.stderr or result.stdout)[-4000:]}")


@cache
def tool_versions() -> str:
    """A new compiler makes the cache void."""
    lines = [subprocess.run([tool, "--version"], capture_output=True, text=True).stdout for tool in (cxx(), nvcc())]
    return "".join(lines)


@cache
def emulator_digest() -> str:
    """A changed runtime, or other options, make the cache void; a changed translator writes other code by itself."""
    files = sorted([Path(__file__), *RUNTIME.glob("*.h"), *RUNTIME.glob("*.cpp")])
    return digest(*(x for f in files for x in (f.name, f.read_bytes())))


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The file `name` of the cache; where it is missing, make(path) writes it. Safe between processes."""
    path = cache_directory() / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
            fresh = Path(scratch) / name
            make(fresh)
            os.replace(fresh, path)
    return path


def runtime_library() -> Path:
    """The part of the runtime that does not depend on the kernels"""
    name = f"libemulator-{digest(emulator_digest(), tool_versions())}.so"

    def make(path: Path) -> None:
        # One translation unit: the standard headers are read once.
        together = path.parent / "runtime.cpp"
        together.write_text("".join(f'#include "{f.name}"\n' for f in sorted(RUNTIME.glob("*.cpp"))))
        run(
            [cxx(), *CXX_FLAGS, "-O2", f"-I{RUNTIME}", f"-Wl,-soname,{name}", str(together), "-o", str(path)],
            cxx(),
        )

    return cached(name, make)


def compile_unit(code: str) -> Path:
    """Translated kernels -> a shared library, beside the runtime library that it needs"""
    runtime = runtime_library()
    name = f"unit-{digest(code, emulator_digest(), tool_versions())}.so"

    def make(path: Path) -> None:
        source = path.with_suffix(".cpp")
        source.write_text(code)
        # -O2 takes long on large kernels, and these are rarely the ones that are launched often.
        level = "-O2" if len(code) < 400_000 else "-O1" if len(code) < 1_000_000 else "-Og"
        link = [f"-L{runtime.parent}", f"-l:{runtime.name}", "-Wl,-rpath,$ORIGIN"]
        run([cxx(), *CXX_FLAGS, level, f"-I{RUNTIME}", str(source), "-o", str(path), *link], cxx())

    return cached(name, make)


HOST_FLAGS = ("-fPIC", "-fno-gnu-unique")  # unique symbols would be shared by libraries of different targets


@dataclass(frozen=True)
class Compiled:
    """A source file's object code and, of a .cu file, its PTX and the hash of the fat binary that holds it"""

    directory: Path

    @property
    def object_file(self) -> Path:
        return self.directory / "code.o"

    @property
    def ptx(self) -> str | None:
        path = self.directory / "code.ptx"
        return path.read_text() if path.exists() else None

    @property
    def fat_binary_hash(self) -> int:
        return int((self.directory / "fat_binary_hash").read_text())


def compile_source(source: Path, target: str, include_dirs: Sequence[Path], flags: Sequence[str]) -> Compiled:
    """Cached by the contents of the source and of the headers that it was found to include"""
    source = source.resolve()
    if not source.exists():
        raise EmulatorError(f"no such source file: {source}")
    options = ["-std=c++17", *(f"-I{d}" for d in include_dirs), *flags]
    request = digest(str(source), target, "\0".join(options), tool_versions(), Path(__file__).read_bytes())
    manifest = cache_directory() / f"dependencies-{request}.json"
    if manifest.exists():
        found = _object_directory(request, json.loads(manifest.read_text()))
        if found and found.exists():
            return Compiled(found)
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        made = Path(scratch) / "object"
        made.mkdir()
        dependencies = (_nvcc if source.suffix == ".cu" else _host)(source, target, options, made, Path(scratch))
        directory = _object_directory(request, dependencies)
        assert directory, "the compiler just read these files"
        if not directory.exists():
            try:
                os.rename(made, directory)
            except OSError:  # another process was faster
                if not directory.exists():
                    raise
        temporary = Path(scratch) / "dependencies.json"
        temporary.write_text(json.dumps(dependencies))
        os.replace(temporary, manifest)
    return Compiled(directory)


def _object_directory(request: str, dependencies: Sequence[str]) -> Path | None:
    """Where the object lies that was compiled from the present contents of the dependencies"""
    try:
        contents = [Path(d).read_bytes() for d in dependencies]
    except OSError:
        return None
    return cache_directory() / f"object-{digest(request, *contents)}"


def _read_dependencies(makefile: Path) -> list[str]:
    """Files that the rule names, but for those of the toolkit and the system: the key has their versions"""
    _, _, files = makefile.read_text().partition(":")
    system = ("/usr/include/", "/usr/lib/", f"{toolkit()}/")
    paths = {os.path.realpath(f) for f in files.replace("\\\n", " ").split()}
    return sorted(p for p in paths if not p.startswith(system))


def _nvcc(source: Path, target: str, options: Sequence[str], made: Path, scratch: Path) -> list[str]:
    kept = scratch / "kept"
    kept.mkdir()
    copy = [
        "-o",
        str(made / "code.o"),
        "--keep",
        "--keep-dir",
        str(kept),
        "-MD",
        "-MF",
        str(scratch / "rule.d"),
    ]
    code = ["-gencode", f"arch={target},code={target}", "-cudart", "none"]
    host = [x for flag in HOST_FLAGS for x in ("-Xcompiler", flag)]
    run([nvcc(), "-c", *options, *code, *host, *copy, str(source)], "nvcc")
    shutil.move(kept / f"{source.stem}.ptx", made / "code.ptx")
    content = (kept / f"{source.stem}.fatbin").read_bytes()
    (made / "fat_binary_hash").write_text(str(fnv1a(content)))
    return _read_dependencies(scratch / "rule.d")


def _host(source: Path, target: str, options: Sequence[str], made: Path, scratch: Path) -> list[str]:
    rule = ["-MD", "-MF", str(scratch / "rule.d"), f"-I{toolkit() / 'include'}"]
    run([cxx(), "-c", "-O1", *options, *HOST_FLAGS, *rule, str(source), "-o", str(made / "code.o")], cxx())
    return _read_dependencies(scratch / "rule.d")


def fnv1a(content: bytes) -> int:
    """As __cudaRegisterFatBinary in runtime/cudart.cc"""
    h = 0xCBF29CE484222325
    for byte in content:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def link_library(objects: Sequence[Compiled]) -> Path:
    """Host code and the stand-in runtime -> a shared library that binds to nothing but itself"""
    objects = [*objects, compile_source(RUNTIME / "cudart.cc", "host", [], ["-fvisibility=hidden", "-w"])]
    name = f"library-{digest(*(o.directory.name for o in objects))}.so"

    def make(path: Path) -> None:
        files = [str(o.object_file) for o in objects]
        run(
            [cxx(), "-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", *files, "-o", str(path), "-ldl", "-lpthread"],
            "link",
        )

    return cached(name, make)
