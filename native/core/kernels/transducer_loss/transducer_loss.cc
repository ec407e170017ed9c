// Losses of transducers: RNN-T (Graves 2012, https://arxiv.org/abs/1211.3711) and TDT (Xu et al. 2023,
// https://arxiv.org/abs/2304.06795), -log of the summed probabilities of all alignments of a target sequence.
//
// The joint network is part of the operator: for frame t and u targets so far
//
//   logits(t, u) = weight activation(encoder_t + predictor_u) + bias
//
// The logits of a batch, [batch, frames, targets + 1, vocabulary], would be the largest tensor of a training by far.
// They are computed a block at a time, and of each pair (t, u) only the log probabilities that alignments can use are
// kept: of the blank, of the next target and of each duration. Backward computes the blocks again.
//
// An alignment is a path from (0, 0) to (frames, targets). RNN-T: a blank leads to (t + 1, u), a target to (t, u + 1).
// TDT: each comes with one of the durations d: a blank, with d > 0, leads to (t + d, u), a target to (t + d, u + 1).
// Sums along paths are in float64.
#include "core/kernels/transducer_loss/transducer_loss.h"

#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/kernels/fused_operator.h"
#include "core/runtime/transfers.h"

namespace voxtorch::kernels {

using at::Tensor;

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kName = "transducer_loss";

void check_lengths(const char* name, at::IntArrayRef lengths, int64_t batch, int64_t least, int64_t most) {
  TORCH_CHECK(static_cast<int64_t>(lengths.size()) == batch, kName, ": ", name, " must be one a row, ", batch, ", got ",
              lengths.size());
  for (const int64_t length : lengths) {
    TORCH_CHECK_VALUE(length >= least && length <= most, kName, ": ", name, " must be from ", least, " to ", most,
                      ", got ", length);
  }
}

void check_tensors(const Tensor& encoder, const Tensor& predictor, const Tensor& weight, const OptionalTensor& given) {
  const Tensor bias = given.value_or(Tensor());
  const auto is_real = [](const Tensor& x) { return x.layout() == at::kStrided && x.is_floating_point(); };
  TORCH_CHECK(is_real(encoder) && is_real(predictor) && is_real(weight), kName,
              ": encoder, predictor and weight must be dense and floating point, got ", encoder.scalar_type(), ", ",
              predictor.scalar_type(), " and ", weight.scalar_type());
  TORCH_CHECK(encoder.dim() == 3 && predictor.dim() == 3 && weight.dim() == 2 && predictor.size(0) == encoder.size(0) &&
                  predictor.size(2) == encoder.size(2) && weight.size(1) == encoder.size(2),
              kName, ": encoder must be [batch, frames, dim], predictor [batch, targets + 1, dim] and weight ",
              "[vocabulary + durations, dim], got ", encoder.sizes(), ", ", predictor.sizes(), " and ", weight.sizes());
  TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)), kName, ": bias must be [",
              weight.size(0), "], got ", bias.defined() ? bias.sizes() : weight.sizes());
  for (const Tensor& tensor : {predictor, weight, bias}) {
    if (!tensor.defined()) continue;
    TORCH_CHECK(tensor.scalar_type() == encoder.scalar_type() && tensor.device() == encoder.device(), kName,
                ": predictor, weight and bias must have encoder's dtype and device, ", encoder.scalar_type(), " on ",
                encoder.device(), ", got ", tensor.scalar_type(), " on ", tensor.device());
  }
}

void check_options(const TransducerInputs& in) {
  TORCH_CHECK_VALUE(in.blank >= 0 && in.blank < in.vocabulary(), kName, ": blank must be one of ", in.vocabulary(),
                    " tokens, got ", in.blank);
  for (const int64_t duration : in.durations) {
    TORCH_CHECK_VALUE(duration >= 0 && duration <= (1 << 30), kName,
                      ": durations must not be negative or above 2^30, got ", duration);
  }
  TORCH_CHECK_VALUE(
      in.durations.empty() || std::any_of(in.durations.begin(), in.durations.end(), [](int64_t d) { return d > 0; }),
      kName, ": durations must have one above 0");
  TORCH_CHECK_VALUE(std::isfinite(in.sigma), kName, ": sigma must be a finite number, got ", in.sigma);
  TORCH_CHECK_VALUE(in.activation == "relu" || in.activation == "tanh" || in.activation == "sigmoid", kName,
                    ": activation must be 'relu', 'tanh' or 'sigmoid', got '", in.activation, "'");
  TORCH_CHECK_VALUE(in.chunk >= 0, kName, ": chunk must be a number of pairs, or 0 to have it chosen, got ", in.chunk);
}

// The lengths and targets of a call, on the host.
struct Lists {
  std::vector<int64_t> frames, labels, targets;
};

