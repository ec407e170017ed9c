#include "core/kernels/few_rows/joined.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>
#include <torch/library.h>

#include <map>
#include <optional>
#include <string>

#include "core/kernels/arguments.h"
#include "core/kernels/block_quantization.h"
#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/linear.h"
#include "core/kernels/lora_linear.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using OptionalTensors = c10::List<OptionalTensor>;

constexpr const char* kName = "few_rows_joined";

OptionalTensor optional(const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

Tensor activated(const Tensor& input, JoinedFunction function) {
  switch (function) {
    case JoinedFunction::kNone:
      return input;
    case JoinedFunction::kSilu:
      return at::silu(input);
    case JoinedFunction::kGelu:
      return at::gelu(input);
    case JoinedFunction::kGeluTanh:
      return at::gelu(input, "tanh");
    case JoinedFunction::kQuickGelu:
      return input * at::sigmoid(1.702 * input);
    case JoinedFunction::kRelu:
      return at::relu(input);
    case JoinedFunction::kTanh:
      return at::tanh(input);
    case JoinedFunction::kMish:
      return at::mish(input);
  }
  TORCH_INTERNAL_ASSERT(false);
}

void check_like_input(const Tensor& input, size_t i, const char* name, const Tensor& tensor, at::IntArrayRef shape) {
  TORCH_CHECK(tensor.device() == input.device(), kName, ": the input is on ", input.device(), " and ", name, "[", i,
              "] on ", tensor.device(), "; both must be on the same device");
  TORCH_CHECK(tensor.scalar_type() == input.scalar_type(), kName, ": the input is ", dtype_name(input), " and ", name,
              "[", i, "] ", dtype_name(tensor), "; they must have the same dtype");
  TORCH_CHECK(tensor.sizes() == shape, kName, ": ", name, "[", i, "] must have shape ", shape, ", got ",
              tensor.sizes());
}

void check_codes(const Tensor& input, size_t i, const Projection& p, int64_t in) {
  const bool is_nf4 = weight_kind(p) == JoinedWeight::kNf4;
  TORCH_CHECK(p.weight.device() == input.device(), kName, ": the input is on ", input.device(), " and weights[", i,
              "] on ", p.weight.device(), "; both must be on the same device");
  TORCH_CHECK(is_nf4 ? p.block >= 2 && p.block % 2 == 0 && p.block <= 65536 : p.block == 0, kName, ": blocks[", i,
              "] must be ", is_nf4 ? "an even number from 2 to 65536 for codes of NF4" : "0 for int8", ", got ",
              p.block);
  TORCH_CHECK(p.out <= std::numeric_limits<int64_t>::max() / 4 / in, kName, ": outs[", i, "] is too large: ", p.out);
  if (is_nf4) {
    TORCH_CHECK(p.weight.numel() == (p.out * in + 1) / 2, kName, ": weights[", i, "] of ", p.out, " rows of ", in,
                " codes must have ", (p.out * in + 1) / 2, " bytes, got ", p.weight.numel());
  } else {
    TORCH_CHECK(p.weight.sizes().equals({p.out, in}), kName, ": weights[", i, "] must have shape [", p.out, ", ", in,
                "], got ", p.weight.sizes());
  }
  const int64_t scales = is_nf4 ? (p.out * in + p.block - 1) / p.block : p.out;
  TORCH_CHECK(p.scale.defined() && p.scale.scalar_type() == at::kFloat && p.scale.dim() == 1 &&
                  p.scale.size(0) == scales && p.scale.device() == input.device(),
              kName, ": the codes of weights[", i, "] need scales[", i, "], float32 of shape [", scales, "] on ",
              input.device());
}

Tensor product(const Tensor& input, const Projection& p) {
  const JoinedWeight kind = weight_kind(p);
  const int64_t in = input.size(-1);
  if (kind == JoinedWeight::kValues) {
    if (p.lora_a.defined()) {
      return lora_linear(input, p.weight, optional(p.bias), p.lora_a, p.lora_b, p.lora_scaling, 0, false);
    }
    return kernels::linear(input, p.weight, optional(p.bias));
  }
  Tensor result;
  if (kind == JoinedWeight::kInt8) {
    result = are_few_rows(input, p.weight)
                 ? few_rows_linear(input, p.weight, optional(p.bias), p.scale)
                 : kernels::linear(input, dequantize_int8(p.weight, p.scale, input.scalar_type()), optional(p.bias));
  } else if (are_few_rows_of_nf4(input, p.weight, p.out, in, p.block)) {
    result = few_rows_nf4_linear(input, p.weight, p.scale, p.out, p.block, optional(p.bias));
  } else {
    const Tensor values = dequantize_nf4(p.weight, p.scale, {p.out, in}, p.block, input.scalar_type());
    result = kernels::linear(input, values, optional(p.bias));
  }
  if (!p.lora_a.defined()) return result;
  return result.add(at::linear(at::linear(input, p.lora_a), p.lora_b), p.lora_scaling);
}

Tensor few_rows_joined_cpu(const Tensor& input, at::TensorList weights, const OptionalTensors& scales,
                           at::IntArrayRef outs, at::IntArrayRef blocks, const OptionalTensors& biases,
                           const OptionalTensors& lora_a, const OptionalTensors& lora_b,
                           at::ArrayRef<double> lora_scaling, std::string_view activation) {
  const auto projections = projections_of(weights, scales, outs, blocks, biases, lora_a, lora_b, lora_scaling);
  return joined_in_parts(input, projections, check_joined(input, projections, activation));
}

}  // namespace

