// What translated kernels are compiled against: a CUDA thread, and the checks on its hot path.
// Everything that is called rarely is declared here and lives in the runtime library, which is compiled once.
#pragma once
#include "arithmetic.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)

enum Access { READ, WRITE, ATOMIC };
enum ReadOnlySpace { NOT_READ_ONLY, CONSTANT, PARAMETER };
enum BarrierReduction { NO_REDUCTION, REDUCE_POPC, REDUCE_AND, REDUCE_OR };
enum { BARRIERS = 16, CLUSTER_BARRIER = BARRIERS };  // a cluster is one block: its barrier is one more
enum Collective {
  SHUFFLE_UP,
  SHUFFLE_DOWN,
  SHUFFLE_BFLY,
  SHUFFLE_IDX,
  VOTE_BALLOT,
  VOTE_ANY,
  VOTE_ALL,
  VOTE_UNI,
  WARP_SYNC,
  MATCH_ANY,
  MATCH_ALL,
  ELECT,
  REDUCE_LANES_ADD,
  REDUCE_LANES_MIN_SIGNED,
  REDUCE_LANES_MAX_SIGNED,
  REDUCE_LANES_MIN_UNSIGNED,
  REDUCE_LANES_MAX_UNSIGNED,
  REDUCE_LANES_AND,
  REDUCE_LANES_OR,
  REDUCE_LANES_XOR,
};

// One instruction: for messages, for counters, and as the cache of the range of memory it touched last.
struct Site {
  const char* text;
  int line;
  uint64_t key;  // tells the site's executions from those of others
  bool waits;    // a load that chains are counted by (translate/waits.py)
  // Addresses in [low, low + span] pass for this site's size and kind of access. An empty cache holds an
  // address that no pointer can have.
  uint64_t low = 1ull << 63, span = 0;
  uint32_t range = 0;
};

struct Block;
struct Launch;

// A CUDA thread is a fiber; this is its state outside the fiber's stack.
struct Thread {
  void* stack_pointer;
  Launch* launch;
  Block* block;
  uint32_t x, y, z, block_x, block_y, block_z;
  uint32_t index, lane, warp;  // index in the block
  int carry;                   // condition code register (add.cc)

  // Copies of what the hot path needs of the block and the launch.
  uint8_t* shared;
  const uint8_t* shared_valid;  // one flag for each byte: part of a variable?
  uint32_t shared_size;
  bool check_shared_races, count_warps;

  // Counters of this thread.
  uint64_t instructions, back_edges, loop_limit;
  uint64_t bytes[2];  // global memory: READ, WRITE
  uint64_t global_atomics, shared_atomics;

  uint64_t call_context;  // names the calls and iterations that led to the running function
  uint32_t trace_cursor;  // the thread's last record in its warp's trace
  uint32_t trace_steps;   // since it last let others run

  uint8_t *stack_low, *stack_high;

  // Waiting for others: see collectives.cpp.
  int state;
  Site* site;
  uint32_t barrier, barrier_threads, barrier_value, barrier_result;
  BarrierReduction barrier_reduction;
  Collective collective;
  uint32_t mask, b, c, found;
  uint64_t value, result;
  uint32_t block_epoch, warp_epoch;  // barriers passed: orders accesses for the race check
};

struct SharedVariable {
  uint32_t offset, size;
};

// A translated kernel, as its unit describes it.
struct Kernel {
  const char* name;
  void (*run)(Thread*, uint8_t*);
  const SharedVariable* shared;
  uint32_t shared_count;
  uint32_t dynamic_start;  // where dynamic shared memory begins
  uint32_t race_grain;     // bytes: no access is narrower, so races need no finer shadow
  uint64_t stack_bytes;
  Site* sites;
  uint32_t site_count;
};

// The part of the launch that kernels read (special registers).
struct Launch {
  uint32_t grid[3], block[3];
  uint32_t threads, warps;  // in a block
  uint32_t dynamic_shared, dynamic_start, shared_size;
};

