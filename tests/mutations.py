"""Faults to plant in copies of csrc/cuda, one at a time: each is a text that occurs once, and what takes its place.

A new kernel brings a fault for each of its barriers, bounds, index types and launches: a row in one of these tables. A fault
that test_kernel_mutations.py does not report shows a check that its selection, or the suite, lacks.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from emulated import CSRC, SOURCES
from emulator.compiler import cache_directory, digest

BARRIER = "    __syncthreads();\n"


@dataclass(frozen=True)
class Mutation:
    """`file` under csrc; `units`: the .cu files in which a header's change shows, by default the file itself. Of an inline
    function of the host, the linker takes any unit's copy: then all units that use it."""

    file: str
    old: str
    new: str
    units: tuple[str, ...] = ()
    algorithm: str = "tiled"

    def sources(self) -> tuple[Path, ...]:
        """The sources of csrc/cuda with the fault: its copy lies beside the compiled code, by content as that does."""
        text = (CSRC / self.file).read_text()
        count = text.count(self.old)
        assert count == 1, f"csrc/{self.file} has {count} times what the mutation replaces: {self.old!r}"
        assert self.old != self.new
        contents = [path.read_bytes() for path in sorted(CSRC.rglob("*")) if path.is_file()]
        copy = cache_directory() / f"mutation-{digest(self.file, self.old, self.new, *contents)}"
        shutil.copytree(CSRC, copy, dirs_exist_ok=True)
        (copy / self.file).write_text(text.replace(self.old, self.new))
        changed = self.units or (self.file,)
        return tuple(copy / path.relative_to(CSRC) if str(path).endswith(changed) else path for path in SOURCES)


def without(file: str, text: str, lost: str) -> Mutation:
    """`text` but for `lost`, which occurs in it once."""
    assert text.count(lost) == 1
    return Mutation(file, text, text.replace(lost, ""))


def no_barrier(file: str, before: str = "", after: str = "", barrier: str = BARRIER) -> Mutation:
    """Without the barrier between two lines."""
    return without(file, before + barrier + after, barrier)


TILED, TERMS, POSITIVES = "cuda/tiled.cu", "cuda/terms.cu", "cuda/positives.cu"
# Headers: the unit that shows the fault is compiled with the copy.
BLOCK, TERMS_HEADER, KEYS = "cuda/block.cuh", "cuda/terms.cuh", "keys.h"

BARRIERS = {
    "no barrier after a tile of negatives is stored": no_barrier(TILED, "    column[threadIdx.x] = s_j;\n"),
    "no barrier before the next tile of negatives": no_barrier(
        TILED, barrier="    __syncthreads();  // before the next tile overwrites what is being read\n"
    ),
    "no barrier after a tile of pairs is stored": no_barrier(
        TILED, "    error[threadIdx.x] = s && k < p ? load(loc_errors, place[k]) : 0;\n"
    ),
    "no barrier before the next tile of pairs": no_barrier(TILED, "      located += weighted(value, error[t]);\n    }\n"),
    "no barrier after a tile of ranks is stored": no_barrier(
        TILED, "    weight[threadIdx.x] = i < p ? 1 / (rank_pos[i] + n_fp[i]) : 0;\n"
    ),
    "no barrier before the next tile of ranks": no_barrier(TILED, after="  }\n  if (k < p) error_gradient"),
    "no barrier after a tile of shares is stored": no_barrier(TILED, "    weight[threadIdx.x] = i < p ? share[i] : 0;\n"),
    "no barrier before the next tile of shares": no_barrier(TILED, after="  }\n  if (j < n) store(gradient"),
    "no barrier after a tile of weights is stored": no_barrier(
        TILED, "    weight[threadIdx.x] = k < p ? weights[place[k]] : 0;\n"
    ),
    "no barrier before the next tile of weights": no_barrier(
        TILED, "      if (base + t != i) sum += weighted(step(h, column[t], s_i), weight[t]);\n"
    ),
    "no barrier before a scan's storage is used again": Mutation(
        BLOCK, "  __syncthreads();  // storage is used again\n", "", units=(TERMS,)
    ),
    # Not here, because nothing goes wrong without it: the barrier at the end of hard_sums (those of the scan that follows
    # also order what it wrote).
}

