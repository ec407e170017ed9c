// What stands between the image encoder and the language model of InternVL (https://arxiv.org/abs/2404.16821): pixel
// shuffle, and the projection that its checkpoints call mlp1.
#include <torch/library.h>

#include "core/nn/linear.h"
#include "core/nn/norm.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class InternVLProjector : public Block {
 public:
  InternVLProjector(const ModuleOptions& options, const Config& c)
      : Block("InternVLProjector", options),
        norm(*child<nn::LayerNorm>("0", c.integer("input_size"), 1e-5)),
        up(*child<nn::Linear>("1", c.integer("input_size"), c.integer("hidden_size"))),
        down(*child<nn::Linear>("3", c.integer("hidden_size"), c.integer("hidden_size"))),
        activation(nn::activation("gelu")) {}

  Tensor forward(const Tensor& features) const {
    TORCH_CHECK(features.dim() == 3 && features.size(2) == norm.weight.size(0), "features must be [images, tokens, ",
                norm.weight.size(0), "], got ", features.sizes());
    return watched(features, down.forward(up.forward(norm.forward(features), activation)));
  }

  const nn::LayerNorm& norm;
  const nn::Linear &up, &down;
  const nn::Activation activation;
};

// states [images, down * across, dim], or with a first that is that of no patch, [images, 1 + down * across, dim] ->
// [images, tokens, factor² * dim]: a token has the patches of a square, row by row. Swapped, tokens stand column by
// column, as the first version had them.
Tensor pixel_shuffle(const Tensor& states, int64_t down, int64_t across, int64_t factor, bool swapped) {
  TORCH_CHECK(factor > 0 && down > 0 && across > 0 && down % factor == 0 && across % factor == 0, "a grid of ", down,
              " x ", across, " patches has no squares of ", factor);
  TORCH_CHECK(states.dim() == 3 && down <= states.size(1) && across <= states.size(1) &&
                  (states.size(1) == down * across || states.size(1) == 1 + down * across),
              "states must be [images, ", down, " * ", across, " or 1 more, dim], got ", states.sizes());
  const int64_t pictures = states.size(0), dim = states.size(2), first = states.size(1) - down * across;
  const Tensor squares =
      states.narrow(1, first, down * across).reshape({pictures, down / factor, factor, across / factor, factor, dim});
  const auto order = swapped ? std::array<int64_t, 6>{0, 3, 1, 2, 4, 5} : std::array<int64_t, 6>{0, 1, 3, 2, 4, 5};
  return squares.permute(order).reshape({pictures, down / factor * (across / factor), factor * factor * dim});
}

const RegisteredModule registered_internvl("internvl_projector", make_module<InternVLProjector>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "internvl_pixel_shuffle(Tensor states, int down, int across, int factor, *, bool swapped=False) -> Tensor "
      "features",
      pixel_shuffle);
  m.def("internvl_project(__torch__.torch.classes.voxtorch.Module self, Tensor features) -> Tensor embeddings",
        [](const c10::intrusive_ptr<Module>& self, const Tensor& features) {
          return network<InternVLProjector>(self, "internvl_project").forward(features);
        });
}

}  // namespace voxtorch::models
