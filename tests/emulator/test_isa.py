"""Every instruction form that the translator knows, against a model of the PTX ISA."""

from __future__ import annotations

import pytest

from . import Module
from .isa.approximations import approximate_cases
from .isa.cases import CASES, failures, with_header
from .isa.conversions import conversion_cases
from .isa.floats import float_cases
from .isa.halves import half_cases
from .isa.integers import integer_cases

for register in (integer_cases, float_cases, half_cases, conversion_cases, approximate_cases):
    register()

GROUP = 150  # forms that are compiled together
QUICK = CASES[::16]  # some of each family


def test_there_are_many_forms() -> None:
    assert len(CASES) > 1300
    assert len({c.name for c in CASES}) > 1300


def test_some_forms() -> None:
    assert failures(QUICK) == []


@pytest.mark.full
@pytest.mark.parametrize("start", range(0, len(CASES), GROUP))
def test_all_forms(start: int) -> None:
    assert failures(CASES[start : start + GROUP]) == []


@pytest.mark.parametrize(
    "instruction",
    [
        "cvt.pack.sat.u8.s32.b32 %r0, %r1, %r2, %r3;",
        "fma.rn.oob.f16 %h0, %h1, %h2, %h3;",
        "cvt.rn.satfinite.f16x2.f32 %r0, %f1, %f2;",
        "vadd.s32.s32.s32 %r0, %r1, %r2;",
        "ld.global.frobnicate.u32 %r0, [%d0];",
        "add.wrong.f32 %f0, %f1, %f2;",
        "atom.global.madeup.add.u32 %r0, [%d0], %r1;",
        "shfl.sync.spin.b32 %r0, %r1, %r2, %r3, %r4;",
        "mul.rnd.f64 %e0, %e1, %e2;",
        "setp.zz.f32 %p0, %f0, %f1;",
        "cp.async.ca.shared.global.L3::hint [%r0], [%d0], 16;",
        "min.foo.f16 %h0, %h1, %h2;",
        "mov.u32 %r0, %pm0;",
        "prmt.b32.zzz %r0, %r1, %r2, %r3;",
        "shf.l.wrong.b32 %r0, %r1, %r2, %r3;",
        "set.eq.q.f32.f32 %f0, %f1, %f2;",
        "mad.hi.sat.u32 %r0, %r1, %r2, %r3;",
        "selp.x.b32 %r0, %r1, %r2, %p0;",
        "st.async.b32 [%r0], %r1, [%r2];",
        "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%r0}, {%r1}, {%r2}, {%r3};",
    ],
)
def test_unknown_instruction_is_refused_by_name_and_line(instruction: str) -> None:
    declared = ("b32 %r<5>", "b16 %h<5>", "f32 %f<5>", "f64 %e<5>", "b64 %d<3>", "pred %p<3>")
    registers = " ".join(f".reg .{d};" for d in declared)
    text = with_header(f".visible .entry k(.param .u64 p)\n{{\n{registers}\n{instruction}\nret;\n}}")
    problem = Module(text).unsupported["k"]
    assert instruction.rstrip(";") in problem
    assert "line 7" in problem