BOUNDS = {
    "one negative too many is counted": Mutation(TILED, "if (j < end && mark_of", "if (j <= end && mark_of"),
    "the last tile of negatives is left out": Mutation(
        TILED, "int64_t base = begin; base < end; base", "int64_t base = begin; base + kThreads <= end; base"
    ),
    "a part begins one negative late": Mutation(
        TILED, "int64_t begin = blockIdx.y * part_size;", "int64_t begin = blockIdx.y * part_size + 1;"
    ),
    "one positive too many is written": Mutation(TILED, "if (i < p) partial[", "if (i <= p) partial["),
    "the last part is not summed": Mutation(TILED, "part < parts; ++part", "part + 1 < parts; ++part"),
    "the last tile of pairs is left out": Mutation(
        TILED,
        "  double rank = 1, located = 0;\n  for (int64_t base = 0; base < p; base += kThreads) {",
        "  double rank = 1, located = 0;\n  for (int64_t base = 0; base + kThreads <= p; base += kThreads) {",
    ),
    "one gradient too many is written": Mutation(TILED, "if (j < n) store(gradient", "if (j <= n) store(gradient"),
    "one sum of weights too many is written": Mutation(TILED, "if (i < p) out[place[i]]", "if (i <= p) out[place[i]]"),
    "one driven error too many is written": Mutation(
        TERMS, "if (r >= p) return;\n  const double error", "if (r > p) return;\n  const double error"
    ),
    "one loc_error's gradient too many is written": Mutation(
        TERMS, "if (r >= p) return;\n  if (gradients.logits", "if (r > p) return;\n  if (gradients.logits"
    ),
    "one key too few is made": Mutation(
        POSITIVES, "if (r >= p) return;\n  const int64_t place = p", "if (r + 1 >= p) return;\n  const int64_t place = p"
    ),
    "shared memory of negatives is one short": Mutation(
        TILED, "__shared__ double column[kThreads];", "__shared__ double column[kThreads - 1];"
    ),
    "shared memory of errors is one short": Mutation(
        TILED, "column[kThreads], error[kThreads];", "column[kThreads], error[kThreads - 1];"
    ),
    "positives beyond the capacity are written": Mutation(POSITIVES, "      if (place >= sink.capacity) return;\n", "\n"),
    "positives that were not found are read": Mutation(POSITIVES, "if (place >= status->found) {", "if (false) {"),
    "-1 is a place to scatter to": Mutation(TERMS, "gradients.logits.data && tables.index[r] >= 0", "gradients.logits.data"),
}

WIDTHS = {
    "logits are counted in 32 bits": Mutation(
        TILED,
        "int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x;\n  const bool negative",
        "int64_t j = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);\n  const bool negative",
    ),
    "parts begin at 32 bits": Mutation(
        TILED, "begin = blockIdx.y * part_size;", "begin = static_cast<int>(blockIdx.y * part_size);"
    ),
    "flat indices have 32 bits": Mutation(
        POSITIVES,
        "labels.classes ? label * labels.classes + row_class(labels, label_bits(labels, label)) : label;",
        "labels.classes ? static_cast<int>(label * labels.classes + row_class(labels, label_bits(labels, label))) : label;",
    ),
    "half precision is loaded at 32-bit offsets": Mutation(
        "cuda/array.cuh",
        "static_cast<const __half*>(array.data)[i]);",
        "static_cast<const __half*>(array.data)[int(i)]);",
        (TILED,),
    ),
    "rows are counted in 32 bits": Mutation(
        "labels.h", "const int64_t row = i / labels.classes;", "const int64_t row = int(i) / int(labels.classes);", (TILED,)
    ),
    "a grid is cut to 32 bits": Mutation(
        "cuda/launch.h", "  if (blocks > INT_MAX)\n", "  if (false)\n", (POSITIVES, TERMS, TILED)
    ),
}

