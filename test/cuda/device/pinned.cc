// Pinned memory: the host's own, of which is known that it is pinned. Only to and from there is a copy not waited for.
#include <c10/core/Allocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <map>
#include <mutex>

#include "device.h"

namespace pretended {
namespace {

std::mutex mutex;

// Never destroyed: tensors may outlive everything static.
std::map<const char*, size_t>& blocks() {
  static auto* const all = new std::map<const char*, size_t>;
  return *all;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* const address = c10::alloc_cpu(bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    if (address != nullptr) blocks()[static_cast<const char*>(address)] = bytes;
    return {address, address, raw_deleter(), c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* address) {
      {
        const std::lock_guard<std::mutex> lock(mutex);
        blocks().erase(static_cast<const char*>(address));
      }
      c10::free_cpu(address);
    };
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

}  // namespace

c10::Allocator* pinned_allocator() {
  static PinnedAllocator allocator;
  return &allocator;
}

bool is_pinned(const void* address) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto after = blocks().upper_bound(static_cast<const char*>(address));
  if (after == blocks().begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return address < begin + size;
}

}  // namespace pretended
