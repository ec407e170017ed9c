#include "core/nn/embedding.h"

#include <ATen/ops/embedding.h>

namespace voxtorch::nn {

Embedding::Embedding(const ModuleOptions& options, int64_t count, int64_t dim, int64_t padding, double std)
    : Block("Embedding", options),
      weight(parameter("weight", {count, dim},
                       [padding, std](const at::Tensor& tensor) {
                         tensor.normal_(0, std);
                         if (padding >= 0) tensor.select(0, padding).zero_();
                       })),
      padding(padding) {}

void Embedding::quantize(std::optional<QuantizedWeight> weight) { quantized_ = std::move(weight); }

at::Tensor Embedding::forward(const at::Tensor& ids, at::ScalarType type) const {
  if (quantized_) {
    TORCH_CHECK(!slot_.active(), "embeddings that are packed take no adapter");
    return watched(ids, quantized_->rows(ids, type));
  }
  if (const auto adapters = slot_.active()) return watched(ids, adapted_embedding(weight, ids, padding, *adapters));
  return watched(ids, at::embedding(weight, ids, padding));
}

}  // namespace voxtorch::nn
