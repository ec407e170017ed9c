// The connector of Idefics3 (Laurençon et al. 2024, https://arxiv.org/abs/2408.12637) and SmolVLM, with the names of
// their checkpoints: a projection without a bias, after pixel shuffle.
#include <torch/library.h>

#include "core/nn/linear.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class ModalityProjection : public Block {
 public:
  ModalityProjection(const ModuleOptions& options, const Config& c)
      : Block("ModalityProjection", options),
        projection(*child<nn::Linear>("proj", c.integer("input_size"), c.integer("hidden_size"), false,
                                      c.number("initializer_range", 0.02))) {}

  Tensor forward(const Tensor& features) const { return watched(features, projection.forward(features)); }

  const nn::Linear& projection;
};

class SmolVLMConnector : public Block {
 public:
  SmolVLMConnector(const ModuleOptions& options, const Config& c)
      : Block("SmolVLMConnector", options), modality(*child<ModalityProjection>("modality_projection", c)) {}

  Tensor forward(const Tensor& features) const {
    const int64_t size = modality.projection.weight.size(1);
    TORCH_CHECK(features.dim() == 3 && features.size(2) == size, "features must be [images, tokens, ", size, "], got ",
                features.sizes());
    return watched(features, modality.forward(features));
  }

  const ModalityProjection& modality;
};

const RegisteredModule registered_smolvlm("smolvlm_connector", make_module<SmolVLMConnector>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("smolvlm_connect(__torch__.torch.classes.voxtorch.Module self, Tensor features) -> Tensor embeddings",
        [](const c10::intrusive_ptr<Module>& self, const Tensor& features) {
          return network<SmolVLMConnector>(self, "smolvlm_connect").forward(features);
        });
}

}  // namespace voxtorch::models
