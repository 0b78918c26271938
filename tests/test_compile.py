"""csrc/cuda compiles without a warning for every architecture; its kernels take of a device what the committed table says."""

import compilation
import pytest
from compilation import SOURCES, CompilationError, Key, Resources

LACKING = compilation.missing_requirement()
needs_nvcc = pytest.mark.skipif(bool(LACKING), reason=str(LACKING))

# What a quick run compiles for: the oldest, the main ones; make test-full compiles for all.
QUICK = (75, 80, 90)
# Of any kernel, whoever compiles it. With more than 128 registers a block of 512 threads cannot be launched; 48 KiB of shared
# memory need no opting in; what is spilled goes through memory that the cost model does not see.
LIMITS = Resources(registers=128, stack=0, spill_stores=0, spill_loads=0, shared=48 << 10)


def assert_as_committed(targets):
    """Within the limits; and where nvcc is the one that the table was written with, as the table says."""
    found = compilation.resources(targets)
    for key, used in found.items():
        beyond = {name: value for name, value in vars(used).items() if value > vars(LIMITS)[name]}
        assert not beyond, f"{key}: {beyond}, at most {LIMITS}"
    version, table = compilation.committed()
    if version != compilation.nvcc_version():
        return
    changed = compilation.differences({key: used for key, used in table.items() if key.architecture in targets}, found)
    assert not changed, "\n".join([*changed, f"if that is meant: {compilation.COMMAND}, and say why in the commit"])


@pytest.mark.slow
@needs_nvcc
def test_kernels_compile_for_the_main_architectures():
    assert_as_committed([n for n in QUICK if n in compilation.architectures()])


@needs_nvcc
@pytest.mark.full
def test_kernels_compile_for_every_architecture():
    assert_as_committed(compilation.architectures())


def test_the_table_is_whole_and_within_the_limits():
    _, table = compilation.committed()
    assert {key.source for key in table} <= {source.name for source in SOURCES}
    assert {key.architecture for key in table} >= set(QUICK)
    for key in table:
        assert Key(key.source, key.kernel, QUICK[0]) in table, "a kernel for one architecture is one for all"
    assert all(value <= vars(LIMITS)[name] for used in table.values() for name, value in vars(used).items())


@needs_nvcc
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("__global__ void f(int* x) { int unused; *x = 1; }", "never referenced"),
        ("__global__ void f(int* x, unsigned n) { if (threadIdx.x < n) return 1; }", "error"),
        ("inline int f(int unused) { return 1; }", "unused-parameter"),
        (
            "__global__ void f(double* x) { __shared__ double big[7000]; big[threadIdx.x] = *x; *x = big[0]; }",
            "too much shared data",
        ),
    ],
    ids=["nvcc's warning", "error", "host compiler's warning", "ptxas"],
)
def test_what_a_compiler_says_against_is_reported(tmp_path, code, message):
    source = tmp_path / "bad.cu"
    source.write_text(code)
    with pytest.raises(CompilationError, match=message):
        compilation.report(source, [80])


@needs_nvcc
def test_resources_are_read_from_what_ptxas_says(tmp_path):
    """A kernel that must spill, one with shared memory for two architectures, and one that is not ours."""
    source = tmp_path / "some.cu"
    source.write_text(
        """
        namespace alrp { namespace {
        template <typename T> __global__ void shared(T* x) {
          __shared__ T tile[256];
          tile[threadIdx.x] = x[threadIdx.x];
          __syncthreads();
          x[threadIdx.x] = tile[255 - threadIdx.x];
        }
        __global__ void __launch_bounds__(1024) spilling(double* x) {
          double v[64];
          for (int r = 0; r < 3; ++r) {
            for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x] * (r ? v[(i * 7) % 64] : 1);
            __syncthreads();
            for (int i = 0; i < 64; ++i) x[(i * 5 % 64) * 1024 + threadIdx.x] += v[i];
          }
        }
        } }
        __global__ void theirs(int* x) { *x = 1; }
        void launch(double* x, float* y) {
          alrp::shared<<<1, 256>>>(y);
          alrp::spilling<<<1, 1024>>>(x);
        }
        """
    )
    table = compilation.parse("some.cu", compilation.report(source, [75, 90]))
    assert {(key.kernel, key.architecture) for key in table} == {(k, n) for k in ("shared<float>", "spilling") for n in (75, 90)}
    for number in (75, 90):
        shared, spilling = (table[Key("some.cu", name, number)] for name in ("shared<float>", "spilling"))
        assert (shared.shared, shared.spill_loads, shared.stack) == (1024, 0, 0)
        assert spilling.spill_stores > 0
        assert spilling.spill_loads > 0
        assert spilling.stack > 0
        assert 0 < shared.registers < spilling.registers <= 64


def test_a_change_is_told_by_kernel_and_figure():
    key, gone, fresh = (Key("a.cu", name, 80) for name in ("kernel", "gone", "fresh"))
    was, now = Resources(32, 0, 0, 0, 2048), Resources(40, 0, 8, 0, 2048)
    assert compilation.differences({key: was}, {key: was}) == []
    assert sorted(compilation.differences({key: was, gone: was}, {key: now, fresh: was})) == [
        "a.cu, fresh, sm_80: is new",
        "a.cu, gone, sm_80: is gone",
        "a.cu, kernel, sm_80: registers was 32, is 40",
        "a.cu, kernel, sm_80: spill_stores was 0, is 8",
    ]
