// Large operators that a JavaScript thread calls: they run there with all intra-op threads, while the executor waits.
// Where the executor has work, or another thread such an operator, one runs on its own core.
#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

#include <limits>

namespace voxtorch {

// When an operator is worth all cores.
struct Width {
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  // Number of elements of its inputs; kNever for an operator that gains nothing, or whose result would depend on the
  // number of threads.
  int64_t from = kNever;
  // Index of the dimensions that it reduces, or -1. Rows are divided among threads; a single one is not, but for those
  // of full_reduction.h.
  int reduced = -1;
  bool divides_one = false;

  bool reached(int64_t elements) const { return elements >= from && reduced < 0; }
  bool reached(int64_t elements, const torch::jit::Stack& stack) const;
};

Width width_of(const c10::FunctionSchema& schema, bool is_view, bool is_factory);

// Gives the calling thread all intra-op threads, where `wanted` and nothing else computes with them.
class AllThreads {
 public:
  explicit AllThreads(bool wanted);
  ~AllThreads();
  bool are_here() const { return here_; }
  AllThreads(const AllThreads&) = delete;
  AllThreads& operator=(const AllThreads&) = delete;

 private:
  bool here_ = false;
  bool lent_ = false;
};

}  // namespace voxtorch
