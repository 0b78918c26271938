// Where threads wait for each other: block barriers and warp collectives.
#include "state.h"

// ---- warp collectives: done once every lane that the mask names, and that still runs, has come

static bool complete(const Block& block, const Thread* lanes, uint32_t warp, const Thread& caller,
                     uint32_t& present) {
  present = 0;
  for (uint32_t left = caller.mask; left; left &= left - 1) {
    const uint32_t lane = __builtin_ctz(left);
    if (warp * 32 + lane >= block.threads.size() || lanes[lane].state == DONE) continue;
    const Thread& other = lanes[lane];
    if (other.state != IN_COLLECTIVE || other.mask != caller.mask || other.collective != caller.collective)
      return false;
    present |= 1u << lane;
  }
  return true;
}

// PTX ISA 9.7.9.6: c holds a clamp and a segment mask; lanes out of the segment keep their own value.
static void shuffle(Thread* lanes, Thread& t, uint32_t present) {
  const int b = t.b & 31, clamp = t.c & 31, segment = t.c >> 8 & 31, lane = t.lane;
  const int low = lane & segment, bound = low | (clamp & ~segment);
  int source;
  bool found;
  switch (t.collective) {
    case SHUFFLE_UP:
      source = lane - b, found = source >= bound;
      break;
    case SHUFFLE_DOWN:
      source = lane + b, found = source <= bound;
      break;
    case SHUFFLE_BFLY:
      source = lane ^ b, found = source <= bound;
      break;
    default:
      source = low | (b & ~segment), found = source <= bound;
  }
  if (!found) source = lane;
  t.found = found;
  if (present >> source & 1) {
    t.result = lanes[source].value;
  } else {
    t.result = 0xdeadbeefu;
    warn(&t, *t.site, "shuffle reads lane %d, which is not active or not in the mask", source);
  }
}

static uint32_t reduced(Collective what, uint32_t a, uint32_t b) {
  switch (what) {
    case REDUCE_LANES_ADD:
      return a + b;
    case REDUCE_LANES_MIN_SIGNED:
      return std::min((int32_t)a, (int32_t)b);
    case REDUCE_LANES_MAX_SIGNED:
      return std::max((int32_t)a, (int32_t)b);
    case REDUCE_LANES_MIN_UNSIGNED:
      return std::min(a, b);
    case REDUCE_LANES_MAX_UNSIGNED:
      return std::max(a, b);
    case REDUCE_LANES_AND:
      return a & b;
    case REDUCE_LANES_OR:
      return a | b;
    default:
      return a ^ b;
  }
}

static void perform(Thread* lanes, const Thread& caller, uint32_t present) {
  const uint32_t first = __builtin_ctz(present);
  uint32_t set = 0, reduction = (uint32_t)lanes[first].value;
  for (uint32_t left = present; left; left &= left - 1) {
    const uint32_t lane = __builtin_ctz(left);
    if (lanes[lane].value) set |= 1u << lane;
    if (lane != first) reduction = reduced(caller.collective, reduction, (uint32_t)lanes[lane].value);
  }
  for (uint32_t left = present; left; left &= left - 1) {
    Thread& t = lanes[__builtin_ctz(left)];
    t.found = 1;
    switch (caller.collective) {
      case SHUFFLE_UP:
      case SHUFFLE_DOWN:
      case SHUFFLE_BFLY:
      case SHUFFLE_IDX:
        shuffle(lanes, t, present);
        break;
      case VOTE_BALLOT:
        t.result = set;
        break;
      case VOTE_ANY:
        t.result = set != 0;
        break;
      case VOTE_ALL:
        t.result = set == present;
        break;
      case VOTE_UNI:
        t.result = set == 0 || set == present;
        break;
      case WARP_SYNC:
        t.warp_epoch++;
        break;
      case MATCH_ANY:
      case MATCH_ALL: {
        uint32_t equal = 0;
        for (uint32_t others = present; others; others &= others - 1)
          if (lanes[__builtin_ctz(others)].value == t.value) equal |= others & -others;
        t.found = caller.collective == MATCH_ANY || equal == present;
        t.result = t.found ? equal : 0;
        break;
      }
      case ELECT:
        t.result = first, t.found = first == t.lane;
        break;
      default:
        t.result = reduction;
    }
  }
}

// Collectives that can now be performed. More than one group of lanes may be waiting.
static void try_collectives(LaunchState& s, Block& block, uint32_t warp) {
  Thread* lanes = &block.threads[warp * 32];
  uint32_t untried = block.waiting_lanes[warp];
  while (untried) {
    Thread& caller = lanes[__builtin_ctz(untried)];
    uint32_t present;
    if (!complete(block, lanes, warp, caller, present)) {
      untried &= untried - 1;
      continue;
    }
    for (uint32_t left = present; left; left &= left - 1) {
      Thread& t = lanes[__builtin_ctz(left)];
      if (t.site == caller.site) continue;
      warn(&t, *t.site, "warp collective executed at two places in the program (the other: line %d `%s`)",
           caller.site->line, caller.site->text);
      break;
    }
    s.counters.warp_collectives++;
    perform(lanes, caller, present);
    for (uint32_t left = present; left; left &= left - 1) lanes[__builtin_ctz(left)].state = READY;
    block.waiting_lanes[warp] &= ~present;
    untried &= ~present;
  }
}

