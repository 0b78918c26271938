"""The CPU's C++ under the compiler's sanitizers: ``make sanitize``, or ``python -m tests.sanitize [--full]``.

Builds the extension once under AddressSanitizer and UndefinedBehaviorSanitizer and once under ThreadSanitizer, each into a folder
of its own under build/sanitized, and runs tests of the CPU on it; --full: many more of them. Ends with 1 if one failed or a
sanitizer reported something, which ends its process.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What an ordinary build is made of.
SOURCES = ("alrp_cuda", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Kind:
    """One build: ``sanitizers`` as setup.py has them, the runtime to load before all else, and its options."""

    name: str
    sanitizers: str
    runtime: str
    options: dict[str, str]
    tests: tuple[str, ...]
    full: tuple[str, ...]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "address",
            "address,undefined",
            "libasan.so",
            # Python and torch keep memory to their end: leaks are test_memory.py's. Too large a tensor raises and does not abort.
            {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
            ("test_threads.py", "test_edges.py", "test_fuzz.py"),
            (
                "test_equivalence.py",
                "test_framework.py",
                "test_scope.py",
                "test_tensors.py",
                "test_properties.py",
                "test_errors.py",
            ),
        ),
        Kind(
            "thread",
            "thread",
            "libtsan.so",
            # Mutexes that torch frees at exit before it unlocks them are no data race.
            {"TSAN_OPTIONS": f"halt_on_error=1:report_mutex_bugs=0:suppressions={ROOT / 'tests' / 'sanitize_thread.supp'}"},
            ("test_threads.py",),
            ("test_equivalence.py", "test_framework.py", "test_scope.py", "test_size.py"),
        ),
    )
}


def build(kind: Kind, source: Path = ROOT, target: Path | None = None) -> Path:
    """The folder with the package as built from ``source``."""
    base = target or ROOT / "build" / "sanitized" / kind.name
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(base), "--build-lib", str(base / "lib")]
    environment = os.environ | {"ALRP_CUDA": "0", "ALRP_SANITIZE": kind.sanitizers}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the build under {kind.sanitizers} failed:\n{done.stdout}{done.stderr}")
    return base / "lib"


def runtime(name: str) -> str:
    """The path of a library of the compiler."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    return subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def run(kind: Kind, library: Path, arguments: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in the folder of the sanitized package, so that this one is imported."""
    environment = os.environ | kind.options | {"OMP_NUM_THREADS": "3"}
    # AddressSanitizer looks for the C++ library's functions when it starts, before Python has loaded anything of C++.
    environment["LD_PRELOAD"] = f"{runtime(kind.runtime)}:{runtime('libstdc++.so')}"
    return subprocess.run([sys.executable, *arguments], cwd=library, env=environment, text=True, **options)  # type: ignore[call-overload,no-any-return]


def copy_sources(target: Path) -> None:
    """All that a build needs, to plant a fault in it."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, target / name)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; by default all")
    parser.add_argument("--full", action="store_true", help="many more tests")
    options = parser.parse_args(argv)
    if unknown := set(options.kinds) - KINDS.keys():
        parser.error(f"KIND must be one of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    failed = []
    for name in options.kinds or KINDS:
        kind, begin = KINDS[name], time.monotonic()
        library = build(kind)
        print(f"==== {kind.sanitizers}: built in {time.monotonic() - begin:.0f} s", flush=True)
        tests = [str(ROOT / "tests" / test) for test in kind.tests + (kind.full if options.full else ())]
        # Reports go to the process's own standard error, which pytest must not capture.
        command = ["-m", "pytest", "-q", "-x", "--capture=sys", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
        selection = ["-k", "not emulated and not reference and not waiting", "-m", "not full and not gpu and not unsanitized"]
        if run(kind, library, [*command, f"--config-file={ROOT / 'pyproject.toml'}", *selection, *tests]).returncode:
            failed.append(kind.sanitizers)
        print(f"==== {kind.sanitizers}: {'FAILED' if kind.sanitizers in failed else 'nothing reported'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
