// A stand-in for the CUDA runtime library, linked into each emulated library in its place.
//
// Device memory is host memory. Everything happens at once and in order, whatever the stream. Kernels are
// not run here: each launch is handed to Python (library.py), which translates and runs the kernel's PTX.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

// ---- what Python and this file share (library.py has the same structures)

struct LaunchCall {
  uint64_t module;  // hash of the fat binary that the kernel came in
  const char* kernel;
  uint32_t grid[3], block[3];
  uint64_t dynamic_shared, dynamic_shared_limit;
  void** arguments;
};
typedef int (*LaunchHandler)(const LaunchCall*);  // returns a cudaError_t

struct MemoryRow {
  uint64_t address, length;
  uint32_t writable;
  const char* name;
};

struct ApiCounters {
  uint64_t host_syncs, copies, copied_bytes, memsets, memset_bytes, allocations, queries, limits_set;
};

struct KernelFacts {
  uint32_t static_shared = 0, threads_limit = 1024;
};

struct Memory {
  uint64_t length;
  bool writable, is_device, is_ours;
  std::string name;
};

typedef std::pair<uint64_t, std::string> Symbol;  // of a module: its hash, and the name

struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};

const int DEFAULT_SHARED_BYTES = 48 << 10;

// A small one, whose grids are quickly run, and one of the shape of an H200. Host code may ask each of them once.
const struct Device {
  int multiprocessors, threads;  // a multiprocessor's
  int shared_optin_bytes;        // 0: those of the compute capability
} DEVICES[] = {{4, 1024, 0}, {132, 2048, 227 << 10}};

// Constructed when first used: registration runs before this file's own constructors might.
struct State {
  LaunchHandler launch = nullptr;
  int compute_capability = 80;  // major * 10 + minor
  int device = 0;
  std::multimap<uint64_t, Memory> memory;
  std::map<const void*, Symbol> functions, variables;
  std::map<Symbol, KernelFacts> kernels;
  std::map<Symbol, std::pair<void*, size_t>> symbols;
  std::map<const void*, int> dynamic_shared_limit;
  std::vector<Configuration> configurations;
  std::set<uint64_t> streams;  // on which something was put
  uint64_t only_stream = 0;    // on which alone something may be put; 0: on any
  std::string problem;         // what Python has to say of the launch that failed
  cudaError_t last = cudaSuccess, sticky = cudaSuccess;
  ApiCounters counters = {};
};

State& state() {
  static State* s = new State;
  return *s;
}

const Device& current_device() { return DEVICES[state().device]; }

cudaError_t returned(cudaError_t e) {
  if (e != cudaSuccess) state().last = e;
  return e;
}

// After a kernel failed, a device's context is of no use: every call fails.
cudaError_t healthy() { return state().sticky; }

int shared_optin_bytes() {
  if (const int bytes = current_device().shared_optin_bytes) return bytes;
  switch (state().compute_capability) {
    case 70:
      return 96 << 10;
    case 75:
      return 64 << 10;
    case 80:
    case 87:
      return 163 << 10;
    case 86:
    case 89:
    case 120:
      return 99 << 10;
    default:
      return 227 << 10;
  }
}

const Memory* containing(const void* p, size_t bytes) {
  const uint64_t a = (uint64_t)p;
  for (const auto& [low, m] : state().memory)
    if (a >= low && a - low <= m.length && bytes <= m.length - (a - low)) return &m;
  return nullptr;
}
bool device_range(const void* p, size_t bytes) {
  const Memory* m = containing(p, bytes);
  return bytes == 0 || (m && m->is_device);
}

cudaError_t allocate(void** p, size_t bytes, bool is_device) {
  if (healthy()) return healthy();
  const size_t alignment = 256;
  *p = nullptr;
  if (!bytes) return cudaSuccess;
  void* memory = aligned_alloc(alignment, (bytes + 2 * alignment - 1) / alignment * alignment);
  if (!memory) return returned(cudaErrorMemoryAllocation);
  memset(memory, 0xa5, bytes);  // what a kernel reads before anything is written should not look like 0
  state().memory.insert({(uint64_t)memory, {bytes, true, is_device, true, "cudaMalloc"}});
  state().counters.allocations++;
  *p = memory;
  return cudaSuccess;
}