MATHEMATICS = {
    "the step's sign is swapped": Mutation(TILED, "step(h, column[k], s_i)", "step(h, s_i, column[k])"),
    "a positive's own step is counted": Mutation(TILED, "if (base + t == i) continue;", "if (false) continue;"),
    "a positive's own rank is weighed by a half": Mutation(
        TILED, "base + t == k ? 1.0 : step(h, s_k, row[t])", "step(h, s_k, row[t])"
    ),
    "a positive's own weight is summed": Mutation(TILED, "if (base + t != i) sum +=", "sum +="),
    "the product of pairs is not transposed": Mutation(TILED, "transposed ? -1.0 : 1.0", "1.0"),
    "errors are driven at the place of the score": Mutation(TERMS, "drive.errors[drive.place[r]]", "drive.errors[r]"),
    "the spread has no skew": Mutation(TILED, "weight_of<kSkewed>(step(h, s_j, row[t]), skew)", "step(h, s_j, row[t])"),
    "the norms have no skew": Mutation(TILED, "weight_of<kSkewed>(step(h, column[k], s_i), skew)", "step(h, column[k], s_i)"),
    "shares are sent at eps": Mutation("losses.h", "n_fp > eps ? error / (z", "n_fp >= eps ? error / (z", (TERMS,)),
    "gradients are sent at eps": Mutation("losses.h", "n_fp > eps ? -error / z", "n_fp >= eps ? -error / z", (TERMS,)),
    "an infinite weight times no step is NaN": Mutation("step.h", "h > 0 ? h * weight : 0.0", "h * weight", (TILED,)),
    "equal infinities do not tie": Mutation("step.h", "s_j == s_i ? 0.0 : s_j - s_i", "s_j - s_i", (TILED,)),
    "ties ascend by flat index": Mutation(POSITIVES, "const int64_t place = p - 1 - r;", "const int64_t place = r;"),
    "-0.0 sorts below 0.0": Mutation(KEYS, "score == 0 ? 0.0 : score", "score", units=(POSITIVES,)),
    "a scan forgets the chunks before": Mutation(
        BLOCK, "prefix = operation(carry, operation", "prefix = operation(T(), operation", units=(TERMS,)
    ),
}

REPORTS = {
    "a negative's NaN is not reported": Mutation(TILED, "if (s_j != s_j) raise(&status->nan);", ""),
    "a positive's NaN is not reported": Mutation(POSITIVES, "if (nan) raise(&status->nan);", ""),
    "an impossible label is not reported": Mutation(POSITIVES, "if (invalid) raise(&status->invalid);", ""),
    "status is raised without an atomic": Mutation(
        "cuda/array.cuh",
        "atomicExch(reinterpret_cast<unsigned long long*>(flag), 1ULL);",
        "*flag = 1;",
        (TILED,),
    ),
    "status is not reset": Mutation(
        POSITIVES,
        '  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");\n  if (input.n)\n',
        "  if (input.n)\n",
    ),
    "a wrong number of positives is not reported": Mutation(TERMS_HEADER, " || status.found != p ?", " ?", units=(TERMS,)),
    "ranks are not poisoned": Mutation(TERMS_HEADER, "rank + poison", "rank", units=(TERMS,)),
    "the positives' gradients are not poisoned": Mutation(TERMS_HEADER, "eps, z) + poison;", "eps, z);", units=(TERMS,)),
    "the others' gradients are not poisoned": Mutation(TILED, "(sum + *poison) * load_scalar", "sum * load_scalar"),
    "ignored logits get no gradient": Mutation(TILED, "if (j < n) store(gradient", "if (j < n && negative) store(gradient"),
}

FIND, SORT, TABLES, COUNT, SPREAD, LOSSES = (
    f"cuda/{name}.cu" for name in ("find", "sort_positives", "build_tables", "count", "spread", "compute_losses")
)


def in_sorted(file: str, old: str, new: str) -> Mutation:
    """A fault in the kernels of the sorted form."""
    return Mutation(file, old, new, algorithm="sorted")


def no_sorted_barrier(file: str, call: str) -> Mutation:
    """Without the barrier before a call."""
    return in_sorted(file, "      __syncthreads();\n      " + call, "      " + call)


