// A CUDA graph: launches that the device recorded once and repeats with one call of the host.
#pragma once

#include <ATen/core/GraphImplInterface.h>
#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace voxtorch {

// Reads and writes the same memory each time, so whatever `run` was given must stay where it is. What `run` makes lives
// as long as the graph, and belongs to it: a replay overwrites it.
class Graph {
 public:
  // Whether there are graphs for such a device.
  static bool available(c10::Device device);
  // Notes what `run` launches on `device`; nothing of it is done. Throws what `run` throws, and where it asked for
  // something that the host would have to wait for.
  Graph(c10::Device device, const std::function<void()>& run);

  // On the calling thread's stream.
  void replay();

 private:
  const std::unique_ptr<at::GraphImplInterface> graph_;
};

}  // namespace voxtorch
