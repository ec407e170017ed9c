// Data parallel training with c10d's Reducer: gradients travel in buckets while backward still computes the next ones.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <type_traits>

#include "core/distributed/group.h"

namespace voxtorch::distributed {
namespace {

using Buckets = std::vector<std::vector<size_t>>;

// The constructor has grown a parameter per release; each release's own header says which it has.
template <typename R, typename... Rest>
std::shared_ptr<R> construct(std::vector<at::Tensor> parameters, Buckets buckets,
                             c10::intrusive_ptr<c10d::ProcessGroup> processes, int64_t bucket_bytes,
                             int64_t first_bucket_bytes, bool find_unused,
                             std::unordered_map<size_t, std::string> names, Rest... rest) {
  std::vector<bool> sparse(parameters.size(), false);
  return std::make_shared<R>(std::move(parameters), std::move(buckets), std::move(processes), std::move(sparse),
                             bucket_bytes, find_unused, /*gradient_as_bucket_view=*/false, std::move(names),
                             first_bucket_bytes, /*skip_all_reduce_unused_params=*/false,
                             /*use_python_reducer=*/false, std::move(rest)...);
}

template <typename R, typename... Rest>
constexpr bool takes =
    std::is_constructible_v<R, std::vector<at::Tensor>, Buckets, c10::intrusive_ptr<c10d::ProcessGroup>,
                            std::vector<bool>, int64_t, bool, bool, std::unordered_map<size_t, std::string>, int64_t,
                            bool, bool, Rest...>;

template <typename R, typename... Arguments>
std::shared_ptr<R> make(Arguments&&... arguments) {
  if constexpr (takes<R>) {
    return construct<R>(std::forward<Arguments>(arguments)...);
  } else {
    static_assert(takes<R, std::vector<int64_t>>, "this libtorch's Reducer takes other arguments");
    return construct<R>(std::forward<Arguments>(arguments)..., std::vector<int64_t>());
  }
}

struct Replica {
  std::shared_ptr<Group> group;
  std::shared_ptr<c10d::Reducer> reducer;
  std::shared_ptr<c10d::Logger> logger;  // the reducer calls it unasked
  std::vector<std::string> names;
};

struct Registry {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<Replica>> replicas;
  int64_t next = 1;
};

Registry& registry() {
  static auto* instance = new Registry();
  return *instance;
}

std::shared_ptr<Replica> replica_of(int64_t id) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.replicas.find(id);
  TORCH_CHECK_VALUE(found != all.replicas.end(),
                    "this DistributedDataParallel was disposed, or its process group was destroyed");
  return found->second;
}

int64_t create(int64_t group_id, at::TensorList parameters, at::TensorList buffers, std::vector<std::string> names,
               double bucket_cap_mb, bool find_unused) {
  TORCH_CHECK_VALUE(!parameters.empty(),
                    "DistributedDataParallel: the model has no parameter that requires a gradient");
  TORCH_CHECK_VALUE(names.size() == parameters.size(), "DistributedDataParallel: a parameter has no name");
  TORCH_CHECK_VALUE(bucket_cap_mb > 0 && bucket_cap_mb <= 4096, "DistributedDataParallel: bucketCapMb is ",
                    bucket_cap_mb, ", expected above 0 and at most 4096");
  auto replica = std::make_shared<Replica>();
  replica->group = group_of(group_id);
  replica->names = std::move(names);
  const Group& group = *replica->group;
  const at::NoGradGuard no_grad;
  try {
    std::vector<at::Tensor> params = parameters.vec();
    agree(group, "DistributedDataParallel", params, find_unused);
    c10d::verify_params_across_processes(group.processes, params, std::nullopt);
    share(group, params, 0);
    share(group, buffers, 0);
    const auto bytes = static_cast<int64_t>(bucket_cap_mb * 1024 * 1024);
    // The first is small, so that its journey begins early.
    const int64_t first = std::min<int64_t>(bytes, c10d::kDefaultFirstBucketBytes);
    Buckets buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
        params, {static_cast<size_t>(first), static_cast<size_t>(bytes)}, std::vector<bool>(params.size(), false)));
    // Backward reaches the last layers first.
    std::reverse(buckets.begin(), buckets.end());
    std::unordered_map<size_t, std::string> by_index;
    for (size_t i = 0; i < replica->names.size(); ++i) by_index[i] = replica->names[i];
    replica->reducer = make<c10d::Reducer>(std::move(params), std::move(buckets), group.processes, bytes, first,
                                           find_unused, std::move(by_index));
    replica->logger = std::make_shared<c10d::Logger>(replica->reducer);
    replica->reducer->set_logger(replica->logger);
  } catch (...) {
    rethrow_for(group, "DistributedDataParallel");
  }
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.replicas[all.next] = std::move(replica);
  return all.next++;
}

