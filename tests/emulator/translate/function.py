"""One PTX function -> one C++ function. Registers become local variables that hold raw bits."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UnsupportedPTX
from ..parser import WIDTH, Function, parse_variable, split_operands
from .control_flow import LoopForest
from .instruction import Instruction, translator_of
from .scope import Register, Scope, Symbol, c_name
from .waits import waiting_loads

if TYPE_CHECKING:
    from .unit import UnitTranslator

UNSIGNED = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t", 16: "u128"}
SIGNED = {1: "int8_t", 2: "int16_t", 4: "int32_t", 8: "int64_t"}

# Special registers (PTX ISA 10). `t` is the running thread.
SPECIAL = {
    "%tid.x": "t->x",
    "%tid.y": "t->y",
    "%tid.z": "t->z",
    "%ntid.x": "t->launch->block[0]",
    "%ntid.y": "t->launch->block[1]",
    "%ntid.z": "t->launch->block[2]",
    "%ctaid.x": "t->block_x",
    "%ctaid.y": "t->block_y",
    "%ctaid.z": "t->block_z",
    "%nctaid.x": "t->launch->grid[0]",
    "%nctaid.y": "t->launch->grid[1]",
    "%nctaid.z": "t->launch->grid[2]",
    "%laneid": "t->lane",
    "%warpid": "t->warp",
    "%nwarpid": "t->launch->warps",
    "%smid": "0u",
    "%nsmid": "1u",
    "%gridid": "0ull",
    "%lanemask_eq": "(1u << t->lane)",
    "%lanemask_lt": "((1u << t->lane) - 1u)",
    "%lanemask_le": "((2u << t->lane) - 1u)",
    "%lanemask_ge": "(~((1u << t->lane) - 1u))",
    "%lanemask_gt": "(~((2u << t->lane) - 1u))",
    # Clocks only advance: here by the back edges taken.
    "%clock": "(uint32_t)t->back_edges",
    "%clock64": "t->back_edges",
    "%globaltimer": "t->back_edges",
    "%dynamic_smem_size": "t->launch->dynamic_shared",
    "%total_smem_size": "t->launch->shared_size",
    "%envreg1": "0u",
    "%envreg2": "0u",
    # A cluster is one block.
    "%clusterid.x": "t->block_x",
    "%cluster_ctaid.x": "0u",
    "%cluster_ctarank": "0u",
    "%cluster_nctarank": "1u",
    "WARP_SZ": "32u",
}

_ENDS_BLOCK = ("bra", "brx", "ret", "exit", "trap")


@dataclass
class BasicBlock:
    instructions: list[Instruction] = field(default_factory=list)


class FunctionTranslator:
    def __init__(self, unit: UnitTranslator, function: Function):
        self.unit = unit
        self.function = function
        self.blocks = [BasicBlock()]
        self.code: list[str] = []
        self.registers: list[Register] = []
        self.arrays: list[tuple[str, int, int]] = []  # C++ name, bytes, alignment
        self.narrowest_access = 16  # bytes, of accesses that may touch shared memory
        self._scopes = 0
        self._root = Scope()

    # ---- the function as a whole -------------------------------------------------------------------

    @property
    def signature(self) -> str:
        name = f"{'kernel' if self.function.is_kernel else 'function'}_{c_name(self.function.name)}"
        if self.function.is_kernel:
            return f"static void {name}(Thread* t, uint8_t* P)"
        returns = [f"uint8_t* Q{i}" for i in range(len(self.function.returns))]
        parameters = [f"uint8_t* A{i}" for i in range(len(self.function.parameters))]
        return f"static void {name}({', '.join(['Thread* t', *returns, *parameters])})"

    def translate(self) -> str:
        self.unit.sites.first_line = self.function.line
        self._refuse_clusters()
        self._declare_parameters()
        self._collect()
        successors = [self._successors(i) for i in range(len(self.blocks))]
        self.forest = LoopForest(successors)
        self.unit.sites.waits |= waiting_loads([block.instructions for block in self.blocks], successors)
        for i in range(len(self.blocks)):
            self._translate_block(i)
        locals_ = [f"{UNSIGNED[r.size]} {r.name} = 0;" for r in self.registers]
        locals_ += [f"alignas({max(16, a)}) uint8_t {name}[{size}];" for name, size, a in self.arrays]
        locals_ += [f"uint64_t outside_{loop.index} = 0;" for loop in self.forest.loops]
        locals_.append("uint64_t context = t->call_context;")
        if not self.function.is_kernel:
            locals_.append(f"check_stack(t, {self.frame_bytes}, {self.unit.sites.unknown});")
        return "\n".join([f"{self.signature} {{", *locals_, *self.code, "return;", "}", ""])

    @property
    def frame_bytes(self) -> int:
        """What the function needs of its thread's stack, at most"""
        return sum(size + 64 for _, size, _ in self.arrays) + 16 * len(self.registers) + 1024

    def _refuse_clusters(self) -> None:
        m = re.search(r"\.(?:reqnctapercluster|maxclusterrank|explicitcluster)\b[\s\d,]*", self.function.directives)
        if m and re.sub(r"[\s,1]", "", re.sub(r"\.\w+", "", m.group())):
            raise UnsupportedPTX(f"line {self.function.line}: cluster of more than one block: {m.group().strip()}")

    def _declare_parameters(self) -> None:
        f = self.function
        if f.is_kernel:
            for p in f.parameters:
                self._root.names[p.name] = Symbol("param", f"(uint64_t)(P + {p.offset})")
            return
        for letter, group in (("Q", f.returns), ("A", f.parameters)):
            for i, p in enumerate(group):
                self._root.names[p.name] = Symbol("param", f"(uint64_t){letter}{i}")

    def _collect(self) -> None:
        """Declarations into scopes, instructions into basic blocks."""
        scope, last_label = self._root, ""
        for statement in self.function.body:
            line, text = statement.line, statement.text
            if text == "{":
                self._scopes += 1
                scope = Scope(scope, self._scopes)
            elif text == "}":
                assert scope.parent, "the parser balances braces"
                scope = scope.parent
            elif text.endswith(":"):
                last_label = text[:-1]
                if self.blocks[-1].instructions:
                    self.blocks.append(BasicBlock())
                scope.labels[last_label] = len(self.blocks) - 1
            elif text.startswith(".branchtargets"):
                scope.tables[last_label] = split_operands(text[len(".branchtargets") :])
            elif text.startswith(".reg"):
                self._declare_registers(text, scope)
            elif text.startswith((".pragma", ".callprototype")):
                continue
            elif text.startswith("."):
                self._declare_variable(line, text, scope)
            else:
                instruction = Instruction.parse(line, text, scope)
                self.blocks[-1].instructions.append(instruction)
                if instruction.opcode in _ENDS_BLOCK:
                    self.blocks.append(BasicBlock())

    def _declare_registers(self, text: str, scope: Scope) -> None:
        m = re.match(r"^\.reg\s*(?:\.v\d\s*)?\.(\w+)\s+(.*)$", text)
        if not m or m[1] not in WIDTH:
            raise UnsupportedPTX(f"register declaration `{text}`")
        for name in split_operands(m[2]):
            many = re.fullmatch(r"([\w$%]+)<(\d+)>", name)
            names = [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]
            for n in names:
                register = Register(scope.c_register(n), WIDTH[m[1]], m[1])
                scope.names[n] = register
                self.registers.append(register)

    def _declare_variable(self, line: int, text: str, scope: Scope) -> None:
        variable = parse_variable(text)
        if not variable or variable.space not in ("local", "param"):
            raise UnsupportedPTX(f"line {line}: directive `{text}`")
        name = f"v{len(self.arrays)}_{c_name(variable.name)}"
        self.arrays.append((name, max(variable.size, 1), variable.alignment))
        scope.names[variable.name] = Symbol(variable.space, f"(uint64_t){name}")

    # ---- control flow ------------------------------------------------------------------------------

    def _successors(self, index: int) -> list[int]:
        result = []
        instructions = self.blocks[index].instructions
        last = instructions[-1] if instructions else None
        if last and last.opcode == "bra":
            result.append(last.scope.label(last.operands[0]))
        elif last and last.opcode == "brx":
            result += [last.scope.label(x) for x in last.scope.table(last.operands[1])]
        ends = last and last.opcode in _ENDS_BLOCK and not last.guard and last.opcode != "trap"
        if not ends and index + 1 < len(self.blocks):
            result.append(index + 1)
        return result

    def _translate_block(self, index: int) -> None:
        self.current = index
        instructions = self.blocks[index].instructions
        self.emit(f"B_{index}:;")
        if instructions:
            key = self.unit.new_key()
            self.emit(f"count_block(t, context + 0x{key:x}ull, {len(instructions)});")
        for instruction in instructions:
            self._translate_instruction(instruction)
        last = instructions[-1] if instructions else None
        unconditional = last and last.opcode in ("bra", "brx", "ret", "exit") and not last.guard
        if not unconditional and index + 1 < len(self.blocks):
            self.emit(self.edge(index + 1))

    def _translate_instruction(self, ins: Instruction) -> None:
        self.instruction = ins
        try:
            if ins.guard:
                self.emit(f"if ({self.predicate(ins.guard)}) {{")
            translator_of(ins)(self, ins)
            if ins.guard:
                self.emit("}")
        except UnsupportedPTX as error:
            raise UnsupportedPTX(f"line {ins.line}: `{ins.text}`: {error}") from None
        except (KeyError, IndexError, StopIteration, ValueError) as error:
            reason = f"{type(error).__name__} {error}"
            raise UnsupportedPTX(f"line {ins.line}: `{ins.text}`: unexpected form ({reason})") from error

    def edge(self, target: int) -> str:
        """What the loops' context becomes on the way from the current block to `target`."""
        edge = self.forest.edge(self.current, target)
        code = ""
        if edge.left:
            code += f"context = outside_{edge.left.index}; "
        if edge.repeated:
            step = self.unit.loop_key(self.function, edge.repeated.index)
            code += f"context += 0x{step:x}ull; count_back_edge(t, {self.site()}); "
        for loop in edge.entered:
            code += f"outside_{loop.index} = context; "
        return code

    def jump(self, label: str) -> str:
        target = self.instruction.scope.label(label)
        return f"{self.edge(target)}goto B_{target};"

    # ---- output ------------------------------------------------------------------------------------

    def emit(self, code: str) -> None:
        if code:
            self.code.append(code)

    def site(self) -> str:
        """The C++ object that stands for the current instruction in messages, caches and counters."""
        return self.unit.sites.of(self.instruction)

    def write(self, destination: str, type_: str, expression: str) -> None:
        """destination = expression, an expression of the C++ type that stands for `type_`."""
        destination = destination.strip()
        if destination == "_":
            return
        register = self.instruction.scope.find(destination)
        if not isinstance(register, Register):
            raise UnsupportedPTX(f"destination {destination!r}")
        if type_ == "pred":
            self.emit(f"{register.name} = ({expression}) ? 1 : 0;")
            return
        if type_ in ("f32", "f64"):
            expression = f"to_bits({expression})"
        elif type_[0] == "s":
            expression = f"({SIGNED[WIDTH[type_]]})({expression})"
        else:
            expression = f"({UNSIGNED[WIDTH[type_]]})({expression})"
        self.emit(f"{register.name} = ({UNSIGNED[register.size]})({expression});")

    # ---- operands ----------------------------------------------------------------------------------

    def bits(self, operand: str, size: int, type_: str | None = None) -> str:
        """The operand's bits as an unsigned C++ expression of `size` bytes."""
        operand = operand.strip()
        unsigned = UNSIGNED[size]
        if operand == "_":
            return "0"
        if operand in SPECIAL:
            return f"({unsigned})({SPECIAL[operand]})"
        if m := re.fullmatch(r"%fault(\d+)", operand):  # no register of PTX: tests/faults/fault.h asks for it
            return f"({unsigned})FAULT({m[1]})"
        found = self.instruction.scope.find(operand)
        if isinstance(found, Register):
            return found.name if found.size == size else f"({unsigned}){found.name}"
        immediate = _immediate(operand, size, type_)
        if immediate is not None:
            return f"({unsigned})0x{immediate:x}ull"
        name, offset = operand, 0
        m = re.fullmatch(r"([\w$%]+)\s*\+\s*(-?\w+)", operand)
        if m and self.symbol(m[1]):
            name, offset = m[1], int(m[2], 0)
        symbol = self.symbol(name)
        if symbol:
            return f"({unsigned})({symbol.address} + {offset}ll)"
        raise UnsupportedPTX(f"operand {operand!r}")

    def symbol(self, name: str) -> Symbol | None:
        found = self.instruction.scope.find(name)
        if isinstance(found, Symbol):
            return found
        return self.unit.symbol(name, self.function)

    def predicate(self, operand: str) -> str:
        operand = operand.strip()
        negated, name = operand.startswith("!"), operand.lstrip("!")
        if name in ("0", "1", "-1"):  # nvcc writes true as -1
            return str(int(name != "0") ^ negated)
        register = self.instruction.scope.find(name)
        if not isinstance(register, Register):
            raise UnsupportedPTX(f"predicate {operand!r}")
        return f"(!{register.name})" if negated else f"({register.name} != 0)"

    def value(self, operand: str, type_: str) -> str:
        """The operand as a C++ expression of the type that stands for `type_`."""
        size = WIDTH[type_]
        if type_ == "pred":
            return self.predicate(operand)
        if type_ in ("f32", "f64"):
            return f"as_{type_}({self.bits(operand, size, type_)})"
        if type_[0] == "s":
            return f"({SIGNED[size]})({self.bits(operand, size)})"
        return f"({UNSIGNED[size]})({self.bits(operand, size, type_)})"

    def float_value(self, ins: Instruction, operand: str, type_: str) -> str:
        """value(), with subnormal inputs flushed where the instruction says .ftz"""
        value = self.value(operand, type_)
        return f"flush({value})" if ins.has("ftz") and type_ == "f32" else value


