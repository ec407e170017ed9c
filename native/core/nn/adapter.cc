#include "core/nn/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <algorithm>

#include "core/kernels/derived.h"
#include "core/kernels/lora_linear.h"
#include "core/module.h"
#include "core/nn/tied_head.h"
#include "core/runtime/device_tables.h"

namespace voxtorch::nn {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

void AdapterSlot::attach(const std::string& name, Adapter adapter) {
  const std::lock_guard lock(mutex_);
  all_[name] = std::move(adapter);
  choose();
}

void AdapterSlot::remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  all_.erase(name);
  choose();
}

void AdapterSlot::activate(const std::vector<std::string>& names) {
  const std::lock_guard lock(mutex_);
  names_ = names;
  choose();
}

std::shared_ptr<const ActiveAdapters> AdapterSlot::active() const {
  const std::lock_guard lock(mutex_);
  return active_;
}

std::vector<Tensor> AdapterSlot::tensors() const {
  const std::lock_guard lock(mutex_);
  std::vector<Tensor> all;
  for (const auto& [name, adapter] : all_) {
    for (const Tensor* tensor : {&adapter.a, &adapter.b, &adapter.magnitude}) {
      if (tensor->defined()) all.push_back(*tensor);
    }
  }
  return all;
}

void AdapterSlot::choose() {
  auto active = std::make_shared<ActiveAdapters>();
  for (const std::string& name : names_) {
    const auto found = all_.find(name);
    if (found == all_.end()) continue;
    const Adapter& adapter = found->second;
    active->a.push_back(adapter.a);
    active->b.push_back(adapter.b);
    active->scaling.push_back(adapter.scaling);
    active->dropout = adapter.dropout;
    if (adapter.magnitude.defined()) active->magnitude = adapter.magnitude;
  }
  active_ = active->a.empty() ? nullptr : std::move(active);
}

namespace {

bool are_rows(const Tensor& a) { return a.scalar_type() == at::kLong; }

// The adapter whose values stand in place of rows of the weight; null for those that add to it.
struct Rows {
  Tensor indices, values;  // int64 [rows], [rows, dim]
  double share;            // of the way from the weight's rows to the values
};
std::optional<Rows> rows_of(const ActiveAdapters& adapters, const Tensor& weight) {
  if (adapters.a.size() != 1 || adapters.b.size() != 1 || !are_rows(adapters.a[0])) return std::nullopt;
  const Tensor &indices = adapters.a[0], &values = adapters.b[0];
  TORCH_CHECK(weight.dim() == 2 && indices.dim() == 1 && indices.numel() > 0 && values.dim() == 2 &&
                  values.size(0) == indices.size(0) && values.size(1) == weight.size(1),
              "an adapter of rows needs indices [rows] and values [rows, dim] for a weight [count, dim], got ",
              indices.sizes(), ", ", values.sizes(), " and ", weight.sizes());
  return Rows{indices.to(weight.device()), values, adapters.scaling.empty() ? 1 : adapters.scaling[0]};
}

}  // namespace

JoinedAdapters join(const ActiveAdapters& adapters) {
  const size_t count = adapters.a.size();
  TORCH_CHECK(std::none_of(adapters.a.begin(), adapters.a.end(), are_rows),
              "an adapter of rows cannot be active together with another, or in a packed layer");
  TORCH_CHECK(count > 0 && adapters.b.size() == count && adapters.scaling.size() == count,
              "an adapter needs as many lora_A and lora_B as scalings, got ", count, ", ", adapters.b.size(), " and ",
              adapters.scaling.size());
  if (count == 1) return {adapters.a[0], adapters.b[0], adapters.scaling[0]};
  TORCH_CHECK(!adapters.magnitude, "an adapter with a magnitude (DoRA) cannot be active together with another");
  const auto join_a = [&] { return at::cat(adapters.a, 0); };
  const auto join_b = [&] {
    std::vector<Tensor> scaled;
    for (size_t i = 0; i < count; ++i) scaled.push_back(adapters.b[i] * adapters.scaling[i]);
    return at::cat(scaled, 1);
  };
  const auto learns = [](const Tensor& tensor) { return tensor.requires_grad(); };
  if (at::GradMode::is_enabled() && (std::any_of(adapters.a.begin(), adapters.a.end(), learns) ||
                                     std::any_of(adapters.b.begin(), adapters.b.end(), learns))) {
    return {join_a(), join_b(), 1};
  }
  std::string scalings;
  for (const double scaling : adapters.scaling) scalings += table_key(scaling);
  return {kernels::derived(adapters.a, "joined", join_a), kernels::derived(adapters.b, "joined " + scalings, join_b),
          1};
}

Tensor dora_ratio(const Tensor& weight, const JoinedAdapters& adapter, const Tensor& magnitude) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Tensor norm = [&] {
    const at::NoGradGuard no_grad;
    const at::ScalarType type = weight.scalar_type();
    const Tensor a = adapter.a.flatten(1).to(type), b = adapter.b.flatten(1).to(type);
    return at::linalg_vector_norm(at::addmm(weight.flatten(1), b, a, 1, adapter.scaling), 2, {1});
  }();
  return (magnitude.flatten() / norm).to(weight.scalar_type());
}

