// Runs a launch: every thread of the resident blocks is a fiber, and one thread of the host runs them all.
#include <sys/mman.h>

#include <cstdio>
#include <numeric>

#include "state.h"

// An idle pass: threads poll memory (perhaps with collectives in between), and nobody writes to any. After so
// many, the blocks wait for one that is not resident, and another is started, as on a device that has room.
static const uint32_t IDLE_PASSES = 32;
// And so many polls in idle passes one after the other are an endless wait.
static const uint64_t IDLE_POLLS = 1 << 25;
static const uint64_t SHARED_ALIGNMENT = 256;

// ---- fibers

// Saves the registers that a function must keep, and the stack pointer; continues on another stack.
extern "C" void emulator_switch(void** save, void* to);
asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
static const int SAVED_REGISTERS = 6;

void yield(Thread* t) { emulator_switch(&t->stack_pointer, state_of(t).scheduler); }

void yield_after_spin(Thread* t) {
  state_of(t).running = nullptr;  // tells the scheduler that this turn ended in a poll
  yield(t);
}

static LaunchState* current;

static void run_thread() {
  Thread* t = current->running;
  LaunchState& s = state_of(t);
  s.kernel->run(t, s.parameters.data());
  Counters& c = s.counters;
  c.thread_instructions += t->instructions;
  c.global_bytes_read += t->bytes[READ];
  c.global_bytes_written += t->bytes[WRITE];
  c.global_atomics += t->global_atomics;
  c.shared_atomics += t->shared_atomics;
  t->state = DONE;
  thread_left(t);
  for (;;) yield(t);
}

// Stacks are kept from launch to launch, one area for each resident block.
class Stacks {
 public:
  uint8_t* area(size_t index, size_t bytes) {
    if (areas_.size() <= index) areas_.resize(index + 1);
    Area& a = areas_[index];
    if (a.bytes < bytes) {
      if (a.memory) munmap(a.memory, a.bytes);
      const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
      void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
      a = memory == MAP_FAILED ? Area{} : Area{(uint8_t*)memory, bytes};
    }
    return a.memory;
  }

 private:
  struct Area {
    uint8_t* memory = nullptr;
    size_t bytes = 0;
  };
  std::vector<Area> areas_;
};
static Stacks stacks;

// ---- the order of blocks and threads

static uint32_t next_random(LaunchState& s) {  // xorshift
  s.random ^= s.random << 13;
  s.random ^= s.random >> 17;
  s.random ^= s.random << 5;
  return s.random;
}

class BlockOrder {
 public:
  BlockOrder(LaunchState& s, uint64_t count) : count_(count), order_(s.options.order) {
    if (order_ < 2) return;
    if (count <= 1 << 22) {
      shuffled_.resize(count);
      std::iota(shuffled_.begin(), shuffled_.end(), 0u);
      for (uint64_t i = count - 1; i > 0; i--) std::swap(shuffled_[i], shuffled_[next_random(s) % (i + 1)]);
      return;
    }
    // Large grids: an affine permutation instead of a table.
    stride_ = count / 3 * 2 + (next_random(s) & 0xffff) + 1;
    while (std::gcd(stride_, count) != 1) stride_++;
    start_ = next_random(s) % count;
  }
  uint64_t operator()(uint64_t i) const {
    if (order_ == 0) return i;
    if (order_ == 1) return count_ - 1 - i;
    return shuffled_.empty() ? (uint64_t)(((u128)stride_ * i + start_) % count_) : shuffled_[i];
  }

 private:
  uint64_t count_, stride_ = 1, start_ = 0;
  uint32_t order_;
  std::vector<uint32_t> shuffled_;
};

