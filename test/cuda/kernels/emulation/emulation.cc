// How an emulated launch runs: block after block on the calling thread, each CUDA thread of a block on a stack of its
// own (a fiber). A fiber runs until it waits for others, at a barrier or a shuffle, or ends. The order of
// blocks is drawn, that of warps and lanes anew in every round (EMULATION_SEED), so that a kernel that leans on an order meets another one.
//
// What CUDA leaves undefined ends the process with a sentence: a barrier that some threads never reach, a shuffle of
// lanes that are elsewhere. Shared memory begins as NaN, each variable an allocation of its own.
//
// This file is compiled without sanitizers, and tells them which fiber runs. ThreadSanitizer sees a thread in each
// fiber, ordered by nothing but barriers and launches, so that it finds what two threads, of one block or of two,
// write at once.
#include "emulation.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <vector>

#if defined(EMULATION_ASAN)
#include <sanitizer/common_interface_defs.h>
#elif defined(EMULATION_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__x86_64__)
#error "fibers change places in x86-64 assembly"
#endif

namespace emulation {

uint3 thread_index, block_index;
dim3 block_size, grid_size;
void (*launch_begins)(const char* kernel) = nullptr;
void (*launch_ends)() = nullptr;
int shared_requests = 0;
uint64_t streamed = 0;

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 64 << 10;
constexpr size_t kSharedWithoutAsking = 48 << 10;
constexpr size_t kVariables = 16;
// What a block may have of shared memory, and where ThreadSanitizer watches, what it has besides.
constexpr size_t kTokens = 1024, kPages = (256 << 10) + kTokens;

enum class State { ready, at_barrier, at_lanes, ended };

struct Fiber {
  unsigned number = 0;
  State state = State::ready;
  void* stack = nullptr;
  void* pointer = nullptr;    // its stack pointer while it waits
  void* sanitizer = nullptr;  // what a sanitizer knows it by
  // Of a shuffle.
  unsigned mask = 0, from = 0;
  uint64_t value = 0;
  bool fence = false;
  // Of __threadfence: whether there was one, and what the last atomic operation was on.
  bool fenced = false;
  void* atomic = nullptr;
};

struct Variable {
  const void* key;
  void* data;
};

struct Machine {
  std::recursive_mutex launching;
  std::map<const void*, size_t> allowed;  // dynamic shared memory that cudaFuncSetAttribute gave a kernel
  cudaError_t error = cudaSuccess;
  std::mt19937 random{std::getenv("EMULATION_SEED") ? static_cast<unsigned>(std::atoi(std::getenv("EMULATION_SEED")))
                                                    : 1};

  const std::function<void()>* thread = nullptr;
  std::vector<Fiber> fibers;
  Fiber* running = nullptr;
  Fiber host;
  const void* host_stack = nullptr;
  size_t host_stack_bytes = 0;

