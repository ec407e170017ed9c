// ProcessGroupGloo from libtorch's own header; headers/gloo has what that needs and the wheel lacks.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "core/distributed/group.h"

namespace voxtorch::distributed {

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout) {
  // Asks GLOO_SOCKET_IFNAME for the network interface, as PyTorch does.
  auto options = c10d::ProcessGroupGloo::Options::create_default(timeout);
  auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
  // Read through the header's layout what libtorch's own code wrote.
  TORCH_CHECK_WITH(DistBackendError,
                   backend->getOptions().get() == options.get() && backend->getRank() == rank &&
                       backend->getSize() == size && options->timeout == timeout && !options->devices.empty(),
                   "libtorch's ProcessGroupGloo is laid out differently from the header that voxtorch was built with");
  return backend;
}

}  // namespace voxtorch::distributed