static void start_block(LaunchState& s, Block& b, uint64_t index, uint8_t* stack_area) {
  b.index = index;
  b.x = index % s.grid[0];
  b.y = index / s.grid[0] % s.grid[1];
  b.z = index / s.grid[0] / s.grid[1];
  b.alive = s.threads;
  b.storage.resize(s.shared_size + SHARED_ALIGNMENT);
  b.shared = (uint8_t*)(((uint64_t)b.storage.data() + SHARED_ALIGNMENT - 1) & ~(SHARED_ALIGNMENT - 1));
  if (s.options.poison) {
    const uint8_t garbage = s.options.order == 2 ? (uint8_t)next_random(s) | 1 : 0xff;
    memset(b.shared, garbage, s.shared_size);
  } else {
    memset(b.shared, 0, s.shared_size);
  }
  if (s.options.races) b.shadow.assign(s.shared_size / s.kernel->race_grain + 1, Shadow());
  memset(b.waiting_lanes, 0, sizeof b.waiting_lanes);
  memset(b.done_lanes, 0, sizeof b.done_lanes);
  memset(b.barrier_waiting, 0, sizeof b.barrier_waiting);
  memset(b.barrier_arrived, 0, sizeof b.barrier_arrived);
  memset(b.barrier_wanted, 0, sizeof b.barrier_wanted);
  if (s.options.count_warps) b.traces.resize(s.warps);
  b.shared_atomic_counts.clear();
  b.threads.assign(s.threads, Thread());
  b.order.resize(s.threads);
  const uint64_t stack = s.kernel->stack_bytes;
  for (uint32_t i = 0; i < s.threads; i++) {
    Thread& t = b.threads[i];
    t.launch = &s;
    t.block = &b;
    t.block_x = b.x, t.block_y = b.y, t.block_z = b.z;
    t.index = i, t.lane = i & 31, t.warp = i >> 5;
    t.x = i % s.block[0], t.y = i / s.block[0] % s.block[1], t.z = i / s.block[0] / s.block[1];
    t.shared = b.shared;
    t.shared_valid = s.shared_valid.data();
    t.shared_size = s.shared_size;
    t.check_shared_races = s.options.races != 0;
    t.count_warps = s.options.count_warps != 0;
    t.loop_limit = s.options.loop_limit;
    t.state = READY;
    t.stack_low = stack_area + stack * i;
    t.stack_high = t.stack_low + stack;
    // Stacks that begin at the same offset of a page would compete for the same few lines of the cache.
    const uint64_t color = i % 128 * 128;
    void** top = (void**)(t.stack_high - 64 - color);
    *--top = nullptr;  // where run_thread would return to
    *--top = (void*)run_thread;
    for (int k = 0; k < SAVED_REGISTERS; k++) *--top = nullptr;
    t.stack_pointer = top;
    b.order[i] = s.options.order == 1 ? s.threads - 1 - i : i;
  }
}

static void finish_block(LaunchState& s, Block& b) {
  if (!s.options.count_warps) return;
  finish_phase(s, b);
  finish_chain(s, b);
}

static std::string description_of_deadlock(const Block& b) {
  uint32_t at_barrier = 0, in_collective = 0;
  Thread *waits_at_barrier = nullptr, *waits_in_collective = nullptr;
  for (const Thread& t : b.threads) {
    if (t.state == AT_BARRIER) at_barrier++, waits_at_barrier = (Thread*)&t;
    if (t.state == IN_COLLECTIVE) in_collective++, waits_in_collective = (Thread*)&t;
  }
  std::string text = "deadlock: of " + std::to_string(b.alive) + " threads that still run, " +
                     std::to_string(at_barrier) + " wait at a barrier and " + std::to_string(in_collective) +
                     " in a warp collective";
  if (waits_at_barrier) text += "; barrier: " + where(waits_at_barrier, *waits_at_barrier->site);
  if (waits_in_collective) text += "; collective: " + where(waits_in_collective, *waits_in_collective->site);
  return text;
}

// ---- the launch

class Scheduler {
 public:
  // `blocks`: the numbers of those that run, or null for 0 to count - 1
  Scheduler(LaunchState& s, uint64_t count, const uint64_t* blocks)
      : s_(s), order_(s, count), count_(count), blocks_(blocks) {}

  void run() {
    const uint64_t wanted = std::max<uint64_t>(1, std::min<uint64_t>(s_.options.resident, count_));
    for (uint64_t i = 0; i < wanted && !s_.failed; i++) admit();
    while (!live_.empty() && !s_.failed) pass();
  }

 private:
  // One more resident block
  void admit() {
    const size_t slot = slots_.size();
    uint8_t* area = stacks.area(slot, s_.kernel->stack_bytes * s_.threads);
    if (!area) return refuse();
    slots_.push_back(std::make_unique<Block>());
    start_block(s_, *slots_.back(), next_block(), area);
    live_.push_back(slot);
    s_.counters.resident_blocks = std::max<uint64_t>(s_.counters.resident_blocks, live_.size());
  }
  uint64_t next_block() {
    const uint64_t i = order_(next_++);
    return blocks_ ? blocks_[i] : i;
  }
  void refuse() {
    add_error("the host has no memory for the stacks of the block");
    s_.failed = true;
  }