// Talks to the other ranks: buckets are ordered anew after the first backward, and buffers are rank 0's.
void before_forward(int64_t id, at::TensorList buffers, bool synchronize) {
  const auto replica = replica_of(id);
  const at::NoGradGuard no_grad;
  try {
    // A collective that NCCL aborted reports nothing; a missing rank is detected here.
    if (replica->group->processes->getBackendType() == c10d::ProcessGroup::BackendType::NCCL)
      agree(*replica->group, "DistributedDataParallel.forward", {}, 0);
    if (synchronize) {
      replica->reducer->prepare_for_forward();
      replica->reducer->rebuild_buckets();
    }
    share(*replica->group, buffers, 0);
  } catch (...) {
    rethrow_for(*replica->group, "DistributedDataParallel.forward");
  }
}

// Passes gradients through. With all outputs on one node, backward from any of them reaches the parameters of all, with
// an undefined gradient where an output is not part of the loss, so the reducer does not wait in vain.
struct Sink : torch::autograd::Function<Sink> {
  using List = torch::autograd::variable_list;
  static List forward(torch::autograd::AutogradContext* context, at::TensorList outputs) {
    context->set_materialize_grads(false);
    return outputs.vec();
  }
  static List backward(torch::autograd::AutogradContext*, const List& gradients) { return gradients; }
};

// c10d advises to switch the search for unused parameters off where it finds none. The user requested it.
class WithoutAdvice : public c10::WarningHandler {
 public:
  explicit WithoutAdvice(c10::WarningHandler* next) : next(next) {}
  void process(const c10::Warning& warning) override {
    if (warning.msg().rfind("find_unused_parameters=True", 0) != 0) next->process(warning);
  }

 private:
  c10::WarningHandler* next;
};

void after_forward(int64_t id, at::TensorList outputs) {
  const auto replica = replica_of(id);
  std::vector<at::Tensor> computed;
  for (const at::Tensor& output : outputs) {
    if (output.grad_fn()) computed.push_back(output);
  }
  if (computed.size() > 1) {
    const auto behind = Sink::apply(at::TensorList(computed));
    for (size_t i = 0; i < computed.size(); ++i) {
      torch::autograd::impl::set_gradient_edge(computed[i], torch::autograd::impl::gradient_edge(behind[i]));
    }
  }
  WithoutAdvice handler(c10::WarningUtils::get_warning_handler());
  const c10::WarningUtils::WarningHandlerGuard guard(&handler);
  replica->reducer->prepare_for_backward(computed);
}

void destroy(int64_t id) {
  std::shared_ptr<Replica> replica;
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.replicas.find(id);
  if (found == all.replicas.end()) return;
  replica = std::move(found->second);
  all.replicas.erase(found);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "distributed_reducer(int group, Tensor(a!)[] parameters, Tensor(b!)[] buffers, str[] names, float bucket_cap_mb, "
      "bool find_unused) -> int",
      create);
  m.def("distributed_reducer_before_forward(int reducer, Tensor(a!)[] buffers, bool synchronize) -> ()",
        before_forward);
  m.def("distributed_reducer_after_forward(int reducer, Tensor[] outputs) -> ()", after_forward);
  m.def("distributed_reducer_destroy(int reducer) -> ()", destroy);
}

}  // namespace

void drop_reducers(const Group& group) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  std::erase_if(all.replicas, [&](const auto& entry) { return entry.second->group.get() == &group; });
}

}  // namespace voxtorch::distributed
