// Flash attention on the pretended device, of sequences of unlike lengths that stand one after the other: what a GPU of
// compute capability 8.0 takes, computed in float64 and rounded. Its choice is the host's and launches nothing.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/SDPBackend.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "device.h"

extern "C" void pretended_cuda_begin_kernel(const char* name);
extern "C" void pretended_cuda_end_kernel();

namespace pretended {
namespace {

using at::Tensor;
using Stack = torch::jit::Stack;

bool is_half(const Tensor& tensor) { return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf; }

int64_t choose(const Tensor& query, const Tensor&, const Tensor&, const std::optional<Tensor>& mask) {
  const bool flash = at::globalContext().userEnabledFlashSDP() && is_half(query) && !mask.has_value() && query.dim() == 4 &&
                     query.size(3) % 8 == 0 && query.size(3) <= 256;
  return static_cast<int64_t>(flash ? at::SDPBackend::flash_attention : at::SDPBackend::math);
}

// While a kernel runs, what the host may read.
Tensor seen(const Tensor& tensor) {
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), at::TensorOptions().dtype(tensor.scalar_type()));
}

struct Kernel {
  explicit Kernel(const char* name) { pretended_cuda_begin_kernel(name); }
  ~Kernel() { pretended_cuda_end_kernel(); }
};

struct Sequences {
  std::vector<int64_t> begins;
  double scale, dropout;

  Sequences(const Tensor& query, const Tensor& begins_q, const Tensor& begins_k, int64_t longest, double given_dropout,
            const std::optional<double>& given_scale)
      : scale(given_scale.value_or(1 / std::sqrt(static_cast<double>(query.size(2))))), dropout(given_dropout) {
    const Tensor q = seen(begins_q), k = seen(begins_k);
    TORCH_CHECK(q.equal(k), "the pretended device has flash attention for keys as long as the queries only");
    for (int64_t i = 0; i < q.numel(); ++i) begins.push_back(q[i].item<int64_t>());
    TORCH_CHECK(begins.front() == 0 && begins.back() == query.size(0), "cu_seqlens must end at the number of steps");
    for (size_t i = 1; i < begins.size(); ++i) {
      TORCH_CHECK(begins[i] - begins[i - 1] <= longest, "a sequence is longer than max_seqlen");
    }
  }

  size_t count() const { return begins.size() - 1; }
  // [heads, length, dim]
  Tensor of(const Tensor& states, size_t i) const {
    return seen(states).narrow(0, begins[i], begins[i + 1] - begins[i]).to(at::kDouble).transpose(0, 1);
  }
  // What is kept of the weights of one sequence, over the probability of it; the same for the same state.
  Tensor kept(const Tensor& weights, at::Generator& generator) const {
    if (dropout == 0) return at::ones_like(weights);
    return at::empty_like(weights).bernoulli_(1 - dropout, generator).div_(1 - dropout);
  }
};

void check(const Tensor& tensor, const Tensor& query) {
  TORCH_CHECK(tensor.is_cuda() && is_half(tensor) && tensor.scalar_type() == query.scalar_type(),
              "FlashAttention only support fp16 and bf16 data type");
  TORCH_CHECK(tensor.dim() == 3 && tensor.stride(2) == 1 && tensor.size(2) % 8 == 0 && tensor.size(2) <= 256,
              "Input tensor must be [steps, heads, dim] with a contiguous last dimension, a multiple of 8 up to 256");
}

// Scores [heads, queries, keys] of what a query does not see are -inf: with `causal` the keys behind it, with `before` those
// further back than so many.
Tensor hidden(const Tensor& scores, bool causal, std::optional<int64_t> before) {
  if (!causal && !before) return scores;
  const Tensor places = at::arange(scores.size(1), at::kLong);
  const Tensor back = places.unsqueeze(1) - places.unsqueeze(0);
  Tensor mask = causal ? back < 0 : at::zeros_like(back, at::kBool);
  if (before) mask = mask | (back > *before);
  return scores.masked_fill(mask, -std::numeric_limits<double>::infinity());
}

void check_begins(const Tensor& begins) {
  TORCH_CHECK(begins.is_cuda() && begins.scalar_type() == at::kInt && begins.is_contiguous(),
              "cu_seqlens must have dtype int32 and be contiguous on the device");
}

at::Generator generator_of(const Tensor& state) {
  return at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seen(state)[0].item<int64_t>()));
}

void choice(const c10::OperatorHandle& op, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const auto given = [&](size_t i) -> c10::IValue& { return (*stack)[stack->size() - count + i]; };
  const auto mask = given(3).isNone() ? std::nullopt : std::optional<Tensor>(given(3).toTensor());
  const int64_t chosen = choose(given(0).toTensor(), given(1).toTensor(), given(2).toTensor(), mask);
  torch::jit::drop(*stack, count);
  torch::jit::push(*stack, chosen);
}

