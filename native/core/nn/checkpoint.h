// Activation checkpointing (Chen et al. 2016, https://arxiv.org/abs/1604.06174): a layer keeps its inputs only, and
// runs a second time when its gradients are asked for.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "core/module.h"

namespace torch::autograd {
struct Node;
}

namespace voxtorch::nn {

// What a network's stack of layers inherits to have the switch.
class Checkpointing {
 public:
  virtual ~Checkpointing() = default;
  std::atomic<bool> enabled{false};
};

using Tensors = std::vector<at::Tensor>;
using Run = std::function<Tensors(const Tensors& inputs)>;

// run(inputs), whose results' graph holds only the inputs, which may be undefined, and the parameters of `layer`. The
// second run has the random numbers and the autocast of the first, so results and gradients are the same; the same
// bits, but where an input is used elsewhere too: its gradient is then summed in another order.
Tensors checkpoint(Module& layer, const Tensors& inputs, const Run& run);

// Whether there is anything to save: gradients are recorded and the layers train or are asked for some.
bool should_checkpoint(const Checkpointing& layers);

// Of outputs that were computed a second time, with the gradients that came for the first; undefined for leaves that
// take no part. Hooks on the leaves are left to the pass that this is a part of.
Tensors second_gradients(const Tensors& outputs, const Tensors& leaves, const Tensors& gradients);

// Whether a graph's node runs a layer again, which may take long.
bool is_checkpoint(const torch::autograd::Node& node);

// States of the default generator of the CPU and of every CUDA device; set_ takes what the first returned.
Tensors random_states();
void set_random_states(const Tensors& states);

}  // namespace voxtorch::nn
