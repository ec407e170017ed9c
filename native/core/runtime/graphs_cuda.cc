// CUDA's graphs, which libtorch keeps next to its registry of them.
#include <ATen/cuda/CUDAGraph.h>

#include "core/runtime/graphs.h"

namespace voxtorch {
namespace {

cudaStreamCaptureMode mode_of(at::GraphCaptureMode mode) {
  switch (mode) {
    case at::GraphCaptureMode::ThreadLocal:
      return cudaStreamCaptureModeThreadLocal;
    case at::GraphCaptureMode::Relaxed:
      return cudaStreamCaptureModeRelaxed;
    default:
      return cudaStreamCaptureModeGlobal;
  }
}

class CudaGraph final : public at::GraphImplInterface {
 public:
  explicit CudaGraph(const at::GraphImplArgs& args) : graph_(args.keep_graph) {}
  void capture_begin(at::MempoolId_t pool, at::GraphCaptureMode mode) override {
    graph_.capture_begin(pool, mode_of(mode));
  }
  void capture_end() override { graph_.capture_end(); }
  void instantiate() override { graph_.instantiate(); }
  void replay() override { graph_.replay(); }
  void reset() override { graph_.reset(); }
  at::MempoolId_t pool() const override { return graph_.pool(); }
  void enable_debug_mode() override {}
  // libtorch 2.14 writes them otherwise than 2.13.
  void debug_dump(const std::string&) override { TORCH_CHECK(false, "a CUDA graph is not written to a file here"); }

 private:
  mutable at::cuda::CUDAGraph graph_;
};

// A libtorch that has one of its own keeps it.
[[maybe_unused]] const bool registered = [] {
  if (at::has_graph_impl(c10::DeviceType::CUDA)) return false;
  at::GraphImplRegistry()->Register(c10::DeviceTypeName(c10::DeviceType::CUDA, /*lower_case=*/false),
                                    [](at::GraphImplArgs args) -> std::unique_ptr<at::GraphImplInterface> {
                                      return std::make_unique<CudaGraph>(args);
                                    });
  return true;
}();

}  // namespace
}  // namespace voxtorch