namespace {

// Under autocast a layer's products are computed in its dtype, as linear's are; the norms of DoRA stay exact.
class Lowering {
 public:
  explicit Lowering(const Tensor& input)
      : device_(input.device().type()), active_(at::autocast::is_autocast_enabled(device_)) {
    if (active_) no_autocast_.emplace(c10::autocast_dispatch_keyset);
  }
  Tensor operator()(const Tensor& tensor) const {
    return active_ ? at::autocast::cached_cast(at::autocast::get_autocast_dtype(device_), tensor, device_) : tensor;
  }
  OptionalTensor operator()(const OptionalTensor& tensor) const {
    return tensor && tensor->defined() ? OptionalTensor((*this)(*tensor)) : std::nullopt;
  }

 private:
  const c10::DeviceType device_;
  const bool active_;
  std::optional<c10::impl::ExcludeDispatchKeyGuard> no_autocast_;
};

Tensor drop(const Tensor& input, const ActiveAdapters& adapters, bool training) {
  return training && adapters.dropout > 0 ? at::dropout(input, adapters.dropout, true) : input;
}

// Only the outputs of these rows are computed anew: the weight is not copied, and has no gradient of its size.
Tensor linear_with_rows(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const Rows& rows) {
  const Tensor plain = at::linear(input, weight, bias);
  const OptionalTensor shift = bias ? OptionalTensor(bias->index_select(0, rows.indices)) : std::nullopt;
  Tensor own = at::linear(input, rows.values.to(weight.scalar_type()), shift);
  if (rows.share != 1) own = plain.index_select(-1, rows.indices).lerp(own, rows.share);
  return plain.index_copy(-1, rows.indices, own);
}

Tensor embedding_with_rows(const Tensor& weight, const Tensor& ids, int64_t padding, const Rows& rows) {
  const Tensor plain = at::embedding(weight, ids, padding);
  const Tensor matches = ids.unsqueeze(-1) == rows.indices;  // [..., rows]
  Tensor own = at::embedding(rows.values, matches.to(at::kInt).argmax(-1)).to(plain.scalar_type());
  if (padding >= 0) own = at::where((ids == padding).unsqueeze(-1), own.detach(), own);
  if (rows.share != 1) own = plain.lerp(own, rows.share);
  return at::where(matches.any(-1, true), own, plain);
}

}  // namespace

Tensor adapted_linear(const Tensor& given, const Tensor& exact, const OptionalTensor& given_bias,
                      const ActiveAdapters& adapters, bool training) {
  const Lowering lowered(given);
  const Tensor input = lowered(given), weight = lowered(exact);
  const OptionalTensor bias = lowered(given_bias);
  if (const auto rows = rows_of(adapters, weight)) return linear_with_rows(input, weight, bias, *rows);
  const JoinedAdapters adapter = join(adapters);
  if (!adapters.magnitude) {
    return kernels::lora_linear(input, weight, bias, adapter.a, adapter.b, adapter.scaling, adapters.dropout, training);
  }
  const Tensor ratio = dora_ratio(exact, adapter, *adapters.magnitude).to(weight.scalar_type());  // [out]
  if (!training || adapters.dropout == 0) {
    const Tensor scaled =
        kernels::lora_linear(input, weight, std::nullopt, adapter.a, adapter.b, adapter.scaling, 0, false) * ratio;
    return bias ? scaled + *bias : scaled;
  }
  // Only the part that the magnitude adds sees the dropped input.
  const Tensor dropped = drop(input, adapters, training);
  const Tensor both =
      kernels::lora_linear(dropped, weight, std::nullopt, adapter.a, adapter.b, adapter.scaling, 0, false);
  return at::linear(input, weight, bias) + (both * ratio - at::linear(dropped, weight));
}

Tensor adapted_conv1d(const Tensor& given, const Tensor& exact, const OptionalTensor& given_bias,
                      const ConvGeometry& geometry, const ActiveAdapters& adapters, bool training) {
  const Lowering lowered(given);
  const JoinedAdapters adapter = join(adapters);
  const Tensor input = lowered(given), weight = lowered(exact);
  const OptionalTensor bias = lowered(given_bias);
  const at::ScalarType type = weight.scalar_type();
  const auto convolve = [&](const Tensor& signal, const Tensor& kernel, const OptionalTensor& shift) {
    return at::conv1d(signal, kernel, shift, geometry.stride, geometry.padding, geometry.dilation);
  };
  const Tensor dropped = drop(input, adapters, training);
  const Tensor low = at::conv1d(convolve(dropped, adapter.a.to(type), std::nullopt), adapter.b.to(type));
  if (!adapters.magnitude) return convolve(input, weight, bias).add(low, adapter.scaling);
  const Tensor ratio = dora_ratio(exact, adapter, *adapters.magnitude).to(type).unsqueeze(-1);  // [out, 1]
  const Tensor plain = convolve(dropped, weight, std::nullopt);
  const Tensor scaled = plain.add(low, adapter.scaling) * ratio;
  if (dropped.is_same(input)) return bias ? scaled + bias->unsqueeze(-1) : scaled;
  return convolve(input, weight, bias) + (scaled - plain);
}

