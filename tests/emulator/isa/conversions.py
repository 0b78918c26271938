"""cvt between all types."""

# ruff: noqa: B023 - loop variables are bound by the outer of two lambdas
from fractions import Fraction

from .cases import case
from .numbers import (
    BITS,
    CANONICAL_NAN,
    FORMAT,
    MASK_64,
    Number,
    decode,
    encode,
    power_of_two,
    round_to_integer,
    saturate,
    sign_extend,
)
from .operands import edges, random_operand, rng


def conversion_cases() -> None:
    IT = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")

    def rng_(t):
        return (-(1 << (BITS[t] - 1)), (1 << (BITS[t] - 1)) - 1) if t[0] == "s" else (0, (1 << BITS[t]) - 1)

    for d in IT:
        for s in IT:
            Vs = (lambda s: lambda x: sign_extend(x, BITS[s]) if s[0] == "s" else x & ((1 << BITS[s]) - 1))(s)
            # 8-bit values live in 16-bit registers: the result is extended to the register's width
            if d != s:
                case(
                    f"cvt.{d}.{s}",
                    f"cvt.{d}.{s} %o, %a;",
                    (s,),
                    d,
                    (lambda Vs, d: lambda a: sign_extend(Vs(a), BITS[d]) if d[0] == "s" else Vs(a) & ((1 << BITS[d]) - 1))(Vs, d),
                    rows=[(v,) for v in edges("b64") + [random_operand("b64") for _ in range(100)]],
                )
            lo, hi = rng_(d)
            l2, h2 = rng_(s)
            if l2 < lo or h2 > hi:
                case(
                    f"cvt.sat.{d}.{s}",
                    f"cvt.sat.{d}.{s} %o, %a;",
                    (s,),
                    d,
                    (lambda Vs, lo, hi: lambda a: max(lo, min(hi, Vs(a))))(Vs, lo, hi),
                    rows=[(v,) for v in edges("b64") + [random_operand("b64") for _ in range(100)]],
                )
    for s in ("f16", "bf16", "f32", "f64"):
        for d in IT:
            if s == "bf16" and BITS[d] < 16:
                continue
            lo, hi = rng_(d)
            _E, _m = FORMAT[s]
            near = []
            for b in (
                lo,
                hi,
                0,
                1,
                -1,
                2,
                3,
                127,
                128,
                255,
                256,
                -128,
                -129,
                32767,
                32768,
                65535,
                65536,
                1 << 31,
                -1 << 31,
                (1 << 31) - 1,
                1 << 32,
                1 << 63,
                -1 << 63,
                1 << 64,
            ):
                for dl in (
                    0,
                    Fraction(1, 2),
                    -Fraction(1, 2),
                    Fraction(1, 4),
                    1,
                    -1,
                    Fraction(3, 2),
                    Fraction(5, 2),
                    -Fraction(3, 2),
                ):
                    v = b + dl
                    q = encode(Number("fin", int(v < 0), abs(Fraction(v))), s)
                    near += [q, q ^ 1]
            for ri in ("rni", "rzi", "rmi", "rpi"):
                for z in ("", ".ftz") if s == "f32" else ("",):

                    def f2i(a, s=s, d=d, ri=ri, z=z, lo=lo, hi=hi):
                        x = decode(a, s, bool(z))
                        if x.kind == "nan":
                            return 0 if s != "f64" and BITS[d] != 64 else 1 << (BITS[d] - 1)
                        if x.kind == "inf":
                            return lo if x.sign else hi
                        n = round_to_integer(x.magnitude, {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}[ri], x.sign)
                        return max(lo, min(hi, -n if x.sign else n))

                    # NaN into an 8/16-bit type from f64: 1 << (w-1), sign-extended like any result
                    case(
                        f"cvt.{ri}{z}.{d}.{s}",
                        f"cvt.{ri}{z}.{d}.{s} %o, %a;",
                        (s,),
                        d,
                        (lambda f, d: lambda a: sign_extend(f(a), BITS[d]) if d[0] == "s" else f(a))(f2i, d),
                        rows=[(v,) for v in edges(s) + near + [random_operand(s) for _ in range(300)]],
                    )
        for r in ("rn", "rz", "rm", "rp"):
            for i in IT:
                if s == "bf16" and (r != "rn" or BITS[i] < 16):
                    pass

                def i2f(a, s=s, r=r, i=i):
                    v = sign_extend(a, BITS[i]) if i[0] == "s" else a & ((1 << BITS[i]) - 1)
                    return encode(Number("fin", int(v < 0), Fraction(abs(v))), s, r)

                ties = []
                for k in range(FORMAT[s][1] + 1, 64):
                    b = (1 << k) | rng.getrandbits(FORMAT[s][1]) << (k - FORMAT[s][1])
                    h = 1 << (k - FORMAT[s][1] - 1) if k > FORMAT[s][1] else 0
                    ties += [b + h, b + h + 1, b + h - 1, b, -(b + h), -(b + h + 1)]
                if s == "bf16" and BITS[i] < 16:
                    continue
                case(
                    f"cvt.{r}.{s}.{i}",
                    f"cvt.{r}.{s}.{i} %o, %a;",
                    (i,),
                    s,
                    i2f,
                    rows=[(v,) for v in edges("b64") + [t & MASK_64 for t in ties] + [random_operand("b64") for _ in range(200)]],
                )

    def near2(d, s):  # values of s around representable values and ties of d
        out = []
        for _ in range(700):
            b = random_operand(d) if rng.random() < 0.7 else rng.choice(edges(d))
            x = decode(b, d)
            if x.kind != "fin":
                continue
            E, m = FORMAT[d]
            ulp = power_of_two(max((b >> m) & ((1 << E) - 1), 1) - ((1 << (E - 1)) - 1) - m)
            v = x.magnitude + rng.choice([0, ulp / 2, ulp / 4, ulp * Fraction(3, 4)])
            q = encode(Number("fin", x.sign, v), s)
            if q != CANONICAL_NAN[s]:
                out += [q, max(q - 1, 0), q + 1]
        return out

    for d, s, rs in (
        ("f16", "f32", ("rn", "rz", "rm", "rp")),
        ("f16", "f64", ("rn", "rz", "rm", "rp")),
        ("bf16", "f32", ("rn", "rz", "rm", "rp")),
        ("bf16", "f64", ("rn", "rz", "rm", "rp")),
        ("f32", "f64", ("rn", "rz", "rm", "rp")),
    ):
        for r in rs:
            for z in ("", ".ftz") if "f32" in (d, s) and d != "bf16" else ("",):
                for sat in ("", ".sat") if d in ("f16", "f32") else ("",):

                    def f2f(a, d=d, s=s, r=r, z=z, sat=sat):
                        x = decode(a, s, bool(z) and s == "f32")
                        if x.kind == "nan":
                            return encode(Number("fin"), d) if sat else ("nan" if d == "f32" else CANONICAL_NAN[d])
                        if sat:
                            x = saturate(x)
                        return encode(x, d, r, bool(z) and d == "f32")

                    case(
                        f"cvt.{r}{z}{sat}.{d}.{s}",
                        f"cvt.{r}{z}{sat}.{d}.{s} %o, %a;",
                        (s,),
                        d,
                        f2f,
                        rows=[(v,) for v in edges(s) + near2(d, s) + [random_operand(s) for _ in range(300)]],
                    )
        if s == "f32":
            for r in ("rn", "rz"):

                def rel(a, d=d, r=r):
                    x = decode(a, "f32")
                    return CANONICAL_NAN[d] if x.kind == "nan" else 0 if x.sign else encode(x, d, r)

                case(
                    f"cvt.{r}.relu.{d}.f32",
                    f"cvt.{r}.relu.{d}.f32 %o, %a;",
                    ("f32",),
                    d,
                    rel,
                    rows=[(v,) for v in edges("f32") + near2(d, "f32")],
                )
                for rl in ("", ".relu"):
                    f1 = (lambda d, r, rl, rel: lambda a: rel(a) if rl else encode(decode(a, "f32"), d, r))(d, r, rl, rel)
                    case(
                        f"cvt.{r}{rl}.{d}x2.f32",
                        f"cvt.{r}{rl}.{d}x2.f32 %o, %a, %b;",
                        ("f32",) * 2,
                        d + "x2",
                        (lambda f1: lambda a, b: f1(a) << 16 | f1(b))(f1),
                        rows=[
                            (
                                rng.choice(edges("f32") + [random_operand("f32")] * 30),
                                rng.choice(edges("f32") + [random_operand("f32")] * 30),
                            )
                            for _ in range(600)
                        ],
                    )
    for d, s in (("f32", "f16"), ("f64", "f16"), ("f64", "f32"), ("f32", "bf16")):
        for z in ("", ".ftz") if "f32" in (d, s) and s != "bf16" else ("",):
            for sat in ("", ".sat") if s != "bf16" else ("",):

                def up(a, d=d, s=s, z=z, sat=sat):
                    x = decode(a, s, bool(z) and s == "f32")
                    if x.kind == "nan":
                        return encode(Number("fin"), d) if sat else "nan" if s != "f16" or d == "f64" else CANONICAL_NAN[d]
                    return encode(saturate(x) if sat else x, d, "rn", bool(z) and d == "f32")

                case(f"cvt{z}{sat}.{d}.{s}", f"cvt{z}{sat}.{d}.{s} %o, %a;", (s,), d, up, n=1000)
    for t in ("f16", "f32", "f64"):
        for ri in ("rni", "rzi", "rmi", "rpi"):
            for z in ("", ".ftz") if t == "f32" else ("",):
                for sat in ("", ".sat"):

                    def ff(a, t=t, ri=ri, z=z, sat=sat):
                        x = decode(a, t, bool(z))
                        if x.kind == "nan":
                            return encode(Number("fin"), t) if sat else "nan"
                        if x.kind == "fin":
                            x = Number(
                                "fin",
                                x.sign,
                                Fraction(
                                    round_to_integer(
                                        x.magnitude,
                                        {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}[ri],
                                        x.sign,
                                    )
                                ),
                            )
                        return encode(saturate(x) if sat else x, t)

                    case(f"cvt.{ri}{z}{sat}.{t}.{t}", f"cvt.{ri}{z}{sat}.{t}.{t} %o, %a;", (t,), t, ff, n=1000)
    case(
        "cvt.sat.f32.f32",
        "cvt.sat.f32.f32 %o, %a;",
        ("f32",),
        "f32",
        lambda a: encode(saturate(decode(a, "f32")), "f32"),
    )
    case(
        "cvt.rna.tf32.f32",
        "cvt.rna.tf32.f32 %o, %a;",
        ("f32",),
        "b32",
        lambda a: (
            None
            if decode(a, "f32").kind == "nan"
            else (
                encode(Number(decode(a, "f32").kind, 0, decode(a, "f32").magnitude), "f32") + 0x1000
                if decode(a, "f32").kind == "fin"
                else 0x7F800000
            )
            & 0xFFFFE000
            | (a & 1 << 31)
        ),
        n=900,
    )
