// A linear layer with a low-rank adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685) as one operator:
//
//   output = input Wᵀ + bias + scaling * drop(input) Aᵀ Bᵀ        A [rank, in], B [out, rank]
//
// Its products add into each other's results, forward and backward, so nothing of the output's size is made next to the
// output: three launches forward, and two for each gradient but W's. An adapter in another dtype than the layer is cast
// once for as long as it does not change, and its gradients are in its own. A frozen W has no gradient and keeps
// nothing for one: what is saved is the input (shared by all layers that read it), a byte per element where there is
// dropout, and [rows, rank]. It is made of ATen's products, so one file serves every device. Gradients of any order:
// the first is written by hand, higher ones go through the same formula in plain operators.
#include "core/kernels/lora_linear.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_dropout.h>
#include <ATen/ops/native_dropout_backward.h>
#include <c10/core/ScalarType.h>
#include <c10/util/accumulate.h>
#include <torch/library.h>

#include <vector>

#include "core/kernels/derived.h"
#include "core/kernels/fused_operator.h"
#include "core/kernels/linear.h"
#include "core/runtime/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

void check(const Tensor& input, const Tensor& weight, const Tensor& bias, const Tensor& a, const Tensor& b,
           double dropout) {
  const auto types = [](const Tensor& tensor) { return c10::getDtypeNames(tensor.scalar_type()).first; };
  TORCH_CHECK(weight.dim() == 2, "lora_linear: weight must have shape [out, in], got ", weight.sizes());
  TORCH_CHECK(input.dim() > 0 && input.size(-1) == weight.size(1), "lora_linear: input must have shape [..., ",
              weight.size(1), "], as wide as the weight, got ", input.sizes());
  TORCH_CHECK(a.dim() == 2 && a.size(1) == weight.size(1), "lora_linear: lora_A must have shape [rank, ",
              weight.size(1), "], got ", a.sizes());
  TORCH_CHECK(b.dim() == 2 && b.size(0) == weight.size(0) && b.size(1) == a.size(0),
              "lora_linear: lora_B must have shape [", weight.size(0), ", ", a.size(0), "], got ", b.sizes());
  TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)),
              "lora_linear: bias must have shape [", weight.size(0), "], got ", bias.sizes());
  TORCH_CHECK(dropout >= 0 && dropout <= 1, "lora_linear: dropout must be a probability from 0 to 1, got ", dropout);
  TORCH_CHECK(at::isFloatingType(input.scalar_type()), "lora_linear: input must be floating point, got ", types(input));
  for (const Tensor* tensor : {&weight, &bias}) {
    TORCH_CHECK(!tensor->defined() || tensor->scalar_type() == input.scalar_type(), "lora_linear: the input is ",
                types(input), " and the weight or bias ", types(*tensor), "; they must have the same dtype");
  }
  for (const Tensor* tensor : {&weight, &bias, &a, &b}) {
    TORCH_CHECK(!tensor->defined() || tensor->device() == input.device(), "lora_linear: the input is on ",
                input.device(), " and the layer on ", tensor->device(), "; both must be on the same device");
    TORCH_CHECK(!tensor->defined() || at::isFloatingType(tensor->scalar_type()),
                "lora_linear: weights must be floating point, got ", types(*tensor));
  }
}

Tensor rows_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return tensor.reshape({c10::multiply_integers(sizes.begin(), sizes.end() - 1), sizes.back()});
}

double kept_scale(double dropout) { return dropout < 1 ? 1 / (1 - dropout) : 0; }

// On the CPU ATen turns a bool operand into floats of its own first, which costs more than the product.
bool is_plain(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
}

constexpr int64_t kGrain = 16384;  // elements below which a second thread costs more than it saves

// output = input * mask * scale.
void scale_kept(const Tensor& output, const Tensor& input, const Tensor& mask, double scale) {
  float* to = output.mutable_data_ptr<float>();
  const float* from = input.const_data_ptr<float>();
  const auto* keep = reinterpret_cast<const uint8_t*>(mask.const_data_ptr<bool>());
  const auto factor = static_cast<float>(scale);
  at::parallel_for(0, input.numel(), kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = from[i] * (factor * static_cast<float>(keep[i]));
  });
}

// sum += input * mask * scale; input is lost.
void add_kept(const Tensor& sum, const Tensor& input, const Tensor& mask, double scale) {
  if (!is_plain(input) || !is_plain(sum)) {
    sum.addcmul_(input, mask, scale);
    return;
  }
  float* to = sum.mutable_data_ptr<float>();
  const float* from = input.const_data_ptr<float>();
  const auto* keep = reinterpret_cast<const uint8_t*>(mask.const_data_ptr<bool>());
  const auto factor = static_cast<float>(scale);
  at::parallel_for(0, input.numel(), kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] += from[i] * (factor * static_cast<float>(keep[i]));
  });
}

