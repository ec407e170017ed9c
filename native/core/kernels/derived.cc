#include "core/kernels/derived.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr size_t kLimit = size_t{256} << 20;
constexpr size_t kSweep = 256;  // entries, beyond which those of tensors that are gone are looked for

// A tensor as it was. It holds its storage, because another storage may get the same address later.
struct Source {
  c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  int64_t version;  // 32 bits before libtorch 2.14

  static Source of(const Tensor& tensor) {
    return {c10::weak_intrusive_ptr<c10::TensorImpl>(tensor.getIntrusivePtr()), tensor.storage().getWeakStorageImpl(),
            tensor._version()};
  }
  bool is(const Tensor& other) const {
    return !tensor.expired() && !storage.expired() && tensor._unsafe_get_target() == other.unsafeGetTensorImpl() &&
           storage._unsafe_get_target() == other.storage().unsafeGetStorageImpl() && version == other._version();
  }
  bool is_gone() const { return tensor.expired() || storage.expired(); }
};

struct Entry {
  std::vector<Source> sources;
  Tensor made;
};

using Key = std::pair<const c10::TensorImpl*, std::string>;

std::mutex mutex;
size_t held = 0;
size_t sweep_at = kSweep;

// Never destroyed: tensors of other static objects may outlive it.
std::map<Key, Entry>& entries() {
  static auto* const all = new std::map<Key, Entry>;
  return *all;
}

void erase_where(const std::function<bool(const Entry&)>& is_wanted) {
  auto& all = entries();
  for (auto at = all.begin(); at != all.end();) {
    if (!is_wanted(at->second)) {
      ++at;
      continue;
    }
    held -= at->second.made.nbytes();
    at = all.erase(at);
  }
}

}  // namespace

Tensor derived(const std::vector<Tensor>& sources, const std::string& purpose, const std::function<Tensor()>& make) {
  const c10::InferenceMode no_inference(false);
  const at::NoGradGuard no_grad;
  const auto is_kept = [](const Tensor& tensor) { return tensor.is_cuda() && !tensor.is_inference(); };
  if (sources.empty() || !std::all_of(sources.begin(), sources.end(), is_kept)) return make();
  const Key key{sources[0].unsafeGetTensorImpl(), purpose};
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = entries().find(key);
    if (found != entries().end()) {
      const Entry& entry = found->second;
      const bool same = std::equal(sources.begin(), sources.end(), entry.sources.begin(), entry.sources.end(),
                                   [](const Tensor& tensor, const Source& source) { return source.is(tensor); });
      if (same) return entry.made;
      held -= entry.made.nbytes();
      entries().erase(found);
    }
  }
  Entry entry;
  for (const Tensor& source : sources) entry.sources.push_back(Source::of(source));
  entry.made = make();
  const Tensor made = entry.made;
  const std::lock_guard<std::mutex> lock(mutex);
  if (entries().size() >= sweep_at) {
    erase_where([](const Entry& each) {
      return std::any_of(each.sources.begin(), each.sources.end(),
                         [](const Source& source) { return source.is_gone(); });
    });
    sweep_at = std::max(kSweep, 2 * entries().size());
  }
  if (held + made.nbytes() > kLimit || !entries().emplace(key, std::move(entry)).second) return made;
  held += made.nbytes();
  return made;
}

void release_derived() {
  const std::lock_guard<std::mutex> lock(mutex);
  entries().clear();
  held = 0;
}

Tensor derived_cast(const Tensor& tensor, at::ScalarType dtype) {
  if (tensor.scalar_type() == dtype) return tensor;
  return derived({tensor}, c10::toString(dtype), [&] { return tensor.to(dtype); });
}

}  // namespace voxtorch::kernels