SORTED = {
    "sorted: a sum loses its carry": in_sorted(COUNT, '"addc.u32 high', '"add.u32 high'),
    "sorted: a count without an atomic": in_sorted(
        COUNT,
        '"red.shared.add.u32 [%0 + 4], %1;',
        '"ld.shared.u32 after, [%0 + 4]; add.u32 after, after, %1; st.shared.u32 [%0 + 4], after;',
    ),
    "sorted: bins are not zeroed": in_sorted(COUNT, "record[1] = record[2] = record[3] = 0;", "record[1] = record[2] = 0;"),
    "sorted: no barrier before the bins are added up": in_sorted(
        COUNT, "plan, starts, own, status);\n      __syncthreads();", "plan, starts, own, status);"
    ),
    "sorted: a bin too few is zeroed": in_sorted(
        COUNT,
        "m < segments; m += kBlock) {\n        uint32_t* record",
        "m < segments - 1; m += kBlock) {\n        uint32_t* record",
    ),
    "sorted: what a warp holds is forgotten": in_sorted(COUNT, "  held.release(bins);\n", ""),
    "sorted: a warp holds what lies below its segment": in_sorted(COUNT, "begin = bins.upper(m - 1);", "begin = bins.upper(0);"),
    "sorted: scores above all knots are not limited": in_sorted(COUNT, "        limit(plan.high, s[u]);\n", ""),
    "sorted: no barrier before the tables of count are read": no_sorted_barrier(COUNT, "count_narrow<T>(logits"),
    "sorted: no barrier before the tables are read": no_sorted_barrier(SPREAD, "spread_narrow<T>(logits"),
    "sorted: the rest behind the tiles is left out": in_sorted(
        SPREAD, "i = 4 * vectors + int64_t{blockIdx.x} * kBlock + threadIdx.x; i < n;", "i = n; i < n;"
    ),
    "sorted: ignored logits are spread over": in_sorted(SPREAD, "    if (plan.reads_labels) drop_others(labels, v, s);\n", ""),
    "sorted: ignored labels are not reported": in_sorted(FIND, "any_ignored |= mark == Mark::kIgnored;", ""),
    "sorted: positives beyond the capacity are listed": in_sorted(FIND, "if (place < capacity)", "if (place >= 0)"),
    "sorted: positives stay in the bins": in_sorted(
        TABLES, "if (!plan.reads_labels) floats.take_out", "if (false) floats.take_out"
    ),
    "sorted: no barrier after a merge in warps": Mutation(
        BLOCK,
        "      if constexpr (kPairs) values[i] = value;\n    }\n    __syncthreads();",
        "      if constexpr (kPairs) values[i] = value;\n    }",
        units=(SORT,),
        algorithm="sorted",
    ),
    "sorted: the positive's own weight is forgotten": in_sorted(LOSSES, "+ (1 - self) * per_rank(i)", ""),
    "sorted: a run of sums forgets the warps before": Mutation(
        BLOCK, "out[i] = scanned.before + out[i]", "out[i] = T() + out[i]", units=(LOSSES,), algorithm="sorted"
    ),
    "sorted: no barrier after sums are laid out": Mutation(
        BLOCK,
        "out[i] = scanned.before + out[i];\n  __syncthreads();",
        "out[i] = scanned.before + out[i];",
        units=(LOSSES,),
        algorithm="sorted",
    ),
    "sorted: ties of knots and positives are not passed": in_sorted(TABLES, "x[k] + shift == own ?", "false ?"),
    "sorted: a cell skips one knot too many": in_sorted(TABLES, "      if (s.cell >= c) return;\n", ""),
    "sorted: one block of knots too few": in_sorted(
        TABLES, "std::max(input.p, runs) + kKnotThreads - 1)", "std::max(input.p, runs))"
    ),
    "sorted: driven errors do not reach the tables": in_sorted(
        "cuda/backend.cu", "  if (is_sorted_form(input)) sorted::drive(input, tables, stream_);\n", ""
    ),
    "sorted: tables stay in positions": in_sorted(LOSSES, "slope *= position.scale;", ""),
    "sorted: errors at the place of the score": in_sorted(
        LOSSES, "error_gradient[sums.place[i]] = spread", "error_gradient[i] = spread"
    ),
}

SORT = "cuda/sort_errors.cu"

