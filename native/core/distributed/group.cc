// Meeting the other processes, and the collectives. Every call blocks until the ranks have answered or the timeout is
// over, so JavaScript calls them as jobs of the executor.
#include "core/distributed/group.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/library.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include <map>
#include <mutex>

#include "core/runtime/executor.h"

namespace voxtorch::distributed {

NcclMaker make_nccl = nullptr;

namespace {

struct Registry {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<Group>> groups;
  int64_t next = 1;
};

// Never destroyed: at exit the threads of a group that is still open may be using it.
Registry& registry() {
  static auto* instance = new Registry();
  return *instance;
}

int64_t init(const std::string& backend, const std::string& host, int64_t port, int64_t rank, int64_t world_size,
             int64_t timeout, bool serve, int64_t listen_fd) {
  TORCH_CHECK_VALUE(world_size >= 1 && world_size <= 65536 && rank >= 0 && rank < world_size, "rank ", rank,
                    " does not fit a world of ", world_size, " processes");
  TORCH_CHECK_VALUE(port >= 0 && port < 65536, "there is no port ", port);
  TORCH_CHECK_VALUE(timeout > 0 && timeout <= 7 * 24 * 3600 * 1000LL, "the timeout must be between 1 ms and a week");
  const bool nccl = backend == "nccl";
  TORCH_CHECK_VALUE(nccl || backend == "gloo", "backend is 'gloo' or 'nccl', not '", backend, "'");
  TORCH_CHECK_NOT_IMPLEMENTED(!nccl || make_nccl != nullptr,
                              "this build of voxtorch has no NCCL: it is the CPU variant, or nccl.h was not found when "
                              "it was built; use the backend 'gloo'");
  auto group = std::make_shared<Group>();
  group->rank = static_cast<int>(rank);
  group->size = static_cast<int>(world_size);
  group->timeout = std::chrono::milliseconds(timeout);
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.isServer = serve;
    options.numWorkers = static_cast<size_t>(world_size);
    options.waitWorkers = false;
    options.timeout = group->timeout;
    if (listen_fd >= 0) options.masterListenFd = static_cast<int>(listen_fd);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    store->setTimeout(group->timeout);
    group->store = c10::make_intrusive<c10d::PrefixStore>("voxtorch", std::move(store));
    auto processes = c10::make_intrusive<c10d::ProcessGroup>(group->store, group->rank, group->size);
    using Type = c10d::ProcessGroup::BackendType;
    processes->setDefaultBackend(nccl ? Type::NCCL : Type::GLOO);
    const auto part = [&](const char* name) -> c10::intrusive_ptr<c10d::Store> {
      return c10::make_intrusive<c10d::PrefixStore>(name, group->store);
    };
    processes->setBackend(c10::kCPU, Type::GLOO, make_gloo(part("gloo"), group->rank, group->size, group->timeout));
    if (nccl)
      processes->setBackend(c10::kCUDA, Type::NCCL, make_nccl(part("nccl"), group->rank, group->size, group->timeout));
    group->processes = std::move(processes);
    // All ranks stay until everyone has read the addresses from rank 0's store.
    std::vector<c10::intrusive_ptr<c10d::Work>> works{group->processes->getBackend(c10::kCPU)->barrier()};
    finish(*group, "initProcessGroup", works);
  } catch (...) {
    rethrow_for(*group, "initProcessGroup");
  }
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.groups[all.next] = std::move(group);
  return all.next++;
}

void destroy(int64_t id) {
  std::shared_ptr<Group> group;
  {
    Registry& all = registry();
    const std::lock_guard<std::mutex> lock(all.mutex);
    auto found = all.groups.find(id);
    if (found == all.groups.end()) return;
    group = std::move(found->second);
    all.groups.erase(found);
  }
  drop_reducers(*group);
}

// The process is about to exit with this code, and will not wait for a collective without an answer.
void leave(int64_t code) { Executor::instance().leave(static_cast<int>(code)); }

void check_tensors(const Group& group, const char* what, at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK_VALUE(tensor.defined() && tensor.layout() == c10::kStrided, what, " takes dense tensors");
    const bool cuda = tensor.is_cuda() && group.processes->getBackendType() == c10d::ProcessGroup::BackendType::NCCL;
    TORCH_CHECK(tensor.is_cpu() || cuda, what, ": a tensor on device ", tensor.device(),
                " cannot travel over this process group, whose backend is ", group.processes->getBackendName());
  }
}