  // Every thread that can run gets a turn.
  void pass() {
    bool ran = false;
    progressed_ = false;
    polls_of_pass_ = 0;
    for (size_t i = 0; i < live_.size() && !s_.failed; i++) {
      Block& b = *slots_[live_[i]];
      ran |= turns(b);
      if (s_.failed) return;
      if (b.alive) continue;
      finish_block(s_, b);
      progressed_ = true;
      if (next_ < count_) {
        start_block(s_, b, next_block(), stacks.area(live_[i], 0));
      } else {
        live_.erase(live_.begin() + i);
        i--;
      }
    }
    if (!ran && !progressed_) {
      deadlock();
    } else if (progressed_ || !polls_of_pass_) {
      idle_passes_ = 0;
      idle_polls_ = 0;
    } else {
      idle_polls_ += polls_of_pass_;
      if (next_ < count_ && ++idle_passes_ >= IDLE_PASSES) {
        idle_passes_ = 0;
        admit();
      } else if (idle_polls_ > IDLE_POLLS) {
        endless_wait();
      }
    }
  }

  static uint64_t written_by(const Thread& t) { return t.bytes[WRITE] + t.global_atomics; }

  bool turns(Block& b) {
    if (s_.options.order == 2)
      for (uint32_t i = s_.threads - 1; i > 0; i--) std::swap(b.order[i], b.order[next_random(s_) % (i + 1)]);
    bool ran = false;
    for (uint32_t i : b.order) {
      Thread& t = b.threads[i];
      if (t.state != READY) continue;
      ran = true;
      t.trace_steps = 0;
      s_.running = &t;
      const uint64_t written = written_by(t);
      emulator_switch(&s_.scheduler, t.stack_pointer);
      if (s_.failed) return true;
      progressed_ |= written_by(t) != written;
      if (!s_.running) {  // it stopped at a poll
        polls_of_pass_++;
        last_poll_ = &t;
      }
    }
    return ran;
  }

  void deadlock() {
    add_error(description_of_deadlock(*slots_[live_[0]]));
    s_.failed = true;
  }
  void endless_wait() {
    add_error("endless wait: every running thread polls memory that nobody writes; one of them: " +
              where(last_poll_, s_.kernel->sites[0]));
    s_.failed = true;
  }

  LaunchState& s_;
  BlockOrder order_;
  uint64_t count_, next_ = 0;
  const uint64_t* blocks_;
  std::vector<std::unique_ptr<Block>> slots_;
  std::vector<size_t> live_;
  bool progressed_ = false;  // in this pass
  uint64_t idle_passes_ = 0, idle_polls_ = 0, polls_of_pass_ = 0;
  Thread* last_poll_ = nullptr;
};

// Whatever mode the caller's floating point is in: a device rounds to nearest and keeps subnormals.
class DeviceFloatingPoint {
 public:
  DeviceFloatingPoint() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~DeviceFloatingPoint() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
};

static void lay_out_shared_memory(LaunchState& s) {
  const Kernel& k = *s.kernel;
  s.dynamic_start = k.dynamic_start;
  s.shared_size = k.dynamic_start + (s.dynamic_shared + 15) / 16 * 16;
  s.shared_valid.assign(s.shared_size + 1, 0);
  for (uint32_t i = 0; i < k.shared_count; i++)
    memset(&s.shared_valid[k.shared[i].offset], 1, k.shared[i].size);
  memset(&s.shared_valid[k.dynamic_start], 1, s.dynamic_shared);
}

// 0, or 1 with emulator_error(). The caller has checked the shape of grid and block.
extern "C" __attribute__((visibility("default"))) int emulator_launch(const Kernel* kernel,
                                                                      const LaunchRequest* request,
                                                                      Counters* counters) {
  clear_messages();
  LaunchState s;
  s.kernel = kernel;
  s.options = request->options;
  std::copy(request->grid, request->grid + 3, s.grid);
  std::copy(request->block, request->block + 3, s.block);
  s.threads = s.block[0] * s.block[1] * s.block[2];
  s.warps = (s.threads + 31) / 32;
  s.dynamic_shared = request->dynamic_shared;
  s.random = s.options.seed * 2654435761u + 12345;
  if (!s.random) s.random = 1;
  lay_out_shared_memory(s);
  const uint8_t* parameters = (const uint8_t*)request->parameters;
  s.parameters.assign(parameters, parameters + request->parameter_bytes);
  s.ranges.assign(request->ranges, request->ranges + request->range_count);
  s.ranges.push_back({(uint64_t)s.parameters.data(), s.parameters.size(), 0, PARAMETER, "kernel parameters"});
  for (uint32_t i = 0; i < kernel->site_count; i++) {
    kernel->sites[i].low = 1ull << 63;
    kernel->sites[i].span = 0;
  }
  DeviceFloatingPoint mode;
  current = &s;
  const uint64_t count = request->blocks ? request->block_count : (uint64_t)s.grid[0] * s.grid[1] * s.grid[2];
  Scheduler(s, count, request->blocks).run();
  current = nullptr;
  *counters = s.counters;
  return s.failed ? 1 : 0;
}