uint64_t warp_collective(Thread* t, Collective what, uint32_t mask, uint64_t value, uint32_t b, uint32_t c,
                         Site& site, uint32_t* found) {
  if (!(mask >> t->lane & 1)) fail(t, site, "lane %u is not in the mask 0x%x that it passes", t->lane, mask);
  t->collective = what;
  t->mask = mask;
  t->value = value;
  t->b = b;
  t->c = c;
  t->site = &site;
  t->state = IN_COLLECTIVE;
  LaunchState& s = state_of(t);
  Block& block = *t->block;
  block.waiting_lanes[t->warp] |= 1u << t->lane;
  const uint32_t come = block.waiting_lanes[t->warp] | block.done_lanes[t->warp] | ~s.lanes_of(t->warp);
  if ((come & mask) == mask) try_collectives(s, block, t->warp);
  while (t->state != READY) yield(t);
  if (found) *found = t->found;
  return t->result;
}

// ---- block barriers

static void try_barrier(LaunchState& s, Block& block, uint32_t number) {
  const uint32_t waiting = block.barrier_waiting[number], arrived = block.barrier_arrived[number];
  const uint32_t wanted = block.barrier_wanted[number] ? block.barrier_wanted[number] : block.alive;
  if (!(waiting + arrived) || waiting + arrived < wanted) return;
  s.counters.barriers++;
  block.chain.barriers++;
  const bool whole_block = waiting == block.alive;
  const bool counted = block.barrier_wanted[number] != 0;
  block.barrier_waiting[number] = block.barrier_arrived[number] = block.barrier_wanted[number] = 0;
  if (!waiting) return;

  Thread* first = nullptr;
  uint32_t set = 0;
  bool all = true, divergent = false;
  for (Thread& t : block.threads) {
    if (t.state != AT_BARRIER || t.barrier != number) continue;
    if (!first) first = &t;
    set += t.barrier_value != 0;
    all &= t.barrier_value != 0;
    if (t.site != first->site && !divergent) {
      divergent = true;
      warn(&t, *t.site, "divergent barrier: other threads wait at line %d `%s`", first->site->line,
           first->site->text);
    }
  }
  if (!counted && block.alive < block.threads.size() && !s.noted_exited_threads) {
    s.noted_exited_threads = true;
    warn(first, *first->site, "barrier reached by %u of %zu threads, the others have exited", block.alive,
         block.threads.size());
  }
  for (Thread& t : block.threads) {
    if (t.state != AT_BARRIER || t.barrier != number) continue;
    t.state = READY;
    t.block_epoch++;
    t.barrier_result = t.barrier_reduction == REDUCE_POPC  ? set
                       : t.barrier_reduction == REDUCE_AND ? all
                                                           : set != 0;
  }
  if (whole_block && s.options.count_warps) finish_phase(s, block);
}

static void check_barrier(Thread* t, uint32_t number, uint32_t threads, const Site& site) {
  if (number > CLUSTER_BARRIER)
    fail(t, site, "barrier %u: a block has barriers 0 to %d", number, BARRIERS - 1);
  if (threads & 31) fail(t, site, "barrier for %u threads: not a multiple of 32", threads);
}

uint32_t block_barrier(Thread* t, uint32_t number, uint32_t threads, BarrierReduction reduction,
                       uint32_t value, Site& site) {
  check_barrier(t, number, threads, site);
  t->barrier = number;
  t->barrier_reduction = reduction;
  t->barrier_value = value;
  t->site = &site;
  t->state = AT_BARRIER;
  t->block->barrier_waiting[number]++;
  if (threads) t->block->barrier_wanted[number] = threads;
  try_barrier(state_of(t), *t->block, number);
  while (t->state != READY) yield(t);
  return t->barrier_result;
}

void barrier_arrive(Thread* t, uint32_t number, uint32_t threads, Site& site) {
  check_barrier(t, number, threads, site);
  t->block->barrier_arrived[number]++;
  t->block->barrier_wanted[number] = threads;
  t->block_epoch++;
  try_barrier(state_of(t), *t->block, number);
}

// A thread that exits no longer is waited for.
void thread_left(Thread* t) {
  LaunchState& s = state_of(t);
  Block& block = *t->block;
  block.alive--;
  block.done_lanes[t->warp] |= 1u << t->lane;
  if (block.waiting_lanes[t->warp]) try_collectives(s, block, t->warp);
  for (uint32_t number = 0; number <= CLUSTER_BARRIER; number++)
    if (block.barrier_waiting[number]) try_barrier(s, block, number);
}
