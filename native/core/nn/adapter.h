// The slot for low-rank adapters (LoRA) that Linear, Conv1d and Embedding have, and what an adapted layer computes.
// Layers written in TypeScript call the same functions as operators.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace voxtorch::nn {

// With an int64 `a` it is one of rows: they have the values `b` [rows, dim] in place of the weight's, in a linear
// layer's weight [out, in] as in an embedding's.
struct Adapter {
  at::Tensor a, b;
  at::Tensor magnitude;  // of DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353); undefined without
  double scaling = 1, dropout = 0;
};

// The adapters that a layer adds up. One with a magnitude stands alone.
struct ActiveAdapters {
  std::vector<at::Tensor> a, b;
  std::vector<double> scaling;
  std::optional<at::Tensor> magnitude;
  double dropout = 0;
};

// Adapters by name, of which some are active. Forward passes run on the executor while JavaScript attaches more, so a
// pass takes what was active when it began.
class AdapterSlot {
 public:
  void attach(const std::string& name, Adapter adapter);
  void remove(const std::string& name);
  // Those of the names that are attached here.
  void activate(const std::vector<std::string>& names);
  std::shared_ptr<const ActiveAdapters> active() const;  // null: the layer is as it was
  std::vector<at::Tensor> tensors() const;

 private:
  void choose();

  mutable std::mutex mutex_;
  std::map<std::string, Adapter> all_;
  std::vector<std::string> names_;
  std::shared_ptr<const ActiveAdapters> active_;
};

// [..., in] -> [..., out]; A [rank, in], B [out, rank], magnitude [out].
at::Tensor adapted_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                          const ActiveAdapters& adapters, bool training);

// Several adapters are one whose rank is the sum of theirs: A along its rows, scaled B along its columns.
struct JoinedAdapters {
  at::Tensor a, b;
  double scaling;
};
JoinedAdapters join(const ActiveAdapters& adapters);
// The magnitude over the norm of weight + scaling * B A, by row of the flattened weight. As the paper proposes, the
// norm is a constant to the gradient.
at::Tensor dora_ratio(const at::Tensor& weight, const JoinedAdapters& adapter, const at::Tensor& magnitude);

struct ConvGeometry {
  int64_t stride = 1, dilation = 1;
  int64_t padding = 0;  // zeros on each side
};
// [batch, in, time] -> [batch, out, time']; A [rank, in, kernel], B [out, rank, 1], magnitude [1, out, 1].
at::Tensor adapted_conv1d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                          const ConvGeometry& geometry, const ActiveAdapters& adapters, bool training);

// ids [...] -> [..., dim]; weight [count, dim], A [rank, count], B [dim, rank], magnitude [dim]. No dropout.
at::Tensor adapted_embedding(const at::Tensor& weight, const at::Tensor& ids, int64_t padding,
                             const ActiveAdapters& adapters);

}  // namespace voxtorch::nn
