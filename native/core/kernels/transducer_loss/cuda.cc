// transducer_loss on CUDA: ATen's side of the launches. The pairs of all rows are one list, of which a chunk has logits
// at a time.
#include <ATen/OpMathType.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "core/kernels/arguments.h"
#include "core/kernels/transducer_loss/args.h"
#include "core/kernels/transducer_loss/transducer_loss.h"
#include "core/runtime/transfers.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr const char* kName = "transducer_loss";

void launched(int error) { C10_CUDA_CHECK(static_cast<cudaError_t>(error)); }
void* stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

TransducerActivation activation_of(const std::string& name) {
  if (name == "relu") return TransducerActivation::kRelu;
  return name == "tanh" ? TransducerActivation::kTanh : TransducerActivation::kSigmoid;
}

// A call on its device.
class Call {
 public:
  explicit Call(const TransducerInputs& inputs)
      : in(inputs),
        type(at::toOpMathType(inputs.encoder.scalar_type())),
        kernel(kernel_type<TransducerType>(inputs.encoder)),
        activation(activation_of(inputs.activation)),
        encoder(inputs.encoder.contiguous()),
        predictor(inputs.predictor.contiguous()),
        weight(inputs.weight.contiguous()) {
    check_floating(kName, "encoder", encoder);
    std::vector<int64_t> layout{0};
    for (int64_t row = 0; row < in.batch(); ++row) {
      const int64_t states = in.labels_of(row) + 1;
      TORCH_CHECK_VALUE(in.frames_of(row) <= (std::numeric_limits<int64_t>::max() - layout.back()) / states, kName,
                        ": the batch is too large");
      layout.push_back(layout.back() + in.frames_of(row) * states);
    }
    pairs = layout.back();
    for (const auto* const list : {&in.first_targets, &in.targets, &in.durations})
      layout.insert(layout.end(), list->begin(), list->end());
    held = upload(layout, {static_cast<int64_t>(layout.size())}, encoder.device());
    const int64_t* const first = held.const_data_ptr<int64_t>();
    const int64_t* const targets = first + 2 * (in.batch() + 1);
    rows = {first,
            first + in.batch() + 1,
            targets,
            targets + in.targets.size(),
            in.batch(),
            encoder.size(1),
            predictor.size(1),
            encoder.size(2),
            in.vocabulary(),
            in.kinds(),
            in.blank};
  }

  Tensor pair_numbers(int64_t columns) const { return at::empty({pairs, columns}, encoder.options().dtype(type)); }

  // Calls take(chunk, hidden [pairs, dim], logits [pairs, vocabulary + durations]), which may change them.
  template <typename Take>
  void each_chunk(const Take& take) const {
    const int64_t most = std::min<int64_t>(
        in.chunk > 0 ? in.chunk : std::max<int64_t>((int64_t{1} << 25) / weight.size(0), 1), int64_t{1} << 30);
    for (int64_t first = 0; first < pairs; first += most) {
      const TransducerChunk chunk{first, std::min(most, pairs - first)};
      const Tensor hidden = at::empty({chunk.count, encoder.size(2)}, encoder.options());
      launched(launch_transducer_join(
          kernel,
          {rows, chunk, activation, encoder.const_data_ptr(), predictor.const_data_ptr(), hidden.mutable_data_ptr()},
          stream()));
      take(chunk, hidden, in.bias.defined() ? at::addmm(in.bias, hidden, weight.t()) : at::mm(hidden, weight.t()));
    }
  }

  const TransducerInputs& in;
  const at::ScalarType type;
  const TransducerType kernel;
  const TransducerActivation activation;
  const Tensor encoder, predictor, weight;
  Tensor held;
  TransducerRows rows{};
  int64_t pairs = 0;
};