// Any dtype as what every backend can carry; the tensor is contiguous.
at::Tensor as_bytes(const at::Tensor& tensor) {
  return tensor.dim() == 0 ? tensor.reshape({1}).view(at::kByte) : tensor.view({-1}).view(at::kByte);
}

// Where the ranks' values are written: the tensor itself, or a copy that `store` puts back.
struct Slot {
  at::Tensor target;
  at::Tensor buffer;

  explicit Slot(const at::Tensor& tensor) : target(tensor.detach()), buffer(target.contiguous()) {}
  void store() const {
    if (!buffer.is_same(target)) target.copy_(buffer);
  }
};

std::vector<Slot> slots_of(at::TensorList tensors) {
  std::vector<Slot> slots;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.numel() > 0) slots.emplace_back(tensor);
  }
  return slots;
}

void all_reduce_(int64_t id, at::TensorList tensors, const std::string& op) {
  using Op = c10d::ReduceOp;
  const std::map<std::string, Op::RedOpType> ops = {
      {"sum", Op::SUM}, {"mean", Op::SUM}, {"product", Op::PRODUCT}, {"min", Op::MIN}, {"max", Op::MAX}};
  const auto group = group_of(id);
  const auto found = ops.find(op);
  TORCH_CHECK_VALUE(found != ops.end(), "allReduce: op is 'sum', 'mean', 'product', 'min' or 'max', not '", op, "'");
  check_tensors(*group, "allReduce", tensors);
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK_TYPE(tensor.scalar_type() != at::kBool && !tensor.is_complex(), "allReduce cannot reduce dtype ",
                     tensor.scalar_type(), ": convert to an integer or floating-point dtype");
    TORCH_CHECK_TYPE(op != "mean" || tensor.is_floating_point(),
                     "allReduce: the mean of integer tensors is not an integer; convert to a floating-point dtype");
  }
  const at::NoGradGuard no_grad;
  try {
    agree(*group, "allReduce", tensors, static_cast<int64_t>(op[0]) * 256 + op[1]);
    std::vector<Slot> slots = slots_of(tensors);
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    c10d::AllreduceOptions options;
    options.reduceOp = found->second;
    for (Slot& slot : slots) {
      std::vector<at::Tensor> one{slot.buffer};
      works.push_back(group->processes->getBackend(slot.buffer.device().type())->allreduce(one, options));
    }
    finish(*group, "allReduce", works);
    for (Slot& slot : slots) {
      if (op == "mean") slot.buffer.div_(group->size);
      slot.store();
    }
  } catch (...) {
    rethrow_for(*group, "allReduce");
  }
}

void broadcast_(int64_t id, at::TensorList tensors, int64_t source) {
  const auto group = group_of(id);
  TORCH_CHECK_VALUE(source >= 0 && source < group->size, "broadcast: there is no rank ", source, " in a world of ",
                    group->size, " processes");
  check_tensors(*group, "broadcast", tensors);
  const at::NoGradGuard no_grad;
  try {
    agree(*group, "broadcast", tensors, source);
    share(*group, tensors, static_cast<int>(source));
  } catch (...) {
    rethrow_for(*group, "broadcast");
  }
}

std::vector<at::Tensor> all_gather(int64_t id, const at::Tensor& tensor) {
  const auto group = group_of(id);
  check_tensors(*group, "allGather", tensor);
  const at::NoGradGuard no_grad;
  try {
    agree(*group, "allGather", tensor, 0);
    std::vector<at::Tensor> results;
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int i = 0; i < group->size; ++i) {
      results.push_back(at::empty_like(tensor, c10::MemoryFormat::Contiguous));
      if (tensor.numel() > 0) outputs[0].push_back(as_bytes(results.back()));
    }
    if (tensor.numel() == 0) return results;
    std::vector<at::Tensor> inputs{as_bytes(tensor.detach().contiguous())};
    std::vector<c10::intrusive_ptr<c10d::Work>> works{
        group->processes->getBackend(tensor.device().type())->allgather(outputs, inputs)};
    finish(*group, "allGather", works);
    return results;
  } catch (...) {
    rethrow_for(*group, "allGather");
  }
}

void barrier(int64_t id) {
  const auto group = group_of(id);
  try {
    agree(*group, "barrier", {}, 0);
  } catch (...) {
    rethrow_for(*group, "barrier");
  }
}

}  // namespace

