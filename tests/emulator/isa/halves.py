"""Half precision and bfloat16."""

# ruff: noqa: B023 - loop variables are bound by the outer of two lambdas
from .cases import case
from .numbers import Number, add, compare, decode, encode, minimum_maximum, multiply, negate, saturate
from .operands import edges, operands, random_operand, rng


def half_cases() -> None:
    for t in ("f16", "bf16"):
        for x2 in (False, True):
            T = t + ("x2" if x2 else "")

            def L(f, x2=x2):  # lift a scalar model to both halves
                if not x2:
                    return f
                return lambda *r: sum(f(*[(v >> 16 * i) & 65535 for v in r]) << 16 * i for i in range(2))

            for ftz in (0, 1) if t == "f16" else (0,):
                z = ".ftz" if ftz else ""
                D = (lambda t, ftz: lambda b: decode(b, t, ftz))(t, ftz)
                for sat in ("", ".sat") if t == "f16" else ("",):
                    E = (
                        lambda t, ftz, sat: (
                            lambda x: (
                                encode(x, t, "rn", ftz)
                                if not sat
                                else (lambda b: encode(saturate(decode(b, t)), t, "rn", ftz))(encode(x, t, "rn", 0))
                            )
                        )
                    )(t, ftz, sat)
                    case(
                        f"add{z}{sat}.{T}",
                        f"add.rn{z}{sat}.{T} %o, %a, %b;",
                        (T, T),
                        T,
                        L((lambda D, E: lambda a, b: E(add(D(a), D(b))))(D, E)),
                        n=2500,
                    )
                    case(
                        f"sub{z}{sat}.{T}",
                        f"sub.rn{z}{sat}.{T} %o, %a, %b;",
                        (T, T),
                        T,
                        L((lambda D, E: lambda a, b: E(add(D(a), negate(D(b)))))(D, E)),
                    )
                    case(
                        f"mul{z}{sat}.{T}",
                        f"mul.rn{z}{sat}.{T} %o, %a, %b;",
                        (T, T),
                        T,
                        L((lambda D, E: lambda a, b: E(multiply(D(a), D(b))))(D, E)),
                        n=4000,
                    )
                    rows = operands((T,) * 3, 2500)
                    if not x2:
                        rows += [
                            (
                                a,
                                b,
                                encode(negate(multiply(decode(a, t), decode(b, t))), t)
                                if decode(a, t).kind == decode(b, t).kind == "fin"
                                else 0,
                            )
                            for a, b in [(random_operand(t), random_operand(t)) for _ in range(800)]
                        ]
                    case(
                        f"fma{z}{sat}.{T}",
                        f"fma.rn{z}{sat}.{T} %o, %a, %b, %c;",
                        (T,) * 3,
                        T,
                        L((lambda D, E: lambda a, b, c: E(add(multiply(D(a), D(b)), D(c))))(D, E)),
                        rows=rows,
                    )

                def rl(a, b, c, D=D, t=t, ftz=ftz):
                    q = encode(add(multiply(D(a), D(b)), D(c)), t, "rn", ftz)
                    return q if decode(q, t).kind == "nan" else 0 if q >> 15 else q

                case(f"fma{z}.relu.{T}", f"fma.rn{z}.relu.{T} %o, %a, %b, %c;", (T,) * 3, T, L(rl))
                for mx in (0, 1):
                    nm = ("min", "max")[mx]
                    for nn in ("", ".NaN"):
                        case(
                            f"{nm}{z}{nn}.{T}",
                            f"{nm}{z}{nn}.{T} %o, %a, %b;",
                            (T, T),
                            T,
                            L(
                                (
                                    lambda D, mx, nn, t, ftz: (
                                        lambda a, b: encode(minimum_maximum(D(a), D(b), mx, bool(nn)), t, "rn", ftz)
                                    )
                                )(D, mx, nn, t, ftz)
                            ),
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
                    f = (lambda c, D: lambda a, b: compare(c, D(a), D(b)))(c, D)
                    if x2:
                        case(
                            f"setp.{c}{z}.{T}",
                            f"setp.{c}{z}.{T} %o|%q, %a, %b;",
                            (T, T),
                            ("pred", "pred"),
                            (lambda f: lambda a, b: (f(a & 65535, b & 65535), f(a >> 16, b >> 16)))(f),
                            n=500,
                        )
                        case(
                            f"set.{c}{z}.{T}.{T}",
                            f"set.{c}{z}.{T}.{T} %o, %a, %b;",
                            (T, T),
                            T,
                            L((lambda f, t: lambda a, b: (0x3C00 if t == "f16" else 0x3F80) if f(a, b) else 0)(f, t)),
                            n=500,
                        )
                        case(
                            f"set.{c}{z}.u32.{T}",
                            f"set.{c}{z}.u32.{T} %o, %a, %b;",
                            (T, T),
                            "u32",
                            L((lambda f: lambda a, b: 65535 if f(a, b) else 0)(f)),
                            n=300,
                        )
                    else:
                        case(f"setp.{c}{z}.{T}", f"setp.{c}{z}.{T} %o, %a, %b;", (T, T), "pred", f, n=1350)
                        case(
                            f"set.{c}{z}.{T}.{T}",
                            f"set.{c}{z}.{T}.{T} %o, %a, %b;",
                            (T, T),
                            T,
                            (lambda f, t: lambda a, b: (0x3C00 if t == "f16" else 0x3F80) if f(a, b) else 0)(f, t),
                            n=1350,
                        )
                if t == "f16":
                    fz = (lambda ftz: lambda a: a & 0x8000 if ftz and not a & 0x7C00 else a)(ftz)
                    case(
                        f"neg{z}.{T}",
                        f"neg{z}.{T} %o, %a;",
                        (T,),
                        T,
                        L((lambda f: lambda a: f(a) ^ 0x8000)(fz)),
                        rows=[(v | (v << 16 if x2 else 0),) for v in edges("f16") if decode(v, "f16").kind != "nan"],
                    )
                    case(
                        f"abs{z}.{T}",
                        f"abs{z}.{T} %o, %a;",
                        (T,),
                        T,
                        L((lambda f: lambda a: f(a) & 0x7FFF)(fz)),
                        rows=[(v | (v << 16 if x2 else 0),) for v in edges("f16") if decode(v, "f16").kind != "nan"],
                    )

            def xs(a, b, t=t):
                x, y = decode(a, t), decode(b, t)
                q = minimum_maximum(Number(x.kind, 0, x.magnitude), Number(y.kind, 0, y.magnitude), 0, False)
                return encode(Number(q.kind, x.sign ^ y.sign, q.magnitude), t)

            ok = [v for v in edges(t) + [random_operand(t) for _ in range(60)] if decode(v, t).kind != "nan"]
            case(
                f"min.xorsign.abs.{T}",
                f"min.xorsign.abs.{T} %o, %a, %b;",
                (T, T),
                T,
                L(xs),
                rows=[tuple(rng.choice(ok) | (rng.choice(ok) << 16 if x2 else 0) for _ in range(2)) for _ in range(800)],
            )