// input * mask * scale, as the dropout before gave it.
Tensor dropped_again(const Tensor& input, const Tensor& mask, double scale) {
  if (!is_plain(input)) return at::native_dropout_backward(input, mask, scale);
  const Tensor output = at::empty_like(input);
  scale_kept(output, input, mask, scale);
  return output;
}

// scale * left right, in one launch.
Tensor scaled_product(const Tensor& left, const Tensor& right, double scale) {
  Tensor result = at::empty({left.size(0), right.size(1)}, left.options());
  return at::addmm_out(result, result, left, right, 0, scale);
}

struct Dropped {
  Tensor output, mask;
};

// The mask is the one that ATen's native_dropout draws.
Dropped drop(const Tensor& rows, double dropout) {
  if (!is_plain(rows)) {
    auto [output, mask] = at::native_dropout(rows, dropout, true);
    return {output, mask};
  }
  const Tensor mask = at::empty(rows.sizes(), rows.options().dtype(at::kBool)).bernoulli_(1 - dropout);
  const Tensor output = at::empty_like(rows);
  scale_kept(output, rows, mask, kept_scale(dropout));
  return {output, mask};
}

struct Computed {
  Tensor output;  // [rows, out]
  Tensor narrow;  // [rows, rank]
  Tensor mask;    // [rows, in], undefined without dropout
};

Computed compute(const Tensor& rows, const Tensor& weight, const Tensor& bias, const Tensor& a, const Tensor& b,
                 double scaling, double dropout) {
  Computed result;
  result.output = kernels::linear(rows, weight, bias.defined() ? OptionalTensor(bias) : std::nullopt);
  if (dropout > 0) {
    const Dropped dropped = drop(rows, dropout);
    result.mask = dropped.mask;
    result.narrow = at::mm(dropped.output, a.t());
  } else {
    result.narrow = at::mm(rows, a.t());
  }
  result.output.addmm_(result.narrow, b.t(), 1, scaling);
  return result;
}

struct Gradients {
  Tensor rows, weight, bias, a, b;
};

struct Saved {
  Tensor rows, weight, a, b, narrow, mask;  // undefined where no gradient asks for it
  double scaling, dropout;
};

struct Needs {
  bool rows, weight, bias, a, b;
};

Gradients differentiate(const Tensor& grad, const Saved& saved, const Needs& needs) {
  Gradients result;
  if (needs.weight) result.weight = at::mm(grad.t(), saved.rows);
  if (needs.bias) result.bias = grad.sum({0});
  if (needs.b) result.b = scaled_product(grad.t(), saved.narrow, saved.scaling);
  if (needs.rows) result.rows = linear_input_gradient(grad.contiguous(), saved.weight);  // [rows, in]
  if (!needs.rows && !needs.a) return result;
  const Tensor narrow = scaled_product(grad, saved.b, saved.scaling);  // [rows, rank]
  if (!saved.mask.defined()) {
    if (needs.a) result.a = at::mm(narrow.t(), saved.rows);
    if (needs.rows) result.rows.addmm_(narrow, saved.a);
    return result;
  }
  const double scale = kept_scale(saved.dropout);
  Tensor buffer;  // [rows, in], for both gradients
  if (needs.a) {
    buffer = dropped_again(saved.rows, saved.mask, scale);
    result.a = at::mm(narrow.t(), buffer);
  }
  if (needs.rows) {
    if (buffer.defined()) {
      at::mm_out(buffer, narrow, saved.a);
    } else {
      buffer = at::mm(narrow, saved.a);
    }
    add_kept(result.rows, buffer, saved.mask, scale);
  }
  return result;
}

// The same in operators that autograd can differentiate again.
Gradients differentiate_twice(const Tensor& grad, const Saved& saved, const Needs& needs) {
  Gradients result;
  const double scale = saved.mask.defined() ? kept_scale(saved.dropout) : 1;
  const auto dropped = [&](const Tensor& tensor) {
    return saved.mask.defined() ? tensor * saved.mask * scale : tensor;
  };
  if (needs.weight) result.weight = at::mm(grad.t(), saved.rows);
  if (needs.bias) result.bias = grad.sum({0});
  if (needs.b) result.b = at::mm(grad.t(), at::mm(dropped(saved.rows), saved.a.t())) * saved.scaling;
  if (!needs.rows && !needs.a) return result;
  const Tensor narrow = at::mm(grad, saved.b) * saved.scaling;
  if (needs.a) result.a = at::mm(narrow.t(), dropped(saved.rows));
  if (needs.rows) result.rows = at::mm(grad, saved.weight) + dropped(at::mm(narrow, saved.a));
  return result;
}

