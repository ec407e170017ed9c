#include "core/runtime/cpu_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/runtime/cpu_heap.h"

namespace voxtorch::memory {
namespace {

constexpr size_t kAlignment = sizeof(Block);  // as libtorch's own: a cache line, and the widest vector

// Small blocks: one class for every 64 bytes, kept per thread, never given back.
constexpr size_t kSmallClasses = 16;
constexpr size_t kSmallLimit = kSmallClasses * kAlignment;
constexpr size_t kSmallBatch = 32;  // moved between a thread and the others at once
constexpr size_t kSlab = 64 << 10;

// In two heaps, so that what is short does not break up the room for what is long.
constexpr size_t kMediumLimit = 64 << 10;

enum Owner : uint8_t { kSmall, kMedium, kLarge, kSystem };

void* data_of(Block* block) { return block + 1; }
Block* block_of(void* data) { return static_cast<Block*>(data) - 1; }

// Never destroyed: tensors of other static objects outlive the end of main().
CpuHeap& heap(Owner owner) {
  static auto* const medium = new CpuHeap(kMedium, CpuHeap::Pages::ordinary);
  static auto* const large = new CpuHeap(kLarge, CpuHeap::Pages::huge);
  return owner == kMedium ? *medium : *large;
}

// Where the heaps have no room, and where address space itself is limited.
Block* take_from_system(size_t total) {
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, total) != 0) return nullptr;
  auto* const block = static_cast<Block*>(data);
  block->owner = kSystem;
  return block;
}

Block* take_large(size_t bytes) {
  const size_t total = bytes + sizeof(Block);
  Block* block = heap(bytes <= kMediumLimit ? kMedium : kLarge).take(total);
  if (block == nullptr) block = take_from_system(total);
  if (block == nullptr) {
    release_cpu_cache();
    block = take_from_system(total);
  }
  return block;
}

// Small blocks that no thread keeps.
struct SharedSmall {
  std::mutex mutex;
  std::array<Block*, kSmallClasses> classes{};
};

SharedSmall& shared_small() {
  static auto* const shared = new SharedSmall;
  return *shared;
}

struct ThreadSmall {
  std::array<Block*, kSmallClasses> classes{};
  std::array<uint32_t, kSmallClasses> counts{};
};

// A plain pointer, for objects that are destroyed after the thread's cache, and read without a guard.
thread_local ThreadSmall* thread_small = nullptr;
thread_local bool thread_ended = false;

struct ThreadEnd {
  ~ThreadEnd() {
    ThreadSmall* const cache = thread_small;
    thread_small = nullptr;
    thread_ended = true;
    SharedSmall& shared = shared_small();
    const std::lock_guard<std::mutex> lock(shared.mutex);
    for (size_t i = 0; i < kSmallClasses; ++i) {
      while (Block* const block = cache->classes[i]) {
        cache->classes[i] = block->next;
        block->next = shared.classes[i];
        shared.classes[i] = block;
      }
    }
    delete cache;
  }
};

ThreadSmall* own_small() {
  if (thread_small == nullptr && !thread_ended) {
    thread_small = new ThreadSmall;
    static thread_local ThreadEnd end;
  }
  return thread_small;
}

// Fills `into` with up to kSmallBatch blocks of a class and returns one more, null when memory is out.
Block* refill(uint32_t index, ThreadSmall* into) {
  SharedSmall& shared = shared_small();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  Block*& list = shared.classes[index];
  if (list == nullptr) {
    const size_t bytes = sizeof(Block) + (index + 1) * kAlignment;
    void* slab = nullptr;
    if (posix_memalign(&slab, kAlignment, kSlab) != 0) return nullptr;
    for (size_t at = 0; at + bytes <= kSlab; at += bytes) {
      auto* const block = reinterpret_cast<Block*>(static_cast<char*>(slab) + at);
      block->bytes = bytes;
      block->owner = kSmall;
      block->next = list;
      list = block;
    }
  }
  Block* const taken = list;
  list = taken->next;
  for (; into != nullptr && list != nullptr && into->counts[index] < kSmallBatch; ++into->counts[index]) {
    Block* const block = list;
    list = block->next;
    block->next = into->classes[index];
    into->classes[index] = block;
  }
  return taken;
}

