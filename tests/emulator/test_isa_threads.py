"""Instructions that depend on other threads, on memory spaces or on control flow."""

# ruff: noqa: B023 - the functions are called before the loop goes on
from __future__ import annotations

import functools
import operator
import os
import resource
import sys
import tempfile

import numpy as np
import pytest

from .isa.behaviour import ORDERS, check, expect_error, launch, module
from .isa.numbers import MASK_32, MASK_64, sign_extend
from .isa.operands import rng

pytestmark = pytest.mark.full


def test_shuffles() -> None:
    txt = ""
    for md in ("up", "down", "bfly", "idx"):
        txt += (
            f".visible .entry s_{md}(.param .u64 pa, .param .u64 pb, .param .u64 pc, "
            ".param .u64 po, .param .u32 pm)\n"
            f"{{ .reg .b64 %a, %b, %c, %o, %f; .reg .b32 %i, %v, %l, %x, %d, %m; .reg .pred %p;\n"
            f"mov.u32 %i, %tid.x; mul.wide.u32 %f, %i, 4; ld.param.u64 %a, [pa]; "
            f"ld.param.u64 %b, [pb]; ld.param.u64 %c, [pc]; ld.param.u64 %o, [po]; "
            f"ld.param.u32 %m, [pm]; add.s64 %a, %a, %f; add.s64 %b, %b, %f; add.s64 %c, %c, %f; "
            f"mul.wide.u32 %f, %i, 8; add.s64 %o, %o, %f; ld.global.b32 %v, [%a]; "
            f"ld.global.b32 %l, [%b]; ld.global.b32 %x, [%c];\n"
            f"shfl.sync.{md}.b32 %d|%p, %v, %l, %x, %m; st.global.b32 [%o], %d; "
            f"selp.b32 %d, 1, 0, %p; st.global.b32 [%o+4], %d; ret; }}\n"
        )
    m = module(txt)
    for md in ("up", "down", "bfly", "idx"):
        bad = 0
        bound = 0
        for trial in range(120):
            n = rng.choice([32, 32, 64, 96])
            a = np.array([rng.getrandbits(32) for _ in range(n)], np.uint32)
            wd = rng.choice([32, 16, 8, 4, 2, 1])
            uni = rng.random() < 0.6
            c0 = ((32 - wd) << 8) | (0 if md == "up" else 31)
            c = np.array([c0 if uni or trial % 2 else (rng.getrandbits(13)) for _ in range(n)], np.uint32)
            b0 = rng.randint(0, 31)
            if trial % 5 == 0:
                c[:] = rng.getrandbits(13)
            b = np.array([b0 if uni else rng.getrandbits(rng.choice([3, 5, 8, 32])) for _ in range(n)], np.uint32)
            o = np.zeros((n, 2), np.uint32)
            launch(m, "s_" + md, 1, n, [a, b, c, o, MASK_32], order=ORDERS[trial % 3])
            for i in range(n):
                lane = i & 31
                bv, cv, sm = int(b[i]) & 31, int(c[i]) & 31, int(c[i]) >> 8 & 31
                mx = (lane & sm) | (cv & ~sm & 31)
                mn = lane & sm
                j = {"up": lane - bv, "down": lane + bv, "bfly": lane ^ bv, "idx": mn | (bv & ~sm & 31)}[md]
                p = j >= mx if md == "up" else j <= mx
                j = j if p else lane
                bound += not p
                e = int(a[(i & ~31) + j]) if 0 <= j < 32 else None
                if e is not None and (int(o[i, 0]) != e or int(o[i, 1]) != int(p)):
                    bad += 1
        check("shfl." + md, not bad and bound, f"{bad} lanes wrong")


