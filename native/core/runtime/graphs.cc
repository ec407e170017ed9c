#include "core/runtime/graphs.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <mutex>
#include <optional>

namespace voxtorch {
namespace {

// The stream that JavaScript's threads launch on too is not noted down: what they launch meanwhile is not part of
// the graph.
c10::Stream noting_stream(c10::Device device) {
  constexpr size_t kMostDevices = 64;
  static std::mutex mutex;
  static std::array<std::optional<c10::Stream>, kMostDevices> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& stream = streams.at(static_cast<size_t>(device.index()));
  if (!stream) stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  return *stream;
}

}  // namespace

bool Graph::available(c10::Device device) { return at::has_graph_impl(device.type()); }

Graph::Graph(c10::Device device, const std::function<void()>& run) : graph_(at::create_graph_impl(device.type())) {
  TORCH_CHECK(graph_ != nullptr, "there are no graphs for ", device);
  const c10::StreamGuard guard(noting_stream(device));
  // Other threads may ask their device for anything meanwhile.
  graph_->capture_begin({0, 0}, at::GraphCaptureMode::ThreadLocal);
  try {
    run();
  } catch (...) {
    try {
      graph_->capture_end();
    } catch (...) {
      // It is of no use: the reason is what `run` has thrown.
    }
    throw;
  }
  graph_->capture_end();
}

void Graph::replay() { graph_->replay(); }

}  // namespace voxtorch