#define EXPORT_UNIT(kernels, variables)                                                                  \
  extern "C" __attribute__((visibility("default"))) const Kernel* emulator_kernels() { return kernels; } \
  extern "C" __attribute__((visibility("default"))) uint8_t** emulator_variables() { return variables; }

// ---- the runtime library, which units are linked to

#pragma GCC visibility push(default)
[[noreturn]] void fail(Thread* t, const Site& site, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
void warn_division_by_zero(Thread* t, const Site& site);
void yield_after_spin(Thread* t);
void count_warp_block(Thread* t, uint64_t key, uint32_t instructions);
void count_global_access(Thread* t, const Site& site, uint64_t context, uint32_t range, uint64_t offset,
                         Access access);
void count_shared_access(Thread* t, const Site& site, uint64_t context, uint64_t offset, unsigned size,
                         Access access);
void check_shared_race(Thread* t, uint64_t offset, unsigned size, Access access, const Site& site);
uint8_t* find_global(Thread* t, uint64_t address, unsigned size, Access access, bool count, Site& site,
                     uint64_t context);
[[noreturn]] void fail_shared(Thread* t, uint64_t offset, unsigned size, Access access, const Site& site);
[[noreturn]] void fail_local(Thread* t, uint64_t address, unsigned size, const Site& site);
uint8_t* find_parameter(Thread* t, uint64_t address, unsigned size, const Site& site);
ReadOnlySpace read_only_space(Thread* t, uint64_t address);
uint64_t warp_collective(Thread* t, Collective what, uint32_t mask, uint64_t value, uint32_t b, uint32_t c,
                         Site& site, uint32_t* found);
uint32_t block_barrier(Thread* t, uint32_t number, uint32_t threads, BarrierReduction reduction,
                       uint32_t value, Site& site);
void barrier_arrive(Thread* t, uint32_t number, uint32_t threads, Site& site);
int device_printf(const char* format, const uint8_t* values);
#pragma GCC visibility pop

// ---- counting

ALWAYS_INLINE void count_block(Thread* t, uint64_t key, uint32_t instructions) {
  t->instructions += instructions;
  if (t->count_warps) count_warp_block(t, key, instructions);
}
ALWAYS_INLINE void count_back_edge(Thread* t, const Site& site) {
  if (!LIKELY(++t->back_edges <= t->loop_limit))
    fail(t, site, "endless loop: more than %lu back edges", t->loop_limit);
}
ALWAYS_INLINE uint64_t call_key(uint64_t key) {
  key = (key ^ key >> 29) * 0xbf58476d1ce4e5b9ull;
  return key ^ key >> 32;
}

// ---- memory

template <class T>
ALWAYS_INLINE T load(const uint8_t* p) {
  T v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
ALWAYS_INLINE void store(uint8_t* p, T v) {
  memcpy(p, &v, sizeof v);
}

ALWAYS_INLINE bool is_shared(Thread* t, uint64_t a) { return a - (uint64_t)t->shared < t->shared_size; }
ALWAYS_INLINE bool is_local(Thread* t, uint64_t a) {
  return a >= (uint64_t)t->stack_low && a < (uint64_t)t->stack_high;
}
ALWAYS_INLINE bool is_global(Thread* t, uint64_t a) {
  return !is_shared(t, a) && !is_local(t, a) && read_only_space(t, a) == NOT_READ_ONLY;
}
ALWAYS_INLINE uint64_t shared_to_generic(Thread* t, uint64_t offset) { return (uint64_t)t->shared + offset; }
ALWAYS_INLINE uint64_t generic_to_shared(Thread* t, uint64_t a) { return a - (uint64_t)t->shared; }

// Accesses must be aligned to their size (PTX ISA 6.4.1), and lie within one variable.
template <unsigned SIZE, Access ACCESS>
ALWAYS_INLINE uint8_t* shared_pointer(Thread* t, uint64_t offset, Site& site, uint64_t context) {
  const bool inside = offset < t->shared_size && t->shared_size - offset >= SIZE;
  if (!LIKELY(inside && (offset & (SIZE - 1)) == 0 && t->shared_valid[offset] &&
              t->shared_valid[offset + SIZE - 1]))
    fail_shared(t, offset, SIZE, ACCESS, site);
  if (ACCESS == ATOMIC) t->shared_atomics++;
  if (t->count_warps) count_shared_access(t, site, context, offset, SIZE, ACCESS);
  if (t->check_shared_races) check_shared_race(t, offset, SIZE, ACCESS, site);
  return t->shared + offset;
}

// A global or generic address. `COUNT` is false for constant memory.
template <unsigned SIZE, Access ACCESS, bool COUNT>
ALWAYS_INLINE uint8_t* global_pointer(Thread* t, uint64_t address, Site& site, uint64_t context) {
  if (LIKELY(address - site.low <= site.span && (address & (SIZE - 1)) == 0)) {
    if (COUNT) {
      if (ACCESS == ATOMIC)
        t->global_atomics++;
      else
        t->bytes[ACCESS] += SIZE;
      if (t->count_warps) count_global_access(t, site, context, site.range, address - site.low, ACCESS);
    }
    return (uint8_t*)address;
  }
  return find_global(t, address, SIZE, ACCESS, COUNT, site, context);
}

template <unsigned SIZE>
ALWAYS_INLINE uint8_t* local_pointer(Thread* t, uint64_t address, Site& site) {
  const bool inside = address >= (uint64_t)t->stack_low && address + SIZE <= (uint64_t)t->stack_high;
  if (!LIKELY(inside && (address & (SIZE - 1)) == 0)) fail_local(t, address, SIZE, site);
  return (uint8_t*)address;
}

template <unsigned SIZE>
ALWAYS_INLINE uint8_t* parameter_pointer(Thread* t, uint64_t address, Site& site) {
  return is_local(t, address) ? (uint8_t*)address : find_parameter(t, address, SIZE, site);
}

// cp.async: `source_size` bytes are read, the rest of `SIZE` becomes zero
template <unsigned SIZE>
ALWAYS_INLINE void copy_async(Thread* t, uint64_t to, uint64_t from, uint32_t source_size, Site& site,
                              uint64_t context) {
  if (source_size > SIZE) fail(t, site, "cp.async reads %u bytes for a copy of %u", source_size, SIZE);
  uint8_t* target = shared_pointer<SIZE, WRITE>(t, to, site, context);
  if (from & (SIZE - 1)) fail(t, site, "misaligned address 0x%lx for cp.async of %u bytes", from, SIZE);
  memset(target, 0, SIZE);
  if (source_size) memcpy(target, find_global(t, from, source_size, READ, true, site, context), source_size);
}

// ---- control

ALWAYS_INLINE void spin(Thread* t) { yield_after_spin(t); }
ALWAYS_INLINE void check_stack(Thread* t, uint64_t frame, const Site& site) {
  const uint64_t margin = 16384;
  if (!LIKELY((uint8_t*)__builtin_frame_address(0) >= t->stack_low + frame + margin))
    fail(t, site, "stack overflow in a device function (deep recursion, or large local arrays)");
}

// Division by zero has no result in PTX: all ones here, with a warning. MIN / -1 wraps.
template <class I>
ALWAYS_INLINE I integer_div(Thread* t, const Site& site, I a, I b) {
  if (!LIKELY(b != 0)) return warn_division_by_zero(t, site), (I)-1;
  if (std::numeric_limits<I>::is_signed && b == (I)-1)
    return (I)(0 - (typename std::make_unsigned<I>::type)a);
  return a / b;
}
template <class I>
ALWAYS_INLINE I integer_rem(Thread* t, const Site& site, I a, I b) {
  if (!LIKELY(b != 0)) return warn_division_by_zero(t, site), (I)-1;
  return std::numeric_limits<I>::is_signed && b == (I)-1 ? 0 : a % b;
}