JoinedFunction joined_function(std::string_view name) {
  static const std::map<std::string_view, JoinedFunction> known = {
      {"none", JoinedFunction::kNone},
      {"silu", JoinedFunction::kSilu},
      {"swish", JoinedFunction::kSilu},
      {"gelu", JoinedFunction::kGelu},
      {"gelu_new", JoinedFunction::kGeluTanh},
      {"gelu_fast", JoinedFunction::kGeluTanh},
      {"gelu_pytorch_tanh", JoinedFunction::kGeluTanh},
      {"quick_gelu", JoinedFunction::kQuickGelu},
      {"relu", JoinedFunction::kRelu},
      {"tanh", JoinedFunction::kTanh},
      {"mish", JoinedFunction::kMish},
  };
  const auto found = known.find(name);
  TORCH_CHECK(found != known.end(), kName, ": there is no activation '", name, "'");
  return found->second;
}

JoinedWeight weight_kind(const Projection& projection) {
  if (projection.weight.scalar_type() == at::kByte) return JoinedWeight::kNf4;
  return projection.weight.scalar_type() == at::kChar ? JoinedWeight::kInt8 : JoinedWeight::kValues;
}

std::vector<Projection> projections_of(at::TensorList weights, const OptionalTensors& scales, at::IntArrayRef outs,
                                       at::IntArrayRef blocks, const OptionalTensors& biases,
                                       const OptionalTensors& lora_a, const OptionalTensors& lora_b,
                                       at::ArrayRef<double> lora_scaling) {
  const auto fits = [&](const char* name, size_t size, bool needed = false) {
    TORCH_CHECK(size == weights.size() || (size == 0 && !needed), kName, ": there are ", weights.size(),
                " weights and ", size, " ", name, "; give as many", needed ? "" : ", or none");
  };
  fits("outs", outs.size(), true);
  fits("scales", scales.size());
  fits("blocks", blocks.size());
  fits("biases", biases.size());
  fits("lora_a", lora_a.size());
  fits("lora_b", lora_b.size());
  fits("lora_scaling", lora_scaling.size());
  const auto at = [](const OptionalTensors& tensors, size_t i) {
    return tensors.empty() ? Tensor() : tensors.get(i).value_or(Tensor());
  };
  std::vector<Projection> projections;
  for (size_t i = 0; i < weights.size(); ++i) {
    projections.push_back({weights[i], outs[i], at(scales, i), blocks.empty() ? 0 : blocks[i], at(biases, i),
                           at(lora_a, i), at(lora_b, i), lora_scaling.empty() ? 1.0 : lora_scaling[i]});
  }
  return projections;
}