SORT_ERRORS = {
    "sort errors: no barrier after a tile of sums is stored": no_barrier(
        SORT, "    label[threadIdx.x] = k < p ? errors.label[k] : 0.0;\n"
    ),
    "sort errors: no barrier before the next tile of sums": no_barrier(
        SORT, barrier="    __syncthreads();  // before the next tile overwrites what is being read\n"
    ),
    "sort errors: no barrier after a tile of shares is stored": no_barrier(
        SORT, "    weight[threadIdx.x] = i < p ? errors.share[i] : 0.0;\n"
    ),
    "sort errors: no barrier before the next tile of shares": no_barrier(SORT, after="  }\n  sum = warp_sum(sum);"),
    "sort errors: one label too many is gathered": Mutation(SORT, "if (r < p) label[r]", "if (r <= p) label[r]"),
    "sort errors: -1 is a place to gather from": Mutation(SORT, "at[r] >= 0 ? load(labels, at[r]) : 0.0", "load(labels, at[r])"),
    "sort errors: one error too many is written": Mutation(
        SORT, "if (lane != 0 || i >= p) return;", "if (lane != 0 || i > p) return;"
    ),
    "sort errors: one gradient too many is written": Mutation(
        SORT, "if (lane == 0 && k < p) gradient[k]", "if (lane == 0 && k <= p) gradient[k]"
    ),
    "sort errors: a tile too many is passed over": Mutation(
        SORT, "score[min(base + kBlock, p) - 1], lowest)", "score[base], lowest)"
    ),
    "sort errors: a tile too few is spread": Mutation(SORT, "step(h, highest, score[base]) > 0", "base == 0"),
    "sort errors: the step's sign is swapped": Mutation(SORT, "step(h, column[t], s_i)", "step(h, s_i, column[t])"),
    "sort errors: equal labels are sent a share": Mutation(SORT, "label[t] > y_k", "label[t] >= y_k"),
    "sort errors: equal labels are lower ones": Mutation(
        "losses.h", "difference < 0 ? 0.0 : h", "difference <= 0 ? 0.0 : h", (SORT,)
    ),
    "sort errors: the loss is not poisoned": Mutation(SORT, "static_cast<double>(p) + *poison);", "static_cast<double>(p));"),
    "sort errors: one block too few": Mutation(SORT, "sum_sort_errors<<<blocks,", "sum_sort_errors<<<std::max(1u, blocks - 1),"),
    "sort errors: a positive counts itself by 1": Mutation("losses.h", "rank_pos - 1 + tie + n_fp", "rank_pos + n_fp", (TERMS,)),
}

LAUNCHES = {
    "one block of logits too few": Mutation(
        TILED, "kernel<<<grid_for(input.n),", "kernel<<<std::max(1u, grid_for(input.n) - 1),"
    ),
    "one block of weights too few": Mutation(
        TILED, "pair_product_kernel<<<grid_for(input.p),", "pair_product_kernel<<<std::max(1u, grid_for(input.p) - 1),"
    ),
    "one block of driven errors too few": Mutation(
        TERMS, "drive_errors<<<grid_for(input.p),", "drive_errors<<<std::max(1u, grid_for(input.p) - 1),"
    ),
    "one block of positives too few": Mutation(
        TILED, "sum_pairs<<<grid_for(input.p),", "sum_pairs<<<std::max(1u, grid_for(input.p) - 1),"
    ),
    "one part too few": Mutation(
        TILED, "static_cast<unsigned>(parts));", "static_cast<unsigned>(std::max<int64_t>(1, parts - 1)));"
    ),
    "parts are one tile short": Mutation(
        TILED,
        "blocks_for((input.n + parts - 1) / parts) * kThreads;",
        "(blocks_for((input.n + parts - 1) / parts) - 1) * kThreads;",
    ),
    "more threads than the kernel is written for": Mutation(
        TERMS, "terms_kernel<<<1, threads_for(input.p),", "terms_kernel<<<1, 2 * kOneBlock,"
    ),
    "the default stream": Mutation(
        TILED, "sum_parts<<<grid_for(p), kThreads, 0, stream>>>", "sum_parts<<<grid_for(p), kThreads>>>"
    ),
    "workspace for half the partial sums": Mutation(
        TILED,
        "static_cast<size_t>(part_count(input) * input.p) * sizeof(double);",
        "static_cast<size_t>(part_count(input) * input.p) * sizeof(float);",
    ),
}

MUTATIONS = BARRIERS | BOUNDS | WIDTHS | MATHEMATICS | REPORTS | LAUNCHES | SORTED | SORT_ERRORS
