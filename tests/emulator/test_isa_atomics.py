"""Atomics in every memory space, against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from .isa.behaviour import check, launch, module
from .isa.cases import UNTYPED, register_type
from .isa.numbers import BITS, FORMAT, add, decode, encode, is_nan, sign_extend
from .isa.operands import operands, rng

pytestmark = pytest.mark.full


def test_atomics() -> None:
    OPS = [
        ("add", "u32"),
        ("add", "s32"),
        ("add", "u64"),
        ("add", "f32"),
        ("add", "f64"),
        ("add.noftz", "f16"),
        ("add.noftz", "f16x2"),
        ("add.noftz", "bf16"),
        ("add.noftz", "bf16x2"),
        ("min", "s32"),
        ("max", "s32"),
        ("min", "u32"),
        ("max", "u32"),
        ("min", "s64"),
        ("max", "s64"),
        ("min", "u64"),
        ("max", "u64"),
        ("inc", "u32"),
        ("dec", "u32"),
        ("and", "b32"),
        ("or", "b32"),
        ("xor", "b32"),
        ("and", "b64"),
        ("or", "b64"),
        ("xor", "b64"),
        ("exch", "b32"),
        ("exch", "b64"),
        ("cas", "b16"),
        ("cas", "b32"),
        ("cas", "b64"),
    ]

    def model(op, t, o, x, y, space):
        w = BITS[t]
        mk = (1 << w) - 1
        if op.startswith("add") and t in FORMAT:
            z = t == "f32" and space == "global"
            return encode(add(decode(o, t, z), decode(x, t, z)), t, "rn", z)
        if op.startswith("add") and t.endswith("x2"):
            return sum(encode(add(decode(o >> i & 65535, t[:-2]), decode(x >> i & 65535, t[:-2])), t[:-2]) << i for i in (0, 16))
        V = (lambda v: sign_extend(v, w)) if t[0] == "s" else (lambda v: v & mk)
        return {
            "add": lambda: o + x,
            "min": lambda: min(V(o), V(x)),
            "max": lambda: max(V(o), V(x)),
            "inc": lambda: 0 if o >= x else o + 1,
            "dec": lambda: x if o == 0 or o > x else o - 1,
            "and": lambda: o & x,
            "or": lambda: o | x,
            "xor": lambda: o ^ x,
            "exch": lambda: x,
            "cas": lambda: y if o == x else o,
        }[op]() & mk

    for space in ("global", "shared", "generic-global", "generic-shared"):
        sp = space.split("-")[0]
        where = space.split("-")[-1]
        q = "" if sp == "generic" else "." + sp
        names = []
        txt = ".shared .align 8 .b8 buf[1024];\n"
        for i, (op, t) in enumerate(OPS):
            for kind in ("atom", "red"):
                if kind == "red" and op in ("exch", "cas"):
                    continue
                r = register_type(t)
                ld = UNTYPED[BITS[t]]
                code = (
                    f".visible .entry {kind}{i}(.param .u64 pm, .param .u64 px, .param .u64 py, "
                    ".param .u64 po, .param .u32 pn)\n"
                    f"{{ .reg .b64 %m, %x, %y, %o, %off, %g; .reg .{r} %d, %v, %w; "
                    f".reg .b32 %i, %j, %k, %s, %n; .reg .pred %p;\n"
                    f"mov.u32 %i, %tid.x; mov.u32 %j, %ctaid.x; mad.lo.u32 %k, %j, 128, %i; "
                    f"ld.param.u32 %n, [pn]; setp.ge.u32 %p, %k, %n; @%p ret; mul.wide.u32 %off, %k, 8;\n"
                    f"ld.param.u64 %m, [pm]; ld.param.u64 %x, [px]; ld.param.u64 %y, [py]; "
                    f"ld.param.u64 %o, [po]; add.s64 %m, %m, %off; add.s64 %x, %x, %off; "
                    f"add.s64 %y, %y, %off; add.s64 %o, %o, %off; ld.global.{ld} %v, [%x]; "
                    f"ld.global.{ld} %w, [%y];\n"
                )
                if where == "shared":
                    code += (
                        f"mov.u32 %s, buf; mad.lo.u32 %s, %i, 8, %s; ld.global.{ld} %d, [%m]; "
                        f"st.shared.{ld} [%s], %d; cvt.u64.u32 %g, %s; cvta.shared.u64 %g, %g;\n"
                    )
                else:
                    code += "mov.u64 %g, %m;\n"
                A = "[%s]" if space == "shared" else "[%g]"
                ops = "%v, %w" if op == "cas" else "%v"
                if kind == "atom":
                    code += (
                        f"atom{q}.{op.split('.')[0]}{'.noftz' if 'noftz' in op else ''}.{t} %d, {A}, {ops}; "
                        f"st.global.{ld} [%o], %d;\n"
                    )
                else:
                    code += f"red{q}.{op.split('.')[0]}{'.noftz' if 'noftz' in op else ''}.{t} {A}, {ops};\n"
                if where == "shared":
                    code += f"ld.shared.{ld} %d, [%s]; st.global.{ld} [%m], %d;\n"
                txt += code + "ret; }\n"
                names.append((kind, i, op, t))
        m = module(txt)
        for kind, i, op, t in names:
            nm = f"{kind}.{space}.{op}.{t}"
            k = f"{kind}{i}"
            rows = operands((t, t, t), 500)
            if op == "cas":
                rows = [(a, a if rng.random() < 0.5 else b, c) for a, b, c in rows]
            if op == "add" and t == "f32":
                rows += [
                    (
                        rng.getrandbits(23) | rng.getrandbits(1) << 31,
                        rng.getrandbits(24) | rng.getrandbits(1) << 31,
                        0,
                    )
                    for _ in range(300)
                ]
            mem, x, y = (np.array([r[j] for r in rows], np.uint64) for j in range(3))
            o = np.zeros(len(rows), np.uint64)
            m0 = mem.copy()
            launch(m, k, (len(rows) + 127) // 128, 128, [mem, x, y, o, len(rows)])
            bad = []
            mk = (1 << BITS[t]) - 1
            for j, r in enumerate(rows):
                e = model(op, t, *r, where)
                g = int(mem[j]) & mk
                if t == "f64" and is_nan(e if e != "nan" else 0x7FF8 << 48, t):
                    okv = (e == "nan" and is_nan(g, t)) or g == e
                else:
                    okv = g == e
                if kind == "atom" and int(o[j]) & mk != r[0]:
                    okv = False
                if int(mem[j]) >> BITS[t] != int(m0[j]) >> BITS[t]:
                    okv = False
                if not okv:
                    bad.append((r, hex(g), e if e == "nan" else hex(e)))
            check(
                nm,
                not bad,
                (f"{len(bad)} of {len(rows)}: {[hex(v) for v in bad[0][0]]} got {bad[0][1]} want {bad[0][2]}") if bad else "",
            )


def test_vector_atomics() -> None:
    m = module(
        ".visible .entry k(.param .u64 a, .param .u64 b) { .reg .b64 %a, %b; "
        ".reg .f32 %f<8>; ld.param.u64 %a, [a]; ld.param.u64 %b, [b]; "
        "ld.global.v4.f32 {%f0,%f1,%f2,%f3}, [%b]; "
        "atom.global.v2.f32.add {%f4,%f5}, [%a], {%f0,%f1}; "
        "red.global.v4.f32.add [%a+16], {%f0,%f1,%f2,%f3}; st.global.v2.f32 [%b], {%f4,%f5}; "
        "ret; }"
    )
    a = np.arange(8, dtype=np.float32)
    b = np.array([0.5, 0.25, 4, 8], np.float32)
    launch(m, "k", 1, 1, [a, b])
    check("atom.v2", list(a) == [0.5, 1.25, 2, 3, 4.5, 5.25, 10, 15] and list(b) == [0, 1, 4, 8])


def test_compare_and_swap_of_128_bits() -> None:
    m = module(
        ".visible .entry k(.param .u64 a) { .reg .b64 %a, %l, %h; .reg .b128 %x, %y, %z; "
        "ld.param.u64 %a, [a]; mov.b128 %x, {%a, %a}; ld.global.v2.b64 {%l,%h}, [%a]; "
        "mov.b128 %x, {%l,%h}; ld.global.v2.b64 {%l,%h}, [%a+16]; mov.b128 %y, {%l,%h}; "
        "atom.global.cas.b128 %z, [%a], %x, %y; mov.b128 {%l,%h}, %z; "
        "st.global.v2.b64 [%a+32], {%l,%h}; ret; }"
    )
    a = np.zeros(16, np.uint64)
    a = a[1:] if a.ctypes.data % 16 else a[:-1]
    a = np.ascontiguousarray(a)
    raw = np.zeros(20, np.uint64)
    o = (-raw.ctypes.data // 8) % 2
    a = raw[o : o + 6]
    a[:] = [1, 2, 3, 4, 9, 9]
    launch(m, "k", 1, 1, [a])
    check("atom.cas.b128", list(a) == [3, 4, 3, 4, 1, 2], str(a))
