// Pinned memory of the host. A copy from the device to it is under way until the host has waited for it: whoever reads it
// before finds NaN.
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "device.h"

namespace pretended {
namespace {

struct Arriving {
  uint64_t number;
  char* to;
  std::vector<char> bytes;
};

std::mutex mutex;
std::map<const char*, size_t> blocks;
std::deque<Arriving> under_way;
uint64_t last = 0;

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* const address = c10::alloc_cpu(bytes);
    if (address != nullptr) {
      const std::lock_guard<std::mutex> lock(mutex);
      blocks[static_cast<char*>(address)] = bytes;
    }
    return {address, address, raw_deleter(), c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* address) {
      if (address == nullptr) return;
      // CUDA's allocator keeps the block until what is under way has arrived.
      arrive();
      {
        const std::lock_guard<std::mutex> lock(mutex);
        blocks.erase(static_cast<char*>(address));
      }
      c10::free_cpu(address);
    };
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

c10::Allocator* pinned_allocator() {
  static PinnedAllocator made;
  return &made;
}

bool is_pinned(const void* address) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto after = blocks.upper_bound(static_cast<const char*>(address));
  if (after == blocks.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return static_cast<const char*>(address) < begin + size;
}

void send_to_host(void* to, const void* from, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  const char* const data = static_cast<const char*>(from);
  under_way.push_back({++last, static_cast<char*>(to), std::vector<char>(data, data + bytes)});
  std::memset(to, 0xff, bytes);
}

uint64_t last_sent() {
  const std::lock_guard<std::mutex> lock(mutex);
  return last;
}

void arrive(uint64_t up_to) {
  const std::lock_guard<std::mutex> lock(mutex);
  while (!under_way.empty() && under_way.front().number <= up_to) {
    const Arriving& one = under_way.front();
    std::memcpy(one.to, one.bytes.data(), one.bytes.size());
    under_way.pop_front();
  }
}

}  // namespace pretended