void forward(const c10::OperatorHandle& op, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const auto given = [&](size_t i) -> c10::IValue& { return (*stack)[stack->size() - count + i]; };
  const Tensor query = given(0).toTensor(), key = given(1).toTensor(), value = given(2).toTensor();
  const Tensor begins_q = given(3).toTensor(), begins_k = given(4).toTensor();
  for (const Tensor* tensor : {&query, &key, &value}) check(*tensor, query);
  for (const Tensor* tensor : {&begins_q, &begins_k}) check_begins(*tensor);
  const bool causal = given(8).toBool();
  const auto before = given(11).toOptional<int64_t>();
  TORCH_CHECK(!given(9).toBool(), "the pretended device has flash attention without a debug mask only");
  const Tensor output = at::empty(query.sizes(), query.options());
  const Tensor logsumexp = at::empty({query.size(1), query.size(0)}, query.options().dtype(at::kFloat));
  const double dropout = given(7).toDouble();
  const Tensor state = at::randint(0, int64_t{1} << 40, {2}, query.options().dtype(at::kLong));
  {
    const Kernel kernel("aten::_flash_attention_forward");
    const Sequences sequences(query, begins_q, begins_k, given(5).toInt(), dropout, given(10).toOptional<double>());
    at::Generator generator = generator_of(state);
    for (size_t i = 0; i < sequences.count(); ++i) {
      const Tensor scores = hidden(
          at::matmul(sequences.of(query, i), sequences.of(key, i).transpose(1, 2)) * sequences.scale, causal, before);
      const Tensor weights = at::softmax(scores, -1);
      const Tensor mixed = at::matmul(weights * sequences.kept(weights, generator), sequences.of(value, i)).transpose(0, 1);
      const int64_t begin = sequences.begins[i], length = sequences.begins[i + 1] - begin;
      seen(output).narrow(0, begin, length).copy_(mixed);
      seen(logsumexp).narrow(1, begin, length).copy_(at::logsumexp(scores, -1));
    }
  }
  torch::jit::drop(*stack, count);
  torch::jit::push(*stack, output, logsumexp, state, at::empty({0}, state.options()), at::empty({0}, query.options()));
}

void backward(const c10::OperatorHandle& op, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const auto given = [&](size_t i) -> c10::IValue& { return (*stack)[stack->size() - count + i]; };
  const Tensor grad = given(0).toTensor(), query = given(1).toTensor(), key = given(2).toTensor(), value = given(3).toTensor();
  const Tensor begins_q = given(6).toTensor(), begins_k = given(7).toTensor(), state = given(12).toTensor();
  const auto before = given(15).toOptional<int64_t>();
  for (const Tensor* tensor : {&query, &key, &value}) check(*tensor, query);
  for (const Tensor* tensor : {&begins_q, &begins_k}) check_begins(*tensor);
  const auto like = [&](const Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options()); };
  const Tensor of_query = like(query), of_key = like(key), of_value = like(value);
  {
    const Kernel kernel("aten::_flash_attention_backward");
    const Sequences sequences(query, begins_q, begins_k, given(8).toInt(), given(10).toDouble(), given(14).toOptional<double>());
    at::Generator generator = generator_of(state);
    for (size_t i = 0; i < sequences.count(); ++i) {
      const Tensor q = sequences.of(query, i), k = sequences.of(key, i), v = sequences.of(value, i), g = sequences.of(grad, i);
      const Tensor weights =
          at::softmax(hidden(at::matmul(q, k.transpose(1, 2)) * sequences.scale, given(11).toBool(), before), -1);
      const Tensor kept = sequences.kept(weights, generator);
      const Tensor of_weights = at::matmul(g, v.transpose(1, 2)) * kept;
      const Tensor of_scores = weights * (of_weights - (of_weights * weights).sum(-1, true)) * sequences.scale;
      const int64_t begin = sequences.begins[i], length = sequences.begins[i + 1] - begin;
      const auto put = [&](const Tensor& to, const Tensor& from) { seen(to).narrow(0, begin, length).copy_(from.transpose(0, 1)); };
      put(of_query, at::matmul(of_scores, k));
      put(of_key, at::matmul(of_scores.transpose(1, 2), q));
      put(of_value, at::matmul((weights * kept).transpose(1, 2), g));
    }
  }
  torch::jit::drop(*stack, count);
  torch::jit::push(*stack, of_query, of_key, of_value);
}

}  // namespace
}  // namespace pretended

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("_fused_sdp_choice", torch::CppFunction::makeFromBoxedFunction<&pretended::choice>());
  m.impl("_flash_attention_forward", torch::CppFunction::makeFromBoxedFunction<&pretended::forward>());
  m.impl("_flash_attention_backward", torch::CppFunction::makeFromBoxedFunction<&pretended::backward>());
}
TORCH_LIBRARY_FRAGMENT(pretended_cuda, m) {
  m.def("use_flash_attention(bool enabled) -> ()", [](bool enabled) { at::globalContext().setSDPUseFlash(enabled); });
}