// One copy from the device, if they are there.
Lists lists_of(const Tensor& encoder, const Tensor& predictor, const Tensor& targets, const Tensor& frames,
               const Tensor& labels) {
  TORCH_CHECK(targets.dim() == 2 && targets.size(0) == encoder.size(0) && targets.size(1) + 1 == predictor.size(1) &&
                  targets.scalar_type() == at::kLong,
              kName, ": targets must be int64 [", encoder.size(0), ", ", predictor.size(1) - 1,
              "], one fewer than predictor has, got ", targets.scalar_type(), " ", targets.sizes());
  const int64_t batch = encoder.size(0), most = targets.size(1);
  for (const auto& [name, lengths] : {std::pair<const char*, const Tensor&>{"encoder_lengths", frames},
                                      std::pair<const char*, const Tensor&>{"target_lengths", labels}}) {
    TORCH_CHECK(lengths.dim() == 1 && lengths.size(0) == batch &&
                    (lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt),
                kName, ": ", name, " must be int64 [", batch, "], got ", lengths.scalar_type(), " ", lengths.sizes());
  }
  const bool together = frames.device() == targets.device() && labels.device() == targets.device();
  const auto flat = [&](const Tensor& tensor) {
    return (together ? tensor : tensor.to(at::kCPU)).to(at::kLong).reshape({-1});
  };
  Arrival arrival(at::cat({flat(frames), flat(labels), flat(targets)}));
  const int64_t* const all = arrival.here().const_data_ptr<int64_t>();
  Lists lists{{all, all + batch}, {all + batch, all + 2 * batch}, {}};
  check_lengths("target_lengths", lists.labels, batch, 0, most);
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t* const own = all + 2 * batch + row * most;
    lists.targets.insert(lists.targets.end(), own, own + lists.labels[static_cast<size_t>(row)]);
  }
  return lists;
}

struct Options {
  int64_t blank;
  std::vector<int64_t> durations;
  double sigma;
  std::string activation;
  int64_t chunk;
};

struct Recorded : torch::autograd::Function<Recorded> {
  static Tensor forward(AutogradContext* ctx, const Tensor& encoder, const Tensor& predictor, const Tensor& weight,
                        const OptionalTensor& bias, const Lists& lists, const Options& o) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [losses, values, scores] = run(encoder, predictor, weight, bias, lists, o);
    ctx->save_for_backward({encoder, predictor, weight, bias.value_or(Tensor()), values, scores});
    ctx->saved_data["lists"] = std::make_tuple(lists.frames, lists.labels, lists.targets);
    ctx->saved_data["options"] = std::make_tuple(o.durations, o.sigma, o.activation);
    ctx->saved_data["numbers"] = std::make_tuple(o.blank, o.chunk);
    return losses;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), kName, " has no second derivative");
    const variable_list saved = ctx->get_saved_variables();
    using Ids = std::vector<int64_t>;
    const auto [frames, labels, targets] = ctx->saved_data["lists"].to<std::tuple<Ids, Ids, Ids>>();
    const auto [durations, sigma, activation] = ctx->saved_data["options"].to<std::tuple<Ids, double, std::string>>();
    const auto [blank, chunk] = ctx->saved_data["numbers"].to<std::tuple<int64_t, int64_t>>();
    std::array<bool, 4> mask{};
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = saved[i].defined() && ctx->needs_input_grad(i);
    static const auto op =
        operator_of<TransducerGradients(const Tensor&, const Tensor&, const Tensor&, std::array<bool, 4>,
                                        VOXTORCH_TRANSDUCER_PARAMETERS)>("voxtorch::transducer_loss_backward");
    const auto [encoder, predictor, weight, bias] =
        op.call(grads[0], saved[4], saved[5], mask, saved[0], saved[1], saved[2],
                saved[3].defined() ? OptionalTensor(saved[3]) : std::nullopt, frames, labels, targets, blank, durations,
                sigma, activation, chunk);
    return {encoder, predictor, weight, bias, Tensor(), Tensor()};
  }

  static TransducerOutput run(const Tensor& encoder, const Tensor& predictor, const Tensor& weight,
                              const OptionalTensor& bias, const Lists& lists, const Options& o) {
    static const auto op =
        operator_of<TransducerOutput(VOXTORCH_TRANSDUCER_PARAMETERS)>("voxtorch::transducer_loss_forward");
    return op.call(encoder, predictor, weight, bias, lists.frames, lists.labels, lists.targets, o.blank, o.durations,
                   o.sigma, o.activation, o.chunk);
  }
};

