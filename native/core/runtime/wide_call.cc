#include "core/runtime/wide_call.h"

#include <ATen/SequenceNumber.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <exception>
#include <memory>
#include <string_view>
#include <unordered_set>

#include "core/runtime/executor.h"

namespace voxtorch {
namespace {

// Measured on two cores (bench/wide.ts): handing over takes some 10 to 20 us.
constexpr int64_t kFromComputing = int64_t(1) << 17;
constexpr int64_t kFromCopying = int64_t(1) << 19;

// Bound by memory: an element takes a nanosecond or less.
const std::unordered_set<std::string_view>& copying() {
  static const std::unordered_set<std::string_view> names{"abs",          "abs_",
                                                          "add",          "add_",
                                                          "addcmul",      "addcmul_",
                                                          "bitwise_and",  "cat",
                                                          "clamp",        "clamp_",
                                                          "clamp_min",    "clone",
                                                          "concat",       "constant_pad_nd",
                                                          "contiguous",   "copy_",
                                                          "div",          "div_",
                                                          "eq",           "expand_copy",
                                                          "fill_",        "flip",
                                                          "full_like",    "ge",
                                                          "gt",           "hardtanh",
                                                          "index_select", "le",
                                                          "lerp",         "lerp_",
                                                          "logical_not",  "lt",
                                                          "masked_fill",  "masked_fill_",
                                                          "maximum",      "minimum",
                                                          "mul",          "mul_",
                                                          "ne",           "neg",
                                                          "neg_",         "ones_like",
                                                          "relu",         "relu_",
                                                          "repeat",       "rsub",
                                                          "stack",        "sub",
                                                          "sub_",         "threshold",
                                                          "to",           "tril",
                                                          "triu",         "where",
                                                          "zero_",        "zeros_like",
                                                          "_to_copy",     "as_strided_copy",
                                                          "pad",          "square",
                                                          "type_as"};
  return names;
}

// On one core. ATen adds up parts of all elements, one part for each thread, so that the sum's last bits depend on how
// many threads there are: the same call would give others while the executor is at work. And what draws random numbers
// is one stream.
const std::unordered_set<std::string_view>& serial() {
  static const std::unordered_set<std::string_view> names{"all",
                                                          "alpha_dropout",
                                                          "any",
                                                          "bernoulli",
                                                          "bernoulli_",
                                                          "binary_cross_entropy",
                                                          "binary_cross_entropy_with_logits",
                                                          "cosine_embedding_loss",
                                                          "count_nonzero",
                                                          "dist",
                                                          "dot",
                                                          "dropout",
                                                          "dropout_",
                                                          "exponential_",
                                                          "feature_dropout",
                                                          "gaussian_nll_loss",
                                                          "hinge_embedding_loss",
                                                          "huber_loss",
                                                          "item",
                                                          "kl_div",
                                                          "l1_loss",
                                                          "linalg_norm",
                                                          "linalg_vector_norm",
                                                          "logsumexp",
                                                          "margin_ranking_loss",
                                                          "mean",
                                                          "mse_loss",
                                                          "multilabel_soft_margin_loss",
                                                          "multinomial",
                                                          "nanmean",
                                                          "nansum",
                                                          "native_dropout",
                                                          "norm",
                                                          "normal",
                                                          "normal_",
                                                          "nuclear_norm",
                                                          "poisson",
                                                          "poisson_nll_loss",
                                                          "prod",
                                                          "rand_like",
                                                          "randint_like",
                                                          "randn_like",
                                                          "random_",
                                                          "randperm",
                                                          "smooth_l1_loss",
                                                          "soft_margin_loss",
                                                          "special_logsumexp",
                                                          "std",
                                                          "std_mean",
                                                          "sum",
                                                          "trace",
                                                          "triplet_margin_loss",
                                                          "uniform_",
                                                          "var",
                                                          "var_mean",
                                                          "vdot",
                                                          "equal",
                                                          "allclose",
                                                          "is_nonzero",
                                                          "set_",
                                                          "resize_",
                                                          "resize_as_",
                                                          "requires_grad_"};
  return names;
}

// The graph's nodes are ordered by numbers that each thread counts. Both threads go on from the larger one, so that the
// order is that of the calls, whichever thread ran them.
void count_from(uint64_t number) {
  while (at::sequence_number::peek() < number) at::sequence_number::get_and_increment();
}

class WideCall : public Executor::Job {
 public:
  WideCall(const Context& context, const std::function<void()>& work)
      : context_(context),
        work_(work),
        warnings_(c10::WarningUtils::get_warning_handler()),
        number_(at::sequence_number::peek()) {
    owner = this;
  }

  void run() override {
    ContextGuard guard(context_);
    const c10::WarningUtils::WarningHandlerGuard warnings(warnings_);
    count_from(number_);
    try {
      work_();
    } catch (...) {
      error_ = std::current_exception();
    }
    number_ = at::sequence_number::peek();
  }

  void deliver() override { end(kDone); }
  // The process is about to exit, and the executor takes no more jobs.
  void drop() override { end(kDropped); }

  // False where it was dropped.
  bool wait() {
    state_.wait(kWaiting, std::memory_order_acquire);
    if (state_.load(std::memory_order_acquire) == kDropped) return false;
    count_from(number_);
    if (error_ != nullptr) std::rethrow_exception(error_);
    return true;
  }

 private:
  enum State { kWaiting, kDone, kDropped };

  void end(State state) {
    state_.store(state, std::memory_order_release);
    state_.notify_one();
  }

  const Context& context_;
  const std::function<void()>& work_;
  c10::WarningHandler* warnings_;
  uint64_t number_;
  std::exception_ptr error_;
  std::atomic<int> state_{kWaiting};
};

}  // namespace

int64_t wide_from(const std::string& name, bool is_view, bool is_factory) {
  if (is_view || is_factory) return kNeverWide;
  const size_t colons = name.find("::");
  if (colons == std::string::npos) return kNeverWide;
  const std::string_view space = std::string_view(name).substr(0, colons);
  const std::string_view plain = std::string_view(name).substr(colons + 2);
  // Operators of ours may call JavaScript, which would wait for the thread that waits for them; these do not.
  if (space == "voxtorch")
    return plain == "linear" || plain == "gelu_conv1d" || plain == "parallel_threads" ? kFromComputing : kNeverWide;
  if (space != "aten" || plain.find("backward") != std::string_view::npos || serial().count(plain) > 0)
    return kNeverWide;
  return copying().count(plain) > 0 ? kFromCopying : kFromComputing;
}

bool run_wide(const Context& context, const std::function<void()>& work) {
  Executor& executor = Executor::instance();
  if (executor.num_threads() == 1) return false;
  const auto call = std::make_shared<WideCall>(context, work);
  return executor.submit_if_idle(call) && call->wait();
}

}  // namespace voxtorch