std::shared_ptr<Group> group_of(int64_t id) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.groups.find(id);
  TORCH_CHECK_VALUE(found != all.groups.end(), "this process group was destroyed");
  return found->second;
}

// Ranks that call different things, or the same with different shapes, would read each other's bytes as their own, and
// gloo ends the process when a message is longer than expected. So a few bytes that say what is coming go first.
void agree(const Group& group, const char* what, at::TensorList tensors, int64_t detail) {
  constexpr int64_t kWords = 3;
  int64_t hash = 1469598103934665603LL;
  const auto mix = [&](int64_t value) {
    hash = static_cast<int64_t>((uint64_t(hash) ^ uint64_t(value)) * 1099511628211ULL);
  };
  for (const char* letter = what; *letter != 0; ++letter) mix(*letter);
  mix(detail);
  int64_t elements = 0;
  for (const at::Tensor& tensor : tensors) {
    mix(static_cast<int64_t>(tensor.scalar_type()));
    mix(static_cast<int64_t>(tensor.device().type()));
    mix(tensor.dim());
    for (const int64_t size : tensor.sizes()) mix(size);
    elements += tensor.numel();
  }
  at::Tensor mine = at::zeros({kWords}, at::kLong);
  int64_t* words = mine.data_ptr<int64_t>();
  words[0] = hash;
  words[1] = static_cast<int64_t>(tensors.size());
  words[2] = elements;
  std::vector<std::vector<at::Tensor>> outputs(1);
  for (int i = 0; i < group.size; ++i) outputs[0].push_back(at::zeros({kWords}, at::kLong));
  std::vector<at::Tensor> inputs{mine};
  std::vector<c10::intrusive_ptr<c10d::Work>> works{group.processes->getBackend(c10::kCPU)->allgather(outputs, inputs)};
  finish(group, what, works);
  for (int i = 0; i < group.size; ++i) {
    const int64_t* theirs = outputs[0][i].data_ptr<int64_t>();
    TORCH_CHECK_WITH(DistBackendError, theirs[0] == hash, what, ": rank ", group.rank, " gave ", words[1],
                     " tensors with ", words[2], " elements, rank ", i, " called something else or gave others (",
                     theirs[1], " tensors with ", theirs[2],
                     " elements): every rank has to call the same collectives, in the same order, with equal shapes, "
                     "dtypes and options");
  }
}

void share(const Group& group, at::TensorList tensors, int source) {
  const at::NoGradGuard no_grad;
  std::vector<Slot> slots = slots_of(tensors);
  std::vector<at::Tensor> bytes;
  for (Slot& slot : slots) bytes.push_back(as_bytes(slot.buffer));
  // Small tensors travel together, in pieces of this size.
  if (!bytes.empty()) c10d::broadcast_coalesced(group.processes, bytes, size_t(64) << 20, source);
  for (Slot& slot : slots) slot.store();
}

void finish(const Group& group, const char* what, std::vector<c10::intrusive_ptr<c10d::Work>>& works) {
  std::exception_ptr failure;
  for (auto& work : works) {
    // All of them, also after a failure: they write into tensors that are freed when this returns.
    try {
      work->wait();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

void rethrow_for(const Group& group, const char* what) {
  const auto fail = [&](const std::string& why) {
    TORCH_CHECK_WITH(DistBackendError, false, what, " on rank ", group.rank, " of ", group.size, " failed: ", why,
                     ". Another process ended, hangs, cannot be reached or called something else; look at its output. "
                     "The timeout is ",
                     group.timeout.count(), " ms");
  };
  try {
    throw;
  } catch (const c10::DistError& error) {
    const std::string message = error.what_without_backtrace();
    if (message.rfind(what, 0) == 0) throw;
    fail(message);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(error.what());
  }
  throw;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "distributed_init(str backend, str host, int port, int rank, int world_size, int timeout, bool serve, int "
      "listen_fd) -> int",
      init);
  m.def("distributed_destroy(int group) -> ()", destroy);
  m.def("distributed_leave(int code) -> ()", leave);
  m.def("distributed_all_reduce_(int group, Tensor(a!)[] tensors, str op) -> ()", all_reduce_);
  m.def("distributed_broadcast_(int group, Tensor(a!)[] tensors, int source) -> ()", broadcast_);
  m.def("distributed_all_gather(int group, Tensor tensor) -> Tensor[]", all_gather);
  m.def("distributed_barrier(int group) -> ()", barrier);
}

}  // namespace voxtorch::distributed