  // Of the block that runs.
  Variable variables[kVariables] = {};
  void* dynamic = nullptr;
  std::vector<void*> allocations;
  char* pages = nullptr;
  size_t pages_used = 0;
  unsigned barriers = 0;
  unsigned fences[1024 / kWarp] = {};
};

Machine& machine() {
  static auto* const one = new Machine;
  return *one;
}

[[noreturn]] void die(const char* what) {
  const Fiber* fiber = machine().running;
  std::fprintf(stderr, "emulation: %s (thread %u of block %u, %u, %u)\n", what, fiber ? fiber->number : 0,
               block_index.x, block_index.y, block_index.z);
  std::abort();
}

// Saves what a call must keep on the stack, leaves the stack pointer in *left and goes on where `next` was left.
extern "C" void emulation_switch(void** left, void* next);
asm(R"(
.text
.type emulation_switch, @function
emulation_switch:
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

// The sanitizers' part of a switch. AddressSanitizer wants to know where the next stack lies, and whether this one
// ends.
void leaving([[maybe_unused]] Machine& m, [[maybe_unused]] Fiber& from, [[maybe_unused]] Fiber& to) {
#if defined(EMULATION_ASAN)
  const bool to_host = &to == &m.host;
  __sanitizer_start_switch_fiber(from.state == State::ended ? nullptr : &from.sanitizer,
                                 to_host ? m.host_stack : to.stack, to_host ? m.host_stack_bytes : kStack);
#elif defined(EMULATION_TSAN)
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
}
void arrived([[maybe_unused]] Machine& m, [[maybe_unused]] Fiber& at) {
#if defined(EMULATION_ASAN)
  const bool from_host = &at != &m.host;
  __sanitizer_finish_switch_fiber(at.sanitizer, from_host ? &m.host_stack : nullptr,
                                  from_host ? &m.host_stack_bytes : nullptr);
#endif
}
void publish([[maybe_unused]] void* token) {
#if defined(EMULATION_TSAN)
  __tsan_release(token);
#endif
}
void observe([[maybe_unused]] void* token) {
#if defined(EMULATION_TSAN)
  __tsan_acquire(token);
#endif
}

void change(Machine& m, Fiber& from, Fiber& to) {
  m.running = &to == &m.host ? nullptr : &to;
  leaving(m, from, to);
  emulation_switch(&from.pointer, to.pointer);
  arrived(m, from);
}

void wait(Machine& m, Fiber& fiber, State state) {
  fiber.state = state;
  change(m, fiber, m.host);
}

void begin() {
  Machine& m = machine();
  Fiber& fiber = *m.running;
  arrived(m, fiber);
  observe(&m.host);
  (*m.thread)();
  publish(&m.thread);
  wait(m, fiber, State::ended);
  std::abort();
}

void prepare(Fiber& fiber, unsigned number) {
  constexpr int kKind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  bool fresh = fiber.stack == nullptr;
#if defined(EMULATION_TSAN)
  fresh = true;  // it would take the last block's fibers for writers of this one's stack
#endif
  if (fresh) {
    fiber.stack = mmap(fiber.stack, kStack, PROT_READ | PROT_WRITE, kKind | (fiber.stack ? MAP_FIXED : 0), -1, 0);
    if (fiber.stack == MAP_FAILED) die("no memory for a stack");
  }
  auto** top = reinterpret_cast<void**>(static_cast<char*>(fiber.stack) + kStack);
  *--top = nullptr;  // where begin() would return to; aligns the stack as a call does
  *--top = reinterpret_cast<void*>(&begin);
  for (int kept = 0; kept < 6; ++kept) *--top = nullptr;
  fiber.pointer = top;
  fiber.number = number;
  fiber.state = State::ready;
  fiber.fenced = false;
  fiber.atomic = nullptr;
  fiber.sanitizer = nullptr;
#if defined(EMULATION_TSAN)
  fiber.sanitizer = __tsan_create_fiber(0);
#endif
}

// Shared memory. AddressSanitizer guards the ends of an allocation. ThreadSanitizer would take a block's for the last
// one's where it lies in the same place, so there every block has pages of its own until the launch has ended.
void* take(Machine& m, size_t bytes) {
#if defined(EMULATION_TSAN)
  void* const data = m.pages + m.pages_used;
  m.pages_used += (bytes + 63) / 64 * 64;
  if (m.pages_used > kPages) die("more shared memory than a block has");
#else
  void* const data = std::aligned_alloc(16, (bytes + 15) / 16 * 16);
  m.allocations.push_back(data);
#endif
  auto* const each = static_cast<volatile unsigned char*>(data);  // not memset, which ThreadSanitizer would see
  for (size_t i = 0; i < bytes; ++i) each[i] = 0xff;
  return data;
}

void release(Machine& m) {
#if defined(EMULATION_TSAN)
  for (void* pages : m.allocations) munmap(pages, kPages);
#else
  for (void* data : m.allocations) std::free(data);
#endif
  m.allocations.clear();
}

void check_lanes(Machine& m, unsigned first, unsigned end) {
  for (unsigned i = first; i < end; ++i) {
    const Fiber& fiber = m.fibers[i];
    if (fiber.state != State::at_lanes) continue;
    m.running = &m.fibers[i];
    const auto named = [&](unsigned lane) { return (fiber.mask >> lane & 1) != 0; };
    if (!named(i - first)) die("a lane is at a shuffle whose mask does not name it");
    if (!named(fiber.from)) die("a shuffle reads from a lane that its mask does not name");
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (!named(lane)) continue;
      if (first + lane >= end) die("a shuffle names a lane that the block does not have");
      const Fiber& other = m.fibers[first + lane];
      if (other.state == State::ended) die("a shuffle names a lane that has ended");
      if (other.state == State::at_barrier) die("a shuffle names a lane that waits at __syncthreads");
      if (other.mask != fiber.mask) die("the lanes of a shuffle name different masks");
    }
  }
  m.running = nullptr;
}

// Runs the lanes [first, end) of a warp until each waits at a barrier or has ended.
void run_warp(Machine& m, unsigned first, unsigned end, const std::vector<unsigned>& order) {
  while (true) {
    for (const unsigned lane : order) {
      if (first + lane >= end || m.fibers[first + lane].state != State::ready) continue;
      Fiber& fiber = m.fibers[first + lane];
      thread_index = {fiber.number % block_size.x, fiber.number / block_size.x % block_size.y,
                      fiber.number / block_size.x / block_size.y};
      change(m, m.host, fiber);
    }
    check_lanes(m, first, end);
    uint64_t given[kWarp] = {};
    for (unsigned i = first; i < end; ++i) given[i - first] = m.fibers[i].value;
    bool any = false;
    for (unsigned i = first; i < end; ++i) {
      Fiber& fiber = m.fibers[i];
      if (fiber.state != State::at_lanes) continue;
      fiber.value = given[fiber.from];
      fiber.state = State::ready;
      any = true;
    }
    if (!any) return;
    ++m.fences[first / kWarp];
  }
}

void run_block(Machine& m, unsigned threads, size_t shared) {
#if defined(EMULATION_TSAN)
  m.pages = static_cast<char*>(mmap(nullptr, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  m.allocations.push_back(m.pages);
  m.pages_used = kTokens;
#endif
  std::fill(std::begin(m.variables), std::end(m.variables), Variable{});
  std::fill(std::begin(m.fences), std::end(m.fences), 0);
  m.barriers = 0;
  m.dynamic = shared == 0 ? nullptr : take(m, shared);
  for (unsigned i = 0; i < threads; ++i) prepare(m.fibers[i], i);

  std::vector<unsigned> warps((threads + kWarp - 1) / kWarp), lanes(kWarp);
  for (unsigned i = 0; i < warps.size(); ++i) warps[i] = i;
  for (unsigned i = 0; i < kWarp; ++i) lanes[i] = i;
  for (bool waiting = true; waiting;) {
    std::shuffle(warps.begin(), warps.end(), m.random);
    std::shuffle(lanes.begin(), lanes.end(), m.random);
    for (const unsigned warp : warps) run_warp(m, warp * kWarp, std::min(threads, (warp + 1) * kWarp), lanes);
    waiting = m.fibers[0].state == State::at_barrier;
    for (unsigned i = 0; i < threads; ++i) {
      Fiber& fiber = m.fibers[i];
      if ((fiber.state == State::at_barrier) != waiting) die("some threads wait at __syncthreads, others have ended");
      if (waiting) fiber.state = State::ready;
    }
    ++m.barriers;
  }
#if defined(EMULATION_TSAN)
  for (unsigned i = 0; i < threads; ++i) __tsan_destroy_fiber(m.fibers[i].sanitizer);
#else
  release(m);
#endif
}

size_t setting(const char* name, size_t otherwise) {
  const char* const given = std::getenv(name);
  return given ? static_cast<size_t>(std::atol(given)) : otherwise;
}

// In bytes: 232448 on an H100, 166912 on an A100, 101376 on sm_86 and sm_89.
size_t most_shared() { return setting("EMULATION_SHARED", 232448); }

cudaError_t refuse(Machine& m, cudaError_t error) { return m.error = error; }

}  // namespace

unsigned lane() { return machine().running->number % kWarp; }

void stream(size_t bytes) { streamed += bytes; }

void* dynamic_memory() { return machine().dynamic; }

void fence() {
  Fiber& fiber = *machine().running;
  fiber.fenced = true;
  if (fiber.atomic) observe(fiber.atomic);
}

void atomic(void* to) {
  Fiber& fiber = *machine().running;
  if (fiber.fenced) publish(to);
  fiber.atomic = to;
}

void* shared_memory_of(const void* key, size_t bytes) {
  Machine& m = machine();
  for (Variable& variable : m.variables) {
    if (variable.key == nullptr) variable = {key, take(m, bytes)};
    if (variable.key == key) return variable.data;
  }
  die("more shared variables than the emulation has room for");
}

void wait_for_block() {
  Machine& m = machine();
  // Two tokens in turn: a thread that is early at the next barrier would publish to those that are late at this one.
  char* const token = m.pages + 8 * (m.barriers % 2);
  publish(token);
  wait(m, *m.running, State::at_barrier);
  observe(token);
}

uint64_t wait_for_lanes(unsigned mask, uint64_t value, unsigned from, bool fence) {
  Machine& m = machine();
  Fiber& fiber = *m.running;
  fiber.value = value;
  fiber.mask = mask;
  fiber.from = from;
  const unsigned warp = fiber.number / kWarp;
  char* const token = m.pages + 16 * (warp + 1) + 8 * (fence ? m.fences[warp] % 2 : 0);
  if (fence) publish(token);
  wait(m, fiber, State::at_lanes);
  if (fence) observe(token);
  return fiber.value;
}

cudaError_t allow_shared(const void* kernel, int bytes) {
  Machine& m = machine();
  const std::lock_guard<std::recursive_mutex> lock(m.launching);
  ++shared_requests;
  if (bytes < 0 || static_cast<size_t>(bytes) > most_shared()) return refuse(m, cudaErrorInvalidValue);
  m.allowed[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared,
         const std::function<void()>& thread) {
  Machine& m = machine();
  const std::lock_guard<std::recursive_mutex> lock(m.launching);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool fits = grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
                    grid.z <= 65535 && threads >= 1 && threads <= 1024 && block.z <= 64;
  const auto allowed = m.allowed.find(kernel);
  const size_t most = std::max(kSharedWithoutAsking, allowed == m.allowed.end() ? 0 : allowed->second);
  if (!fits) return void(refuse(m, cudaErrorInvalidConfiguration));
  if (shared > most) return void(refuse(m, cudaErrorInvalidValue));

  if (launch_begins) launch_begins(name);
  if (m.fibers.size() < threads) m.fibers.resize(threads);
  m.thread = &thread;
  grid_size = grid;
  block_size = block;
#if defined(EMULATION_TSAN)
  m.host.sanitizer = __tsan_get_current_fiber();
#endif
  publish(&m.host);
  std::vector<uint64_t> blocks(uint64_t{grid.x} * grid.y * grid.z);
  for (uint64_t i = 0; i < blocks.size(); ++i) blocks[i] = i;
  std::shuffle(blocks.begin(), blocks.end(), m.random);
  for (const uint64_t block : blocks) {
    block_index = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                   static_cast<unsigned>(block / grid.x / grid.y)};
    run_block(m, static_cast<unsigned>(threads), shared);
  }
  observe(&m.thread);
  release(m);
  if (launch_ends) launch_ends();
}

}  // namespace emulation

extern "C" {

cudaError_t cudaGetLastError() {
  auto& m = emulation::machine();
  const cudaError_t error = m.error;
  m.error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return error == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "invalid argument";
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = static_cast<int>(attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin
                                ? emulation::most_shared()
                                : emulation::setting("EMULATION_MULTIPROCESSORS", 132));
  return cudaSuccess;
}
}
