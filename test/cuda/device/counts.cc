// What a run would have cost a real device: launches, waits of the host, copies, and where. pretended_cuda::counts() is
// JSON, and pretended_cuda::reset() begins anew.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include "device.h"

namespace pretended {
namespace {

// The library is opened by Node's main thread.
const std::thread::id main_thread = std::this_thread::get_id();
thread_local int64_t streams[kMaxDevices] = {};

using Table = std::map<std::string, int64_t>;

struct Counts {
  Table launches;
  // Kernels in the graphs that were launched.
  Table replayed;
  int64_t captures = 0;
  Table waits;
  // Those during which the event loop stands still.
  Table main_thread_waits;
  // "device:stream"
  Table streams;
  int64_t bytes_to_device = 0;
  // Of these, those that nobody waited for.
  int64_t bytes_behind = 0;
  int64_t bytes_to_host = 0;
};

std::mutex mutex;
Counts counts;
std::set<c10::DeviceIndex> contexts;

void write(std::ostringstream& out, const char* name, const Table& table) {
  int64_t total = 0;
  for (const auto& [key, count] : table) total += count;
  out << ",\"" << name << "\":" << total << ",\"" << name << "By\":{";
  const char* separator = "";
  for (const auto& [key, count] : table) {
    out << separator << '"' << key << "\":" << count;
    separator = ",";
  }
  out << '}';
}

std::string as_json() {
  const std::lock_guard<std::mutex> lock(mutex);
  std::ostringstream out;
  out << "{\"contexts\":[";
  const char* separator = "";
  for (const auto index : contexts) {
    out << separator << static_cast<int>(index);
    separator = ",";
  }
  out << "],\"liveBytes\":" << live_bytes() << ",\"peakBytes\":" << peak_bytes() << ",\"bytesToDevice\":" << counts.bytes_to_device
      << ",\"bytesToDeviceUnwaited\":" << counts.bytes_behind << ",\"bytesToHost\":" << counts.bytes_to_host;
  out << ",\"captures\":" << counts.captures;
  write(out, "launches", counts.launches);
  write(out, "replayed", counts.replayed);
  write(out, "waits", counts.waits);
  write(out, "mainThreadWaits", counts.main_thread_waits);
  write(out, "streams", counts.streams);
  out << '}';
  return out.str();
}

void reset() {
  const std::lock_guard<std::mutex> lock(mutex);
  counts = {};
}

}  // namespace

void set_current_stream(c10::DeviceIndex device, int64_t stream) { streams[device] = stream; }
int64_t current_stream(c10::DeviceIndex device) { return streams[device]; }

void count_launch(const std::string& name) {
  if (is_capturing()) return;
  const c10::DeviceIndex device = current_device();
  reach(now_on(device, streams[device]));
  const std::lock_guard<std::mutex> lock(mutex);
  if (is_replaying()) {
    ++counts.replayed[name];
    return;
  }
  ++counts.launches[name];
  ++counts.streams[std::to_string(device) + ":" + std::to_string(streams[device])];
}

void count_wait(const std::string& reason) {
  refuse_while_capturing();
  const std::lock_guard<std::mutex> lock(mutex);
  ++counts.waits[reason];
  if (std::this_thread::get_id() == main_thread) ++counts.main_thread_waits[reason];
}

void count_copy(Direction direction, size_t bytes, bool waited_for) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (direction == Direction::kToDevice && !waited_for) counts.bytes_behind += static_cast<int64_t>(bytes);
  (direction == Direction::kToDevice ? counts.bytes_to_device : counts.bytes_to_host) += static_cast<int64_t>(bytes);
}

void count_capture() {
  const std::lock_guard<std::mutex> lock(mutex);
  ++counts.captures;
}

void count_context(c10::DeviceIndex index) {
  const std::lock_guard<std::mutex> lock(mutex);
  contexts.insert(index);
}

bool has_context(c10::DeviceIndex index) {
  const std::lock_guard<std::mutex> lock(mutex);
  return contexts.count(index) > 0;
}

}  // namespace pretended

TORCH_LIBRARY(pretended_cuda, m) {
  m.def("counts() -> str", [] { return pretended::as_json(); });
  m.def("reset() -> ()", [] { pretended::reset(); });
  m.def("uses_cudnn_attention() -> bool", [] { return at::globalContext().userEnabledCuDNNSDP(); });
  // Reads a tensor's memory as if it were the host's, which no host may of a device's.
  m.def("touch(Tensor tensor) -> int",
        [](const at::Tensor& tensor) -> int64_t { return *static_cast<const volatile char*>(tensor.const_data_ptr()); });
}

// For kernels that were compiled for the CPU.
extern "C" void pretended_cuda_begin_kernel(const char* name) {
  pretended::count_launch(name);
  pretended::begin_kernel();
}
extern "C" void pretended_cuda_end_kernel() { pretended::end_kernel(); }