cudaError_t release(void* p) {
  if (!p) return cudaSuccess;
  auto [first, last] = state().memory.equal_range((uint64_t)p);
  for (; first != last; ++first) {
    if (!first->second.is_ours) continue;
    state().memory.erase(first);
    free(p);
    return cudaSuccess;
  }
  return returned(cudaErrorInvalidValue);
}

void count_sync() { state().counters.host_syncs++; }

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (healthy()) return healthy();
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !device_range(to, bytes)) || (from_device && !device_range(from, bytes)))
    return returned(cudaErrorInvalidValue);
  state().counters.copies++;
  state().counters.copied_bytes += bytes;
  memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t fill(void* p, int value, size_t bytes) {
  if (healthy()) return healthy();
  const Memory* m = containing(p, bytes);
  if (bytes && (!m || !m->is_device || !m->writable)) return returned(cudaErrorInvalidValue);
  state().counters.memsets++;
  state().counters.memset_bytes += bytes;
  memset(p, value, bytes);
  return cudaSuccess;
}

// From or to pageable memory of the host, an asynchronous copy returns when it is done.
bool pageable(const void* p) { return !containing(p, 1); }

const std::pair<void*, size_t>* variable(const void* host) {
  auto symbol = state().variables.find(host);
  if (symbol == state().variables.end()) return nullptr;
  auto found = state().symbols.find(symbol->second);
  return found == state().symbols.end() ? nullptr : &found->second;
}

KernelFacts facts_of(const void* function) {
  auto symbol = state().functions.find(function);
  return symbol == state().functions.end() ? KernelFacts{} : state().kernels[symbol->second];
}

int dynamic_limit(const void* function, const KernelFacts& facts) {
  auto found = state().dynamic_shared_limit.find(function);
  return found != state().dynamic_shared_limit.end() ? found->second
                                                     : DEFAULT_SHARED_BYTES - (int)facts.static_shared;
}

bool sticks(cudaError_t e) {
  return e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure || e == cudaErrorAssert;
}

cudaError_t put_on(void* stream) {
  state().streams.insert((uint64_t)stream);
  if (!state().only_stream || state().only_stream == (uint64_t)stream) return cudaSuccess;
  state().problem = "something was put on another stream than the caller's";
  return returned(cudaErrorInvalidResourceHandle);
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                   cudaStream_t stream) {
  if (const cudaError_t e = put_on(stream)) return e;
  if (healthy()) return healthy();
  auto symbol = state().functions.find(function);
  if (symbol == state().functions.end()) return returned(cudaErrorInvalidDeviceFunction);
  if (!state().launch) return returned(cudaErrorInitializationError);
  const LaunchCall call = {symbol->second.first,
                           symbol->second.second.c_str(),
                           {grid.x, grid.y, grid.z},
                           {block.x, block.y, block.z},
                           shared,
                           (uint64_t)std::max(0, dynamic_limit(function, facts_of(function))),
                           arguments};
  const cudaError_t e = (cudaError_t)state().launch(&call);
  if (sticks(e)) state().sticky = e;
  return returned(e);
}

}  // namespace

// ---- for library.py

EXPORTED void emulated_configure(LaunchHandler handler, int compute_capability, uint64_t only_stream,
                                 int device) {
  state().launch = handler;
  state().device = device;
  state().compute_capability = compute_capability;
  state().only_stream = only_stream;
  state().problem.clear();
  state().last = state().sticky = cudaSuccess;
  state().counters = {};
  state().streams.clear();
}
EXPORTED void emulated_problem(const char* text) { state().problem = text; }
EXPORTED void emulated_counters(ApiCounters* out) { *out = state().counters; }
EXPORTED uint64_t emulated_streams(uint64_t* streams, uint64_t capacity) {
  uint64_t n = 0;
  for (uint64_t stream : state().streams) {
    if (n < capacity) streams[n] = stream;
    n++;
  }
  return n;
}
EXPORTED void emulated_kernel(uint64_t module, const char* name, uint32_t static_shared,
                              uint32_t threads_limit) {
  state().kernels[{module, name}] = {static_shared, threads_limit};
}
EXPORTED void emulated_variable(uint64_t module, const char* name, void* address, uint64_t bytes) {
  state().symbols[{module, name}] = {address, bytes};
}
EXPORTED void emulated_register(uint64_t address, uint64_t bytes, int writable, const char* name) {
  state().memory.insert({address, {bytes, writable != 0, true, false, name}});
}
EXPORTED void emulated_forget_registered() {
  for (auto m = state().memory.begin(); m != state().memory.end();)
    m = m->second.is_ours ? std::next(m) : state().memory.erase(m);
}
EXPORTED uint64_t emulated_memory(MemoryRow* rows, uint64_t capacity) {
  uint64_t n = 0;
  for (const auto& [address, m] : state().memory) {
    if (n < capacity) rows[n] = {address, m.length, m.writable, m.name.c_str()};
    n++;
  }
  return n;
}

