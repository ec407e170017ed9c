// Device memory: one file in memory, mapped twice. Through the tensors' address a host that reads or writes it dies, as it
// would of a real device's; the other is what the CPU's kernels are given. Fresh memory is NaN, so that it shows in a
// result when it was never written, and so is freed memory.
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "device.h"

namespace pretended {
namespace {

constexpr size_t kCapacity = size_t{16} << 30;
constexpr size_t kAlignment = 512;

class Memory {
 public:
  Memory() {
    const int file = memfd_create("pretended_cuda", 0);
    TORCH_CHECK(file >= 0 && ftruncate(file, static_cast<off_t>(kCapacity)) == 0, "the pretended CUDA device has no memory");
    outside_ = map(file, PROT_NONE);
    inside_ = map(file, PROT_READ | PROT_WRITE);
    gaps_[0] = kCapacity;
  }

  void* allocate(size_t bytes) {
    const size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto gap = std::find_if(gaps_.begin(), gaps_.end(), [&](const auto& each) { return each.second >= size; });
    TORCH_CHECK_WITH(OutOfMemoryError, size >= bytes && gap != gaps_.end(), "CUDA out of memory. Tried to allocate ", bytes,
                     " bytes on the pretended device.");
    const size_t start = gap->first;
    const size_t rest = gap->second - size;
    gaps_.erase(gap);
    if (rest > 0) gaps_[start + size] = rest;
    blocks_[start] = size;
    live_ += size;
    peak_ = std::max(peak_, live_);
    std::memset(inside_ + start, 0xff, size);
    return outside_ + start;
  }

  void free(void* address) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto block = blocks_.find(static_cast<size_t>(static_cast<char*>(address) - outside_));
    if (block == blocks_.end()) std::abort();  // freed twice
    auto [start, size] = *block;
    blocks_.erase(block);
    live_ -= size;
    std::memset(inside_ + start, 0xff, size);
    const auto after = gaps_.find(start + size);
    if (after != gaps_.end()) {
      size += after->second;
      gaps_.erase(after);
    }
    const auto next = gaps_.lower_bound(start);
    if (next != gaps_.begin() && std::prev(next)->first + std::prev(next)->second == start) {
      std::prev(next)->second += size;
    } else {
      gaps_[start] = size;
    }
  }

  void unlock(int change) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool was_open = kernels_ > 0;
    kernels_ += change;
    if (was_open != (kernels_ > 0)) mprotect(outside_, kCapacity, was_open ? PROT_NONE : PROT_READ | PROT_WRITE);
  }

  static bool within(const char* base, const void* address) { return address >= base && address < base + kCapacity; }
  char* outside_;
  char* inside_;
  size_t live_ = 0;
  size_t peak_ = 0;

 private:
  static char* map(int file, int access) {
    void* const at = mmap(nullptr, kCapacity, access, MAP_SHARED | MAP_NORESERVE, file, 0);
    TORCH_CHECK(at != MAP_FAILED, "the pretended CUDA device has no address space");
    return static_cast<char*>(at);
  }

  std::mutex mutex_;
  std::map<size_t, size_t> gaps_;
  std::map<size_t, size_t> blocks_;
  int kernels_ = 0;
};

// Never destroyed: tensors may outlive everything static.
Memory& memory() {
  static auto* const made = new Memory;
  return *made;
}

struct DeviceAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    count_context(current_device());
    void* const address = bytes == 0 ? nullptr : memory().allocate(bytes);
    return {address, address, raw_deleter(), c10::Device(kCuda, current_device())};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* address) {
      if (address != nullptr) memory().free(address);
    };
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(mirror(to), mirror(from), bytes); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
};

DeviceAllocator device_allocator;
[[maybe_unused]] const bool registered = (c10::SetAllocator(kCuda, &device_allocator), true);

}  // namespace

c10::Allocator* allocator() { return &device_allocator; }
bool on_device(const void* address) { return Memory::within(memory().outside_, address); }
bool is_mirror(const void* address) { return Memory::within(memory().inside_, address); }
char* mirror(const void* address) { return memory().inside_ + (static_cast<const char*>(address) - memory().outside_); }
void begin_kernel() { memory().unlock(1); }
void end_kernel() { memory().unlock(-1); }
size_t live_bytes() { return memory().live_; }
size_t peak_bytes() { return memory().peak_; }

}  // namespace pretended