def _immediate(text: str, size: int, type_: str | None) -> int | None:
    """The bits of a constant operand (PTX ISA 4.5)."""
    negative, digits = text.startswith("-"), text.lstrip("+-")
    mask = (1 << 8 * size) - 1
    if m := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})", digits):
        word = int(m[1], 16)
        if type_ == "f64":
            single = struct.unpack("<f", struct.pack("<I", word))[0]
            return struct.unpack("<Q", struct.pack("<d", -single if negative else single))[0]
        return (word ^ (0x80000000 if negative else 0)) & mask
    if m := re.fullmatch(r"0[dD]([0-9a-fA-F]{16})", digits):
        return (int(m[1], 16) ^ ((1 << 63) if negative else 0)) & mask
    number: float | int
    if re.fullmatch(r"(0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9]\d*)[uU]?", digits):
        digits = digits.rstrip("uU")
        number = int(digits, 8) if re.fullmatch(r"0[0-7]+", digits) else int(digits, 0)
        number = -number if negative else number
        if type_ not in ("f32", "f64"):
            return number & mask
    elif re.fullmatch(r"\d*\.\d*([eE][-+]?\d+)?|\d+[eE][-+]?\d+", digits):
        number = float(text)
    else:
        return None
    if type_ == "f64":
        return struct.unpack("<Q", struct.pack("<d", number))[0]
    if type_ == "f32" or size == 4:
        return struct.unpack("<I", struct.pack("<f", number))[0]
    raise UnsupportedPTX(f"floating-point constant {text}")
