// Warp-level counters. Threads run one after the other, so what a warp does together is put together here:
// executions by several lanes are one warp-instruction if they have the same key, which names the
// instruction and the current iteration of every loop around it (translate/control_flow.py).
#include <array>

#include "state.h"

// A thread runs at most so many basic blocks before the others of its warp get their turn: open records
// then stay few, as long as lanes do the same.
static const uint32_t STEPS_OF_A_TURN = 2048;
static const size_t RECORDS_KEPT = 1 << 18, NODES_KEPT = 1 << 19;
static const uint64_t SECTOR_BYTES = 32;
static const uint64_t BANKS = 32;  // of words of 4 bytes: as many as shared memory gives at once
static const size_t FIRST_BUCKETS = 64;

void WarpTrace::clear() {
  records_.assign(1, Record{});
  buckets_.assign(FIRST_BUCKETS, 0);
  nodes_.assign(1, Node{});
}

static size_t hash(uint64_t key) { return key * 0x9e3779b97f4a7c15ull >> 32; }

void WarpTrace::insert(uint32_t index) {
  if (records_.size() > buckets_.size()) {
    buckets_.assign(buckets_.size() * 4, 0);
    for (uint32_t i = 1; i < index; i++) insert(i);
  }
  uint32_t& bucket = buckets_[hash(records_[index].key) & (buckets_.size() - 1)];
  records_[index].same_hash = bucket;
  bucket = index;
}

void WarpTrace::execute(uint32_t instructions, Counters& counters) {
  counters.warp_instructions += instructions;
  chain.instructions += instructions;
}

Record& WarpTrace::step(Thread* t, uint64_t key, uint32_t instructions, Counters& counters) {
  const uint32_t lane = 1u << t->lane;
  uint32_t index = records_[t->trace_cursor].next;  // lanes mostly follow each other
  if (records_[index].key != key || index == 0) {
    index = buckets_[hash(key) & (buckets_.size() - 1)];
    while (index && records_[index].key != key) index = records_[index].same_hash;
    if (!index) {
      index = records_.size();
      Record record = {};
      record.key = key;
      record.instructions = instructions;
      records_.push_back(record);
      insert(index);
      execute(instructions, counters);
    }
    records_[t->trace_cursor].next = index;
  }
  Record& record = records_[index];
  if (record.lanes & lane) {  // the same key once more: a warp-instruction of its own
    execute(instructions, counters);
    record.lanes = 0;
    record.near_sectors = 0;
    record.far_sectors = record.addresses = record.words = 0;
  }
  record.lanes |= lane;
  t->trace_cursor = index;
  return record;
}

bool WarpTrace::add_sector(Record& record, uint64_t sector) {
  if (!record.near_sectors) record.first_sector = sector < 32 ? 0 : sector - 32;
  const uint64_t distance = sector - record.first_sector;
  if (distance < 64) {
    const uint64_t bit = 1ull << distance;
    const bool is_new = !(record.near_sectors & bit);
    record.near_sectors |= bit;
    return is_new;
  }
  for (uint32_t i = record.far_sectors; i; i = nodes_[i].next)
    if (nodes_[i].value == sector) return false;
  nodes_.push_back({sector, 1, record.far_sectors});
  record.far_sectors = nodes_.size() - 1;
  return true;
}

uint32_t WarpTrace::add_address(Record& record, uint64_t address) {
  for (uint32_t i = record.addresses; i; i = nodes_[i].next)
    if (nodes_[i].value == address) return ++nodes_[i].count;
  nodes_.push_back({address, 1, record.addresses});
  record.addresses = nodes_.size() - 1;
  return 1;
}

uint32_t WarpTrace::add_words(Record& record, uint32_t lane, uint64_t offset, unsigned size, bool atomic) {
  const unsigned bytes = size < 4 ? 4 : size;
  const uint64_t group = lane * bytes / (4 * BANKS);  // so many lanes are served at once as make up all banks
  uint32_t replays = 0;
  for (uint64_t word = offset / 4; word < offset / 4 + bytes / 4; word++) {
    // A node for each word that is asked for, whose count is how many there are of its bank by then.
    const uint64_t value = group << 32 | word;
    uint32_t in_bank = 0, worst = 1;
    bool is_there = false;
    for (uint32_t i = record.words; i; i = nodes_[i].next) {
      if (nodes_[i].value >> 32 != group) continue;
      is_there |= nodes_[i].value == value;
      in_bank += nodes_[i].value % BANKS == word % BANKS;
      if (nodes_[i].count > worst) worst = nodes_[i].count;
    }
    if (is_there && !atomic) continue;
    replays += ++in_bank > worst;
    nodes_.push_back({value, in_bank, record.words});
    record.words = nodes_.size() - 1;
  }
  return replays;
}

static void raise(uint64_t& worst, uint64_t value) {
  if (value > worst) worst = value;
}

static void reset_cursors(Thread* warp, uint32_t lanes) {
  for (uint32_t left = lanes; left; left &= left - 1) warp[__builtin_ctz(left)].trace_cursor = 0;
}

void WarpTrace::finish(Thread* warp, uint32_t lanes, Counters& counters) {
  for (const Record& r : records_)
    if (r.lanes != lanes) counters.divergent_warp_instructions += r.instructions;
  clear();
  reset_cursors(warp, lanes);
}

