#include "core/nn/quantized_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "core/kernels/block_quantization.h"
#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/gguf_blocks/gguf_blocks.h"
#include "core/kernels/linear.h"
#include "core/nn/embedding.h"
#include "core/nn/linear.h"
#include "core/runtime/recording.h"

namespace voxtorch::nn {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

struct QuantizedLinear : torch::autograd::Function<QuantizedLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& codes, const Tensor& absmax,
                        const OptionalTensor& bias, int64_t out, int64_t in, int64_t block,
                        const OptionalTensor& nested_absmax, const OptionalTensor& nested_offset, int64_t type) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const QuantizedWeight weight{codes,
                                 absmax,
                                 out,
                                 in,
                                 block,
                                 nested_absmax.value_or(Tensor()),
                                 nested_offset.value_or(Tensor()),
                                 static_cast<QuantizedWeight::Type>(type)};
    ctx->save_for_backward({codes, absmax, weight.nested_absmax, weight.nested_offset});
    ctx->saved_data["out"] = out;
    ctx->saved_data["in"] = in;
    ctx->saved_data["block"] = block;
    ctx->saved_data["type"] = type;
    ctx->saved_data["has_bias"] = bias.has_value();
    return kernels::linear(input, weight.values(input.scalar_type()), bias);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto number = [&](const char* name) { return ctx->saved_data[name].toInt(); };
    const QuantizedWeight weight{
        saved[0],        saved[1], number("out"), number("in"),
        number("block"), saved[2], saved[3],      static_cast<QuantizedWeight::Type>(number("type"))};
    const Tensor grad = grads[0].contiguous();
    Tensor grad_input, grad_bias;
    if (ctx->needs_input_grad(0)) {
      grad_input = kernels::linear_input_gradient(grad, weight.values(grad.scalar_type()));
    }
    // Edges are counted over the tensors that forward was given: the bias, which may lack, comes after those that never
    // do.
    if (ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(3)) {
      grad_bias = grad.reshape({-1, grad.size(-1)}).sum(0);
    }
    return {grad_input, Tensor(), Tensor(), grad_bias, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

void check(const Tensor& input, const QuantizedWeight& weight, const OptionalTensor& bias) {
  const auto name = [](const Tensor& tensor) { return c10::getDtypeNames(tensor.scalar_type()).first; };
  TORCH_CHECK(input.dim() > 0 && input.size(-1) == weight.in, "quantized_linear: input must have shape [..., ",
              weight.in, "], as wide as the weight, got ", input.sizes());
  TORCH_CHECK(at::isFloatingType(input.scalar_type()), "quantized_linear: input must be floating point, got ",
              name(input));
  TORCH_CHECK(input.device() == weight.codes.device(), "quantized_linear: the input is on ", input.device(),
              " and the layer on ", weight.codes.device(), "; both must be on the same device");
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == weight.out), "quantized_linear: bias must have shape [",
              weight.out, "]");
  TORCH_CHECK(!bias || bias->scalar_type() == input.scalar_type(), "quantized_linear: the input is ", name(input),
              " and the bias ", name(*bias), "; they must have the same dtype");
}

// Under autocast the products are computed in its dtype, as linear's are.
Tensor lowered(const Tensor& tensor, c10::DeviceType device) {
  if (!at::autocast::is_autocast_enabled(device)) return tensor;
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), tensor, device);
}

using Type = QuantizedWeight::Type;

struct Scheme {
  std::string_view name;
  Type type;
  int64_t gguf = 0;  // of blocks
};
constexpr Scheme kSchemes[] = {{"nf4", Type::nf4},
                               {"int8", Type::int8},
                               {"q8_0", Type::q8_0, kernels::Q8_0},
                               {"q4_0", Type::q4_0, kernels::Q4_0},
                               {"q4_1", Type::q4_1, kernels::Q4_1},
                               {"q4_k", Type::q4_k, kernels::Q4_K},
                               {"q6_k", Type::q6_k, kernels::Q6_K}};

const Scheme& scheme_of(Type type) {
  return *std::find_if(std::begin(kSchemes), std::end(kSchemes), [&](const Scheme& one) { return one.type == type; });
}

