"""Builds the one extension, alrp_cuda._C: the CPU backend always, the CUDA backend where torch has CUDA and nvcc is found.

It is for the torch of the environment that it is built in, whose version is written beside it, to alrp_cuda/_C.torch.

Environment:
    ALRP_CUDA             0: without CUDA; 1: with CUDA, or fail with the reason; unset: with CUDA where it can be.
    TORCH_CUDA_ARCH_LIST  architectures, e.g. "8.0 9.0+PTX"; by default those that torch itself was built for.
    MAX_JOBS              compilers that run at once.
    CUDA_HOME             the CUDA toolkit; by default that of the nvcc on PATH, else /usr/local/cuda.
    ALRP_SANITIZE         address,undefined or thread: the CPU backend (ALRP_CUDA=0) under these sanitizers of the compiler, for
                          tests/sanitize.py, which keeps it apart from the ordinary build and runs it.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools

HERE = Path(__file__).parent
# vptr needs the type information of torch's own classes, which torch hides. Python is built with -fwrapv, which defines overflow.
# Any undefined behaviour ends the process.
SANITIZER_FLAGS = {
    "address,undefined": [
        "-O1",
        "-g1",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined,float-cast-overflow",
        "-fno-sanitize=vptr",
        "-fno-wrapv",
        "-fno-sanitize-recover=all",
    ],
    "thread": ["-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=thread"],
}
VERSION = runpy.run_path(str(HERE / "alrp_cuda" / "version.py"))["__version__"]

OLDEST_TORCH = "2.11"  # that the tests have passed with
INSTALL = 'pip install torch "setuptools>=77" ninja && pip install --no-build-isolation .'


def release(version: str) -> tuple[int, ...]:
    """(2, 14) of 2.14.1+cu130."""
    return tuple(int(number) for number in version.split(".")[:2])


try:
    import torch
except ImportError as error:
    sys.exit(
        f"alrp_cuda builds against the torch of your environment, and this build sees none ({error}): "
        f"it is not installed, or the build is isolated from it. Type, in your environment:\n{INSTALL}"
    )
if release(torch.__version__) < release(OLDEST_TORCH):
    sys.exit(
        f"alrp_cuda takes torch {OLDEST_TORCH} or newer, found {torch.__version__}. For the newest one, type:\n"
        f"{INSTALL.replace('install', 'install --upgrade', 1)}"
    )
if release(setuptools.__version__) < (77,):
    sys.exit(f"alrp_cuda builds with setuptools 77 or newer, found {setuptools.__version__}. Type:\n{INSTALL}")


def find_cuda_home() -> Path | None:
    """The toolkit that holds cuda_runtime.h; nvcc tells where it lies, for the nvcc on PATH may be a wrapper script."""
    candidates = []
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        candidates.append(Path(home))
    elif nvcc := shutil.which("nvcc"):
        dry = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True, check=False)
        if top := re.search(r"^#\$ TOP=(.+)$", dry.stderr, re.MULTILINE):
            candidates.append(Path(top[1].strip()))
        candidates.append(Path(nvcc).resolve().parents[1])
    candidates.append(Path("/usr/local/cuda"))
    for home in candidates:
        if (home / "bin" / "nvcc").exists() and (home / "include" / "cuda_runtime.h").exists():
            return home.resolve()
    return None


def choose_cuda() -> tuple[Path | None, str]:
    """(toolkit, or None to build without CUDA; the reason). Never asks whether a GPU is present."""
    wish = os.environ.get("ALRP_CUDA", "")
    if wish not in ("", "0", "1"):
        sys.exit(f"ALRP_CUDA must be 0, 1 or unset, got {wish!r}")
    if wish == "0":
        return None, "ALRP_CUDA=0"
    reason, home = "", find_cuda_home()
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} has no CUDA: install a CUDA build of torch"
    elif home is None:
        reason = "no CUDA toolkit found: install nvcc and its headers, put nvcc on PATH or set CUDA_HOME"
    if reason and wish == "1":
        sys.exit(f"ALRP_CUDA=1, but the CUDA backend cannot be built: {reason}")
    return (None, reason) if reason else (home, f"torch has CUDA {torch.version.cuda}, nvcc in {home}")


def check_compiler() -> None:
    """Stop with advice where there is no C++ compiler."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler.split()[0]) is None:
        sys.exit(f"no C++ compiler: {compiler!r} is not on PATH; install g++ (Debian: apt-get install g++) or set CXX")


def architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, or the architectures torch was built for, the last one also as PTX for newer devices."""
    if chosen := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return chosen
    known = sorted({int(number) for number in re.findall(r"sm_(\d+)\b", torch._C._cuda_getArchFlags() or "")})
    return " ".join(f"{number // 10}.{number % 10}" for number in known or [75]) + "+PTX"


cuda_home, reason = choose_cuda()
building = any(command.startswith(("build", "install", "develop", "bdist", "editable")) for command in sys.argv[1:])
if building:
    check_compiler()
    print(f"alrp_cuda {VERSION}: building backends cpu{', cuda' if cuda_home else ''} ({reason})", file=sys.stderr, flush=True)
if cuda_home:
    # torch reads both when it is imported or asked for flags; without a GPU it has no default architecture.
    os.environ["CUDA_HOME"] = str(cuda_home)
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures()

from torch.utils import cpp_extension  # noqa: E402  (after CUDA_HOME)

sources = [*HERE.glob("csrc/*.cpp"), *HERE.glob("csrc/cpu/*.cpp"), *HERE.glob("csrc/torch/*.cpp")]
macros: list[tuple[str, str | None]] = []
# at::parallel_for lies in headers and is serial without -fopenmp. To the compiler only: linked with it, the extension would
# bring an OpenMP of its own beside torch's, whose threads torch.set_num_threads does not govern. Apple's compiler takes it
# unseen by its driver; omp.h comes with torch there.
openmp = ["-Xclang", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
# Without -ffp-contract=off a compiler may fuse multiply and add on one CPU and not on another: other bits.
flags = {
    "cxx": [
        "-O3",
        "-std=c++20",
        "-ffp-contract=off",
        *openmp,
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
    ]
}
if cuda_home:
    cpp_extension.CUDA_HOME = str(cuda_home)
    sources += HERE.glob("csrc/cuda/*.cu")
    macros = [("ALRP_WITH_CUDA", None), ("ALRP_ARCHS", '"{}"'.format(os.environ["TORCH_CUDA_ARCH_LIST"]))]
    flags["nvcc"] = ["-O3", "-std=c++20", "-Xcompiler=-Wall,-Wextra,-fvisibility=hidden", "-Xcudafe=--display_error_number"]
link_flags = []
if sanitizers := os.environ.get("ALRP_SANITIZE"):
    if sanitizers not in SANITIZER_FLAGS:
        sys.exit(f"ALRP_SANITIZE must be {' or '.join(SANITIZER_FLAGS)}, got {sanitizers!r}")
    if cuda_home:
        sys.exit("ALRP_SANITIZE is for the CPU backend: set ALRP_CUDA=0")
    flags["cxx"] = [flag for flag in flags["cxx"] if flag != "-O3"] + SANITIZER_FLAGS[sanitizers]
    link_flags = SANITIZER_FLAGS[sanitizers]
extension = cpp_extension.CUDAExtension if cuda_home else cpp_extension.CppExtension


class BuildExtension(cpp_extension.BuildExtension):
    """Compiles what has changed alone, keeps the objects of each torch apart, and notes which torch it was."""

    def run(self) -> None:
        objects = HERE / "build" / "editable" if self.editable_mode else Path(self.build_temp)
        self.build_temp = str(objects / torch.__version__)
        self.force = True  # link at least: an older extension may be another torch's
        super().run()
        Path(self.get_ext_fullpath("alrp_cuda._C")).with_name("_C.torch").write_text(torch.__version__)


setuptools.setup(
    version=VERSION,
    ext_modules=[
        extension(
            "alrp_cuda._C",
            sorted(str(source.relative_to(HERE)) for source in sources),
            define_macros=macros,
            extra_compile_args=flags,
            extra_link_args=link_flags,
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
