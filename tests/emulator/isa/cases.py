"""One kernel for each instruction form: its PTX, and what it should compute."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import Module
from .numbers import BITS, MASK_64, is_nan
from .operands import operands, rng

ROWS = 420  # operands tried for each form, at most
UNTYPED = {8: "b16", 16: "b16", 32: "b32", 64: "b64", 1: "pred"}


@dataclass
class Case:
    name: str
    code: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model: Callable[..., Any]
    count: int
    rows: Sequence[tuple[int, ...]] | None
    declarations: str
    target: int


CASES: list[Case] = []


def case(
    name: str,
    code: str,
    inputs: tuple[str, ...],
    outputs: str | tuple[str, ...],
    model: Callable[..., Any],
    n: int = 1400,
    rows: Sequence[tuple[int, ...]] | None = None,
    extra: str = "",
    tgt: int = 90,
) -> None:
    """`code` uses %a %b %c %e (inputs, in this order) and %o %q (outputs).

    `model` takes the inputs' bits and gives the outputs'. None: anything will do; "nan": any NaN; a function:
    whether the bits are right.
    """
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    CASES.append(Case(name, code, inputs, outputs, model, n, rows, extra, tgt))


def register_type(type_: str) -> str:
    return type_ if type_ in ("f32", "f64") else UNTYPED[BITS[type_]]


def kernel_text(c: Case, index: int) -> str:
    """A kernel that applies the instruction to each row: operands and results lie 8 bytes apart"""
    pointers = ", ".join(f".param .u64 p{p}" for p in "ABCEOQ")
    lines = [
        f".visible .entry t{index}({pointers}, .param .u32 pn)",
        "{",
        ".reg .pred %pp, %x, %y;",
        ".reg .b32 %i, %j, %k, %n, %t0, %t1;",
        ".reg .b64 %base, %off, %u0, %u1;",
        ".reg .b16 %h0, %h1;",
        c.declarations,
        *(f".reg .{register_type(t)} %{r};" for r, t in zip("abce", c.inputs, strict=False)),
        *(f".reg .{register_type(t)} %{r};" for r, t in zip("oq", c.outputs, strict=False)),
        "mov.u32 %i, %tid.x;",
        "mov.u32 %j, %ctaid.x;",
        "mov.u32 %k, %ntid.x;",
        "mad.lo.s32 %i, %j, %k, %i;",
        "ld.param.u32 %n, [pn];",
        "setp.ge.u32 %pp, %i, %n;",
        "@%pp bra DONE;",
        "mul.wide.u32 %off, %i, 8;",
    ]
    for r, p, t in zip("abce", "ABCE", c.inputs, strict=False):
        lines += [f"ld.param.u64 %base, [p{p}];", "add.s64 %base, %base, %off;"]
        if t == "pred":
            lines += ["ld.global.u32 %t0, [%base];", f"setp.ne.u32 %{r}, %t0, 0;"]
        else:
            lines.append(f"ld.global.{UNTYPED[BITS[t]]} %{r}, [%base];")
    lines.append(c.code)
    for r, p, t in zip("oq", "OQ", c.outputs, strict=False):
        lines += [f"ld.param.u64 %base, [p{p}];", "add.s64 %base, %base, %off;"]
        if t == "pred":
            lines += [f"selp.u32 %t0, 1, 0, %{r};", "st.global.u32 [%base], %t0;"]
        else:
            lines.append(f"st.global.{UNTYPED[BITS[t]]} [%base], %{r};")
    return "\n".join([*lines, "DONE:", "ret;", "}"])


def with_header(text: str, target: int = 90) -> str:
    return f".version 9.0\n.target sm_{target}\n.address_size 64\n{text}"


def complaints_of_ptxas(text: str) -> str:
    """What NVIDIA's assembler says against the PTX; nothing where there is no ptxas"""
    if not shutil.which("ptxas"):
        return ""
    match = re.search(r"sm_\d+", text)
    assert match, "a PTX module names its target"
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "a.ptx"
        source.write_text(text)
        command = ["ptxas", f"-arch={match.group()}", "-O0", str(source), "-o", f"{directory}/a.cubin"]
        result = subprocess.run(command, capture_output=True, text=True)
    return result.stderr[:1500] if result.returncode else ""


def failures(cases: Sequence[Case]) -> list[str]:
    """Run the cases; what is wrong with each that fails"""
    result = []
    for target in sorted({c.target for c in cases}):
        group = [c for c in cases if c.target == target]
        text = with_header("\n".join(kernel_text(c, i) for i, c in enumerate(group)), target)
        illegal = complaints_of_ptxas(text)
        if illegal:
            result.append(f"ptxas refuses the test: {illegal}")
        module = Module(text)
        result += [f"{group[int(k[1:])].name}: unsupported: {e}" for k, e in module.unsupported.items()]
        for i, c in enumerate(group):
            if f"t{i}" not in module.unsupported:
                result += _failure(module, c, f"t{i}")
    return result


def _failure(module: Module, c: Case, kernel: str) -> list[str]:
    rows = c.rows or operands(c.inputs, c.count)
    if len(rows) > ROWS:
        rows = rng.sample(list(rows), ROWS)
    n = len(rows)
    inputs = [
        np.array([r[j] & MASK_64 for r in rows], np.uint64) if j < len(c.inputs) else np.zeros(1, np.uint64) for j in range(4)
    ]
    results = [np.full(n, 0xDDDDDDDDDDDDDDDD, np.uint64) for _ in range(2)]
    for x in inputs:
        x.flags.writeable = False
    module.launch(kernel, -(-n // 128), 128, [*inputs, *results, n], check=False)
    wrong = 0
    first = ""
    for i, row in enumerate(rows):
        expected = c.model(*row)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for j, (x, t) in enumerate(zip(expected, c.outputs, strict=False)):
            got = int(results[j][i]) & ((1 << (32 if t == "pred" else max(BITS[t], 16))) - 1)
            if _agrees(got, x, t):
                continue
            wrong += 1
            shown = x if isinstance(x, str) or callable(x) else hex(int(x))
            first = first or f"{c.code} of {[hex(v) for v in row]}: expected {shown}, got {got:#x} (output {j})"
    return [f"{c.name}: {wrong} of {n} rows: {first}"] if wrong else []


def _agrees(got: int, expected: Any, type_: str) -> bool:
    if expected is None:
        return True
    if expected == "nan":
        return is_nan(got, type_)
    if callable(expected):
        return bool(expected(got))
    return got == int(expected) & ((1 << max(BITS[type_], 16)) - 1)
