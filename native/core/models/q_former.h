// A Q-Former with its queries. In a SALMONN checkpoint both names begin with speech_.
#pragma once

#include <optional>

#include "core/nn/q_former.h"

namespace voxtorch::models {

struct QFormerInputs {
  at::Tensor frames;                            // [batch, time, encoder_dim]
  std::optional<std::vector<int64_t>> lengths;  // valid frames of each row; none: all
  at::Tensor queries;                           // [1 or batch, queries, dim]; undefined: the network's own
  // The published way: windows that are whole, of all frames whatever the lengths; the rest is dropped.
  bool drop_remainder = false;
};

class QFormerModel : public Module {
 public:
  QFormerModel(const ModuleOptions& options, const Config& config);
  // [batch, windows * queries, dim]; 0 after the windows that a row has.
  at::Tensor forward(const QFormerInputs& inputs) const;

  const nn::QFormerConfig config;
  const at::Tensor query_tokens;  // [1, queries, dim]
  nn::QFormer& qformer;

 private:
  void check(const QFormerInputs& inputs) const;
};

}  // namespace voxtorch::models
