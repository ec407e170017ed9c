#include "core/cpu_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <mutex>

namespace voxtorch::memory {
namespace {

constexpr size_t kAlignment = 64;  // as libtorch's own: a cache line, and the widest vector
constexpr size_t kMiB = size_t{1} << 20;

// Small blocks: one class for every 64 bytes, kept per thread, never given back.
constexpr size_t kSmallClasses = 16;
constexpr size_t kSmallLimit = kSmallClasses * kAlignment;
constexpr size_t kSmallBatch = 32;  // moved between a thread and the others at once
constexpr size_t kSlab = 64 << 10;

// Large ones: eight classes for every doubling.
constexpr int kSteps = 3;
constexpr size_t kLargeClasses = size_t{64} << kSteps;
constexpr size_t kMapped = kMiB;    // from here on blocks are mapped by themselves
constexpr size_t kHuge = 4 * kMiB;  // and from here on with huge pages
constexpr size_t kHugePage = 2 * kMiB;
constexpr size_t kSlack = 256 * kMiB;  // cached whatever the peak is
constexpr uint64_t kDecay = 10'000;    // ms
constexpr uint64_t kSweep = 1'000;

// Stands before the bytes of every block.
struct alignas(kAlignment) Block {
  Block* next;  // of its class
  Block* prev;
  Block* newer;  // of all large blocks
  Block* older;
  size_t bytes;  // with this header
  uint64_t freed_at;
  uint32_t size_class;
  bool is_small;
};
static_assert(sizeof(Block) == kAlignment);

void* data_of(Block* block) { return block + 1; }
Block* block_of(void* data) { return static_cast<Block*>(data) - 1; }

uint64_t milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return uint64_t(now.tv_sec) * 1000 + uint64_t(now.tv_nsec) / 1'000'000;
}

struct SizeClass {
  uint32_t index;
  size_t bytes;
};

SizeClass large_class(size_t total) {
  const int shift = 63 - __builtin_clzll(total - 1) - kSteps;
  const size_t steps = ((total - 1) >> shift) + 1;  // 9..16
  return {uint32_t(((shift + 1) << kSteps) + steps - (1 << kSteps) - 1), steps << shift};
}

Block* map_block(size_t bytes) {
  if (bytes < kMapped) {
    void* data = nullptr;
    return posix_memalign(&data, kAlignment, bytes) == 0 ? static_cast<Block*>(data) : nullptr;
  }
  const size_t margin = bytes >= kHuge ? kHugePage : 0;
  void* data = mmap(nullptr, bytes + margin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  if (margin == 0) return static_cast<Block*>(data);
  char* const from = static_cast<char*>(data);
  char* const start = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(from) + margin - 1) & ~(margin - 1));
  if (start > from) munmap(from, start - from);
  if (from + margin > start) munmap(start + bytes, from + margin - start);
#ifdef MADV_HUGEPAGE
  madvise(start, bytes, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<Block*>(start);
}

void unmap_block(Block* block) {
  if (block->bytes < kMapped)
    free(block);
  else
    munmap(block, block->bytes);
}

void unmap_all(Block* list) {
  while (list != nullptr) {
    Block* const next = list->next;
    unmap_block(list);
    list = next;
  }
}

class LargeBlocks {
 public:
  Block* take(size_t total) {
    const SizeClass wanted = large_class(total);
    Block* evicted = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const uint32_t index : {wanted.index, wanted.index + 1}) {
        if (Block* const block = classes_[index]) {
          remove(block);
          use(block->bytes);
          return block;
        }
      }
      use(wanted.bytes);
      const size_t peak = std::max(peak_, last_peak_);
      evicted = evict([&] { return used_ + cached_ > peak + peak / 4 + kSlack; });
    }
    unmap_all(evicted);
    Block* block = map_block(wanted.bytes);
    if (block == nullptr) {
      release();
      block = map_block(wanted.bytes);
    }
    if (block == nullptr) {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ -= wanted.bytes;
      return nullptr;
    }
    block->bytes = wanted.bytes;
    block->size_class = wanted.index;
    block->is_small = false;
    return block;
  }

  void give(Block* block) {
    const uint64_t now = milliseconds();
    Block* evicted = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ -= block->bytes;
      cached_ += block->bytes;
      block->freed_at = now;
      insert(block);
      if (now - swept_at_ > kSweep) {
        swept_at_ = now;
        if (now - peak_since_ > kDecay) {
          peak_since_ = now;
          last_peak_ = peak_;
          peak_ = used_;
        }
        evicted = evict([&] { return now - oldest_->freed_at > kDecay; });
      }
    }
    unmap_all(evicted);
  }

  void release() {
    Block* evicted = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      evicted = evict([] { return true; });
    }
    unmap_all(evicted);
  }

  size_t cached() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return cached_;
  }

 private:
  void use(size_t bytes) {
    used_ += bytes;
    peak_ = std::max(peak_, used_);
  }

  void insert(Block* block) {
    Block*& head = classes_[block->size_class];
    block->prev = nullptr;
    block->next = head;
    if (head != nullptr) head->prev = block;
    head = block;
    block->newer = nullptr;
    block->older = newest_;
    (newest_ != nullptr ? newest_->newer : oldest_) = block;
    newest_ = block;
  }

  void remove(Block* block) {
    cached_ -= block->bytes;
    (block->prev != nullptr ? block->prev->next : classes_[block->size_class]) = block->next;
    if (block->next != nullptr) block->next->prev = block->prev;
    (block->newer != nullptr ? block->newer->older : newest_) = block->older;
    (block->older != nullptr ? block->older->newer : oldest_) = block->newer;
  }

  // Takes out blocks, the longest unused first, while `more()`; the caller unmaps them without the lock.
  template <typename More>
  Block* evict(More more) {
    Block* evicted = nullptr;
    while (oldest_ != nullptr && more()) {
      Block* const block = oldest_;
      remove(block);
      block->next = evicted;
      evicted = block;
    }
    return evicted;
  }

  std::mutex mutex_;
  std::array<Block*, kLargeClasses + 1> classes_{};
  Block* newest_ = nullptr;
  Block* oldest_ = nullptr;
  size_t used_ = 0;
  size_t cached_ = 0;
  // Of used_, in this decay period and the one before.
  size_t peak_ = 0;
  size_t last_peak_ = 0;
  uint64_t peak_since_ = 0;
  uint64_t swept_at_ = 0;
};

// Never destroyed: tensors of other static objects outlive the end of main().
LargeBlocks& large_blocks() {
  static auto* const blocks = new LargeBlocks;
  return *blocks;
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
      block->size_class = index;
      block->is_small = true;
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
  const uint32_t index = block->size_class;
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

void give_back(void* data) {
  if (data == nullptr) return;
  Block* const block = block_of(data);
  if (block->is_small)
    give_small(block);
  else
    large_blocks().give(block);
}

struct CpuCache final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &give_back, cpu};
    Block* block = nullptr;
    if (bytes <= kSmallLimit)
      block = take_small(bytes);
    else if (bytes <= (size_t{1} << 47))  // all that a process can address
      block = large_blocks().take(bytes + sizeof(Block));
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

void release_cpu_cache() { large_blocks().release(); }

size_t cached_cpu_bytes() { return large_blocks().cached(); }

}  // namespace voxtorch::memory
