// Which memory an address belongs to, and what is wrong with it where it belongs to none.
#include "state.h"

static const char* name_of(Access access) {
  return access == READ ? "read" : access == WRITE ? "write" : "atomic operation";
}

// "12 bytes past the end of 'scores' (4000 bytes)"
static std::string relative_to_nearest(const LaunchState& s, uint64_t address) {
  const Range* nearest = nullptr;
  uint64_t distance = ~0ull;
  bool past = false;
  for (const Range& r : s.ranges) {
    const bool after = address >= r.low;
    const uint64_t d = !after ? r.low - address : address - r.low < r.length ? 0 : address - r.low - r.length;
    if (d < distance || (d == distance && after)) nearest = &r, distance = d, past = after;
  }
  if (!nearest) return "no memory is registered";
  const std::string name =
      std::string("'") + nearest->name + "' (" + std::to_string(nearest->length) + " bytes)";
  if (past && address - nearest->low < nearest->length)
    return "at offset " + std::to_string(address - nearest->low) + " of " + name +
           ", beyond whose end it reaches";
  return std::to_string(distance) + (past ? " bytes past the end of " : " bytes before ") + name;
}

uint8_t* find_global(Thread* t, uint64_t address, unsigned size, Access access, bool count, Site& site,
                     uint64_t context) {
  const bool power_of_two = (size & (size - 1)) == 0;
  if (power_of_two && (address & (size - 1)))
    fail(t, site, "misaligned %s of %u bytes at 0x%lx", name_of(access), size, address);
  if (is_shared(t, address)) {  // a generic address of shared memory
    const uint64_t offset = address - (uint64_t)t->shared;
    if (offset + size > t->shared_size || !t->shared_valid[offset] || !t->shared_valid[offset + size - 1])
      fail_shared(t, offset, size, access, site);
    if (access == ATOMIC) t->shared_atomics++;
    if (t->count_warps) count_shared_access(t, site, context, offset, size, access);
    if (t->check_shared_races) check_shared_race(t, offset, size, access, site);
    return (uint8_t*)address;
  }
  if (is_local(t, address) && address + size <= (uint64_t)t->stack_high) return (uint8_t*)address;

  LaunchState& s = state_of(t);
  const Range* read_only = nullptr;
  for (uint32_t i = 0; i < s.ranges.size(); i++) {
    const Range& r = s.ranges[i];
    if (address < r.low || r.length < size || address - r.low > r.length - size) continue;
    const uint64_t offset = address - r.low;
    if (access != READ && !r.writable) {  // unless it is also part of a range that is writable
      read_only = &r;
      continue;
    }
    if (s.options.races == 2)
      check_global_race(t, i, offset, size, access, site);
    else
      site.low = r.low, site.span = r.length - size, site.range = i;
    if (count) {
      if (access == ATOMIC)
        t->global_atomics++;
      else
        t->bytes[access] += size;
      if (t->count_warps) count_global_access(t, site, context, i, offset, access);
    }
    return (uint8_t*)address;
  }
  if (read_only)
    fail(t, site, "%s of %u bytes at offset %lu of '%s', which is read-only", name_of(access), size,
         address - read_only->low, read_only->name);
  fail(t, site, "out-of-bounds %s of %u bytes at 0x%lx: %s", name_of(access), size, address,
       relative_to_nearest(s, address).c_str());
}

uint8_t* find_parameter(Thread* t, uint64_t address, unsigned size, const Site& site) {
  const LaunchState& s = state_of(t);
  const uint64_t low = (uint64_t)s.parameters.data();
  if (address < low || address + size > low + s.parameters.size())
    fail(t, site, "out-of-bounds read of %u bytes of the kernel's parameters at offset %ld of %zu", size,
         (long)(address - low), s.parameters.size());
  return (uint8_t*)address;
}

void fail_shared(Thread* t, uint64_t offset, unsigned size, Access access, const Site& site) {
  if (offset < t->shared_size && (offset & (size - 1)))
    fail(t, site, "misaligned %s of %u bytes of shared memory at offset %lu", name_of(access), size, offset);
  fail(t, site,
       "out-of-bounds %s of %u bytes of shared memory at offset %ld (%u bytes, and no variable there)",
       name_of(access), size, (long)offset, t->shared_size);
}

void fail_local(Thread* t, uint64_t address, unsigned size, const Site& site) {
  const char* problem = address & (size - 1) ? "misaligned" : "out-of-bounds";
  fail(t, site, "%s access of %u bytes of local memory at 0x%lx", problem, size, address);
}

ReadOnlySpace read_only_space(Thread* t, uint64_t address) {
  for (const Range& r : state_of(t).ranges)
    if (r.space != NOT_READ_ONLY && address - r.low < r.length) return (ReadOnlySpace)r.space;
  return NOT_READ_ONLY;
}
