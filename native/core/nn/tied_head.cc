#include "core/nn/tied_head.h"

#include <ATen/core/grad_mode.h>
#include <torch/library.h>

namespace voxtorch::nn {

c10::intrusive_ptr<Linear> TiedHead::own_head() const {
  const std::lock_guard lock(mutex_);
  return own_;
}

c10::intrusive_ptr<Linear> TiedHead::untie() {
  const at::Tensor& weight = tied_weight();
  TORCH_CHECK(weight.defined(), "the output layer has a weight of its own");
  TORCH_CHECK(at::isFloatingType(weight.scalar_type()),
              "the embeddings are packed, and the output layer with them: it gets a weight of its own once they are "
              "values again (dequantizeLayer)");
  const std::lock_guard lock(mutex_);
  if (own_) return own_;
  const ModuleOptions options{weight.device(), weight.scalar_type()};
  own_ = c10::make_intrusive<Linear>(options, weight.size(1), weight.size(0), false);
  const at::NoGradGuard no_grad;
  own_->weight.copy_(weight);
  return own_;
}

void TiedHead::tie(const Linear& head) {
  const std::lock_guard lock(mutex_);
  if (own_.get() == &head) own_.reset();
}

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;

TiedHead* tied_head(const ModulePtr& module) {
  auto* found = dynamic_cast<TiedHead*>(module.get());
  return found != nullptr && found->tied_weight().defined() ? found : nullptr;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Where a language model's output layer is, or would be if it were not tied to its embeddings, and these; '' for
  // other networks.
  m.def("module_output_layer(__torch__.torch.classes.voxtorch.Module self) -> (str head, str embeddings, bool tied)",
        [](const ModulePtr& self) -> std::tuple<std::string, std::string, bool> {
          const auto* found = dynamic_cast<const TiedHead*>(self.get());
          if (found == nullptr) return {"", "", false};
          return {found->names().head, found->names().embeddings, found->tied_weight().defined() && !found->own_head()};
        });
  // Gives the output layer a weight of its own, and the layer.
  m.def("module_untie_head(__torch__.torch.classes.voxtorch.Module self) -> __torch__.torch.classes.voxtorch.Module",
        [](const ModulePtr& self) -> ModulePtr {
          TiedHead* tied = tied_head(self);
          TORCH_CHECK(tied != nullptr, self->kind, " has no tied output layer");
          return tied->untie();
        });
  // The reverse, for the layer that the other gave.
  m.def(
      "module_tie_head(__torch__.torch.classes.voxtorch.Module self, __torch__.torch.classes.voxtorch.Module head) -> "
      "()",
      [](const ModulePtr& self, const ModulePtr& head) {
        TiedHead* tied = tied_head(self);
        const auto* layer = dynamic_cast<const Linear*>(head.get());
        TORCH_CHECK(tied != nullptr && layer != nullptr, self->kind, " has no such output layer");
        tied->tie(*layer);
      });
}

at::Tensor last_states(const at::Tensor& hidden, int64_t count) {
  const int64_t time = hidden.size(1);
  return count == 0 || count >= time ? hidden : hidden.narrow(1, time - count, count).contiguous();
}

}  // namespace voxtorch::nn
