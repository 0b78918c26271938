"""Approximate functions, within the bounds that the ISA gives."""

# ruff: noqa: B023 - loop variables are bound by the outer of two lambdas
import math
from fractions import Fraction

from .cases import case
from .numbers import CANONICAL_NAN, MASK_32, Number, decode, divide, encode, power_of_two, square_root


def approximate_cases() -> None:
    def near(v, ulp):
        def c(g):
            z = decode(g, "f32")
            if z.kind == "nan":
                return False
            e = decode(encode(Number("fin", int(v < 0), abs(Fraction(v))), "f32"), "f32")
            if e.kind == "inf" or z.kind == "inf":
                return e.kind == z.kind and e.sign == z.sign
            return abs(z.value - Fraction(v)) <= ulp * max(abs(Fraction(v)), power_of_two(-126)) * power_of_two(-23)

        return c

    def mk(name, fn, ulp, spec):
        for z in ("", ".ftz"):

            def model(a, z=z):
                x = decode(a, "f32", bool(z))
                if x.kind == "nan":
                    return CANONICAL_NAN["f32"]
                s = spec(x)
                if s is not None:
                    return CANONICAL_NAN["f32"] if s == "nan" else s
                v = fn(x)
                b = encode(Number("fin", int(v < 0), abs(v)), "f32", "rn", bool(z))
                return (lambda g: g & 0x7FFFFFFF < 0x00800001) if z and (b & 0x7FFFFFFF) <= 0x00800000 else near(v, ulp)

            case(f"{name}.approx{z}.f32", f"{name}.approx{z}.f32 %o, %a;", ("f32",), "f32", model, n=900)

    INF, N = 0x7F800000, 0x80000000
    mk(
        "rcp",
        lambda x: 1 / x.value,
        1,
        lambda x: x.sign << 31 if x.kind == "inf" else (x.sign << 31 | INF) if x.magnitude == 0 else None,
    )
    mk(
        "sqrt",
        lambda x: square_root(x).magnitude,
        2,
        lambda x: x.sign << 31 if x.kind == "fin" and x.magnitude == 0 else "nan" if x.sign else INF if x.kind == "inf" else None,
    )
    mk(
        "rsqrt",
        lambda x: 1 / square_root(x).magnitude,
        3,
        lambda x: (
            (x.sign << 31 | INF) if x.kind == "fin" and x.magnitude == 0 else "nan" if x.sign else 0 if x.kind == "inf" else None
        ),
    )
    mk(
        "ex2",
        lambda x: (
            Fraction(math.ldexp(1, -1074))
            if x.value < -1000
            else Fraction(2) ** 200
            if x.value > 200
            else Fraction(2.0 ** float(x.value))
        ),
        3,
        lambda x: (0 if x.sign else INF) if x.kind == "inf" else 0x3F800000 if x.magnitude == 0 else None,
    )

    def lg(x):
        v = float(x.magnitude)
        return Fraction(math.log2(v))

    mk(
        "lg2",
        lg,
        200,
        lambda x: (INF | N) if x.kind == "fin" and x.magnitude == 0 else "nan" if x.sign else INF if x.kind == "inf" else None,
    )

    def dv(a, b, z):
        x, y = decode(a, "f32", z), decode(b, "f32", z)
        e = divide(x, y)
        if y.kind == "fin" and y.magnitude > power_of_two(126):
            return CANONICAL_NAN["f32"] if x.kind in ("inf", "nan") else (x.sign ^ y.sign) << 31
        if e.kind != "fin":
            return encode(e, "f32")
        b2 = encode(e, "f32")
        return (lambda g: g & 0x7FFFFFFF < 0x00800003) if (b2 & 0x7FFFFFFF) < 0x00800003 else near(e.value, 2)

    for z in ("", ".ftz"):
        case(
            f"div.approx{z}.f32",
            f"div.approx{z}.f32 %o, %a, %b;",
            ("f32",) * 2,
            "f32",
            (lambda z: lambda a, b: dv(a, b, z))(bool(z)),
        )

    def r64(a):
        x = decode(a, "f64", True)
        if x.kind == "nan":
            return "nan"
        if x.kind == "inf":
            return x.sign << 63
        if x.magnitude == 0:
            return x.sign << 63 | 0x7FF << 52

        def c(g, v=1 / x.value):
            z = decode(g, "f64")
            return g & MASK_32 == 0 and (
                z.magnitude == 0
                if abs(v) < power_of_two(-1021)
                else z.kind == "fin" and abs(z.value - v) <= abs(v) * power_of_two(-19)
            )

        return c

    case("rcp.approx.ftz.f64", "rcp.approx.ftz.f64 %o, %a;", ("f64",), "f64", r64)
    for t in ("f16", "bf16"):
        z = ".ftz" if t == "bf16" else ""

        def e2(a, t=t):
            x = decode(a, t, t == "bf16")
            if x.kind == "nan":
                return CANONICAL_NAN[t]
            if x.kind == "inf":
                return 0 if x.sign else encode(x, t)
            if x.magnitude == 0:
                return 0x3C00 if t == "f16" else 0x3F80
            v = Fraction(2.0 ** max(-300.0, min(300.0, float(x.value))))
            tol = max(v * power_of_two(-9 if t == "f16" else -7), power_of_two(-24))
            return lambda g: (
                lambda q: (
                    q.kind == "inf" and v >= Fraction(65504) if q.kind == "inf" else q.kind == "fin" and abs(q.value - v) <= tol
                )
            )(decode(g, t))

        case(f"ex2.approx{z}.{t}", f"ex2.approx{z}.{t} %o, %a;", (t,), t, e2)