Block* take_small(size_t bytes) {
  const uint32_t index = uint32_t((bytes - 1) / kAlignment);
  ThreadSmall* const cache = own_small();
  if (cache == nullptr || cache->classes[index] == nullptr) return refill(index, cache);
  Block* const block = cache->classes[index];
  cache->classes[index] = block->next;
  --cache->counts[index];
  return block;
}

void give_small(Block* block) {
  const auto index = uint32_t((block->bytes - sizeof(Block)) / kAlignment - 1);
  ThreadSmall* const cache = own_small();
  if (cache != nullptr) {
    block->next = cache->classes[index];
    cache->classes[index] = block;
    if (++cache->counts[index] < 8 * kSmallBatch) return;
  }
  // This thread frees what another one makes: half goes back to where that one finds it.
  SharedSmall& shared = shared_small();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  if (cache == nullptr) {
    block->next = shared.classes[index];
    shared.classes[index] = block;
    return;
  }
  for (; cache->counts[index] > 4 * kSmallBatch; --cache->counts[index]) {
    Block* const moved = cache->classes[index];
    cache->classes[index] = moved->next;
    moved->next = shared.classes[index];
    shared.classes[index] = moved;
  }
}

// Looks after the heaps of a process that does nothing: they look themselves only when a block comes back.
class Janitor {
 public:
  void wake() {
    if (awake_.load(std::memory_order_relaxed)) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    awake_.store(true, std::memory_order_relaxed);
    if (!started_) start();
    wake_.notify_one();
  }

 private:
  void start() {
    started_ = true;
    // Signals are for the other threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { work(); }).detach();
    } catch (const std::system_error&) {
      // Then what is cached waits for the next block.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  [[noreturn]] void work() {
    for (;;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(kDecay + 1000));
      heap(kMedium).trim();
      heap(kLarge).trim();
      std::unique_lock<std::mutex> lock(mutex_);
      if (cached_cpu_bytes() > 0) continue;
      awake_.store(false);
      // A block may have come back just before that.
      if (cached_cpu_bytes() > 0) awake_.store(true);
      wake_.wait(lock, [this] { return awake_.load(); });
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> awake_{false};
  bool started_ = false;
};

Janitor& janitor() {
  static auto* const instance = new Janitor;
  return *instance;
}

void give_back(void* data) {
  if (data == nullptr) return;
  Block* const block = block_of(data);
  switch (block->owner) {
    case kSmall:
      return give_small(block);
    case kSystem:
      return free(block);
    default:
      heap(Owner(block->owner)).give(block);
      return janitor().wake();
  }
}

struct CpuCache final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &give_back, cpu};
    Block* block = nullptr;
    if (bytes <= kSmallLimit)
      block = take_small(bytes);
    else if (bytes <= (size_t{1} << 47))  // all that a process can address
      block = take_large(bytes);
    TORCH_CHECK(block != nullptr, "can't allocate memory: you tried to allocate ", bytes, " bytes.");
    void* const data = data_of(block);
    return {data, data, &give_back, cpu};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

}  // namespace

void use_cpu_cache() {
  static const bool installed = [] {
    const char* const off = std::getenv("VOXTORCH_NO_CPU_CACHE");
    if (off != nullptr && *off != '\0') return false;
    c10::SetCPUAllocator(new CpuCache, 1);
    return true;
  }();
  static_cast<void>(installed);
}

void release_cpu_cache() {
  heap(kMedium).release();
  heap(kLarge).release();
}

size_t cached_cpu_bytes() { return heap(kMedium).cached() + heap(kLarge).cached(); }

void* take_mapping(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  // From a huge page's edge on; what is over on both sides goes back.
  const size_t whole = bytes + kHugePage;
  void* const data = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  constexpr size_t kPage = 4096;
  const auto from = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (from + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (begin + bytes + kPage - 1) / kPage * kPage;
  if (begin > from) munmap(data, begin - from);
  if (from + whole > end) munmap(reinterpret_cast<void*>(end), from + whole - end);
#ifdef MADV_HUGEPAGE
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<void*>(begin);
}

void give_mapping_back(void* data, size_t bytes) { munmap(data, bytes); }

}  // namespace voxtorch::memory