// ---- what nvcc's host code calls

extern "C" {

// A fat binary is known by the hash of its content (FNV-1a), which library.py also computes.
void** __cudaRegisterFatBinary(void* wrapper) {
  struct Wrapper {
    int magic, version;
    const unsigned char* data;
  };
  const unsigned char* data = static_cast<Wrapper*>(wrapper)->data;
  uint16_t header_bytes;
  uint64_t content_bytes;
  memcpy(&header_bytes, data + 6, sizeof header_bytes);
  memcpy(&content_bytes, data + 8, sizeof content_bytes);
  uint64_t hash = 0xcbf29ce484222325ull;
  for (uint64_t i = 0; i < header_bytes + content_bytes; i++) hash = (hash ^ data[i]) * 0x100000001b3ull;
  return reinterpret_cast<void**>(new uint64_t(hash));
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void** handle) { delete reinterpret_cast<uint64_t*>(handle); }
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  state().functions[host] = {*reinterpret_cast<uint64_t*>(handle), name};
}
void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, size_t, int, int) {
  state().variables[host] = {*reinterpret_cast<uint64_t*>(handle), name};
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
  state().configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const Configuration c = state().configurations.back();
  state().configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<void**>(stream) = c.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = (cudaKernel_t)function;
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return launch((const void*)kernel, grid, block, arguments, shared, stream);
}
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                    size_t shared, cudaStream_t stream) {
  return launch((const void*)kernel, grid, block, arguments, shared, stream);
}

// ---- launches

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return launch(function, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes,
                config->stream);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  state().counters.limits_set++;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value + (int)facts_of(function).static_shared > shared_optin_bytes())
    return returned(cudaErrorInvalidValue);
  state().dynamic_shared_limit[function] = value;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* function) {
  state().counters.queries++;
  if (!state().functions.count(function)) return returned(cudaErrorInvalidDeviceFunction);
  const KernelFacts facts = facts_of(function);
  *a = {};
  a->sharedSizeBytes = facts.static_shared;
  a->maxThreadsPerBlock = facts.threads_limit;
  a->numRegs = 32;  // not known: PTX has no register allocation
  a->ptxVersion = a->binaryVersion = state().compute_capability;
  a->maxDynamicSharedSizeBytes = dynamic_limit(function, facts);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function,
                                                                   int threads, size_t shared, unsigned) {
  state().counters.queries++;
  if (threads < 1) return returned(cudaErrorInvalidValue);
  const size_t used = shared + facts_of(function).static_shared;
  const int by_threads = current_device().threads / threads;
  *blocks = used ? std::min<int>(by_threads, shared_optin_bytes() / used) : by_threads;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}

// ---- memory

cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes, true); }
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) { return allocate(p, bytes, true); }
cudaError_t cudaMallocManaged(void** p, size_t bytes, unsigned) { return allocate(p, bytes, true); }
cudaError_t cudaMallocHost(void** p, size_t bytes) { return allocate(p, bytes, true); }
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return allocate(p, bytes, true); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  count_sync();
  return release(p);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return release(p); }
