#include "core/kernels/full_reduction.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mean_cpu_dispatch.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sum_cpu_dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/runtime/executor.h"
#include "core/runtime/library.h"

namespace voxtorch::kernels {
namespace {

using Dimensions = at::OptionalIntArrayRef;
using Type = std::optional<at::ScalarType>;

// ATen adds up fewer elements on one thread.
constexpr int64_t kFrom = int64_t(1) << 15;
// Elements of one part. A part's partial sums in float32 add up to 128 values each.
constexpr int64_t kPart = int64_t(1) << 14;
constexpr int64_t kRun = 4096;
constexpr int kLanes = 32;

template <typename T, typename Sum>
double sum_of(const T* values, int64_t count) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = std::min(count, begin + kRun);
    Sum lanes[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<Sum>(values[i + lane]);
    }
    for (int lane = 0; i < end; ++i, ++lane) lanes[lane] += static_cast<Sum>(values[i]);
    for (const Sum lane : lanes) total += lane;
  }
  return total;
}

// Threads divide the parts; the order of additions is the same for any number of them.
template <typename T, typename Sum>
double sum_in_parts(const at::Tensor& self) {
  const T* const values = self.const_data_ptr<T>();
  const int64_t count = self.numel(), whole = count / kPart;
  std::vector<double> parts(whole);
  if constexpr (std::is_same_v<T, Sum>) {
    // ATen's row sums use the processor's widest vectors. One thread computes a row.
    const at::Tensor rows = self.as_strided({whole, kPart}, {kPart, 1});
    const at::Tensor sums = at::cpu::sum(rows, at::IntArrayRef{1});
    const T* const first = sums.const_data_ptr<T>();
    std::copy(first, first + whole, parts.begin());
  } else {
    // ATen rounds the sum of a row to the tensor's dtype.
    at::parallel_for(0, whole, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) parts[part] = sum_of<T, Sum>(values + part * kPart, kPart);
    });
  }
  double total = sum_of<T, Sum>(values + whole * kPart, count - whole * kPart);
  for (const double part : parts) total += part;
  return total;
}

// The sum, or the mean, as the tensor's dtype holds it.
template <typename T, typename Sum>
double value_of(const at::Tensor& self, bool mean) {
  const double total = sum_in_parts<T, Sum>(self);
  return static_cast<double>(static_cast<T>(static_cast<Sum>(mean ? total / self.numel() : total)));
}

double value_of(const at::Tensor& self, bool mean) {
  switch (self.scalar_type()) {
    case at::kFloat:
      return value_of<float, float>(self, mean);
    case at::kDouble:
      return value_of<double, double>(self, mean);
    case at::kBFloat16:
      return value_of<at::BFloat16, float>(self, mean);
    default:
      return value_of<at::Half, float>(self, mean);
  }
}

bool is_full(const at::Tensor& self, Dimensions dimensions) {
  // A repeated dimension is ATen's to refuse.
  return !dimensions.has_value() || dimensions->empty() || static_cast<int64_t>(dimensions->size()) == self.dim();
}

bool is_added_here(const at::Tensor& self, Type type) {
  const at::ScalarType from = self.scalar_type();
  const bool floats = from == at::kFloat || from == at::kDouble || from == at::kBFloat16 || from == at::kHalf;
  return floats && type.value_or(from) == from && self.is_non_overlapping_and_dense();
}

bool repeats(Dimensions dimensions, int64_t rank) {
  std::vector<bool> seen(rank);
  if (!dimensions.has_value()) return false;
  for (int64_t dimension : *dimensions) {
    if (dimension < 0) dimension += rank;
    if (dimension < 0 || dimension >= rank || seen[dimension]) return true;
    seen[dimension] = true;
  }
  return false;
}

// One thread for what ATen adds up in one part for each.
class OneThread {
 public:
  explicit OneThread(bool wanted) : before_(wanted ? at::get_num_threads() : 1) {
    if (before_ > 1) use_threads_here(1);
  }
  ~OneThread() {
    if (before_ > 1) use_threads_here(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

enum class Kind { kSum, kMean };

template <Kind kind>
at::Tensor reduce(const at::Tensor& self, Dimensions dimensions, bool keep, Type type) {
  const bool full = self.numel() >= kFrom && is_full(self, dimensions);
  if (full && is_added_here(self, type) && !repeats(dimensions, self.dim())) {
    const at::Tensor result = at::scalar_tensor(value_of(self, kind == Kind::kMean), self.options());
    return keep ? result.view(std::vector<int64_t>(self.dim(), 1)) : result;
  }
  const OneThread one(full && !at::isIntegralType(self.scalar_type(), true));
  return kind == Kind::kMean ? at::cpu::mean(self, dimensions, keep, type) : at::cpu::sum(self, dimensions, keep, type);
}

template <Kind kind>
at::Tensor& reduce_out(const at::Tensor& self, Dimensions dimensions, bool keep, Type type, at::Tensor& out) {
  const bool full = self.numel() >= kFrom && is_full(self, dimensions);
  const bool simple = out.dim() == 0 && out.scalar_type() == self.scalar_type() && !keep;
  if (full && simple && is_added_here(self, type) && !repeats(dimensions, self.dim())) {
    return out.fill_(value_of(self, kind == Kind::kMean));
  }
  const OneThread one(full && !at::isIntegralType(self.scalar_type(), true));
  return kind == Kind::kMean ? at::cpu::mean_outf(self, dimensions, keep, type, out)
                             : at::cpu::sum_outf(self, dimensions, keep, type, out);
}

}  // namespace

void use_full_reductions() {
  replace_kernels(c10::DispatchKey::CPU, [](torch::Library& m) {
    m.impl("sum.dim_IntList", TORCH_FN(reduce<Kind::kSum>));
    m.impl("sum.IntList_out", TORCH_FN(reduce_out<Kind::kSum>));
    m.impl("mean.dim", TORCH_FN(reduce<Kind::kMean>));
    m.impl("mean.out", TORCH_FN(reduce_out<Kind::kMean>));
  });
}

}  // namespace voxtorch::kernels
