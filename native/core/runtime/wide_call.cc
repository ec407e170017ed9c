#include "core/runtime/wide_call.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/runtime/executor.h"

namespace voxtorch {
namespace {

// As ATen, which divides no fewer elements.
constexpr int64_t kFrom = int64_t(1) << 15;

// On one core. ATen adds up parts of all elements, one part for each thread, so that the last bits depend on how many
// threads there are: the same call would give others while the executor is at work. (Sums and means, and the losses
// that end in one, are full_reduction.h's.) And what draws random numbers is one stream.
const std::unordered_set<std::string_view>& serial() {
  static const std::unordered_set<std::string_view> names{
      "alpha_dropout", "bernoulli",       "bernoulli_", "dist",          "dot",          "dropout",        "dropout_",
      "exponential_",  "feature_dropout", "item",       "linalg_norm",   "multinomial",  "native_dropout", "normal",
      "normal_",       "nuclear_norm",    "poisson",    "rand_like",     "randint_like", "randn_like",     "random_",
      "randperm",      "trace",           "uniform_",   "vdot",          "equal",        "allclose",       "is_nonzero",
      "set_",          "resize_",         "resize_as_", "requires_grad_"};
  return names;
}

// Reductions that add up. Along dimensions that follow each other, each row is one thread's.
const std::unordered_set<std::string_view>& by_rows() {
  static const std::unordered_set<std::string_view> names{
      "linalg_vector_norm", "logsumexp", "mean",     "nanmean", "nansum", "norm",    "prod",
      "special_logsumexp",  "std",       "std_mean", "sum",     "var",    "var_mean"};
  return names;
}

int dimensions_of(const c10::FunctionSchema& schema) {
  const auto& arguments = schema.arguments();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name() == "dim") return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

Width width_of(const c10::FunctionSchema& schema, bool is_view, bool is_factory) {
  const std::string& name = schema.name();
  const size_t colons = name.find("::");
  if (is_view || is_factory || colons == std::string::npos) return {};
  const std::string_view space = std::string_view(name).substr(0, colons);
  const std::string_view plain = std::string_view(name).substr(colons + 2);
  if (space == "voxtorch")
    return {plain == "linear" || plain == "gelu_conv1d" || plain == "parallel_threads" ? kFrom : Width::kNever};
  if (space != "aten" || plain.find("backward") != std::string_view::npos) return {};
  if (by_rows().count(plain) > 0) {
    const int reduced = dimensions_of(schema);
    const bool divides_one = plain == "sum" || plain == "mean";
    return {reduced < 0 && !divides_one ? Width::kNever : kFrom, reduced, divides_one};
  }
  return {serial().count(plain) > 0 ? Width::kNever : kFrom};
}

bool Width::reached(int64_t elements, const torch::jit::Stack& stack) const {
  if (reduced < 0 || elements < from) return elements >= from;
  const c10::IValue& dims = stack[reduced];
  if (divides_one && dims.isNone()) return true;
  if (!stack[0].isTensor() || !(dims.isInt() || dims.isIntList())) return false;
  const at::Tensor& input = stack[0].toTensor();
  // Of any other layout, how ATen adds up a column depends on which columns its thread has.
  if (!input.is_contiguous()) return false;
  const int64_t rank = input.dim();
  int64_t rows = input.numel(), first = rank, last = -1, count = 0;
  for (int64_t dim : dims.isInt() ? std::vector<int64_t>{dims.toInt()} : dims.toIntVector()) {
    if (dim < 0) dim += rank;
    if (dim < 0 || dim >= rank) return false;  // the operator refuses it
    first = std::min(first, dim);
    last = std::max(last, dim);
    ++count;
    rows /= std::max<int64_t>(1, input.size(dim));
  }
  // No dimension means all of them.
  if (divides_one && (count == 0 || count == rank)) return true;
  return rows > 1 && count > 0 && count == last - first + 1;
}

AllThreads::AllThreads(bool wanted) {
  if (!wanted) return;
  Executor& executor = Executor::instance();
  const int threads = executor.num_threads();
  here_ = threads == 1;
  if (here_ || !executor.lend()) return;
  here_ = lent_ = true;
  use_threads_here(threads);
}

AllThreads::~AllThreads() {
  if (!lent_) return;
  use_threads_here(1);
  Executor::instance().take_back();
}

}  // namespace voxtorch
