// ProcessGroupNCCL, in the CUDA variant. Its header needs those of NCCL and of the CUDA libraries that ATen's need;
// where they are not installed with the toolkit, the variant is built without NCCL and reports that on request.
#if __has_include(<nccl.h>) && __has_include(<cublas_v2.h>) && __has_include(<cusparse.h>)
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>

#include "core/distributed/group.h"

namespace voxtorch::distributed {
namespace {

c10::intrusive_ptr<c10d::Backend> make(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                       std::chrono::milliseconds timeout) {
  // NCCL's configuration, which grows with its releases, lies inside of c10d's options.
  const uint64_t built = uint64_t(NCCL_MAJOR) << 32 | uint64_t(NCCL_MINOR) << 16 | uint64_t(NCCL_PATCH);
  const uint64_t running = torch::cuda::nccl::version();
  TORCH_CHECK_NOT_IMPLEMENTED((built >> 16) == (running >> 16), "voxtorch was built with the headers of NCCL ",
                              NCCL_MAJOR, ".", NCCL_MINOR, ", but the loaded libtorch has NCCL ", running >> 32, ".",
                              running >> 16 & 0xffff, ": build it with the headers of that version");
  // c10d's watchdog thread ends the process when a collective fails. These make it abort the collective only (2 is
  // clean-up only), so that the next one throws; what the user has set stays.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", 0);
  setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  setenv("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0", 0);
  setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", 0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, std::move(options));
}

[[maybe_unused]] const bool is_there = (make_nccl = make, true);

}  // namespace
}  // namespace voxtorch::distributed
#endif