void finish_phase(LaunchState& s, Block& block) {
  Chain longest;
  for (uint32_t w = 0; w < s.warps; w++) {
    WarpTrace& trace = block.traces[w];
    raise(longest.instructions, trace.chain.instructions);
    raise(longest.global_waits, trace.chain.global_waits);
    raise(longest.shared_waits, trace.chain.shared_waits);
    trace.chain = {};
    trace.finish(&block.threads[w * 32], s.lanes_of(w), s.counters);
  }
  block.chain.instructions += longest.instructions;
  block.chain.global_waits += longest.global_waits;
  block.chain.shared_waits += longest.shared_waits;
}

void finish_chain(LaunchState& s, Block& block) {
  raise(s.counters.chain_instructions, block.chain.instructions);
  raise(s.counters.chain_global_waits, block.chain.global_waits);
  raise(s.counters.chain_shared_waits, block.chain.shared_waits);
  raise(s.counters.chain_barriers, block.chain.barriers);
  block.chain = {};
}

bool WarpTrace::is_full() const { return records_.size() > RECORDS_KEPT || nodes_.size() > NODES_KEPT; }

// Forget the records that every lane has met, and where many are left the oldest: lanes so far apart are divergent
// whatever comes.
void WarpTrace::compact(Thread* warp, uint32_t lanes, Counters& counters) {
  const std::vector<Record> records = std::move(records_);
  const std::vector<Node> nodes = std::move(nodes_);
  const auto lists_of = [](auto& record) {
    return std::array{&record.far_sectors, &record.addresses, &record.words};
  };
  size_t first = records.size(), kept = 0, kept_nodes = 0;
  while (first > 1 && kept < RECORDS_KEPT / 2 && kept_nodes < NODES_KEPT / 2) {
    const Record& record = records[--first];
    if (record.lanes == lanes) continue;
    kept++;
    for (const uint32_t* list : lists_of(record))
      for (uint32_t i = *list; i; i = nodes[i].next) kept_nodes++;
  }
  for (size_t i = 1; i < first; i++)
    if (records[i].lanes != lanes) counters.divergent_warp_instructions += records[i].instructions;
  clear();
  for (size_t i = first; i < records.size(); i++) {
    if (records[i].lanes == lanes) continue;
    Record record = records[i];
    for (uint32_t* list : lists_of(record)) {
      uint32_t copied = 0;
      for (uint32_t k = *list; k; k = nodes[k].next) {
        nodes_.push_back({nodes[k].value, nodes[k].count, copied});
        copied = nodes_.size() - 1;
      }
      *list = copied;
    }
    record.next = 0;
    records_.push_back(record);
    insert(records_.size() - 1);
  }
  reset_cursors(warp, lanes);
}

void count_warp_block(Thread* t, uint64_t key, uint32_t instructions) {
  LaunchState& s = state_of(t);
  WarpTrace& trace = t->block->traces[t->warp];
  trace.step(t, key, instructions, s.counters);
  if (trace.is_full()) trace.compact(&t->block->threads[t->warp * 32], s.lanes_of(t->warp), s.counters);
  if (++t->trace_steps >= STEPS_OF_A_TURN) yield(t);
}

// Whether the lane that is here is the first of its warp.
static bool is_first(const Record& record) { return (record.lanes & (record.lanes - 1)) == 0; }

// Counted from the start of the range: on a device, allocations begin at a multiple of 256 bytes.
void count_global_access(Thread* t, const Site& site, uint64_t context, uint32_t range, uint64_t offset,
                         Access access) {
  LaunchState& s = state_of(t);
  Counters& c = s.counters;
  WarpTrace& trace = t->block->traces[t->warp];
  Record& record = trace.step(t, context + site.key, 0, c);
  trace.chain.global_waits += site.waits && is_first(record);
  const uint64_t address = (uint64_t)range << 48 | offset;
  if (trace.add_sector(record, address / SECTOR_BYTES)) {
    uint64_t& sectors = access == READ    ? c.global_sectors_read
                        : access == WRITE ? c.global_sectors_written
                                          : c.global_sectors_atomic;
    sectors++;
  }
  if (access != ATOMIC) return;
  raise(c.global_atomic_warp_contention, trace.add_address(record, address));
  raise(c.global_atomic_launch_contention, ++s.global_atomic_counts[address]);
}

void count_shared_access(Thread* t, const Site& site, uint64_t context, uint64_t offset, unsigned size,
                         Access access) {
  LaunchState& s = state_of(t);
  Counters& c = s.counters;
  WarpTrace& trace = t->block->traces[t->warp];
  Record& record = trace.step(t, context + site.key, 0, c);
  c.shared_accesses += is_first(record);
  trace.chain.shared_waits += site.waits && is_first(record);
  c.shared_replays += trace.add_words(record, t->lane, offset, size, access == ATOMIC);
  if (access != ATOMIC) return;
  raise(c.shared_atomic_warp_contention, trace.add_address(record, offset));
  std::vector<uint32_t>& counts = t->block->shared_atomic_counts;
  if (counts.empty()) counts.resize(s.shared_size);
  raise(c.shared_atomic_block_contention, ++counts[offset]);
}
