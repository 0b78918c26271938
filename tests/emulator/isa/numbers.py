"""Floating-point formats and their arithmetic in exact fractions, rounded once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

MASK_32, MASK_64 = (1 << 32) - 1, (1 << 64) - 1
# Bits of the exponent and of the fraction
FORMAT = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52)}
CANONICAL_NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": "nan"}  # "nan": any NaN
BITS = {
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "f64": 64,
    "b8": 8,
    "u8": 8,
    "s8": 8,
    "b16": 16,
    "u16": 16,
    "s16": 16,
    "b32": 32,
    "u32": 32,
    "s32": 32,
    "b64": 64,
    "u64": 64,
    "s64": 64,
    "pred": 1,
    "f16x2": 32,
    "bf16x2": 32,
}


@dataclass
class Number:
    """An exact number, an infinity or a NaN"""

    kind: str  # "fin", "inf" or "nan"
    sign: int = 0
    magnitude: Fraction = Fraction(0)

    @property
    def value(self) -> Fraction:
        return -self.magnitude if self.sign else self.magnitude


def power_of_two(e: int) -> Fraction:
    return Fraction(1 << e) if e >= 0 else Fraction(1, 1 << -e)


def decode(b: int, t: str, ftz: bool = False) -> Number:
    E, m = FORMAT[t]
    s = b >> (E + m) & 1
    e = b >> m & ((1 << E) - 1)
    f = b & ((1 << m) - 1)
    bias = (1 << (E - 1)) - 1
    if e == (1 << E) - 1:
        return Number("nan", s) if f else Number("inf", s)
    if e == 0:
        return Number("fin", s, Fraction(0) if ftz else f * power_of_two(1 - bias - m))
    return Number("fin", s, ((1 << m) | f) * power_of_two(e - bias - m))


def floor(x: Fraction) -> int:
    return x.numerator // x.denominator


def round_to_integer(v: Fraction, rounding: str, s: int) -> int:
    """Round a magnitude whose sign is `s`."""
    n = floor(v)
    r = v - n
    if r == 0:
        return n
    if rounding == "rn":
        return n + 1 if r > Fraction(1, 2) or (r == Fraction(1, 2) and n & 1) else n
    if rounding == "rz":
        return n
    if rounding == "rm":
        return n + 1 if s else n
    if rounding == "rp":
        return n if s else n + 1
    assert rounding == "rna", rounding
    return n + 1 if r >= Fraction(1, 2) else n


def encode(z: Number, t: str, rounding: str = "rn", ftz: bool = False) -> int | str:
    """The nearest value of type `t` in the given rounding, as bits; "nan" where any NaN will do"""
    E, m = FORMAT[t]
    bias = (1 << (E - 1)) - 1
    S = z.sign << (E + m)
    INF = ((1 << E) - 1) << m
    if z.kind == "nan":
        return CANONICAL_NAN[t]
    if z.kind == "inf":
        return S | INF
    if z.magnitude == 0:
        return S
    e = z.magnitude.numerator.bit_length() - z.magnitude.denominator.bit_length()
    if power_of_two(e) > z.magnitude:
        e -= 1
    q = max(e, 1 - bias) - m
    n = round_to_integer(z.magnitude * power_of_two(-q), rounding, z.sign)
    if n == 0:
        return S
    b = ((q + m + bias - 1) << m) + n if n >= (1 << m) else n  # n may be 2^(m+1): carry moves into the exponent by itself
    if b >= INF:
        b = INF if rounding in ("rn", "rna") or (rounding == "rp" and not z.sign) or (rounding == "rm" and z.sign) else INF - 1
    if ftz and b < (1 << m):
        b = 0
    return S | b


def negate(z: Number) -> Number:
    return Number(z.kind, 1 - z.sign, z.magnitude)


def add(a: Number, b: Number, rounding: str = "rn") -> Number:
    if a.kind == "nan" or b.kind == "nan":
        return Number("nan")
    if a.kind == "inf" or b.kind == "inf":
        return Number("nan") if a.kind == b.kind == "inf" and a.sign != b.sign else (a if a.kind == "inf" else b)
    x = a.value + b.value
    if x == 0:
        return Number("fin", a.sign if (a.sign == b.sign) else int(rounding == "rm"))
    return Number("fin", int(x < 0), abs(x))


def multiply(a: Number, b: Number) -> Number:
    if a.kind == "nan" or b.kind == "nan":
        return Number("nan")
    s = a.sign ^ b.sign
    if a.kind == "inf" or b.kind == "inf":
        return (
            Number("nan")
            if (a.kind == "fin" and a.magnitude == 0) or (b.kind == "fin" and b.magnitude == 0)
            else Number("inf", s)
        )
    return Number("fin", s, a.magnitude * b.magnitude)


def divide(a: Number, b: Number) -> Number:
    if a.kind == "nan" or b.kind == "nan":
        return Number("nan")
    s = a.sign ^ b.sign
    if a.kind == "inf":
        return Number("nan") if b.kind == "inf" else Number("inf", s)
    if b.kind == "inf":
        return Number("fin", s)
    if b.magnitude == 0:
        return Number("nan") if a.magnitude == 0 else Number("inf", s)
    return Number("fin", s, a.magnitude / b.magnitude)


def square_root(a: Number) -> Number:
    if a.kind == "nan":
        return a
    if a.kind == "fin" and a.magnitude == 0:
        return a
    if a.sign:
        return Number("nan")
    if a.kind == "inf":
        return a
    n, d = a.magnitude.numerator, a.magnitude.denominator
    k = 1200
    N = (n << 2 * k) // d
    r = math.isqrt(N)
    ex = r * r * d == n << 2 * k
    return Number("fin", 0, Fraction(r, 1 << k) if ex else Fraction(2 * r + 1, 2 << k))


def saturate(z: Number) -> Number:
    if z.kind == "nan" or z.sign:
        return Number("fin")
    return Number("fin", 0, min(Fraction(1), z.magnitude)) if z.kind == "fin" else Number("fin", 0, Fraction(1))


def order_key(z: Number) -> Fraction:
    return (-1 if z.sign else 1) * (Fraction(1 << 2000) if z.kind == "inf" else z.magnitude)


def minimum_maximum(a: Number, b: Number, mx: bool, nanprop: bool) -> Number:
    if a.kind == "nan" or b.kind == "nan":
        if nanprop or a.kind == b.kind:
            return Number("nan")
        return b if a.kind == "nan" else a
    ka, kb = order_key(a), order_key(b)
    if ka == kb:
        return (a if a.sign <= b.sign else b) if mx else (a if a.sign >= b.sign else b)
    return (a if ka > kb else b) if mx else (a if ka < kb else b)


def compare(c: str, a: Number, b: Number) -> bool:
    un = a.kind == "nan" or b.kind == "nan"
    if c == "num":
        return not un
    if c == "nan":
        return un
    if un:
        return c.endswith("u") and c not in ("u",)
    x, y = order_key(a), order_key(b)
    c = c[:2]
    return {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[c]


# ------------------------------------------------------------------ operands
def sign_extend(v: int, w: int) -> int:
    v &= (1 << w) - 1
    return v - (1 << w) if v >> (w - 1) else v


def is_nan(b: int, t: str) -> bool:
    E, m = FORMAT[t]
    return (b & ((1 << (E + m)) - 1)) > ((1 << E) - 1) << m