// The product by the kernels that multiply with codes; undefined where the values must be made.
Tensor product_of_codes(const Tensor& input, const QuantizedWeight& weight, const OptionalTensor& bias) {
  const Tensor& codes = weight.codes;
  if (kernels::is_blocks(weight.type)) {
    if (!kernels::takes_blocks(input, codes, weight.type)) return {};
    if (kernels::takes_tiles(input)) return kernels::gguf_linear(input, codes, scheme_of(weight.type).gguf, bias);
    return kernels::blocks_linear(input, codes, weight.type, bias);
  }
  if (weight.type == QuantizedWeight::Type::int8) {
    if (codes.scalar_type() != at::kChar) return {};
    if (!kernels::are_few_rows(input, codes) && !kernels::are_many_rows(input, codes)) return {};
    return kernels::few_rows_linear(input, codes, bias, weight.absmax);
  }
  if (!kernels::are_few_rows_of_nf4(input, codes, weight.out, weight.in, weight.block)) return {};
  return kernels::few_rows_nf4_linear(input, codes, weight.scales(), weight.out, weight.block, bias);
}

Tensor values_of_blocks(const Tensor& blocks, Type type, at::IntArrayRef size, at::ScalarType dtype) {
  const Scheme& scheme = scheme_of(type);
  TORCH_CHECK(blocks.is_cpu(), "weights in blocks of ", scheme.name, " are computed with on the CPU, not on ",
              blocks.device(), "; make values of them there (dequantizeLayer, or `quantize: false` on loading)");
  // Half precision is what the blocks' own scales have; others take the long way.
  const bool direct = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  const Tensor values = kernels::gguf_dequantize(blocks, scheme.gguf, size, direct ? dtype : at::kFloat);
  return direct ? values : values.to(dtype);
}

}  // namespace

Tensor QuantizedWeight::values(at::ScalarType dtype) const {
  if (kernels::is_blocks(type)) return values_of_blocks(codes, type, {out, in}, dtype);
  if (type == Type::int8) return kernels::dequantize_int8(codes, absmax, dtype);
  return kernels::dequantize_nf4(codes, scales(), {out, in}, block, dtype);
}

Tensor QuantizedWeight::rows(const Tensor& indices, at::ScalarType dtype) const {
  TORCH_CHECK(kernels::is_blocks(type), "rows of a weight in ", scheme_of(type).name, " cannot be looked up");
  TORCH_CHECK(indices.scalar_type() == at::kLong || indices.scalar_type() == at::kInt,
              "indices must be int64 or int32, got ", c10::getDtypeNames(indices.scalar_type()).first);
  TORCH_CHECK(indices.device() == codes.device(), "the indices are on ", indices.device(), " and the layer on ",
              codes.device(), "; both must be on the same device");
  std::vector<int64_t> size = indices.sizes().vec();
  size.push_back(in);
  const Tensor found = codes.index_select(0, indices.reshape({-1}));
  if (found.numel() == 0) return at::empty(size, codes.options().dtype(dtype));
  return values_of_blocks(found.flatten(), type, size, dtype);
}

Tensor QuantizedWeight::scales() const {
  return nested_absmax.defined() ? kernels::dequantize_scales(absmax, nested_absmax, nested_offset) : absmax;
}

