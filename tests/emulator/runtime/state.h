// A launch while it runs: what schedules, checks and counts. Kernels see only runtime.h.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime.h"

// ---- shared with Python: the fields and their order are those of ctypes structures in module.py

struct Range {
  uint64_t low, length;
  uint32_t writable, space;  // space: ReadOnlySpace
  const char* name;
};

struct Options {
  uint32_t order;  // 0 forward, 1 reverse, 2 random
  uint32_t seed, resident, poison;
  uint32_t races;  // 0 none, 1 shared memory, 2 all memory
  uint32_t count_warps;
  uint64_t loop_limit;
};

struct Counters {
  uint64_t thread_instructions, warp_instructions, divergent_warp_instructions;
  uint64_t global_bytes_read, global_bytes_written;
  uint64_t global_sectors_read, global_sectors_written, global_sectors_atomic;
  uint64_t global_atomics, shared_atomics;
  uint64_t global_atomic_warp_contention, global_atomic_launch_contention;
  uint64_t shared_atomic_warp_contention, shared_atomic_block_contention;
  uint64_t shared_accesses, shared_replays;
  uint64_t barriers, warp_collectives, resident_blocks;
  uint64_t chain_instructions, chain_global_waits, chain_shared_waits, chain_barriers;
};

struct LaunchRequest {
  uint32_t grid[3], block[3];
  uint32_t dynamic_shared, range_count;
  const void* parameters;
  uint64_t parameter_bytes;
  const Range* ranges;
  uint64_t block_count;
  const uint64_t* blocks;  // numbers of the blocks that run; null: all of the grid
  Options options;
};

// ---- the launch

enum State { READY, AT_BARRIER, IN_COLLECTIVE, DONE };

// What one warp does one after the other, or a block: between two barriers the most of any of its warps.
struct Chain {
  uint64_t instructions = 0, global_waits = 0, shared_waits = 0, barriers = 0;
};

// Executions of one basic block, or of one access to memory, that the lanes of a warp share.
struct Record {
  uint64_t key;
  uint32_t lanes, instructions;
  uint32_t next;       // the record that followed when a lane last was here
  uint32_t same_hash;  // chain of the hash table
  uint64_t first_sector, near_sectors;
  uint32_t far_sectors, addresses, words;  // lists in WarpTrace::nodes
};

class WarpTrace {
 public:
  WarpTrace() { clear(); }
  Record& step(Thread* t, uint64_t key, uint32_t instructions, Counters& counters);
  bool add_sector(Record& record, uint64_t sector);        // true where it is new to the record
  uint32_t add_address(Record& record, uint64_t address);  // how often it occurs in the record
  // How many more times the banks must be asked since a lane accesses `size` bytes, too: words that are read or written by
  // several lanes count once, atomics each.
  uint32_t add_words(Record& record, uint32_t lane, uint64_t offset, unsigned size, bool atomic);
  void finish(Thread* warp, uint32_t lanes, Counters& counters);  // nothing so far will be met again
  void compact(Thread* warp, uint32_t lanes, Counters& counters);
  bool is_full() const;
  Chain chain;  // since the last barrier of the block

 private:
  struct Node {
    uint64_t value;
    uint32_t count, next;
  };
  void clear();
  void execute(uint32_t instructions, Counters& counters);
  void insert(uint32_t index);
  std::vector<Record> records_;  // 0: before the first
  std::vector<uint32_t> buckets_;
  std::vector<Node> nodes_;
};

// Who last wrote and who last read a grain of memory; two readers, so that a writer can be checked
// against one of another warp.
struct Shadow {
  struct Visit {
    uint64_t thread = 0;  // its number in the grid + 1
    uint32_t block_epoch = 0, warp_epoch = 0;
  };
  Visit write, read[2];
  bool atomic = false, initialized = false;
};

struct Block {
  uint32_t x, y, z;
  uint64_t index;
  std::vector<uint8_t> storage;
  uint8_t* shared = nullptr;
  std::vector<Thread> threads;
  std::vector<uint32_t> order;
  uint32_t alive;
  std::vector<Shadow> shadow;
  uint32_t waiting_lanes[32], done_lanes[32];  // by warp
  uint32_t barrier_waiting[BARRIERS + 1], barrier_arrived[BARRIERS + 1], barrier_wanted[BARRIERS + 1];
  std::vector<WarpTrace> traces;
  Chain chain;
  std::vector<uint32_t> shared_atomic_counts;
};

struct LaunchState : Launch {
  const Kernel* kernel;
  Options options;
  Counters counters = {};
  std::vector<Range> ranges;
  std::vector<uint8_t> parameters;
  std::vector<uint8_t> shared_valid;
  std::vector<std::vector<Shadow>> global_shadow;  // by range, made when first touched
  std::unordered_map<uint64_t, uint64_t> global_atomic_counts;
  uint32_t random;
  void* scheduler = nullptr;  // its stack pointer, while a thread runs
  Thread* running = nullptr;
  bool failed = false;
  bool noted_exited_threads = false;
  uint32_t lanes_of(uint32_t warp) const {  // the lanes that a warp has
    const uint32_t n = threads - warp * 32;
    return n >= 32 ? ~0u : (1u << n) - 1;
  }
};

inline LaunchState& state_of(Thread* t) { return *static_cast<LaunchState*>(t->launch); }

// messages.cpp
void clear_messages();
void add_error(const std::string& text);
std::string where(Thread* t, const Site& site);
void warn(Thread* t, const Site& site, const char* format, ...) __attribute__((format(printf, 3, 4)));

// scheduler.cpp
void yield(Thread* t);

// collectives.cpp
void thread_left(Thread* t);

// counters.cpp
void finish_phase(LaunchState& s, Block& block);  // all warps are at a barrier, or at their end
void finish_chain(LaunchState& s, Block& block);

// races.cpp
void check_global_race(Thread* t, uint32_t range, uint64_t offset, unsigned size, Access access,
                       const Site& site);
