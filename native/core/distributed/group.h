// Process groups: libtorch's c10d, addressed by a number, because an operator cannot take a group as an argument.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>

namespace voxtorch::distributed {

struct Group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroup> processes;
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout{0};
};

// Throws c10::ValueError where the group was destroyed.
std::shared_ptr<Group> group_of(int64_t id);

// Waits for the ranks' answers; a failure says what was being done and by whom.
void finish(const Group& group, const char* what, std::vector<c10::intrusive_ptr<c10d::Work>>& works);
// Rethrows the exception in flight as a DistBackendError that names rank and operation, other errors as they are.
[[noreturn]] void rethrow_for(const Group& group, const char* what);

// Throws on every rank unless all are about to do the same with tensors of the same shapes and dtypes.
void agree(const Group& group, const char* what, at::TensorList tensors, int64_t detail);
// The source rank's values for all, in whatever dtype. All ranks give tensors of the same shapes.
void share(const Group& group, at::TensorList tensors, int source);
// Forgets the reducers that use a group, which keep it open.
void drop_reducers(const Group& group);

// Each makes a backend that speaks over the store; all ranks have to do so at the same time.
c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                            std::chrono::milliseconds timeout);
using NcclMaker = c10::intrusive_ptr<c10d::Backend> (*)(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                                        int size, std::chrono::milliseconds timeout);
// Null in the CPU variant; nccl_cuda.cc sets it.
extern NcclMaker make_nccl;

}  // namespace voxtorch::distributed