Tensor adapted_embedding(const Tensor& weight, const Tensor& ids, int64_t padding, const ActiveAdapters& adapters) {
  if (const auto rows = rows_of(adapters, weight)) return embedding_with_rows(weight, ids, padding, *rows);
  const JoinedAdapters adapter = join(adapters);
  const at::ScalarType type = weight.scalar_type();
  const Tensor plain = at::embedding(weight, ids, padding);
  const Tensor low = at::matmul(at::embedding(adapter.a.t(), ids, padding).to(type), adapter.b.t().to(type));
  const Tensor sum = plain.add(low, adapter.scaling);
  if (!adapters.magnitude) return sum;
  // A column of the table is what a row is elsewhere.
  return sum * dora_ratio(weight.t(), adapter, *adapters.magnitude);
}

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;

AdapterSlot& slot_of(const ModulePtr& module) {
  AdapterSlot* slot = module->adapters();
  TORCH_CHECK(slot != nullptr, module->kind, " has no place for an adapter; Linear, Conv1d and Embedding have");
  return *slot;
}

void for_each_slot(const ModulePtr& module, const std::function<void(AdapterSlot&)>& fn) {
  if (AdapterSlot* slot = module->adapters()) fn(*slot);
  for (const auto& [name, child] : module->children()) for_each_slot(child, fn);
  if (const auto* tied = dynamic_cast<const TiedHead*>(module.get())) {
    if (const auto head = tied->own_head()) fn(*head->adapters());
  }
}

void attach(const ModulePtr& self, const std::string& name, const Tensor& a, const Tensor& b,
            const OptionalTensor& magnitude, double scaling, double dropout) {
  slot_of(self).attach(name, {a, b, magnitude.value_or(Tensor()), scaling, dropout});
}

ActiveAdapters given(const std::vector<Tensor>& a, const std::vector<Tensor>& b, const std::vector<double>& scaling,
                     const OptionalTensor& magnitude, double dropout) {
  return {a, b, scaling, magnitude, dropout};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "module_attach_adapter(__torch__.torch.classes.voxtorch.Module self, str name, Tensor lora_A, Tensor lora_B, "
      "Tensor? magnitude, float scaling, float dropout) -> ()",
      attach);
  // In this module and all below it.
  m.def("module_remove_adapter(__torch__.torch.classes.voxtorch.Module self, str name) -> ()",
        [](const ModulePtr& self, const std::string& name) {
          for_each_slot(self, [&](AdapterSlot& slot) { slot.remove(name); });
        });
  m.def("module_activate_adapters(__torch__.torch.classes.voxtorch.Module self, str[] names) -> ()",
        [](const ModulePtr& self, const std::vector<std::string>& names) {
          for_each_slot(self, [&](AdapterSlot& slot) { slot.activate(names); });
        });
  m.def(
      "adapted_linear(Tensor input, Tensor weight, Tensor? bias, Tensor[] lora_A, Tensor[] lora_B, float[] scaling, *, "
      "Tensor? magnitude=None, float dropout=0., bool training=False) -> Tensor",
      [](const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const std::vector<Tensor>& a,
         const std::vector<Tensor>& b, const std::vector<double>& scaling, const OptionalTensor& magnitude,
         double dropout, bool training) {
        return adapted_linear(input, weight, bias, given(a, b, scaling, magnitude, dropout), training);
      });
  m.def(
      "adapted_conv1d(Tensor input, Tensor weight, Tensor? bias, Tensor[] lora_A, Tensor[] lora_B, float[] scaling, *, "
      "int stride=1, int padding=0, int dilation=1, Tensor? magnitude=None, float dropout=0., bool training=False) -> "
      "Tensor",
      [](const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const std::vector<Tensor>& a,
         const std::vector<Tensor>& b, const std::vector<double>& scaling, int64_t stride, int64_t padding,
         int64_t dilation, const OptionalTensor& magnitude, double dropout, bool training) {
        return adapted_conv1d(input, weight, bias, {stride, dilation, padding},
                              given(a, b, scaling, magnitude, dropout), training);
      });
  m.def(
      "adapted_embedding(Tensor weight, Tensor indices, Tensor[] lora_A, Tensor[] lora_B, float[] scaling, *, "
      "int padding_idx=-1, Tensor? magnitude=None) -> Tensor",
      [](const Tensor& weight, const Tensor& indices, const std::vector<Tensor>& a, const std::vector<Tensor>& b,
         const std::vector<double>& scaling, int64_t padding, const OptionalTensor& magnitude) {
        return adapted_embedding(weight, indices, padding, given(a, b, scaling, magnitude, 0));
      });
}

}  // namespace voxtorch::nn
