// The voxtorch namespace of the dispatcher. Each operator defines its own schema next to its implementation, in a
// TORCH_LIBRARY_FRAGMENT; this file owns the namespace, so that a second copy of the library in one process is refused.
#include "core/runtime/library.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

namespace voxtorch {
namespace {

// How many threads a parallel_for of this library really ran on. One, where get_num_threads says more, means that it
// was compiled without OpenMP or that a second OpenMP runtime is mapped. With a tensor it runs where an operator on
// that tensor does.
int64_t parallel_threads(const std::optional<at::Tensor>&) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return static_cast<int64_t>(threads.size());
}

}  // namespace

void replace_kernels(c10::DispatchKey key, const std::function<void(torch::Library&)>& define) {
  struct Silent : c10::WarningHandler {
    void process(const c10::Warning&) override {}
  } handler;
  const c10::WarningUtils::WarningHandlerGuard guard(&handler);
  // Never destroyed: the kernels stay until the process ends.
  static std::vector<torch::Library>* libraries = new std::vector<torch::Library>();
  define(libraries->emplace_back(torch::Library::IMPL, "aten", key, __FILE__, __LINE__));
}

TORCH_LIBRARY(voxtorch, m) { m.def("parallel_threads(Tensor? input=None) -> int", parallel_threads); }

}  // namespace voxtorch
