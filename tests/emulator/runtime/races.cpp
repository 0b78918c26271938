// Races: two accesses to one grain of memory, at least one a write, that nothing orders.
//
// In a block, barriers order: accesses of different block epochs never race. Within a warp, __syncwarp also
// orders. Atomics do not race with atomics. Across blocks nothing orders (fences and flags are not
// understood), so a race reported there may be a false alarm.
#include "state.h"

namespace {

struct Here {
  uint64_t thread, first, last;  // numbers in the grid + 1: this thread, and its block's first and last
  uint64_t warp_first, warp_last;
  uint32_t block_epoch, warp_epoch;

  explicit Here(Thread* t) {
    const uint64_t threads = t->launch->threads;
    first = t->block->index * threads + 1;
    last = first + threads - 1;
    thread = first + t->index;
    warp_first = first + t->warp * 32;
    warp_last = warp_first + 31;
    block_epoch = t->block_epoch;
    warp_epoch = t->warp_epoch;
  }

  bool ordered_after(const Shadow::Visit& v) const {
    if (v.thread == 0 || v.thread == thread) return true;
    if (v.thread < first || v.thread > last) return false;
    if (v.block_epoch != block_epoch) return true;
    return v.thread >= warp_first && v.thread <= warp_last && v.warp_epoch != warp_epoch;
  }

  // The kind of race with an earlier access, or null; `other` is that access.
  const char* race_with(const Shadow& s, Access access, const Shadow::Visit*& other) const {
    if (!ordered_after(s.write) && !(access == ATOMIC && s.atomic)) {
      other = &s.write;
      return access == READ ? "read after write" : "write after write";
    }
    if (access == READ) return nullptr;
    for (const Shadow::Visit& v : s.read) {
      if (ordered_after(v)) continue;
      other = &v;
      return "write after read";
    }
    return nullptr;
  }

  void record(Shadow& s, Access access) const {
    const Shadow::Visit now = {thread, block_epoch, warp_epoch};
    if (access != READ) {
      s.write = now;
      s.atomic = access == ATOMIC;
      return;
    }
    const bool same_reader = s.read[0].thread == thread;
    if (same_reader && s.read[0].block_epoch == block_epoch && s.read[0].warp_epoch == warp_epoch) return;
    const bool keep = !same_reader && s.read[0].thread;
    const bool slot_is_free = ordered_after(s.read[1]) || in_warp(s.read[1]) || !in_warp(s.read[0]);
    if (keep && slot_is_free) s.read[1] = s.read[0];
    s.read[0] = now;
  }

  bool in_warp(const Shadow::Visit& v) const { return v.thread >= warp_first && v.thread <= warp_last; }
};

}  // namespace

void check_shared_race(Thread* t, uint64_t offset, unsigned size, Access access, const Site& site) {
  const Here here(t);
  const uint32_t grain = state_of(t).kernel->race_grain;
  for (uint64_t at = offset / grain; at <= (offset + size - 1) / grain; at++) {
    Shadow& s = t->block->shadow[at];
    if (access != WRITE && !s.initialized) {
      warn(t, site, "uninitialised shared memory is read at offset %lu", at * grain);
      s.initialized = true;
    }
    const Shadow::Visit* other;
    if (const char* kind = here.race_with(s, access, other))
      warn(t, site, "race in shared memory (%s) at offset %lu with thread %lu of the block", kind, at * grain,
           other->thread - here.first);
    here.record(s, access);
    if (access != READ) s.initialized = true;
  }
}

void check_global_race(Thread* t, uint32_t range, uint64_t offset, unsigned size, Access access,
                       const Site& site) {
  LaunchState& s = state_of(t);
  if (!s.ranges[range].writable) return;
  const Here here(t);
  if (s.global_shadow.size() <= range) s.global_shadow.resize(s.ranges.size());
  std::vector<Shadow>& shadow = s.global_shadow[range];
  if (shadow.empty()) shadow.resize(s.ranges[range].length);
  for (uint64_t at = offset; at < offset + size; at++) {
    const Shadow::Visit* other;
    const char* kind = here.race_with(shadow[at], access, other);
    if (kind)
      warn(t, site, "possible race in global memory (%s) at offset %lu of '%s' with block %lu, thread %lu",
           kind, at, s.ranges[range].name, (other->thread - 1) / s.threads, (other->thread - 1) % s.threads);
    here.record(shadow[at], access);
    if (kind) break;
  }
}
