// Autograd for those who queue it: a look through a graph, backward passes as jobs, and functions whose forward and
// backward are callbacks.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

#include "core/runtime/queued_job.h"

namespace voxtorch {

// The leaves that tensors are computed from: whose gradient a backward pass would write.
std::vector<at::Tensor> graph_leaves(const std::vector<at::Tensor>& roots);

class BackwardJob : public QueuedJob {
 public:
  std::vector<at::Tensor> roots, gradients, inputs;
  std::optional<bool> retain;
  bool create_graph = false;
  bool accumulate = true;  // into .grad, else return
  bool allow_unused = false;

  void claim_all();

 protected:
  c10::IValue work() override;
};

// A function of a graph that is written in JavaScript. Forward runs at once, where it is applied; backward is called
// through the channel, from whichever thread the engine uses.
struct CallbackFunction {
  std::shared_ptr<Channel> channel;
  uint32_t callback;
  // Gives outputs, saved, dirty, not differentiable, and whether to materialise missing gradients.
  std::function<std::vector<c10::IValue>()> forward;

  std::vector<at::Tensor> apply(at::TensorList inputs);
};

// Calls a callback of JavaScript with a leaf each time that a backward pass has added to its gradient. Returns a number
// for remove_accumulate_hook.
unsigned add_accumulate_hook(const at::Tensor& leaf, std::shared_ptr<CallbackOwner> callback);
void remove_accumulate_hook(const at::Tensor& leaf, unsigned number);

// Throws where a queued backward pass is writing the tensor's gradient.
void check_gradient_free(const at::Tensor& tensor);
// Makes `gradient` the tensor's, or frees the one that it has where that is undefined.
void set_gradient(const at::Tensor& tensor, const at::Tensor& gradient);

// Some formulas (sgn's) answer with zeros that have no memory. Optimizers, kernels and readers look at memory: from
// here on every zero gets some, at the one operator that makes such tensors. Once in the process.
void give_zeros_memory();

}  // namespace voxtorch
