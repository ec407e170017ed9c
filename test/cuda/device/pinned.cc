// Pinned memory, and what is copied through it: a copy that need not be waited for is made when its stream is waited for,
// by the host, by an event, or by the next launch on it, and not before. Who reads without a wait reads NaN.
#include <c10/core/impl/alloc_cpu.h>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "device.h"

namespace pretended {
namespace {

std::mutex mutex;
// Pinned blocks, by their address.
std::map<const char*, size_t> blocks;

using Stream = std::pair<c10::DeviceIndex, int64_t>;
struct Pending {
  int64_t number;
  std::function<void()> run;
};
std::map<Stream, std::deque<Pending>> pending;
int64_t last_number = 0;

void run_up_to(Stream stream, int64_t number) {
  // One that runs lets go of tensors, and with them of memory, which takes the mutex.
  std::deque<Pending> due;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& queue = pending[stream];
  while (!queue.empty() && queue.front().number <= number) {
    queue.front().run();
    due.push_back(std::move(queue.front()));
    queue.pop_front();
  }
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, raw_deleter(), c10::Device(c10::kCPU)};
    void* const address = c10::alloc_cpu(bytes);
    std::memset(address, 0xff, bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    blocks[static_cast<const char*>(address)] = bytes;
    return {address, address, raw_deleter(), c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* address) {
      if (address == nullptr) return;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        blocks.erase(static_cast<const char*>(address));
      }
      c10::free_cpu(address);
    };
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

c10::Allocator* pinned_allocator() {
  static auto* const made = new PinnedAllocator;
  return made;
}

bool is_pinned(const void* address) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto after = blocks.upper_bound(static_cast<const char*>(address));
  if (after == blocks.begin()) return false;
  const auto [begin, size] = *std::prev(after);
  return static_cast<const char*>(address) < begin + size;
}

void later(std::function<void()> run) {
  const Stream stream{current_device(), current_stream(current_device())};
  const std::lock_guard<std::mutex> lock(mutex);
  pending[stream].push_back({++last_number, std::move(run)});
}

Moment now_on(c10::DeviceIndex device, int64_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  return {device, stream, last_number};
}

void reach(const Moment& moment) { run_up_to({moment.device, moment.stream}, moment.number); }

void reach_all(c10::DeviceIndex device) {
  std::vector<Stream> streams;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [stream, queue] : pending) {
      if (stream.first == device) streams.push_back(stream);
    }
  }
  for (const Stream& stream : streams) run_up_to(stream, INT64_MAX);
}

}  // namespace pretended
