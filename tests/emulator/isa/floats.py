"""Single and double precision."""

# ruff: noqa: B023 - loop variables are bound by the outer of two lambdas
from fractions import Fraction

from .cases import case
from .numbers import (
    BITS,
    CANONICAL_NAN,
    FORMAT,
    MASK_32,
    Number,
    add,
    compare,
    decode,
    divide,
    encode,
    minimum_maximum,
    multiply,
    negate,
    saturate,
    square_root,
)
from .operands import edges, operands, random_operand, rng


def float_cases() -> None:
    for t in ("f32", "f64"):
        for ftz in (False, True) if t == "f32" else (False,):
            z = ".ftz" if ftz else ""
            D = (lambda t, ftz: lambda b: decode(b, t, ftz))(t, ftz)
            Z = ftz
            for r in ("", "rn", "rz", "rm", "rp"):
                rr = r or "rn"
                R = "." + r if r else ""
                for sat in ("", ".sat") if t == "f32" else ("",):
                    E = (
                        lambda t, rr, Z, sat: (
                            lambda x: (
                                encode(x, t, rr, Z)
                                if not sat
                                else (
                                    lambda b: encode(
                                        saturate(decode(b, t)) if b != CANONICAL_NAN[t] else Number("fin"),
                                        t,
                                        rr,
                                        Z,
                                    )
                                )(encode(x, t, rr))
                            )
                        )
                    )(t, rr, Z, sat)
                    n = 1400 if not sat else 500
                    case(
                        f"add{R}{z}{sat}.{t}",
                        f"add{R}{z}{sat}.{t} %o, %a, %b;",
                        (t, t),
                        t,
                        (lambda D, E, rr: lambda a, b: E(add(D(a), D(b), rr)))(D, E, rr),
                        n=n,
                    )
                    case(
                        f"sub{R}{z}{sat}.{t}",
                        f"sub{R}{z}{sat}.{t} %o, %a, %b;",
                        (t, t),
                        t,
                        (lambda D, E, rr: lambda a, b: E(add(D(a), negate(D(b)), rr)))(D, E, rr),
                        n=n,
                    )
                    case(
                        f"mul{R}{z}{sat}.{t}",
                        f"mul{R}{z}{sat}.{t} %o, %a, %b;",
                        (t, t),
                        t,
                        (lambda D, E: lambda a, b: E(multiply(D(a), D(b))))(D, E),
                        n=n,
                    )
                    if r:
                        rows = operands((t,) * 3, n)
                        rows += [
                            (
                                a,
                                b,
                                encode(negate(multiply(decode(a, t), decode(b, t))), t)
                                if encode(multiply(decode(a, t), decode(b, t)), t) != CANONICAL_NAN[t]
                                else 0,
                            )
                            for a, b in [(random_operand(t), random_operand(t)) for _ in range(500)]
                        ]
                        case(
                            f"fma{R}{z}{sat}.{t}",
                            f"fma{R}{z}{sat}.{t} %o, %a, %b, %c;",
                            (t,) * 3,
                            t,
                            (lambda D, E, rr: lambda a, b, c: E(add(multiply(D(a), D(b)), D(c), rr)))(D, E, rr),
                            rows=rows,
                        )
                if r:
                    E = (lambda t, rr, Z: lambda x: encode(x, t, rr, Z))(t, rr, Z)
                    case(
                        f"div{R}{z}.{t}",
                        f"div{R}{z}.{t} %o, %a, %b;",
                        (t, t),
                        t,
                        (lambda D, E: lambda a, b: E(divide(D(a), D(b))))(D, E),
                    )
                    case(
                        f"rcp{R}{z}.{t}",
                        f"rcp{R}{z}.{t} %o, %a;",
                        (t,),
                        t,
                        (lambda D, E: lambda a: E(divide(Number("fin", 0, Fraction(1)), D(a))))(D, E),
                    )
                    case(
                        f"sqrt{R}{z}.{t}",
                        f"sqrt{R}{z}.{t} %o, %a;",
                        (t,),
                        t,
                        (lambda D, E: lambda a: E(square_root(D(a))))(D, E),
                    )
            for mx in (0, 1):
                for nn in ("", ".NaN") if t == "f32" else ("",):
                    nm = ("min", "max")[mx]
                    case(
                        f"{nm}{z}{nn}.{t}",
                        f"{nm}{z}{nn}.{t} %o, %a, %b;",
                        (t, t),
                        t,
                        (lambda D, t, mx, nn, Z: lambda a, b: encode(minimum_maximum(D(a), D(b), mx, bool(nn)), t, ftz=Z))(
                            D, t, mx, nn, Z
                        ),
                    )
                    if t == "f32":

                        def xs(a, b, D=D, t=t, mx=mx, nn=nn, Z=Z):
                            x, y = D(a), D(b)
                            s = x.sign ^ y.sign
                            q = minimum_maximum(Number(x.kind, 0, x.magnitude), Number(y.kind, 0, y.magnitude), mx, bool(nn))
                            return (
                                CANONICAL_NAN[t]
                                if q.kind == "nan"
                                else encode(Number(q.kind, s, q.magnitude), t, ftz=Z)
                                if not (x.kind == "nan" or y.kind == "nan")
                                else None
                            )

                        case(
                            f"{nm}{z}{nn}.xorsign.abs.{t}",
                            f"{nm}{z}{nn}.xorsign.abs.{t} %o, %a, %b;",
                            (t, t),
                            t,
                            xs,
                        )
            w = BITS[t]
            fz = (
                lambda t, Z: (
                    lambda a: (
                        a & (1 << (BITS[t] - 1))
                        if Z and decode(a, t).kind == "fin" and not (a >> FORMAT[t][1]) & ((1 << FORMAT[t][0]) - 1)
                        else a
                    )
                )
            )(t, Z)
            anan = (lambda t: lambda a: decode(a, t).kind == "nan")(t)
            case(
                f"abs{z}.{t}",
                f"abs{z}.{t} %o, %a;",
                (t,),
                t,
                (lambda f, an, w: lambda a: "nan" if an(a) else f(a) & ((1 << (w - 1)) - 1))(fz, anan, w),
                n=500,
            )
            case(
                f"neg{z}.{t}",
                f"neg{z}.{t} %o, %a;",
                (t,),
                t,
                (lambda f, an, w: lambda a: "nan" if an(a) else f(a) ^ (1 << (w - 1)))(fz, anan, w),
                n=500,
            )
            for c in (
                "eq",
                "ne",
                "lt",
                "le",
                "gt",
                "ge",
                "equ",
                "neu",
                "ltu",
                "leu",
                "gtu",
                "geu",
                "num",
                "nan",
            ):
                case(
                    f"setp.{c}{z}.{t}",
                    f"setp.{c}{z}.{t} %o|%q, %a, %b;",
                    (t, t),
                    ("pred", "pred"),
                    (lambda c, D: lambda a, b: (compare(c, D(a), D(b)), not compare(c, D(a), D(b))))(c, D),
                    n=1350,
                )
                case(
                    f"set.{c}{z}.u32.{t}",
                    f"set.{c}{z}.u32.{t} %o, %a, %b;",
                    (t, t),
                    "u32",
                    (lambda c, D: lambda a, b: MASK_32 if compare(c, D(a), D(b)) else 0)(c, D),
                    n=1350,
                )
        case(
            f"copysign.{t}",
            f"copysign.{t} %o, %a, %b;",
            (t, t),
            t,
            (lambda w: lambda a, b: (a & 1 << (w - 1)) | (b & ((1 << (w - 1)) - 1)))(BITS[t]),
            n=600,
        )

        def tp(k, a, t=t):
            z = decode(a, t)
            sub = z.kind == "fin" and z.magnitude != 0 and not (a >> FORMAT[t][1]) & ((1 << FORMAT[t][0]) - 1)
            return {
                "finite": z.kind == "fin",
                "infinite": z.kind == "inf",
                "number": z.kind != "nan",
                "notanumber": z.kind == "nan",
                "normal": z.kind == "fin" and not sub,
                "subnormal": sub,
            }[k]

        for k in ("finite", "infinite", "number", "notanumber", "normal", "subnormal"):
            case(
                f"testp.{k}.{t}",
                f"testp.{k}.{t} %o, %a;",
                (t,),
                "pred",
                (lambda tp, k: lambda a: tp(k, a))(tp, k),
                n=300,
            )

    def D(b):
        return decode(b, "f32")

    case(
        "min3.f32",
        "min.f32 %o, %a, %b, %c;",
        ("f32",) * 3,
        "f32",
        lambda a, b, c: encode(minimum_maximum(minimum_maximum(D(a), D(b), 0, 0), D(c), 0, 0), "f32"),
        tgt=100,
    )
    case(
        "max3.NaN.f32",
        "max.NaN.f32 %o, %a, %b, %c;",
        ("f32",) * 3,
        "f32",
        lambda a, b, c: encode(minimum_maximum(minimum_maximum(D(a), D(b), 1, 1), D(c), 1, 1), "f32"),
        tgt=100,
    )
    for r in ("rn", "rz", "rm", "rp"):
        for z in ("", ".ftz"):
            for op in ("add", "mul", "fma"):

                def x2(a, b, c=0, op=op, r=r, z=z):
                    o = 0
                    for i in (0, 32):
                        p, q, s = [decode(v >> i & MASK_32, "f32", bool(z)) for v in (a, b, c)]
                        e = add(p, q, r) if op == "add" else multiply(p, q) if op == "mul" else add(multiply(p, q), s, r)
                        o |= encode(e, "f32", r, bool(z)) << i
                    return o

                k = 3 if op == "fma" else 2
                case(
                    f"{op}.{r}{z}.f32x2",
                    f"{op}.{r}{z}.f32x2 %o, %a, %b{', %c' if k == 3 else ''};",
                    ("b64",) * k,
                    "b64",
                    x2,
                    rows=[
                        tuple(
                            rng.choice(edges("f32") + [random_operand("f32")] * 20)
                            | rng.choice(edges("f32") + [random_operand("f32")] * 20) << 32
                            for _ in range(k)
                        )
                        for _ in range(600)
                    ],
                    tgt=100,
                )