QuantizedWeight quantized_weight(const Tensor& codes, const OptionalTensor& given_absmax, at::IntArrayRef shape,
                                 const std::string& name, int64_t block, const OptionalTensor& nested_absmax,
                                 const OptionalTensor& nested_offset) {
  const auto* const scheme =
      std::find_if(std::begin(kSchemes), std::end(kSchemes), [&](const Scheme& one) { return one.name == name; });
  TORCH_CHECK(scheme != std::end(kSchemes), "there is no scheme '", name,
              "' of weights; nf4, int8, q8_0, q4_0, q4_1, q4_k and q6_k are");
  const Type type = scheme->type;
  TORCH_CHECK(shape.size() == 2 && shape[0] > 0 && shape[1] > 0, "a quantized weight has shape [out, in], not ", shape);
  const Tensor absmax = given_absmax.value_or(Tensor());
  const bool is_nf4 = type == Type::nf4;
  const bool is_nested = nested_absmax && nested_absmax->defined();
  TORCH_CHECK(is_nested == (nested_offset && nested_offset->defined()),
              "scales that are packed themselves have both a nested absmax and a nested offset");
  if (kernels::is_blocks(type)) {
    const auto [weights, bytes] = kernels::block_size(type);
    TORCH_CHECK(shape[1] % weights == 0, "rows of ", shape[1], " are not a multiple of a block of ", weights, " as ",
                name, " has them");
    const int64_t row = shape[1] / weights * bytes;
    TORCH_CHECK(codes.scalar_type() == at::kByte && codes.sizes().equals({shape[0], row}), "a weight of shape ", shape,
                " in ", name, " is uint8 of shape [", shape[0], ", ", row, "], got ",
                c10::getDtypeNames(codes.scalar_type()).first, " ", codes.sizes());
    TORCH_CHECK(codes.is_contiguous(), "the blocks must be contiguous");
    TORCH_CHECK(!absmax.defined() && !is_nested, "the scales of ", name, " stand in its blocks");
    return {codes, {}, shape[0], shape[1], 0, {}, {}, type};
  }
  TORCH_CHECK(absmax.defined(), name, " has scales of its own: absmax");
  TORCH_CHECK(!is_nf4 || (block > 0 && block % 2 == 0), "the block size must be a positive even number, got ", block);
  TORCH_CHECK(is_nf4 || codes.sizes() == shape, "int8 codes must have the weight's shape ", shape, ", got ",
              codes.sizes());
  TORCH_CHECK(is_nf4 || !is_nested, "int8 has float32 scales, which are not packed; those of nf4 may be");
  TORCH_CHECK(is_nested || absmax.scalar_type() == at::kFloat, "absmax must be float32, got ",
              c10::getDtypeNames(absmax.scalar_type()).first,
              "; codes of scales need a nested absmax and a nested offset");
  QuantizedWeight weight{codes, absmax, shape[0], shape[1], is_nf4 ? block : 0, {}, {}, type};
  if (is_nested) {
    weight.nested_absmax = *nested_absmax;
    weight.nested_offset = *nested_offset;
  }
  return weight;
}

Tensor quantized_linear(const Tensor& given, const QuantizedWeight& weight, const OptionalTensor& given_bias) {
  const c10::DeviceType device = given.device().type();
  const Tensor input = lowered(given, device);
  const OptionalTensor bias =
      given_bias && given_bias->defined() ? OptionalTensor(lowered(*given_bias, device)) : std::nullopt;
  check(input, weight, bias);
  if (const Tensor product = product_of_codes(input, weight, bias); product.defined()) return product;
  const RecordsForward recorded;
  const auto optional = [](const Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; };
  // Tensors that never lack: blocks have no scales of their own.
  const Tensor& absmax = weight.absmax.defined() ? weight.absmax : weight.codes;
  return QuantizedLinear::apply(input, weight.codes, absmax, bias, weight.out, weight.in, weight.block,
                                optional(weight.nested_absmax), optional(weight.nested_offset),
                                static_cast<int64_t>(weight.type));
}

Tensor adapted_quantized_linear(const Tensor& given, const QuantizedWeight& weight, const OptionalTensor& given_bias,
                                const ActiveAdapters& adapters, bool training) {
  const JoinedAdapters adapter = join(adapters);
  const c10::DeviceType device = given.device().type();
  const Tensor input = lowered(given, device);
  const OptionalTensor bias =
      given_bias && given_bias->defined() ? OptionalTensor(lowered(*given_bias, device)) : std::nullopt;
  check(input, weight, bias);
  TORCH_CHECK(adapter.a.dim() == 2 && adapter.a.size(1) == weight.in && adapter.b.dim() == 2 &&
                  adapter.b.size(0) == weight.out && adapter.b.size(1) == adapter.a.size(0),
              "adapted_quantized_linear: a layer of ", weight.in, " inputs and ", weight.out,
              " outputs needs lora_A [rank, in] and lora_B [out, rank], got ", adapter.a.sizes(), " and ",
              adapter.b.sizes());
  const at::ScalarType type = input.scalar_type();
  const bool drops = training && adapters.dropout > 0;
  const Tensor dropped = drops ? at::dropout(input, adapters.dropout, true) : input;
  const Tensor low = at::linear(at::linear(dropped, adapter.a.to(type)), adapter.b.to(type));
  if (!adapters.magnitude) return quantized_linear(input, weight, bias).add(low, adapter.scaling);
  const Tensor ratio = dora_ratio(weight.values(type), adapter, *adapters.magnitude);  // [out]
  const Tensor plain = quantized_linear(dropped, weight, std::nullopt);
  const Tensor scaled = plain.add(low, adapter.scaling) * ratio;
  if (!drops) return bias ? scaled + *bias : scaled;
  return quantized_linear(input, weight, bias) + (scaled - plain);
}

