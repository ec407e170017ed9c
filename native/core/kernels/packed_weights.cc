#include "core/kernels/packed_weights.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <mutex>
#include <unordered_map>

#include "core/kernels/derived.h"
#include "core/kernels/tile_linear/tile_linear.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr size_t kLimit = size_t{512} << 20;
constexpr size_t kSweep = 64;  // entries, beyond which those of weights that are gone are looked for

struct Entry {
  c10::weak_intrusive_ptr<c10::TensorImpl> weight;
  const void* data;
  uint32_t version;
  Tensor packed;  // undefined before the second use
  size_t bytes = 0;
};

struct PackedWeights {
  std::mutex mutex;
  std::unordered_map<const c10::TensorImpl*, Entry> entries;
  size_t bytes = 0;
  size_t sweep_at = kSweep;

  void erase(std::unordered_map<const c10::TensorImpl*, Entry>::iterator at) {
    bytes -= at->second.bytes;
    entries.erase(at);
  }

  void sweep() {
    for (auto at = entries.begin(); at != entries.end();) {
      const auto next = std::next(at);
      if (at->second.weight.expired()) erase(at);
      at = next;
    }
    sweep_at = std::max(kSweep, 2 * entries.size());
  }
};

PackedWeights& packed_weights() {
  static auto* const all = new PackedWeights;  // tensors of other static objects may outlive it
  return *all;
}

Tensor pack(const Tensor& weight, int64_t rows) {
  if (weight.is_contiguous()) {
    if (Tensor tiled = tiled_weight(weight.detach()); tiled.defined() || weight.scalar_type() == at::kChar)
      return tiled;
  }
  // libtorch has it for its own compiler; absent in a build without oneDNN.
  static const auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_reorder_linear_weight", ""});
  if (!op) return {};
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  torch::jit::Stack stack{weight.detach(), rows};
  op->callBoxed(stack);
  return std::move(stack.front()).toTensor();
}

}  // namespace

Tensor packed_weight(const Tensor& weight, int64_t rows, bool at_once) {
  if (weight.is_inference()) return {};  // has no version to tell a change by
  PackedWeights& all = packed_weights();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const c10::TensorImpl* const key = weight.unsafeGetTensorImpl();
  const void* const data = weight.const_data_ptr();
  const uint32_t version = weight._version();
  auto found = all.entries.find(key);
  if (at_once && found == all.entries.end()) {
    if (all.entries.size() >= all.sweep_at) all.sweep();
    const Entry seen{c10::weak_intrusive_ptr<c10::TensorImpl>(weight.getIntrusivePtr()), data, version, {}};
    found = all.entries.emplace(key, seen).first;
  }
  if (found != all.entries.end()) {
    Entry& entry = found->second;
    const bool same = !entry.weight.expired() && entry.data == data && entry.version == version;
    if (same && entry.packed.defined()) return entry.packed;
    if (same) {
      if (all.bytes + weight.nbytes() > kLimit) return {};
      entry.packed = pack(weight, rows);
      if (!entry.packed.defined()) return {};
      entry.bytes = weight.nbytes();
      all.bytes += entry.bytes;
      return entry.packed;
    }
    all.erase(found);
  }
  if (all.entries.size() >= all.sweep_at) all.sweep();
  all.entries.emplace(key,
                      Entry{c10::weak_intrusive_ptr<c10::TensorImpl>(weight.getIntrusivePtr()), data, version, {}});
  return {};
}

void release_packed_weights() {
  release_derived();
  PackedWeights& all = packed_weights();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.entries.clear();
  all.bytes = 0;
}

}  // namespace voxtorch::kernels