Tensor transducer_loss(const Tensor& encoder, const Tensor& predictor, const Tensor& weight,
                       const OptionalTensor& given_bias, const Tensor& targets, const Tensor& frames,
                       const Tensor& labels, int64_t blank, at::IntArrayRef durations, double sigma,
                       std::string_view activation, int64_t chunk) {
  const OptionalTensor bias = given_bias && given_bias->defined() ? given_bias : std::nullopt;
  check_tensors(encoder, predictor, weight, bias);
  if (encoder.is_meta()) {
    return at::empty({encoder.size(0)}, encoder.options().dtype(at::toOpMathType(encoder.scalar_type())));
  }
  const Options o{blank, durations.vec(), sigma, std::string(activation), chunk};
  const Lists lists = lists_of(encoder, predictor, targets, frames, labels);
  const auto wants = [](const Tensor& tensor) { return tensor.requires_grad(); };
  if (at::GradMode::is_enabled() &&
      (wants(encoder) || wants(predictor) || wants(weight) || (bias.has_value() && wants(*bias)))) {
    return Recorded::apply(encoder, predictor, weight, bias, lists, o);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return std::get<0>(Recorded::run(encoder, predictor, weight, bias, lists, o));
}

// The products are computed in autocast's dtype, as linear's are, and the rest in float32.
Tensor under_autocast(const Tensor& encoder, const Tensor& predictor, const Tensor& weight, const OptionalTensor& bias,
                      const Tensor& targets, const Tensor& frames, const Tensor& labels, int64_t blank,
                      at::IntArrayRef durations, double sigma, std::string_view activation, int64_t chunk) {
  const AutocastTo lowered(encoder);
  return transducer_loss(lowered(encoder), lowered(predictor), lowered(weight),
                         bias ? OptionalTensor(lowered(*bias)) : bias, targets, frames, labels, blank, durations, sigma,
                         activation, chunk);
}

}  // namespace

TransducerInputs transducer_inputs(VOXTORCH_TRANSDUCER_PARAMETERS) {
  check_tensors(encoder, predictor, weight, bias);
  TransducerInputs in{encoder, predictor, weight, bias.value_or(Tensor()), frames.vec(), targets.vec(), durations.vec(),
                      {0},     blank,     sigma,  std::string(activation), chunk};
  check_options(in);
  check_lengths("encoder_lengths", frames, in.batch(), 1, encoder.size(1));
  check_lengths("target_lengths", labels, in.batch(), 0, predictor.size(1) - 1);
  for (const int64_t count : labels) in.first_targets.push_back(in.first_targets.back() + count);
  TORCH_CHECK(in.first_targets.back() == static_cast<int64_t>(targets.size()), kName, ": targets must be ",
              in.first_targets.back(), ", as many as target_lengths has in all, got ", targets.size());
  for (int64_t row = 0; row < in.batch(); ++row) {
    for (int64_t i = in.first_target(row); i < in.first_target(row + 1); ++i) {
      const int64_t target = targets[static_cast<size_t>(i)];
      TORCH_CHECK_INDEX(target >= 0 && target < in.vocabulary() && target != blank, kName, ": target ", target,
                        " of row ", row, " is not one of the ", in.vocabulary(), " tokens, or is the blank");
    }
  }
  return in;
}

void check_transducer_grad(const Tensor& grad, const TransducerInputs& in) {
  TORCH_CHECK(
      grad.dim() == 1 && grad.size(0) == in.batch() && grad.device() == in.encoder.device() && grad.is_floating_point(),
      kName, ": grad must be floating point [", in.batch(), "] on ", in.encoder.device(), ", got ", grad.scalar_type(),
      " ", grad.sizes(), " on ", grad.device());
}

Tensor in_dtype_of(const Tensor& grad, const Tensor& input) {
  return grad.defined() ? grad.to(input.scalar_type()) : grad;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // The loss of each row, [batch], float32 for half types. Without durations RNN-T. chunk: pairs of a frame and a
  // target whose logits exist at a time; 0 chooses.
  m.def(
      "transducer_loss(Tensor encoder, Tensor predictor, Tensor weight, Tensor? bias, Tensor targets, Tensor "
      "encoder_lengths, Tensor target_lengths, *, int blank, int[] durations=[], float sigma=0., str "
      "activation='relu', "
      "int chunk=0) -> Tensor losses",
      transducer_loss);
  m.def(
      "transducer_loss_forward(Tensor encoder, Tensor predictor, Tensor weight, Tensor? bias, int[] encoder_lengths, "
      "int[] target_lengths, int[] targets, int blank, int[] durations, float sigma, str activation, int chunk) -> "
      "(Tensor losses, Tensor values, Tensor scores)");
  m.def(
      "transducer_loss_backward(Tensor grad, Tensor values, Tensor scores, bool[4] output_mask, Tensor encoder, Tensor "
      "predictor, Tensor weight, Tensor? bias, int[] encoder_lengths, int[] target_lengths, int[] targets, int blank, "
      "int[] durations, float sigma, str activation, int chunk) -> (Tensor grad_encoder, Tensor grad_predictor, Tensor "
      "grad_weight, Tensor grad_bias)");
}

VOXTORCH_AUTOCAST("transducer_loss", under_autocast)

}  // namespace voxtorch::kernels