def test_vote() -> None:
    m = module(
        ".visible .entry k(.param .u64 pa, .param .u64 po, .param .u32 pm, .param .u32 px)\n"
        "{ .reg .b64 %a, %o, %f; .reg .b32 %i, %v, %d, %m, %x, %l; .reg .b64 %w; "
        ".reg .pred %p, %q, %e;\n"
        "mov.u32 %i, %tid.x; mul.wide.u32 %f, %i, 4; ld.param.u64 %a, [pa]; "
        "ld.param.u64 %o, [po]; ld.param.u32 %m, [pm]; ld.param.u32 %x, [px]; "
        "add.s64 %a, %a, %f; mul.wide.u32 %f, %i, 64; add.s64 %o, %o, %f; "
        "mov.u32 %l, %laneid; shl.b32 %d, 1, %l; and.b32 %d, %d, %x; setp.ne.u32 %e, %d, 0; "
        "@%e ret; shl.b32 %d, 1, %l; and.b32 %d, %d, %m; setp.eq.u32 %e, %d, 0; "
        "@%e bra DONE; ld.global.b32 %v, [%a]; and.b32 %d, %v, 1; setp.ne.u32 %p, %d, 0;\n"
        "vote.sync.ballot.b32 %d, %p, %m; st.global.b32 [%o], %d; "
        "vote.sync.any.pred %q, %p, %m; selp.b32 %d, 1, 0, %q; st.global.b32 [%o+4], %d; "
        "vote.sync.all.pred %q, !%p, %m; selp.b32 %d, 1, 0, %q; st.global.b32 [%o+8], %d; "
        "vote.sync.uni.pred %q, %p, %m; selp.b32 %d, 1, 0, %q; st.global.b32 [%o+12], %d; "
        "match.any.sync.b32 %d, %v, %m; st.global.b32 [%o+16], %d; "
        "match.all.sync.b32 %d|%q, %v, %m; st.global.b32 [%o+20], %d; selp.b32 %d, 1, 0, %q; "
        "st.global.b32 [%o+24], %d; mov.b64 %w, {%d, %v}; match.any.sync.b64 %d, %w, %m; "
        "st.global.b32 [%o+28], %d;"
        + "".join(
            f"redux.sync.{o}.{t} %d, %v, %m; st.global.b32 [%o+{32 + 4 * i}], %d;"
            for i, (o, t) in enumerate(
                (
                    ("add", "s32"),
                    ("min", "s32"),
                    ("max", "s32"),
                    ("min", "u32"),
                    ("max", "u32"),
                    ("and", "b32"),
                    ("or", "b32"),
                    ("xor", "b32"),
                )
            )
        )
        + "DONE: ret; }"
    )
    for tr in range(60):
        n = rng.choice([32, 64, 20, 45, 33])
        mask = rng.choice([MASK_32, MASK_32, rng.getrandbits(32) | 1, 0xFFFF])
        ex = rng.choice([0, 0, rng.getrandbits(32) & ~1])
        a = np.array(
            [rng.getrandbits(32) if tr % 3 else rng.choice([1, 3, 0x80000001]) if tr % 2 else 7 for _ in range(n)],
            np.uint32,
        )
        o = np.zeros((n, 16), np.uint32)
        ok = True
        launch(m, "k", 1, n, [a, o, mask, ex], order=ORDERS[tr % 3], seed=tr)
        for wv in range((n + 31) // 32):
            L = [lane for lane in range(min(32, n - 32 * wv)) if mask >> lane & 1 and not ex >> lane & 1]
            v = {lane: int(a[32 * wv + lane]) for lane in L}
            if not L:
                continue
            bal = sum(1 << lane for lane in L if v[lane] & 1)
            s = [sign_extend(x, 32) for x in v.values()]
            eff = sum(1 << lane for lane in L)
            for lane in L:
                e = [
                    bal,
                    bal != 0,
                    bal == 0,
                    bal == 0 or bal == eff,
                    sum(1 << k for k in L if v[k] == v[lane]),
                ]
                al = len(set(v.values())) == 1
                e += [
                    eff if al else 0,
                    al,
                    e[4],
                    sum(s),
                    min(s),
                    max(s),
                    min(v.values()),
                    max(v.values()),
                    functools.reduce(operator.and_, v.values()),
                    functools.reduce(operator.or_, v.values()),
                    functools.reduce(operator.xor, v.values()),
                ]
                if [int(x) & MASK_32 for x in e] != [int(x) for x in o[32 * wv + lane]]:
                    ok = False
                    bad = (
                        tr,
                        n,
                        hex(mask),
                        hex(ex),
                        lane,
                        [hex(int(x) & MASK_32) for x in e],
                        [hex(int(x)) for x in o[32 * wv + lane]],
                    )
        check(f"vote{tr}", ok, "" if ok else str(bad))


def test_bar_red() -> None:
    m = module(
        ".visible .entry k(.param .u64 pa, .param .u64 po)\n"
        "{ .reg .b64 %a, %o, %f; .reg .b32 %i, %v, %d, %n; .reg .pred %p, %q, %e;\n"
        "mov.u32 %i, %tid.x; mul.wide.u32 %f, %i, 4; ld.param.u64 %a, [pa]; "
        "ld.param.u64 %o, [po]; add.s64 %a, %a, %f; mul.wide.u32 %f, %i, 16; "
        "add.s64 %o, %o, %f; ld.global.b32 %v, [%a]; setp.ne.u32 %p, %v, 0;\n"
        "barrier.sync 0; bar.red.popc.u32 %d, 0, %p; st.global.b32 [%o], %d; "
        "bar.red.and.pred %q, 1, %p; selp.b32 %d, 1, 0, %q; st.global.b32 [%o+4], %d; "
        "barrier.cta.red.or.pred %q, 0, !%p; selp.b32 %d, 1, 0, %q; "
        "st.global.b32 [%o+8], %d;\n"
        "setp.ge.u32 %e, %i, 64; @%e bra HI; bar.red.popc.u32 %d, 3, 64, %p; bra OUT; "
        "HI: bar.red.popc.u32 %d, 4, 32, !%p; OUT: st.global.b32 [%o+12], %d; ret; }"
    )
    for tr in range(12):
        a = np.array([rng.random() < (0.5, 0.0, 1.0)[tr % 3] for _ in range(96)], np.uint32)
        o = np.zeros((96, 4), np.uint32)
        launch(m, "k", 1, 96, [a, o], order=ORDERS[tr % 3])
        e = np.array([[a.sum(), a.all(), (a == 0).any(), a[:64].sum() if i < 64 else (a[64:] == 0).sum()] for i in range(96)])
        check("bar.red", (o == e).all(), str((o[0], e[0])))


def test_bar_arrive() -> None:
    m = module(
        ".shared .align 4 .b32 s[64];\n"
        ".visible .entry k(.param .u64 po)\n"
        "{ .reg .b64 %o, %f; .reg .b32 %i, %j, %d, %a; .reg .pred %p;\n"
        "mov.u32 %i, %tid.x; ld.param.u64 %o, [po]; setp.ge.u32 %p, %i, 32; @%p bra CONS; "
        "mov.u32 %a, s; mad.lo.u32 %a, %i, 4, %a; add.u32 %d, %i, 100; "
        "st.shared.u32 [%a], %d; bar.arrive 1, 64; bra OUT; CONS: bar.sync 1, 64; "
        "sub.u32 %j, 63, %i; mov.u32 %a, s; mad.lo.u32 %a, %j, 4, %a; "
        "ld.shared.u32 %d, [%a]; mul.wide.u32 %f, %j, 4; add.s64 %o, %o, %f; "
        "st.global.u32 [%o], %d; OUT: ret; }"
    )
    for od in range(3):
        o = np.zeros(32, np.uint32)
        launch(m, "k", 1, 64, [o], order=ORDERS[od])
        check("bar.arrive", (o == np.arange(32) + 100).all(), str(o))


def test_sreg() -> None:
    names = [
        "%tid.x",
        "%tid.y",
        "%tid.z",
        "%ntid.x",
        "%ntid.y",
        "%ntid.z",
        "%ctaid.x",
        "%ctaid.y",
        "%ctaid.z",
        "%nctaid.x",
        "%nctaid.y",
        "%nctaid.z",
        "%laneid",
        "%warpid",
        "%nwarpid",
        "%lanemask_eq",
        "%lanemask_lt",
        "%lanemask_le",
        "%lanemask_ge",
        "%lanemask_gt",
    ]
    K = len(names)
    m = module(
        (
            f".visible .entry k(.param .u64 po)\n"
            f"{{ .reg .b64 %o, %f; .reg .b32 %t, %d, %x, %y, %z, %b; ld.param.u64 %o, [po]; "
            f"mov.u32 %x, %tid.z; mov.u32 %y, %ntid.y; mov.u32 %z, %tid.y; "
            f"mad.lo.u32 %t, %x, %y, %z; mov.u32 %y, %ntid.x; mov.u32 %z, %tid.x; "
            f"mad.lo.u32 %t, %t, %y, %z; mov.u32 %x, %ctaid.z; mov.u32 %y, %nctaid.y; "
            f"mov.u32 %z, %ctaid.y; mad.lo.u32 %b, %x, %y, %z; mov.u32 %y, %nctaid.x; "
            f"mov.u32 %z, %ctaid.x; mad.lo.u32 %b, %b, %y, %z; mov.u32 %x, %ntid.x; "
            f"mov.u32 %y, %ntid.y; mul.lo.u32 %x, %x, %y; mov.u32 %y, %ntid.z; "
            f"mul.lo.u32 %x, %x, %y; mad.lo.u32 %t, %b, %x, %t; mul.wide.u32 %f, %t, {4 * K}; "
            f"add.s64 %o, %o, %f;\n"
        )
        + "".join(f"mov.u32 %d, {s}; st.global.u32 [%o+{4 * i}], %d;\n" for i, s in enumerate(names))
        + "ret; }"
    )
    for g, b in (
        ((3, 2, 2), (5, 3, 4)),
        ((4, 1, 1), (45, 1, 1)),
        ((1, 2, 3), (7, 9, 1)),
        ((1, 1, 1), (1, 1, 64)),
        ((2, 1, 1), (1, 33, 1)),
    ):
        nt = b[0] * b[1] * b[2]
        nb = g[0] * g[1] * g[2]
        o = np.zeros((nb * nt, K), np.uint32)
        launch(m, "k", g, b, [o], order=ORDERS[2])
        e = []
        for B in range(nb):
            for t in range(nt):
                lane = t & 31
                e.append(
                    [
                        t % b[0],
                        t // b[0] % b[1],
                        t // b[0] // b[1],
                        *b,
                        B % g[0],
                        B // g[0] % g[1],
                        B // g[0] // g[1],
                        *g,
                        lane,
                        t >> 5,
                        (nt + 31) // 32,
                        1 << lane,
                        (1 << lane) - 1,
                        (2 << lane) - 1,
                        MASK_32 & ~((1 << lane) - 1),
                        MASK_32 & ~((2 << lane) - 1),
                    ]
                )
        check(f"sreg{b}", (o == np.array(e, np.uint64).astype(np.uint32)).all())


def test_grid() -> None:
    m = module(
        ".visible .entry k(.param .u64 po, .param .u32 pk) { .reg .b64 %o, %f; "
        ".reg .b32 %i, %j, %k; .reg .pred %p; ld.param.u64 %o, [po]; ld.param.u32 %k, [pk]; "
        "mov.u32 %i, %ctaid.x; setp.ne.u32 %p, %i, %k; @%p ret; st.global.u32 [%o], %i; "
        "mov.u32 %j, %nctaid.x; st.global.u32 [%o+4], %j; ret; }"
    )
    for od in (0, 1, 2):
        o = np.zeros(2, np.uint32)
        launch(m, "k", 200000, 1, [o, 199999], order=ORDERS[od], resident=8)
        check("grid 200000", list(o) == [199999, 200000], str(o))
    expect_error("grid.y", lambda: launch(m, "k", (1, 65536), 1, [np.zeros(2, np.uint32), 0]), "grid")
    expect_error("grid.x", lambda: launch(m, "k", 1 << 31, 1, [np.zeros(2, np.uint32), 0]), "grid")
    expect_error("block", lambda: launch(m, "k", 1, 1025, [np.zeros(2, np.uint32), 0]), "block")
    expect_error("block.z", lambda: launch(m, "k", 1, (1, 1, 65), [np.zeros(2, np.uint32), 0]), "block")
    expect_error("block wraps", lambda: launch(m, "k", 1, (65536, 65536, 1), [np.zeros(2, np.uint32), 0]), "block")
    expect_error("smem", lambda: launch(m, "k", 1, 1, [np.zeros(2, np.uint32), 0], shared=300000), "shared")
    m2 = module(".visible .entry k(.param .u64 po) { trap; ret; }")  # a 2^31-1 grid must not need memory per block

    r0 = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for od in (0, 1, 2):
        expect_error(
            "grid 2^31-1",
            lambda: launch(m2, "k", (1 << 31) - 1, 1, [np.zeros(2, np.uint32)], order=ORDERS[od]),
            "trap",
        )
    expect_error(
        "grid 2^31-1 x 65535",
        lambda: launch(m2, "k", ((1 << 31) - 1, 65535, 3), 1, [np.zeros(2, np.uint32)], order=ORDERS[2]),
        "trap",
    )
    check("grid memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - r0 < 400000)
    m3 = module(
        ".visible .entry k(.param .u64 po) .maxntid 64, 1, 1 { ret; } .visible .entry j(.param .u64 po) .reqntid 64 { ret; }"
    )
    expect_error("maxntid", lambda: launch(m3, "k", 1, 65, [np.zeros(2, np.uint32)]), "launch bounds")
    expect_error("reqntid", lambda: launch(m3, "j", 1, 32, [np.zeros(2, np.uint32)]), "requires 64")
    launch(m3, "k", 1, 64, [np.zeros(2, np.uint32)])
    launch(m3, "j", 1, 64, [np.zeros(2, np.uint32)])


def test_align() -> None:
    for ty, v, n in (
        ("b16", "", 2),
        ("b32", "", 4),
        ("b64", "", 8),
        ("b32", ".v2", 8),
        ("b32", ".v4", 16),
        ("b64", ".v2", 16),
        ("b16", ".v4", 8),
        ("b8", ".v4", 4),
        ("b8", ".v2", 2),
    ):
        k = int(v[2:] or 1)
        regs = ",".join(f"%x{i}" for i in range(k))
        regs = "{" + regs + "}" if v else regs
        R = "b64" if ty == "b64" else "b32" if ty == "b32" else "b16"
        m = module(
            f".shared .align 16 .b8 s[64];\n"
            f".visible .entry l(.param .u64 p) {{ .reg .b64 %a; .reg .{R} %x<4>; "
            f"ld.param.u64 %a, [p]; ld.global{v}.{ty} {regs}, [%a]; "
            f"st.global{v}.{ty} [%a+32], {regs}; ret; }}\n"
            f".visible .entry n(.param .u64 p) {{ .reg .b64 %a; .reg .{R} %x<4>; "
            f"ld.param.u64 %a, [p]; ld.global.nc{v}.{ty} {regs}, [%a]; "
            f"st{v}.{ty} [%a+32], {regs}; ret; }}\n"
            f".visible .entry h(.param .u64 p, .param .u32 q) {{ .reg .b64 %a; .reg .b32 %s, %t; "
            f".reg .{R} %x<4>; ld.param.u64 %a, [p]; ld.param.u32 %t, [q]; mov.u32 %s, s; "
            f"add.u32 %s, %s, %t; ld.global{v}.{ty} {regs}, [%a]; st.shared{v}.{ty} [%s], {regs}; "
            f"ld.shared{v}.{ty} {regs}, [%s]; st.global{v}.{ty} [%a+32], {regs}; ret; }}"
        )
        raw = np.random.default_rng(1).integers(0, 256, 128).astype(np.uint8)
        o = (-raw.ctypes.data) % 16
        b = raw[o : o + 96]
        for kn, ar in (("l", []), ("n", []), ("h", [0]), ("h", [n])):
            b[32:48] = 0
            launch(m, kn, 1, 1, [b, *ar])
            check(f"vec{v}.{ty}", (b[32 : 32 + n] == b[:n]).all() and (b[32 + n : 48] == 0).all())
        if n > 1:
            for kn in "ln":
                expect_error(
                    f"align{v}.{ty}",
                    lambda: launch(m, kn, 1, 1, [raw[o + n // 2 : o + n // 2 + 64]]),
                    "misaligned",
                )
            expect_error(f"align.sh{v}.{ty}", lambda: launch(m, "h", 1, 1, [b, n // 2]), "misaligned")


def test_ldext() -> None:
    m = module(
        (".visible .entry k(.param .u64 p) { .reg .b64 %a, %d; .reg .b32 %r; .reg .b16 %h; ld.param.u64 %a, [p];")
        + "".join(
            (
                f"ld.global.{t} %{r}, [%a]; "
                f"st.global.{'b64' if r == 'd' else 'b32' if r == 'r' else 'b16'} [%a+{16 + 8 * i}], %{r};"
            )
            for i, (t, r) in enumerate(
                (
                    ("s8", "r"),
                    ("u8", "r"),
                    ("s16", "r"),
                    ("u16", "r"),
                    ("s8", "d"),
                    ("s32", "d"),
                    ("u32", "d"),
                    ("s8", "h"),
                    ("b8", "r"),
                    ("b16", "r"),
                    ("b32", "d"),
                )
            )
        )
        + "mov.b32 %r, 0x12345678; st.global.u8 [%a+120], %r; st.global.u16 [%a+124], %r; ret; }"
    )
    b = np.zeros(128, np.uint8)
    b[:8] = [0x80, 0xFF, 0x02, 0x90, 1, 2, 3, 4]
    launch(m, "k", 1, 1, [b])
    q = b.view(np.uint64)
    h = [int(x) for x in q[2:13]]
    check(
        "ldext",
        h
        == [
            0xFFFFFF80,
            0x80,
            0xFFFFFF80,
            0xFF80,
            MASK_64 - 0x7F,
            MASK_64 - 0xFFFFFFFF + 0x9002FF80,
            0x9002FF80,
            0xFF80,
            0x80,
            0xFF80,
            0x9002FF80,
        ]
        and b[120] == 0x78
        and b[121] == 0
        and int(b[124:126].view(np.uint16)[0]) == 0x5678,
        str([hex(x) for x in h]),
    )


def test_generic() -> None:
    m = module(
        ".shared .align 8 .b8 s[64];\n"
        ".extern .shared .align 16 .b8 dyn[];\n"
        ".global .align 8 .b8 g[64];\n"
        ".const .align 8 .b32 cc[4] = {7, 8, 9, 10};\n"
        ".visible .entry k(.param .u64 p, .param .align 8 .b8 st[24])\n"
        "{ .local .align 8 .b8 loc[32]; .reg .b64 %a, %s, %d, %g, %l, %t, %c; "
        ".reg .b32 %r, %u; .reg .pred %p; ld.param.u64 %a, [p];\n"
        "mov.u64 %t, s; cvta.shared.u64 %s, %t; mov.u64 %t, dyn; cvta.shared.u64 %d, %t; "
        "mov.u64 %t, loc; cvta.local.u64 %l, %t; mov.u64 %t, g; cvta.global.u64 %g, %t; "
        "mov.u64 %t, cc; cvta.const.u64 %c, %t;\n"
        "mov.b32 %r, 11; st.u32 [%s+4], %r; ld.shared.u32 %u, [s+4]; st.global.u32 [%a], %u; "
        "mov.b32 %r, 12; st.shared.u32 [dyn+8], %r; ld.u32 %u, [%d+8]; "
        "st.global.u32 [%a+4], %u; mov.b32 %r, 13; st.u32 [%l+4], %r; "
        "ld.local.u32 %u, [loc+4]; st.global.u32 [%a+8], %u; mov.b32 %r, 14; "
        "st.global.u32 [g+12], %r; ld.u32 %u, [%g+12]; st.global.u32 [%a+12], %u; "
        "ld.u32 %u, [%c+8]; st.global.u32 [%a+16], %u; ld.param.u32 %u, [st+20]; "
        "st.global.u32 [%a+20], %u; ld.param.u8 %u, [st+1]; st.global.u32 [%a+24], %u;\n"
        "cvta.to.shared.u64 %t, %s; ld.shared.u32 %u, [%t+4]; st.global.u32 [%a+28], %u;\n"
        + "".join(
            f"isspacep.{sp} %p, %{r}; selp.u32 %u, 1, 0, %p; st.global.u32 [%a+{32 + 4 * i}], %u;"
            for i, (sp, r) in enumerate(
                (
                    ("shared", "s"),
                    ("shared", "d"),
                    ("shared", "l"),
                    ("shared", "a"),
                    ("global", "s"),
                    ("global", "a"),
                    ("global", "g"),
                    ("local", "l"),
                    ("local", "a"),
                    ("local", "s"),
                    ("const", "c"),
                    ("const", "a"),
                )
            )
        )
        + "ret; }"
    )
    o = np.zeros(24, np.uint32)
    st = bytes(range(100, 124))
    for pz in (0, 1, 2):
        launch(m, "k", 1, 1, [o, st], shared=64, poison=bool(pz))
    check(
        "generic",
        list(o[:20])
        == [
            11,
            12,
            13,
            14,
            9,
            int.from_bytes(st[20:24], "little"),
            101,
            11,
            1,
            1,
            0,
            0,
            0,
            1,
            1,
            1,
            0,
            0,
            1,
            0,
        ],
        str(list(o)),
    )


def test_control() -> None:
    m = module(
        ".func (.param .b32 r) addmul(.param .b32 x, .param .align 8 .b8 y[16]) { .reg .b32 %a, %b, %c; "
        "ld.param.b32 %a, [x]; ld.param.b32 %b, [y+12]; mad.lo.s32 %c, %a, %b, 5; "
        "st.param.b32 [r], %c; ret; }\n"
        ".visible .entry k(.param .u64 p, .param .u32 n)\n"
        "{ .reg .b64 %a, %o; .reg .b32 %i, %v, %n, %t; .reg .pred %p, %q; "
        "ld.param.u64 %a, [p]; ld.param.u32 %n, [n]; mov.u32 %i, %tid.x; "
        "setp.lt.u32 %p, %i, %n; @!%p ret; mul.wide.u32 %o, %i, 4; add.s64 %a, %a, %o; "
        "and.b32 %t, %i, 3; mov.u32 %v, 0; @%p mov.u32 %v, 1; @!%p mov.u32 %v, 2;\n"
        "ts: .branchtargets L0, L1, L2, L3;\n"
        "brx.idx %t, ts;\n"
        "L0: add.u32 %v, %v, 100; bra.uni E; L1: add.u32 %v, %v, 200; bra E; "
        "L2: { .reg .b32 %v2; mov.u32 %v2, 300; add.u32 %v, %v, %v2; } bra E; "
        "L3: setp.eq.u32 %q, %i, 3; @%q bra E; add.u32 %v, %v, 400;\n"
        "E: setp.gt.u32 %q, %i, 5; @%q bra E2; { .param .b32 pr; .param .b32 px; "
        ".param .align 8 .b8 py[16]; st.param.b32 [px], %v; st.param.b32 [py+12], %i; "
        "call.uni (pr), addmul, (px, py); ld.param.b32 %v, [pr]; }\n"
        "E2: st.global.u32 [%a], %v; ret; }\n"
        ".visible .entry bad(.param .u64 p) { .reg .b32 %t; mov.u32 %t, 7; "
        "ts: .branchtargets A, B; brx.idx %t, ts; A: B: ret; }"
    )
    o = np.zeros(16, np.uint32)
    launch(m, "k", 1, 32, [o, 12])
    e = []
    for i in range(12):
        v = 1 + [100, 200, 300, 0 if i == 3 else 400][i & 3]
        e.append(v * i + 5 if i <= 5 else v)
    check("control", list(o[:12]) == e and not o[12:].any(), str((list(o), e)))
    expect_error("brx out of range", lambda: launch(m, "bad", 1, 1, [o]), "brx")


def test_cp_async() -> None:
    m = module(
        ".shared .align 16 .b8 s[64];\n"
        ".visible .entry k(.param .u64 p, .param .u32 n) { .reg .b64 %a, %x, %y; "
        ".reg .b32 %n; ld.param.u64 %a, [p]; ld.param.u32 %n, [n]; "
        "cp.async.ca.shared.global [s], [%a], 16, %n; "
        "cp.async.cg.shared.global [s+16], [%a], 16; cp.async.commit_group; "
        "cp.async.wait_group 0; ld.shared.v2.b64 {%x,%y}, [s]; "
        "st.global.v2.b64 [%a+16], {%x,%y}; ld.shared.v2.b64 {%x,%y}, [s+16]; "
        "st.global.v2.b64 [%a+32], {%x,%y}; ret; }"
    )
    raw = np.zeros(80, np.uint8)
    o = (-raw.ctypes.data) % 16
    b = raw[o : o + 48]
    b[:16] = np.arange(1, 17)
    for n in (0, 4, 8, 15, 16):
        launch(m, "k", 1, 1, [b, n])
        check(
            f"cp.async {n}",
            list(b[16:32]) == [j + 1 if j < n else 0 for j in range(16)] and list(b[32:]) == list(range(1, 17)),
            str(list(b)),
        )


def test_index64() -> None:  # 64-bit address arithmetic: a virtual 5 GiB array, touched past 2^32 bytes
    m = module(
        ".visible .entry k(.param .u64 p, .param .u64 q) { .reg .b64 %a, %i; .reg .b32 %r; "
        "ld.param.u64 %a, [p]; ld.param.u64 %i, [q]; mad.lo.s64 %a, %i, 4, %a; "
        "ld.global.u32 %r, [%a]; add.u32 %r, %r, 1; st.global.u32 [%a+4], %r; ret; }"
    )
    big = np.zeros(5 << 28, np.uint32)
    i = (1 << 30) + 12345
    big[i] = 41
    launch(m, "k", 1, 1, [big, i])
    check("index64", big[i + 1] == 42)
    expect_error("index64 oob", lambda: launch(m, "k", 1, 1, [big, (5 << 28) - 1]), "out-of-bounds")


def test_carry() -> None:  # other threads must not disturb the carry flag
    m = module(
        ".visible .entry k(.param .u64 p) { .reg .b64 %a, %o; .reg .b32 %i, %r, %h; "
        "ld.param.u64 %a, [p]; mov.u32 %i, %tid.x; mul.wide.u32 %o, %i, 4; "
        "add.s64 %a, %a, %o; shl.b32 %r, %i, 31; add.cc.u32 %h, %r, %r; bar.sync 0; "
        "addc.u32 %h, 0, 0; st.global.u32 [%a], %h; ret; }"
    )
    o = np.zeros(64, np.uint32)
    launch(m, "k", 1, 64, [o], order=ORDERS[2])
    check("carry", (o == (np.arange(64) & 1)).all())


def test_div0() -> None:
    m = module(
        ".visible .entry k(.param .u64 p) { .reg .b64 %a; .reg .b32 %r; "
        "ld.param.u64 %a, [p]; ld.global.u32 %r, [%a]; div.s32 %r, %r, %r; "
        "st.global.u32 [%a], %r; ret; }"
    )
    o = np.zeros(2, np.uint32)
    check("div0", "division by zero" in launch(m, "k", 1, 1, [o]).warnings)


def test_stack() -> None:
    m = module(
        ".visible .entry big(.param .u64 p) { .local .align 16 .b8 a[400000]; "
        ".reg .b64 %a, %l, %o; .reg .b32 %i, %r, %s; .reg .pred %p; ld.param.u64 %a, [p]; "
        "mov.u32 %i, 0; mov.u32 %s, 0; L: mul.wide.u32 %o, %i, 4; mov.u64 %l, a; "
        "add.s64 %l, %l, %o; st.local.u32 [%l], %i; add.u32 %i, %i, 997; "
        "setp.lt.u32 %p, %i, 99000; @%p bra L; mov.u32 %i, 0; M: mul.wide.u32 %o, %i, 4; "
        "mov.u64 %l, a; add.s64 %l, %l, %o; ld.local.u32 %r, [%l]; add.u32 %s, %s, %r; "
        "add.u32 %i, %i, 997; setp.lt.u32 %p, %i, 99000; @%p bra M; st.global.u32 [%a], %s; "
        "ret; }\n"
        ".visible .entry oob(.param .u64 p) { .local .align 16 .b8 a[64]; .reg .b64 %l; "
        "mov.u64 %l, a; add.s64 %l, %l, 100000000; st.local.u64 [%l], %l; ret; }\n"
        ".visible .entry mis(.param .u64 p) { .local .align 16 .b8 a[64]; .reg .b64 %l; "
        "mov.u64 %l, a; st.local.u64 [%l+4], %l; ret; }"
    )
    o = np.zeros(2, np.uint32)
    launch(m, "big", 1, 64, [o])
    check("stack big", o[0] == sum(range(0, 99000, 997)))
    expect_error("local oob", lambda: launch(m, "oob", 1, 1, [o]), "local")
    expect_error("local misaligned", lambda: launch(m, "mis", 1, 1, [o]), "misaligned")
    m = module(
        ".func (.param .b32 r) rec(.param .b32 x)\n"
        ";\n"
        ".func (.param .b32 r) rec(.param .b32 x) { .local .align 16 .b8 a[2048]; "
        ".reg .b32 %x, %y; .reg .pred %p; ld.param.b32 %x, [x]; st.local.u32 [a+1024], %x; "
        "setp.eq.u32 %p, %x, 0; @%p bra Z; sub.u32 %y, %x, 1; { .param .b32 q; "
        ".param .b32 v; st.param.b32 [v], %y; call.uni (q), rec, (v); ld.param.b32 %y, [q]; "
        "} ld.local.u32 %x, [a+1024]; add.u32 %x, %x, %y; Z: st.param.b32 [r], %x; ret; }\n"
        ".visible .entry k(.param .u64 p, .param .u32 n) { .reg .b64 %a; .reg .b32 %x; "
        "ld.param.u64 %a, [p]; ld.param.u32 %x, [n]; { .param .b32 q; .param .b32 v; "
        "st.param.b32 [v], %x; call.uni (q), rec, (v); ld.param.b32 %x, [q]; "
        "} st.global.u32 [%a], %x; ret; }"
    )
    launch(m, "k", 1, 32, [o, 20])
    check("recursion", o[0] == 210)
    expect_error("recursion overflow", lambda: launch(m, "k", 1, 32, [o, 100000]), "stack overflow")


def test_counters() -> None:
    m = module(
        ".shared .align 4 .b32 s[4];\n"
        ".const .align 4 .b32 c = 5;\n"
        ".visible .entry k(.param .u64 p) { .reg .b64 %a, %g, %t; .reg .b32 %r, %i; "
        ".reg .f32 %f<4>; .reg .pred %p; ld.param.u64 %a, [p]; mov.u64 %t, s; "
        "cvta.shared.u64 %g, %t; mov.u32 %i, %tid.x; setp.eq.u32 %p, %i, 0; "
        "@%p st.shared.u32 [s], %i; bar.sync 0; ld.global.v4.f32 {%f0,%f1,%f2,%f3}, [%a]; "
        "@%p st.global.v2.f32 [%a], {%f0,%f1}; ld.const.u32 %r, [c]; ld.u32 %r, [%g]; "
        "atom.shared.add.u32 %r, [s], 1; red.shared.add.u32 [s], 1; "
        "atom.add.u32 %r, [%g], 1; red.global.add.u32 [%a+16], 1; bar.sync 0; "
        "ld.u32 %r, [%a]; ret; }"
    )
    r = launch(m, "k", 3, 64, [np.zeros(8, np.uint32)])
    c = r.counters
    got = [c.global_bytes_read, c.global_bytes_written, c.global_atomics, c.shared_atomics, c.barriers]
    check("counters", got == [192 * 20, 3 * 8, 192, 192 * 3, 6], str(got))


def test_printf() -> None:
    m = module(
        ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b)\n"
        ";\n"
        ".global .align 1 .b8 fmt[8] = {37, 122, 117, 32, 37, 100, 10, 0};\n"
        ".visible .entry k(.param .u64 p) { .local .align 8 .b8 b[16]; "
        ".reg .b64 %a, %f, %l, %v; .reg .b32 %r; ld.param.u64 %a, [p]; mov.u64 %l, b; "
        "cvta.local.u64 %l, %l; mov.u64 %v, 4294967299; st.local.u64 [b], %v; "
        "mov.u32 %r, 77; st.local.u32 [b+8], %r; mov.u64 %f, fmt; cvta.global.u64 %f, %f; "
        "{ .param .b64 x; .param .b64 y; .param .b32 q; st.param.b64 [x], %f; "
        "st.param.b64 [y], %l; call.uni (q), vprintf, (x, y); ld.param.b32 %r, [q]; "
        "} st.global.u32 [%a], %r; ret; }"
    )
    o = np.zeros(1, np.uint32)
    sys.stdout.flush()
    sv = os.dup(1)
    with tempfile.TemporaryFile() as t:
        os.dup2(t.fileno(), 1)
        launch(m, "k", 1, 1, [o])
        os.dup2(sv, 1)
        os.close(sv)
        t.seek(0)
        check("printf", t.read() == b"4294967299 77\n" and o[0] == 2)