cudaError_t cudaFreeHost(void* p) { return release(p); }
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  count_sync();
  if (const cudaError_t e = put_on(nullptr)) return e;
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (const cudaError_t e = put_on(stream)) return e;
  if (pageable(to) || pageable(from)) count_sync();
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t e = put_on(stream)) return e;
  return fill(p, value, bytes);
}
cudaError_t cudaGetSymbolAddress(void** p, const void* symbol) {
  const auto* v = variable(symbol);
  if (!v) return returned(cudaErrorInvalidSymbol);
  *p = v->first;
  return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t bytes, size_t offset,
                                    cudaMemcpyKind, cudaStream_t) {
  const auto* v = variable(symbol);
  if (!v) return returned(cudaErrorInvalidSymbol);
  if (offset > v->second || bytes > v->second - offset) return returned(cudaErrorInvalidValue);
  memcpy((char*)v->first + offset, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t bytes, size_t offset,
                                      cudaMemcpyKind, cudaStream_t) {
  const auto* v = variable(symbol);
  if (!v) return returned(cudaErrorInvalidSymbol);
  if (offset > v->second || bytes > v->second - offset) return returned(cudaErrorInvalidValue);
  memcpy(to, (char*)v->first + offset, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  count_sync();
  return cudaMemcpyToSymbolAsync(symbol, from, bytes, offset, kind, nullptr);
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t bytes, size_t offset,
                                 cudaMemcpyKind kind) {
  count_sync();
  return cudaMemcpyFromSymbolAsync(to, symbol, bytes, offset, kind, nullptr);
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *available = *total = (size_t)8 << 30;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  *a = {};
  a->type = device_range(p, 1) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  a->devicePointer = a->hostPointer = (void*)p;
  return cudaSuccess;
}

// ---- errors

cudaError_t cudaGetLastError() {
  const cudaError_t e = state().sticky ? state().sticky : state().last;
  state().last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return state().sticky ? state().sticky : state().last; }
const char* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError:
      return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidSymbol:
      return "cudaErrorInvalidSymbol";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t e) {
  if (e != cudaSuccess && !state().problem.empty()) return state().problem.c_str();
  switch (e) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInitializationError:
      return "no session of the emulated library is open";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return cudaGetErrorName(e);
  }
}

// ---- streams and events

cudaError_t cudaDeviceSynchronize() { return count_sync(), healthy(); }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return count_sync(), healthy(); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return count_sync(), healthy(); }
cudaError_t cudaStreamQuery(cudaStream_t) { return healthy(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return healthy(); }
cudaError_t cudaStreamCreate(cudaStream_t* s) {
  *s = (cudaStream_t)malloc(1);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return cudaStreamCreate(s); }
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  free(s);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) {
  *e = (cudaEvent_t)malloc(1);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return cudaEventCreate(e); }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;  // no clock of a device is modelled
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  free(e);
  return cudaSuccess;
}

// ---- the device

cudaError_t cudaGetDeviceCount(int* n) {
  *n = sizeof(DEVICES) / sizeof(*DEVICES);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = state().device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == state().device ? cudaSuccess : returned(cudaErrorInvalidDevice);
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  state().counters.queries++;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = current_device().multiprocessors;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = current_device().threads;
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = 16;
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = DEFAULT_SHARED_BYTES;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = shared_optin_bytes();
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = shared_optin_bytes() + 1024;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *value = state().compute_capability >= 80 ? 1024 : 0;
      break;
    case cudaDevAttrMaxRegistersPerBlock:
      *value = 65536;
      break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      *value = 65536;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = state().compute_capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = state().compute_capability % 10;
      break;
    case cudaDevAttrMaxGridDimX:
      *value = 2147483647;
      break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *value = 65535;
      break;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      *value = 1024;
      break;
    case cudaDevAttrMaxBlockDimZ:
      *value = 64;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 4 << 20;
      break;
    default:
      *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  strcpy(p->name, "emulated device");
  p->multiProcessorCount = current_device().multiprocessors;
  p->major = state().compute_capability / 10;
  p->minor = state().compute_capability % 10;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = current_device().threads;
  p->warpSize = 32;
  p->sharedMemPerBlock = DEFAULT_SHARED_BYTES;
  p->sharedMemPerBlockOptin = shared_optin_bytes();
  p->sharedMemPerMultiprocessor = shared_optin_bytes() + 1024;
  p->totalGlobalMem = (size_t)8 << 30;
  return cudaSuccess;
}

}  // extern "C"
