"""Kernels as nvcc compiles them, against numpy, on several targets and in several orders."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest

from . import EmulatorError, Module, Schedule
from .conftest import KERNELS

TARGETS = (
    "compute_80",
    pytest.param("compute_75", marks=pytest.mark.full),
    pytest.param("compute_90", marks=pytest.mark.full),
)
SCHEDULES = (
    Schedule(),
    Schedule(order="reverse"),
    Schedule(order="random", seed=7, resident=4),
    Schedule(order="random", seed=8, races="shared"),
)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.order}-{s.races}")


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def features(target: str) -> Module:
    module = Module.from_cuda(KERNELS / "features.cu", target)
    assert module.unsupported == {}
    return module


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def to_bfloat(x: np.ndarray) -> np.ndarray:
    """Round to nearest even"""
    u = np.asarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32)


# ---- numerical kernels


@every_schedule
def test_histogram(target: str, schedule: Schedule) -> None:
    rng = np.random.default_rng(0)
    n, bins = 20_000, 64
    x = read_only(rng.normal(size=n).astype(np.float32))
    edges = read_only(np.sort(rng.normal(size=bins + 1).astype(np.float32)))
    counts, sums, total = np.zeros(bins, np.uint32), np.zeros(bins, np.float32), np.zeros(1)
    module = Module.from_cuda(KERNELS / "histogram.cu", target)
    arguments = [x, n, edges, bins, counts, sums, total]
    module.launch("hist_bsearch", 40, 256, arguments, shared=4 * (3 * bins + 1), schedule=schedule)
    inside = x[x < edges[-1]]
    assert (counts == np.histogram(inside, edges)[0]).all()
    assert np.allclose(sums, np.histogram(inside, edges, weights=inside.astype(np.float64))[0], rtol=1e-4, atol=1e-2)
    assert np.isclose(total[0], x.astype(np.float64).sum(), rtol=1e-12)


@every_schedule
def test_block_scan(target: str, schedule: Schedule) -> None:
    n, block = 20_000, 256
    blocks = -(-n // block)
    x = read_only(np.random.default_rng(0).normal(size=n).astype(np.float32))
    scanned, sums = np.zeros(n, np.float32), np.zeros(blocks)
    negative, reduced = np.zeros(1, np.int32), np.zeros(-(-n // 32), np.uint32)
    module = Module.from_cuda(KERNELS / "block_scan.cu", target)
    module.launch("block_scan", blocks, block, [x, scanned, sums, negative, reduced, n], schedule=schedule)
    padded = np.zeros(blocks * block)
    padded[:n] = x
    expected = np.cumsum(padded.reshape(blocks, block), 1)
    assert np.allclose(scanned, expected.ravel()[:n], atol=2e-5)
    assert np.allclose(sums, expected[:, -1], atol=1e-12)
    assert negative[0] == (x < 0).sum()
    assert (reduced == sum(range(1, 33))).all()


@every_schedule
def test_half_precision(target: str, schedule: Schedule) -> None:
    rng = np.random.default_rng(0)
    n4 = 5000
    n = 4 * n4
    h = read_only(rng.normal(size=n).astype(np.float16))
    b = read_only(to_bfloat(rng.normal(size=n)))
    f = _aligned_16((rng.normal(size=n) * 2).astype(np.float32))
    sums = np.zeros(3)
    halves, bfloats, functions = np.zeros(n, np.float16), np.zeros(n, np.uint16), np.zeros(n, np.float32)
    module = Module.from_cuda(KERNELS / "half_precision.cu", target)
    module.launch("half_acc", 13, 256, [h, b, f, n4, sums, halves, bfloats, functions], schedule=schedule)
    f64 = f.astype(np.float64)
    assert np.isclose(sums[0], (h.astype(np.float64) * f64).sum(), rtol=1e-12, atol=1e-9)
    assert np.isclose(sums[1], (from_bfloat(b).astype(np.float64) * f64).sum(), rtol=1e-12, atol=1e-9)
    q = f64.reshape(-1, 4)
    transcendental = np.exp(q[:, 0]) + np.log1p(abs(q[:, 1])) + np.sqrt(abs(q[:, 2])) / (1 + q[:, 3] ** 2)
    assert np.isclose(sums[2], transcendental.sum(), rtol=1e-13)
    f4, h4, b4 = f.reshape(-1, 4), h.reshape(-1, 4), b.reshape(-1, 4)
    half_results, bfloat_results, results = (r.reshape(-1, 4) for r in (halves, bfloats, functions))
    assert (half_results[:, :2] == f4[:, :2].astype(np.float16)).all()
    assert (half_results[:, 2] == f4[:, 2].astype(np.float16) + h4[:, 2]).all()
    assert (half_results[:, 3] == f4[:, 3].astype(np.float16) * h4[:, 3]).all()
    assert (bfloat_results[:, :2] == to_bfloat(f4[:, :2])).all()
    assert (bfloat_results[:, 2] == f4[:, 2].copy().view(np.uint32) >> 16).all()
    added = from_bfloat(to_bfloat(f4[:, 3].copy())) + from_bfloat(b4[:, 3])
    assert (bfloat_results[:, 3] == to_bfloat(added)).all()
    assert np.allclose(results[:, 0], np.exp(q[:, 0]), rtol=3e-7)
    assert np.allclose(results[:, 1], np.log(abs(q[:, 1])), rtol=3e-7, atol=1e-7)
    assert np.allclose(results[:, 2], 1 / (1 + np.exp(-q[:, 2])), rtol=1e-6)
    assert np.allclose(results[:, 3], np.tanh(q[:, 3]), rtol=3e-7)


def _aligned_16(x: np.ndarray) -> np.ndarray:
    storage = np.zeros(x.nbytes + 16, np.uint8)
    start = -storage.ctypes.data % 16
    result = storage[start : start + x.nbytes].view(x.dtype)
    result[:] = x
    return read_only(result)


# ---- language features


def signed(value: int, width: int = 32) -> int:
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def toward_zero(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def integer_results(x: int, y: int) -> list[int]:
    """What kernel `ints` computes, in exact integers"""
    sx, sy = signed(x), signed(y)
    xy, yx = x << 32 | y, y << 32 | x
    divisor, long_divisor = signed(y | 1), signed(yx >> 33, 64) | 1

    def byte(word: int, i: int) -> int:
        return word >> 8 * i & 255

    return [
        v & 0xFFFFFFFF
        for v in (
            int(f"{x:032b}"[::-1], 2),
            32 - x.bit_length(),
            (x & -x).bit_length(),
            x.bit_count(),
            sum((yx >> (8 * ((y >> 4 * j) & 7)) & 255) << 8 * j for j in range(4)),
            (yx << (y & 31)) >> 32,
            yx >> min(y & 63, 32),
            (x * y) >> 32,
            (sx * sy) >> 32,
            ((xy * yx) >> 64) >> 7,
            x // (y | 1),
            x % (y | 1),
            toward_zero(sx, divisor),
            sx - toward_zero(sx, divisor) * divisor,
            xy // (yx >> 40 | 1),
            max(sx, sy),
            min(x, y),
            sx >> (y & 31),
            abs(sx - sy) + 7,
            3 + sum(signed(byte(x, j), 8) * signed(byte(y, j), 8) for j in range(4)),
            64 - (xy >> (y & 63)).bit_length(),
            signed(xy, 64) - toward_zero(signed(xy, 64), long_divisor) * long_divisor,
            abs(sx),
            sum(((byte(x, j) + byte(y, j)) & 255) << 8 * j for j in range(4)),
        )
    ]


def test_integer_intrinsics(features: Module) -> None:
    rng = np.random.default_rng(3)
    n = 1000
    a, b = (rng.integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32) for _ in range(2))
    a[:5] = [0, 1, 0xFFFFFFFF, 0x80000000, 7]
    out = np.zeros((n, 24), np.uint32)
    features.launch("ints", 8, 128, [a, b, out, n], schedule=Schedule(order="random"))
    for x, y, row in zip(a.tolist(), b.tolist(), out.tolist(), strict=True):
        assert row == integer_results(x, y), (hex(x), hex(y))


def rounded(exact: Fraction, mode: str) -> np.float32:
    nearest = np.float32(float(exact))
    low = high = nearest
    if Fraction(float(nearest)) > exact:
        low = np.nextafter(nearest, np.float32(-np.inf))
    elif Fraction(float(nearest)) < exact:
        high = np.nextafter(nearest, np.float32(np.inf))
    return low if mode == "down" or (mode == "zero" and exact > 0) else high


def test_floating_point_intrinsics(features: Module) -> None:
    rng = np.random.default_rng(3)
    n = 1000
    x, y = (rng.normal(size=n).astype(np.float32) for _ in range(2))
    floats, integers = np.zeros((n, 16), np.float32), np.zeros((n, 12), np.int32)
    features.launch("flts", 8, 128, [x, y, floats, integers, n])
    f, i = floats.T, integers.T
    for j in range(n):
        u, v = Fraction(float(x[j])), Fraction(float(y[j]))
        assert f[0, j] == rounded(u * v + Fraction(float(np.float32(0.3))), "zero")
        assert f[1, j] == rounded(u + v, "up")
        assert f[2, j] == rounded(u * v, "down")
        assert f[14, j] == rounded(Fraction(float(x[j]) / 3.0), "down")
    x64, y64, ten = x.astype(np.float64), y.astype(np.float64), np.float32(10)
    assert (f[3] == x / y).all()
    assert (f[4] == np.sqrt(abs(x))).all()
    assert (f[5] == np.minimum(x, y)).all()
    assert (f[6] == np.maximum(x, y)).all()
    assert (f[7] == np.rint(x * ten)).all()
    assert (f[8] == np.floor(x * np.float32(3))).all()
    assert (f[9] == np.ceil(y * np.float32(3))).all()
    assert (f[10] == np.fmod(x, y)).all()
    assert np.allclose(f[11], np.sin((x * np.float32(20)).astype(np.float64)), atol=3e-7)
    assert np.allclose(f[12], abs(x64) ** y64, rtol=1e-6)
    assert np.allclose(f[13], [math.erf(v) for v in x64], rtol=1e-6, atol=1e-7)
    assert np.allclose(f[15], 1 / np.sqrt(abs(x64)), rtol=3e-7)
    hundred = np.float32(100)
    assert (i[0] == np.rint(x * hundred)).all()
    assert (i[1] == np.floor(x * hundred)).all()
    large = (x * np.float32(1e10)).astype(np.float64)
    assert (i[2] == np.clip(np.trunc(large), -(2**31), 2**31 - 1)).all()
    assert (i[4] == x.view(np.int32)).all()
    assert (i[7] == (x < y)).all()
    hx, hy, one = x.astype(np.float16), y.astype(np.float16), np.float16(1)
    fused = (hx.astype(np.longdouble) * hy.astype(np.longdouble) + np.longdouble(np.float16(0.7))).astype(np.float16)
    assert (i[8].astype(np.uint16) == fused.view(np.uint16)).all()
    pair = (hx + hy).view(np.uint16).astype(np.uint32) | (hy + one).view(np.uint16).astype(np.uint32) << 16
    assert (i[10].copy().view(np.uint32) == pair).all()


def test_structs_recursion_switch_printf_and_variables(features: Module, capfd: pytest.CaptureFixture[str]) -> None:
    n = 200
    p = np.random.default_rng(3).integers(0, 7, n).astype(np.int32)
    out, chosen = np.zeros(n), np.zeros(n, np.int32)
    struct_argument = struct.pack("<ifdQB7x", n, 1.25, -3.5, p.ctypes.data, 3)
    arguments = [struct_argument, out, chosen]
    with pytest.raises(EmulatorError, match="out-of-bounds read"):  # nobody said that p is device memory
        features.launch("misc", (2, 2), (4, 4, 4), arguments)
    before = features.variable("gcounter", np.int32)[0]
    features.launch("misc", (2, 2), (4, 4, 4), arguments, extra=[p])
    assert features.variable("gcounter", np.int32)[0] == before + n
    assert capfd.readouterr().out == "hello 3 2.500000 str 1099511627776\n"

    def recursive(x: float, k: int) -> float:
        local = [x * i for i in range(8)]
        return local[int(x) & 7] if k <= 0 else recursive(x + 1, k - 1) + local[k & 7]

    table = [1.5, -2, 3.25, 0.125]
    assert np.allclose(out, [recursive(float(p[g]), 3) * 1.25 - 3.5 + table[g & 3] for g in range(n)])
    switch = [[11, g.bit_count(), g * g, -g, g ^ 77, 3, g << 2][p[g] % 7] for g in range(n)]
    assert chosen.tolist() == switch


def test_atomics(features: Module) -> None:
    n = 1000
    a, u = np.zeros(3, np.int32), np.array([0, 0, 0, 0, 0xFFFFFFFF], np.uint32)
    f, d, q = np.zeros(1, np.float32), np.zeros(1), np.zeros(2, np.uint64)
    features.launch("atoms", 8, 128, [a, u, f, d, q, n], schedule=Schedule(order="random", resident=3))
    i = np.arange(n)
    hashed = (i * 7919) % 10007
    assert a[:2].tolist() == [hashed.max(), (-hashed).min()]
    assert u[[0, 2, 3, 4]].tolist() == [n % 10, np.bitwise_xor.reduce(i), 0xFFFFFFFF, 0xFFFFFF00]
    assert q.tolist() == [i.sum(), (n - 1) << 33]
    assert (f[0], d[0]) == (n, ((i * 31) % 997).max())


def test_warp_intrinsics(features: Module) -> None:
    x = np.random.default_rng(3).integers(0, 100, 1024).astype(np.int32)
    out = np.zeros((1024, 9), np.int32)
    features.launch("warps", 8, 128, [x, out, 1024], schedule=Schedule(order="random", races="shared"))
    warps = x.reshape(-1, 32)
    o = out.T
    equal = (warps[:, :, None] & 3) == (warps[:, None, :] & 3)
    masks = (equal * (1 << np.arange(32, dtype=np.uint64))).sum(2).astype(np.uint32)
    assert (o[0].copy().view(np.uint32).reshape(-1, 32) == masks).all()
    assert (o[1] == 1).all()
    assert (o[2].reshape(-1, 8) == x.reshape(-1, 8).sum(1)[:, None]).all()
    assert (o[3].reshape(-1, 32) == (warps == 5).any(1)[:, None]).all()
    assert (o[4] == 1).all()
    assert (o[5].reshape(-1, 32) == warps[:, (np.arange(32) * 5) & 31]).all()
    shifted = x.reshape(-1, 4).copy()
    shifted[:, 1:] = x.reshape(-1, 4)[:, :-1]
    assert (o[6] == shifted.ravel()).all()
    assert (o[7].reshape(-1, 128) == (x.reshape(-1, 128) & 1).sum(1)[:, None]).all()
    assert (o[8] == 0).all()


@pytest.mark.parametrize("schedule", [Schedule(races="shared"), Schedule(order="random", seed=5, resident=4)])
def test_last_block_reduces(features: Module, schedule: Schedule) -> None:
    x = np.random.default_rng(3).normal(size=5000).astype(np.float32)
    parts, total = np.zeros(11), np.zeros(1)
    features.launch("lastblk", 11, 128, [x, 5000, parts, total], schedule=schedule)
    assert np.isclose(total[0], x.astype(np.float64).sum(), rtol=1e-12)


def test_block_algorithms(features: Module) -> None:
    x = np.random.default_rng(3).integers(0, 1000, 1024).astype(np.int32)
    scanned, ordered, values = np.zeros(1024, np.int32), np.zeros(1024, np.uint32), np.zeros(1024, np.int32)
    schedule = Schedule(order="random", races="shared")
    features.launch("cubs", 2, 128, [x, scanned, ordered, values, 1024], schedule=schedule)
    blocks = x.reshape(2, 512)
    assert (scanned.reshape(2, 512) == np.cumsum(blocks, 1) - blocks).all()
    assert (ordered.reshape(2, 512) == np.sort(blocks, 1)).all()
    assert (values.reshape(2, 512) == np.argsort(blocks, 1, kind="stable") + np.array([[0], [512]])).all()


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(),
        Schedule(order="reverse", resident=20),
        Schedule(order="reverse"),
        Schedule(order="random", seed=9),
    ],
)
def test_blocks_that_wait_for_others_are_given_company(features: Module, schedule: Schedule) -> None:
    """In reverse order with one resident block, each block waits for one that has not started."""
    x = np.random.default_rng(3).integers(0, 1000, 1024).astype(np.int32)
    sums, flags = np.zeros(1024, np.int32), np.full(16, -1, np.int32)
    features.launch("lookback", 16, 64, [x, sums, flags, 1024], schedule=schedule)
    assert (sums == np.cumsum(x)).all()


def test_endless_wait_is_reported() -> None:
    module = Module(
        """
        .version 8.0
        .target sm_80
        .address_size 64
        .visible .entry wait(.param .u64 flag) {
          .reg .b64 %a; .reg .b32 %r; .reg .pred %p;
          ld.param.u64 %a, [flag];
          again: ld.volatile.global.u32 %r, [%a];
          setp.eq.u32 %p, %r, 0;
          @%p bra again;
          ret;
        }
        """
    )
    with pytest.raises(EmulatorError, match="endless wait"):
        module.launch("wait", 1, 32, [np.zeros(1, np.uint32)])
    module.launch("wait", 1, 32, [np.ones(1, np.uint32)])


def test_double_precision_pairs_are_quick() -> None:
    """A million pairs with their tiles, a launch: the emulator must stay usable for such sizes."""
    rng = np.random.default_rng(0)
    n, p = 4000, 256
    negatives, positives, counts = rng.normal(size=n), rng.normal(size=p), np.zeros(n)
    module = Module.from_cuda(KERNELS / "pairs.cu")
    schedule = Schedule(races="shared")
    result = module.launch("count_pairs", -(-n // 256), 256, [negatives, n, positives, p, 0.25, counts], schedule=schedule)
    expected = np.clip((negatives[:, None] - positives) * 0.25 + 0.5, 0, 1).sum(1)
    assert np.allclose(counts, expected, rtol=1e-12)
    assert result.counters.thread_instructions > 4 * n * p
