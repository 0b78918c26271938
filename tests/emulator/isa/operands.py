"""Operands: edge cases of each type crossed with each other, and random bits."""

import itertools
import math
import random
from collections.abc import Sequence

from .numbers import BITS, FORMAT

rng = random.Random(12345)


def edges(t: str) -> list[int]:
    w = BITS[t]
    if t in FORMAT:
        E, m = FORMAT[t]
        INF = ((1 << E) - 1) << m
        bias = (1 << (E - 1)) - 1
        one = bias << m
        v = [
            0,
            1,
            2,
            (1 << m) - 1,
            1 << m,
            (1 << m) + 1,
            one,
            one + 1,
            one - 1,
            one + (1 << (m - 1)),
            one + (1 << m),
            one + (1 << m) + (1 << (m - 1)),
            INF - 1,
            INF - 2,
            INF,
            INF + 1,
            INF | 1 << (m - 1),
            INF | (1 << m) - 1,
        ]
        return v + [x | 1 << (E + m) for x in v]
    if t in ("f16x2", "bf16x2"):
        h = edges(t[:-2])
        return [rng.choice(h) | rng.choice(h) << 16 for _ in range(60)]
    v = [
        0,
        1,
        2,
        3,
        5,
        7,
        8,
        15,
        16,
        31,
        32,
        33,
        63,
        64,
        65,
        127,
        128,
        255,
        256,
        257,
        1 << (w - 1),
        (1 << (w - 1)) - 1,
        (1 << (w - 1)) + 1,
        (1 << w) - 1,
        (1 << w) - 2,
        (1 << w) - 31,
        (1 << w) - 32,
        0x55555555,
        0xAAAAAAAA,
        0x12345678,
        0xFFFF,
        0x10000,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        0x100000000,
        0x7FFFFFFFFFFFFFFF,
        0xFFFFFFFF00000000,
    ]
    return sorted({x & ((1 << w) - 1) for x in v})


def random_operand(t: str) -> int:
    w = BITS[t]
    if t in ("f16x2", "bf16x2"):
        return random_operand(t[:-2]) | random_operand(t[:-2]) << 16
    if t in FORMAT and rng.random() < 0.7:
        E, m = FORMAT[t]
        bias = (1 << (E - 1)) - 1
        sp = rng.choice([3, 12, 40])
        e = min(max(bias + rng.randint(-sp, sp), 0), (1 << E) - 2)
        f = (
            rng.getrandbits(m)
            if rng.random() < 0.6
            else rng.getrandbits(4) << (m - 4)
            if rng.random() < 0.5
            else (rng.getrandbits(m) >> rng.randint(0, m))
        )
        return rng.getrandbits(1) << (E + m) | e << m | f
    v = rng.getrandbits(w)
    if t not in FORMAT and rng.random() < 0.4:
        v >>= rng.randint(0, w - 1)
    return v


def operands(types: Sequence[str], n: int) -> list[tuple[int, ...]]:
    ed = [edges(t) for t in types]
    rows = []
    tot = math.prod(len(e) for e in ed)
    if tot <= 1600:
        rows = list(itertools.product(*ed))
    if len(rows) > 1200:
        n = len(rows) + 200
    while len(rows) < n:
        rows.append(tuple(rng.choice(e) if rng.random() < 0.45 else random_operand(t) for e, t in zip(ed, types, strict=True)))
    return rows