namespace {

void quantize(const c10::intrusive_ptr<Module>& module, std::optional<QuantizedWeight> weight) {
  if (auto* linear = dynamic_cast<Linear*>(module.get())) return linear->quantize(std::move(weight));
  auto* const embedding = dynamic_cast<Embedding*>(module.get());
  TORCH_CHECK(embedding != nullptr, module->kind, " cannot be quantized; Linear and Embedding can");
  TORCH_CHECK(!weight || kernels::is_blocks(weight->type), "embeddings are packed in GGUF's blocks");
  embedding->quantize(std::move(weight));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "quantized_linear(Tensor input, Tensor codes, Tensor? absmax, int[] shape, Tensor? bias=None, *, str scheme, "
      "int block_size=64, Tensor? nested_absmax=None, Tensor? nested_offset=None) -> Tensor",
      [](const Tensor& input, const Tensor& codes, const OptionalTensor& absmax, at::IntArrayRef shape,
         const OptionalTensor& bias, const std::string& scheme, int64_t block, const OptionalTensor& nested_absmax,
         const OptionalTensor& nested_offset) {
        return quantized_linear(
            input, quantized_weight(codes, absmax, shape, scheme, block, nested_absmax, nested_offset), bias);
      });
  m.def(
      "adapted_quantized_linear(Tensor input, Tensor codes, Tensor? absmax, int[] shape, Tensor? bias, Tensor[] "
      "lora_A, "
      "Tensor[] lora_B, float[] scaling, *, str scheme, int block_size=64, Tensor? nested_absmax=None, "
      "Tensor? nested_offset=None, Tensor? magnitude=None, float dropout=0., bool training=False) -> Tensor",
      [](const Tensor& input, const Tensor& codes, const OptionalTensor& absmax, at::IntArrayRef shape,
         const OptionalTensor& bias, const std::vector<Tensor>& a, const std::vector<Tensor>& b,
         const std::vector<double>& scaling, const std::string& scheme, int64_t block,
         const OptionalTensor& nested_absmax, const OptionalTensor& nested_offset, const OptionalTensor& magnitude,
         double dropout, bool training) {
        return adapted_quantized_linear(
            input, quantized_weight(codes, absmax, shape, scheme, block, nested_absmax, nested_offset), bias,
            {a, b, scaling, magnitude, dropout}, training);
      });
  // indices [...] -> [..., in], of a weight in blocks.
  m.def(
      "quantized_embedding(Tensor indices, Tensor codes, int[] shape, *, str scheme, ScalarType dtype=float) -> Tensor",
      [](const Tensor& indices, const Tensor& codes, at::IntArrayRef shape, const std::string& scheme,
         at::ScalarType dtype) {
        return quantized_weight(codes, std::nullopt, shape, scheme, 0, std::nullopt, std::nullopt).rows(indices, dtype);
      });
  // The layer's weight is set to the codes by the caller; this tells the layer what they mean.
  m.def(
      "module_quantize_linear(__torch__.torch.classes.voxtorch.Module self, Tensor codes, Tensor? absmax, int[] shape, "
      "*, str scheme, int block_size=64, Tensor? nested_absmax=None, Tensor? nested_offset=None) -> ()",
      [](const c10::intrusive_ptr<Module>& self, const Tensor& codes, const OptionalTensor& absmax,
         at::IntArrayRef shape, const std::string& scheme, int64_t block, const OptionalTensor& nested_absmax,
         const OptionalTensor& nested_offset) {
        quantize(self, quantized_weight(codes, absmax, shape, scheme, block, nested_absmax, nested_offset));
      });
  m.def("module_dequantize_linear(__torch__.torch.classes.voxtorch.Module self) -> ()",
        [](const c10::intrusive_ptr<Module>& self) { quantize(self, std::nullopt); });
}

}  // namespace voxtorch::nn