TransducerOutput forward_cuda(VOXTORCH_TRANSDUCER_PARAMETERS) {
  const c10::cuda::CUDAGuard device(encoder.device());
  const TransducerInputs in = transducer_inputs(VOXTORCH_TRANSDUCER_ARGUMENTS);
  const Call call(in);
  const Tensor losses = at::empty({in.batch()}, encoder.options().dtype(call.type));
  const Tensor values = call.pair_numbers(kTransducerValues + in.kinds());
  const Tensor scores = at::empty({call.pairs + in.batch()}, encoder.options().dtype(at::kDouble));
  if (in.batch() == 0) return {losses, values, scores};
  call.each_chunk([&](const TransducerChunk& chunk, const Tensor&, const Tensor& logits) {
    launched(launch_transducer_gather(
        call.kernel, {call.rows, chunk, sigma, logits.const_data_ptr(), values.mutable_data_ptr()}, stream()));
  });
  double* const alpha = scores.mutable_data_ptr<double>();
  launched(launch_transducer_forward(call.kernel,
                                     {call.rows, values.const_data_ptr(), alpha, alpha + call.pairs,
                                      losses.mutable_data_ptr(), nullptr, nullptr, nullptr},
                                     stream()));
  return {losses, values, scores};
}

TransducerGradients backward_cuda(const Tensor& grad, const Tensor& values, const Tensor& scores,
                                  std::array<bool, 4> mask, VOXTORCH_TRANSDUCER_PARAMETERS) {
  const c10::cuda::CUDAGuard device(encoder.device());
  const TransducerInputs in = transducer_inputs(VOXTORCH_TRANSDUCER_ARGUMENTS);
  check_transducer_grad(grad, in);
  const Call call(in);
  const int64_t width = kTransducerValues + in.kinds();
  TORCH_CHECK(values.sizes() == at::IntArrayRef({call.pairs, width}) && values.scalar_type() == call.type &&
                  values.device() == encoder.device() && values.is_contiguous() &&
                  scores.sizes() == at::IntArrayRef({call.pairs + in.batch()}) && scores.scalar_type() == at::kDouble &&
                  scores.device() == encoder.device() && scores.is_contiguous(),
              kName, ": values and scores must be those of the forward, [", call.pairs, ", ", width, "] and [",
              call.pairs + in.batch(), "], got ", values.sizes(), " and ", scores.sizes());
  const auto zeros = [&](size_t i, const Tensor& like) {
    return mask[i] && like.defined() ? at::zeros(like.sizes(), like.options().dtype(call.type)) : Tensor();
  };
  Tensor to_encoder = zeros(0, encoder), to_predictor = zeros(1, predictor), to_weight = zeros(2, weight),
         to_bias = zeros(3, in.bias);
  if (in.batch() > 0) {
    const Tensor upstream = grad.to(call.type).contiguous();
    const Tensor used = call.pair_numbers(kTransducerUses + in.kinds());
    const Tensor beta = at::empty({call.pairs}, scores.options());
    // The forward's; only read here.
    double* const alpha = const_cast<double*>(scores.const_data_ptr<double>());
    launched(launch_transducer_backward(
        call.kernel,
        {call.rows, values.const_data_ptr(), alpha, alpha + call.pairs, nullptr, beta.mutable_data_ptr<double>(),
         upstream.const_data_ptr(), used.mutable_data_ptr()},
        stream()));
    call.each_chunk([&](const TransducerChunk& chunk, const Tensor& hidden, const Tensor& logits) {
      launched(launch_transducer_gradient(
          call.kernel, {call.rows, chunk, values.const_data_ptr(), used.const_data_ptr(), logits.mutable_data_ptr()},
          stream()));
      if (to_bias.defined()) to_bias.add_(at::sum(logits, 0, false, call.type));
      if (to_weight.defined()) {
        if (to_weight.scalar_type() == logits.scalar_type()) {
          to_weight.addmm_(logits.t(), hidden);
        } else {
          to_weight.add_(at::mm(logits.t(), hidden));
        }
      }
      if (!to_encoder.defined() && !to_predictor.defined()) return;
      const Tensor through = at::mm(logits, call.weight);
      launched(launch_transducer_scatter(
          call.kernel,
          {call.rows, chunk, call.activation, hidden.const_data_ptr(), through.const_data_ptr(),
           to_encoder.defined() ? to_encoder.mutable_data_ptr() : nullptr,
           to_predictor.defined() ? to_predictor.mutable_data_ptr() : nullptr},
          stream()));
    });
  }
  return {in_dtype_of(to_encoder, encoder), in_dtype_of(to_predictor, predictor), in_dtype_of(to_weight, weight),
          in_dtype_of(to_bias, in.bias)};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) {
  m.impl("transducer_loss_forward", forward_cuda);
  m.impl("transducer_loss_backward", backward_cuda);
}

}  // namespace voxtorch::kernels