struct LoraLinear : torch::autograd::Function<LoraLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rows, const Tensor& weight, const Tensor& a,
                        const Tensor& b, const OptionalTensor& bias, double scaling, double dropout) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::ScalarType dtype = rows.scalar_type();
    const Computed computed = compute(rows, weight, bias.value_or(Tensor()), derived_cast(a, dtype),
                                      derived_cast(b, dtype), scaling, dropout);
    const bool needs_rows = rows.requires_grad(), needs_a = a.requires_grad(), needs_b = b.requires_grad();
    const auto when = [](bool needed, const Tensor& tensor) { return needed ? tensor : Tensor(); };
    ctx->save_for_backward({when(weight.requires_grad() || needs_a || needs_b, rows), when(needs_rows, weight),
                            when(needs_rows || needs_b, a), when(needs_rows || needs_a, b),
                            when(needs_b, computed.narrow), computed.mask});
    ctx->saved_data["scaling"] = scaling;
    ctx->saved_data["dropout"] = dropout;
    ctx->saved_data["has_bias"] = bias.has_value();
    ctx->saved_data["adapter"] = static_cast<int64_t>(a.scalar_type());
    return computed.output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list kept = ctx->get_saved_variables();
    const at::ScalarType dtype = grads[0].scalar_type();
    // A gradient of this gradient goes back to the adapter itself.
    const auto lowered = [&](const Tensor& tensor) {
      if (!tensor.defined()) return tensor;
      return at::GradMode::is_enabled() ? tensor.to(dtype) : derived_cast(tensor, dtype);
    };
    const Saved saved{kept[0],
                      kept[1],
                      lowered(kept[2]),
                      lowered(kept[3]),
                      kept[4],
                      kept[5],
                      ctx->saved_data["scaling"].toDouble(),
                      ctx->saved_data["dropout"].toDouble()};
    // Edges are counted over the tensors that forward was given, so the bias, which may lack, comes last.
    const bool needs_bias = ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(4);
    const Needs needs{ctx->needs_input_grad(0), ctx->needs_input_grad(1), needs_bias, ctx->needs_input_grad(2),
                      ctx->needs_input_grad(3)};
    Gradients result;
    if (at::GradMode::is_enabled()) {
      result = differentiate_twice(grads[0], saved, needs);
    } else {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      result = differentiate(grads[0], saved, needs);
    }
    const auto adapter = static_cast<at::ScalarType>(ctx->saved_data["adapter"].toInt());
    for (Tensor* grad : {&result.a, &result.b}) {
      if (grad->defined()) *grad = grad->to(adapter);
    }
    return {result.rows, result.weight, result.a, result.b, result.bias, Tensor(), Tensor()};
  }
};

using Operator = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&, double,
                        double, bool);

// Under autocast all products are computed in its dtype, as linear's are.
Tensor lora_linear_autocast(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const Tensor& lora_A,
                            const Tensor& lora_B, double scaling, double dropout, bool training) {
  static const auto op = operator_of<Operator>("voxtorch::lora_linear");
  const AutocastTo lowered(input);
  const OptionalTensor shift = bias.has_value() && bias->defined() ? OptionalTensor(lowered(*bias)) : std::nullopt;
  return op.call(lowered(input), lowered(weight), shift, lora_A, lora_B, scaling, dropout, training);
}

}  // namespace

Tensor lora_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const Tensor& lora_A,
                   const Tensor& lora_B, double scaling, double dropout, bool training) {
  const Tensor shift = bias.value_or(Tensor());
  check(input, weight, shift, lora_A, lora_B, dropout);
  if (!training) dropout = 0;
  const Tensor rows = rows_of(input);
  bool recorded = false;
  for (const Tensor* tensor : {&rows, &weight, &shift, &lora_A, &lora_B}) {
    recorded |= at::GradMode::is_enabled() && tensor->defined() && tensor->requires_grad();
  }
  Tensor output;
  if (recorded) {
    const OptionalTensor given = shift.defined() ? OptionalTensor(shift) : std::nullopt;
    const RecordsForward no_shortcuts;
    output = LoraLinear::apply(rows, weight, lora_A, lora_B, given, scaling, dropout);
  } else {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::ScalarType dtype = input.scalar_type();
    output =
        compute(rows, weight, shift, derived_cast(lora_A, dtype), derived_cast(lora_B, dtype), scaling, dropout).output;
  }
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes.back() = weight.size(0);
  return output.view(sizes);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "lora_linear(Tensor input, Tensor weight, Tensor? bias, Tensor lora_A, Tensor lora_B, float scaling, "
      "float dropout=0., bool training=False) -> Tensor",
      lora_linear);
}

VOXTORCH_AUTOCAST("lora_linear", lora_linear_autocast)

}  // namespace voxtorch::kernels