JoinedActivation check_joined(const Tensor& input, at::ArrayRef<Projection> projections, std::string_view activation) {
  constexpr std::string_view kMul = "_mul";
  JoinedActivation result;
  result.gated = activation.size() > kMul.size() && activation.substr(activation.size() - kMul.size()) == kMul;
  result.function = joined_function(result.gated ? activation.substr(0, activation.size() - kMul.size()) : activation);
  TORCH_CHECK(projections.size() >= 1 && projections.size() <= kMostJoined, kName,
              ": there must be one to three projections, got ", projections.size());
  TORCH_CHECK(!result.gated || projections.size() == 2, kName, ": the activation '", activation,
              "' is of two projections, a gate and what it multiplies; got ", projections.size());
  TORCH_CHECK(result.gated || result.function == JoinedFunction::kNone || projections.size() == 1, kName,
              ": the activation '", activation, "' is of one projection, got ", projections.size());
  const at::ScalarType type = input.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble, kName,
              ": the input must be float32, bfloat16, float16 or float64, got ", dtype_name(input));
  TORCH_CHECK(input.dim() > 0 && input.size(-1) > 0, kName, ": the input must have shape [..., in], got ",
              input.sizes());
  const int64_t in = input.size(-1), rows = input.numel() / in;
  for (size_t i = 0; i < projections.size(); ++i) {
    const Projection& p = projections[i];
    TORCH_CHECK(p.weight.defined() && p.out > 0, kName, ": outs[", i, "] must be above 0, got ", p.out);
    if (weight_kind(p) == JoinedWeight::kValues) {
      check_like_input(input, i, "weights", p.weight, {p.out, in});
      TORCH_CHECK(!p.scale.defined() && p.block == 0, kName, ": scales[", i, "] and blocks[", i,
                  "] are for codes, uint8 or int8, but weights[", i, "] is ", dtype_name(p.weight));
      TORCH_CHECK(rows <= kMostJoinedRows, kName, ": weights of ", dtype_name(p.weight), " take ", kMostJoinedRows,
                  " rows at most, got ", rows, "; use linear for more");
    } else {
      check_codes(input, i, p, in);
    }
    if (p.bias.defined()) check_like_input(input, i, "biases", p.bias, {p.out});
    TORCH_CHECK(p.lora_a.defined() == p.lora_b.defined(), kName, ": projection ", i, " has one of lora_a and lora_b");
    if (!p.lora_a.defined()) continue;
    const int64_t rank = p.lora_a.dim() == 2 ? p.lora_a.size(0) : 0;
    TORCH_CHECK(rank > 0, kName, ": lora_a[", i, "] must have shape [rank, ", in, "], got ", p.lora_a.sizes());
    check_like_input(input, i, "lora_a", p.lora_a, {rank, in});
    check_like_input(input, i, "lora_b", p.lora_b, {p.out, rank});
  }
  TORCH_CHECK(!result.gated || projections[0].out == projections[1].out, kName,
              ": a gate and what it multiplies must have as many rows, got ", projections[0].out, " and ",
              projections[1 % projections.size()].out);
  return result;
}

Tensor joined_in_parts(const Tensor& input, at::ArrayRef<Projection> projections, JoinedActivation activation) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const at::NoGradGuard no_grad;
  std::vector<Tensor> parts;
  for (const Projection& p : projections) parts.push_back(product(input, p));
  const Tensor first = activated(parts[0], activation.function);
  if (activation.gated) return first * parts[1];
  return parts.size() == 1 ? first : at::cat(parts, -1);
}

Tensor few_rows_joined(const Tensor& input, at::ArrayRef<Projection> projections, std::string_view activation) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("voxtorch::few_rows_joined", "")
                             .typed<Tensor(const Tensor&, at::TensorList, const OptionalTensors&, at::IntArrayRef,
                                           at::IntArrayRef, const OptionalTensors&, const OptionalTensors&,
                                           const OptionalTensors&, at::ArrayRef<double>, std::string_view)>();
  std::vector<Tensor> weights;
  std::vector<int64_t> outs, blocks;
  std::vector<double> scaling;
  OptionalTensors scales, biases, lora_a, lora_b;
  for (const Projection& p : projections) {
    weights.push_back(p.weight);
    outs.push_back(p.out);
    blocks.push_back(p.block);
    scaling.push_back(p.lora_scaling);
    scales.push_back(optional(p.scale));
    biases.push_back(optional(p.bias));
    lora_a.push_back(optional(p.lora_a));
    lora_b.push_back(optional(p.lora_b));
  }
  return op.call(input, weights, scales, outs, blocks, biases, lora_a, lora_b, scaling, activation);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Of projections i: weights[i] is values [outs[i], in], int8 codes of that shape with scales[i] [outs[i]], or codes
  // of NF4 with scales[i] of blocks of blocks[i]. Lists but weights and outs may be empty.
  m.def(
      "few_rows_joined(Tensor input, Tensor[] weights, Tensor?[] scales, int[] outs, int[] blocks, Tensor?[] biases, "
      "Tensor?[] lora_a, Tensor?[] lora_b, float[] lora_scaling, str activation=\"none\") -> Tensor");
}

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) { m.impl("few_rows_joined", few_rows_joined_cpu); }

}  // namespace voxtorch::kernels
