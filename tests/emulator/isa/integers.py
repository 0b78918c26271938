"""Integer, logic, bit and comparison instructions."""

# ruff: noqa: B023 - loop variables are bound by the outer of two lambdas
from .cases import case
from .numbers import BITS, MASK_32, Number, compare, decode, sign_extend
from .operands import random_operand, rng


def integer_cases() -> None:
    for t in ("u16", "s16", "u32", "s32", "u64", "s64"):
        w = BITS[t]
        sg = t[0] == "s"
        V = (lambda w, sg: lambda x: sign_extend(x, w) if sg else x & ((1 << w) - 1))(w, sg)

        def C(nm, f, k=2, code=None, out=t, w=w, V=V, **kw):
            case(
                f"{nm}.{t}",
                code or f"{nm}.{t} %o, " + ", ".join("%" + "abce"[i] for i in range(k)) + ";",
                (t,) * k,
                out,
                (lambda f, V: lambda *r: f(*[V(x) for x in r]))(f, V),
                **kw,
            )

        C("add", lambda a, b: a + b)
        C("sub", lambda a, b: a - b)
        C("mul.lo", lambda a, b: a * b)
        C("mul.hi", lambda a, b, w=w: a * b >> w)
        C("min", min)
        C("max", max)
        C("mad.lo", lambda a, b, c: a * b + c, 3)
        C("mad.hi", lambda a, b, c, w=w: (a * b >> w) + c, 3)

        def tdiv(a, b):
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

        C("div", lambda a, b: None if b == 0 else tdiv(a, b))
        C("rem", lambda a, b: None if b == 0 else a - b * tdiv(a, b))
        C("sad", lambda a, b, c: c + abs(a - b), 3)
        if sg:
            C("abs", lambda a: abs(a), 1)
            C("neg", lambda a: -a, 1)
        if w < 64:
            W2 = t[0] + str(2 * w)
            C("mul.wide", lambda a, b: a * b, out=W2)
            case(
                f"mad.wide.{t}",
                f"mad.wide.{t} %o, %a, %b, %c;",
                (t, t, W2),
                W2,
                (lambda V: lambda a, b, c: V(a) * V(b) + c)(V),
            )
        case(
            f"shr.{t}",
            f"shr.{t} %o, %a, %b;",
            (t, "u32"),
            t,
            (lambda V: lambda a, n: V(a) >> n if n < 64 else (-1 if V(a) < 0 else 0))(V),
        )
        for c in ("eq", "ne", "lt", "le", "gt", "ge") + (() if sg else ("lo", "ls", "hi", "hs")):
            f = {
                "eq": lambda a, b: a == b,
                "ne": lambda a, b: a != b,
                "lt": lambda a, b: a < b,
                "le": lambda a, b: a <= b,
                "gt": lambda a, b: a > b,
                "ge": lambda a, b: a >= b,
            }
            f.update(lo=f["lt"], ls=f["le"], hi=f["gt"], hs=f["ge"])
            f = f[c]
            case(
                f"setp.{c}.{t}",
                f"setp.{c}.{t} %o|%q, %a, %b;",
                (t, t),
                ("pred", "pred"),
                (lambda f, V: lambda a, b: (f(V(a), V(b)), not f(V(a), V(b))))(f, V),
                n=900,
            )
    for w in (16, 32, 64):
        t = f"b{w}"
        for nm, f in (("and", lambda a, b: a & b), ("or", lambda a, b: a | b), ("xor", lambda a, b: a ^ b)):
            case(f"{nm}.{t}", f"{nm}.{t} %o, %a, %b;", (t, t), t, f, n=800)
        case(f"not.{t}", f"not.{t} %o, %a;", (t,), t, lambda a: ~a, n=300)
        case(f"cnot.{t}", f"cnot.{t} %o, %a;", (t,), t, lambda a: a == 0, n=300)
        case(
            f"shl.{t}",
            f"shl.{t} %o, %a, %b;",
            (t, "u32"),
            t,
            (lambda w: lambda a, n: a << n if n < w else 0)(w),
        )
        case(
            f"shr.{t}",
            f"shr.{t} %o, %a, %b;",
            (t, "u32"),
            t,
            (lambda w: lambda a, n: a >> n if n < w else 0)(w),
        )
        case(
            f"selp.{t}",
            f"selp.{t} %o, %a, %b, %c;",
            (t, t, "pred"),
            t,
            lambda a, b, c: a if c else b,
            rows=[(random_operand(t), random_operand(t), k & 1) for k in range(200)],
        )
        case(
            f"slct.{t}.s32",
            f"slct.{t}.s32 %o, %a, %b, %c;",
            (t, t, "s32"),
            t,
            lambda a, b, c: a if sign_extend(c, 32) >= 0 else b,
        )
        case(
            f"slct.{t}.f32",
            f"slct.{t}.f32 %o, %a, %b, %c;",
            (t, t, "f32"),
            t,
            lambda a, b, c: a if compare("ge", decode(c, "f32"), Number("fin")) else b,
        )
        case(
            f"slct.ftz.{t}.f32",
            f"slct.ftz.{t}.f32 %o, %a, %b, %c;",
            (t, t, "f32"),
            t,
            lambda a, b, c: a if compare("ge", decode(c, "f32", True), Number("fin")) else b,
        )
        if w > 16:
            case(f"brev.{t}", f"brev.{t} %o, %a;", (t,), t, (lambda w: lambda a: int(f"{a:0{w}b}"[::-1], 2))(w))
            case(f"popc.{t}", f"popc.{t} %o, %a;", (t,), "u32", lambda a: bin(a).count("1"))
            case(f"clz.{t}", f"clz.{t} %o, %a;", (t,), "u32", (lambda w: lambda a: w - a.bit_length())(w))
            for sg in "us":

                def bfind(a, w=w, sg=sg, sh=False):
                    if sg == "s" and a >> (w - 1):
                        a = ~a & ((1 << w) - 1)
                    return 0xFFFFFFFF if a == 0 else (w - a.bit_length() if sh else a.bit_length() - 1)

                case(f"bfind.{sg}{w}", f"bfind.{sg}{w} %o, %a;", (t,), "u32", bfind)
                case(
                    f"bfind.shiftamt.{sg}{w}",
                    f"bfind.shiftamt.{sg}{w} %o, %a;",
                    (t,),
                    "u32",
                    (lambda f: lambda a: f(a, sh=True))(bfind),
                )

                def bfe(a, b, c, w=w, sg=sg):
                    p, length = b & 255, c & 255
                    msb = w - 1
                    sb = 0 if sg == "u" or length == 0 else a >> min(p + length - 1, msb) & 1
                    return sum((((a >> (p + i)) & 1) if i < length and p + i <= msb else sb) << i for i in range(w))

                case(f"bfe.{sg}{w}", f"bfe.{sg}{w} %o, %a, %b, %c;", (t, "u32", "u32"), t, bfe, n=2500)

            def bfi(a, b, c, d, w=w):
                p, length = c & 255, d & 255
                f = b
                for i in range(length):
                    if p + i < w:
                        f = f & ~(1 << (p + i)) | (a >> i & 1) << (p + i)
                return f

            case(f"bfi.{t}", f"bfi.{t} %o, %a, %b, %c, %e;", (t, t, "u32", "u32"), t, bfi, n=2500)
    for d in "lr":
        for md in ("wrap", "clamp"):

            def shf(a, b, c, d=d, md=md):
                n = c & 31 if md == "wrap" else min(c, 32)
                v = b << 32 | a
                return (v << n) >> 32 if d == "l" else v >> n

            case(f"shf.{d}.{md}", f"shf.{d}.{md}.b32 %o, %a, %b, %c;", ("b32",) * 3, "b32", shf, n=2500)

    def prmt(a, b, c, m=None):
        y = [(b << 32 | a) >> 8 * i & 255 for i in range(8)]
        s = c & 3
        if m is None:
            sel = [c >> 4 * i & 15 for i in range(4)]
        else:
            sel = [
                {
                    "f4e": s + i,
                    "b4e": (s - i) % 8,
                    "rc8": s,
                    "ecl": max(i, s),
                    "ecr": min(i, s),
                    "rc16": (i & 1) + 2 * (s & 1),
                }[m]
                for i in range(4)
            ]
        return sum(((255 if y[k & 7] >> 7 else 0) if k & 8 else y[k & 7]) << 8 * i for i, k in enumerate(sel))

    for m in (None, "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"):
        case(
            f"prmt.{m}",
            f"prmt.b32{'.' + m if m else ''} %o, %a, %b, %c;",
            ("b32",) * 3,
            "b32",
            (lambda m: lambda a, b, c: prmt(a, b, c, m))(m),
            n=2000,
        )
    for lut in (0, 1, 0x80, 0x96, 0xE8, 0xFE, 0x17, 0xCA, 0xB8, 255, 0x2D):
        case(
            f"lop3.{lut:x}",
            f"lop3.b32 %o, %a, %b, %c, 0x{lut:x};",
            ("b32",) * 3,
            "b32",
            (
                lambda L: (
                    lambda a, b, c: sum((L >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i for i in range(32))
                )
            )(lut),
            n=500,
        )
    for md in ("clamp", "wrap"):

        def bmsk(a, b, md=md):
            if md == "clamp":
                a, b = min(a, 32), min(b, 32)
            else:
                a, b = a & 31, b & 31
            return ((1 << b) - 1) << a

        case(f"bmsk.{md}", f"bmsk.{md}.b32 %o, %a, %b;", ("b32",) * 2, "b32", bmsk)
        for sg in "us":

            def szext(a, b, md=md, sg=sg):
                b = min(b, 32) if md == "clamp" else b & 31
                return 0 if b == 0 else (sign_extend(a, b) if sg == "s" else a & ((1 << b) - 1))

            case(f"szext.{md}.{sg}32", f"szext.{md}.{sg}32 %o, %a, %b;", ("b32",) * 2, "b32", szext)

    def fns(m, b, o):
        b, o = sign_extend(b, 32), sign_extend(o, 32)
        if o == 0:
            return b if 0 <= b < 32 and m >> b & 1 else 0xFFFFFFFF
        p, c = b, abs(o) - 1
        while 0 <= p < 32:
            if m >> p & 1:
                if c == 0:
                    return p
                c -= 1
            p += 1 if o > 0 else -1
        return 0xFFFFFFFF

    case(
        "fns",
        "fns.b32 %o, %a, %b, %c;",
        ("b32",) * 3,
        "b32",
        fns,
        rows=[(random_operand("b32") | (1 << rng.randrange(32)), rng.randrange(32), rng.randint(-34, 34)) for _ in range(3000)],
    )
    for sg in "us":
        v24 = (lambda sg: lambda x: sign_extend(x, 24) if sg == "s" else x & 0xFFFFFF)(sg)
        V = (lambda sg: lambda x: sign_extend(x, 32) if sg == "s" else x)(sg)
        for h in ("lo", "hi"):
            case(
                f"mul24.{h}.{sg}32",
                f"mul24.{h}.{sg}32 %o, %a, %b;",
                ("b32",) * 2,
                "b32",
                (lambda v, h: lambda a, b: v(a) * v(b) >> (16 if h == "hi" else 0))(v24, h),
            )
            case(
                f"mad24.{h}.{sg}32",
                f"mad24.{h}.{sg}32 %o, %a, %b, %c;",
                ("b32",) * 3,
                "b32",
                (lambda v, h: lambda a, b, c: (v(a) * v(b) >> (16 if h == "hi" else 0)) + c)(v24, h),
            )
        for s2 in "us":

            def dp4(a, b, c, x=sg, y=s2):
                def f(v, s, i):
                    return sign_extend(v >> 8 * i, 8) if s == "s" else v >> 8 * i & 255

                return c + sum(f(a, x, i) * f(b, y, i) for i in range(4))

            case(f"dp4a.{sg}32.{s2}32", f"dp4a.{sg}32.{s2}32 %o, %a, %b, %c;", ("b32",) * 3, "b32", dp4)
            for h in ("lo", "hi"):

                def dp2(a, b, c, x=sg, y=s2, h=h):
                    def f(v, s, i):
                        return sign_extend(v >> 16 * i, 16) if s == "s" else v >> 16 * i & 65535

                    def g(v, s, i):
                        return sign_extend(v >> 8 * i, 8) if s == "s" else v >> 8 * i & 255

                    return c + sum(f(a, x, i) * g(b, y, i + (2 if h == "hi" else 0)) for i in range(2))

                case(
                    f"dp2a.{h}.{sg}32.{s2}32",
                    f"dp2a.{h}.{sg}32.{s2}32 %o, %a, %b, %c;",
                    ("b32",) * 3,
                    "b32",
                    dp2,
                )

    def cl(x):
        return max(-1 << 31, min((1 << 31) - 1, x))

    case(
        "add.sat.s32",
        "add.sat.s32 %o, %a, %b;",
        ("s32",) * 2,
        "s32",
        lambda a, b: cl(sign_extend(a, 32) + sign_extend(b, 32)),
    )
    case(
        "sub.sat.s32",
        "sub.sat.s32 %o, %a, %b;",
        ("s32",) * 2,
        "s32",
        lambda a, b: cl(sign_extend(a, 32) - sign_extend(b, 32)),
    )
    case(
        "mad.hi.sat.s32",
        "mad.hi.sat.s32 %o, %a, %b, %c;",
        ("s32",) * 3,
        "s32",
        lambda a, b, c: cl((sign_extend(a, 32) * sign_extend(b, 32) >> 32) + sign_extend(c, 32)),
    )
    for t, w in (("u32", 32), ("u64", 64)):
        r = "b32" if w == 32 else "b64"
        X = f".reg .{r} %lo;"
        case(
            f"add.cc.{t}",
            f"add.cc.{t} %o, %a, %b; addc.{t} %q, %c, %e;",
            (r,) * 4,
            (r, r),
            (lambda w: lambda a, b, c, e: (a + b, c + e + (a + b >> w)))(w),
        )
        case(
            f"addc.cc.{t}",
            f"add.cc.{t} %lo, %a, %b; addc.cc.{t} %o, %c, %e; addc.{t} %q, 0, 0;",
            (r,) * 4,
            (r, r),
            (lambda w: lambda a, b, c, e: (c + e + (a + b >> w), (c + e + (a + b >> w)) >> w))(w),
            extra=X,
        )
        case(
            f"sub.cc.{t}",
            f"sub.cc.{t} %o, %a, %b; subc.{t} %q, %c, %e;",
            (r,) * 4,
            (r, r),
            lambda a, b, c, e: (a - b, c - e - (a < b)),
        )
        case(
            f"subc.cc.{t}",
            f"sub.cc.{t} %lo, %a, %b; subc.cc.{t} %o, %c, %e; subc.{t} %q, 0, 0;",
            (r,) * 4,
            (r, r),
            lambda a, b, c, e: (c - e - (a < b), -(c - e - (a < b) < 0)),
            extra=X,
        )
        for s2 in (t, "s" + t[1:]):
            V = (lambda w, s: lambda x: sign_extend(x, w) if s else x)(w, s2[0] == "s")
            for h in ("lo", "hi"):

                def mad(a, b, c, e, w=w, V=V, h=h):
                    p = (V(a) * V(b) >> (w if h == "hi" else 0)) & ((1 << w) - 1)
                    return (p + c, (p + c) >> w)

                case(
                    f"mad.{h}.cc.{s2}",
                    f"mad.{h}.cc.{s2} %o, %a, %b, %c; addc.{t} %q, 0, 0;",
                    (r,) * 4,
                    (r, r),
                    mad,
                )

                def madc(a, b, c, e, w=w, V=V, h=h):
                    p = (V(a) * V(b) >> (w if h == "hi" else 0)) & ((1 << w) - 1)
                    ci = (e + e) >> w
                    return (p + c + ci, (p + c + ci) >> w)

                case(
                    f"madc.{h}.cc.{s2}",
                    f"add.cc.{t} %lo, %e, %e; madc.{h}.cc.{s2} %o, %a, %b, %c; addc.{t} %q, 0, 0;",
                    (r,) * 4,
                    (r, r),
                    madc,
                    extra=X,
                )
    for bo, f in (("and", lambda x, y: x and y), ("or", lambda x, y: x or y), ("xor", lambda x, y: x != y)):
        for ng in ("", "!"):
            case(
                f"setp.lt.{bo}.s32{ng}",
                f"setp.lt.{bo}.s32 %o|%q, %a, %b, {ng}%c;",
                ("s32", "s32", "pred"),
                ("pred", "pred"),
                (
                    lambda f, ng: (
                        lambda a, b, c: (
                            f(sign_extend(a, 32) < sign_extend(b, 32), bool(c) != bool(ng)),
                            f(not sign_extend(a, 32) < sign_extend(b, 32), bool(c) != bool(ng)),
                        )
                    )
                )(f, ng),
                rows=[(random_operand("s32"), random_operand("s32"), k & 1) for k in range(400)],
            )
            case(
                f"set.gt.{bo}.u32.s32{ng}",
                f"set.gt.{bo}.u32.s32 %o, %a, %b, {ng}%c;",
                ("s32", "s32", "pred"),
                "u32",
                (lambda f, ng: lambda a, b, c: MASK_32 if f(sign_extend(a, 32) > sign_extend(b, 32), bool(c) != bool(ng)) else 0)(
                    f, ng
                ),
                rows=[(random_operand("s32"), random_operand("s32"), k & 1) for k in range(400)],
            )
    case(
        "set.ne.f32.u64",
        "set.ne.f32.u64 %o, %a, %b;",
        ("u64", "u64"),
        "f32",
        lambda a, b: 0x3F800000 if a != b else 0,
    )
    for op, f in (("min", min), ("max", max), ("add", lambda a, b: a + b)):
        for sg in "us":
            case(
                f"{op}.{sg}16x2",
                f"{op}.{sg}16x2 %o, %a, %b;",
                ("b32",) * 2,
                "b32",
                (
                    lambda f, sg: (
                        lambda a, b: sum(
                            (f(*[(sign_extend(v >> 16 * i, 16) if sg == "s" else v >> 16 * i & 65535) for v in (a, b)]) & 65535)
                            << 16 * i
                            for i in range(2)
                        )
                    )
                )(f, sg),
            )
    case(
        "max.s32.relu",
        "max.s32.relu %o, %a, %b;",
        ("s32",) * 2,
        "s32",
        lambda a, b: max(0, sign_extend(a, 32), sign_extend(b, 32)),
    )
    case(
        "min.relu.s32",
        "min.relu.s32 %o, %a, %b;",
        ("s32",) * 2,
        "s32",
        lambda a, b: max(0, min(sign_extend(a, 32), sign_extend(b, 32))),
    )
    case(
        "max.relu.s32",
        "max.relu.s32 %o, %a, %b;",
        ("s32",) * 2,
        "s32",
        lambda a, b: max(0, sign_extend(a, 32), sign_extend(b, 32)),
    )
    case(
        "lop3.or",
        "lop3.or.b32 %o|%q, %a, %b, %c, 0x40, %e;",
        ("b32", "b32", "b32", "pred"),
        ("b32", "pred"),
        lambda a, b, c, p: (a & b & ~c, (a & b & ~c) & MASK_32 != 0 or bool(p)),
        rows=[
            (random_operand("b32"), random_operand("b32"), random_operand("b32") if k & 2 else MASK_32, k & 1) for k in range(300)
        ],
    )
