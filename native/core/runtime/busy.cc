#include "core/runtime/busy.h"

#include <utility>

#include "core/runtime/functorch.h"

namespace voxtorch {
namespace {

thread_local at::Tensor exempt_leaf;

}  // namespace

BusyTable::Exempt::Exempt(at::Tensor leaf) : before_(std::exchange(exempt_leaf, std::move(leaf))) {}
BusyTable::Exempt::~Exempt() { exempt_leaf = std::move(before_); }

bool BusyTable::is_exempt(const void* memory) {
  return exempt_leaf.defined() && (memory == memory_key(exempt_leaf) || memory == memory_key(exempt_leaf.grad()));
}

BusyTable& BusyTable::instance() {
  static BusyTable* table = new BusyTable();
  return *table;
}

void BusyTable::claim(const std::vector<Claim>& claims) {
  if (claims.empty()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Claim& claim : claims) {
    Counts& counts = storages_[claim.storage];
    ++(claim.use == Use::kRead ? counts.readers : counts.writers);
  }
  count_.fetch_add(static_cast<int>(claims.size()), std::memory_order_release);
}

void BusyTable::release(const std::vector<Claim>& claims) {
  if (claims.empty()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Claim& claim : claims) {
    auto found = storages_.find(claim.storage);
    if (found == storages_.end()) continue;
    --(claim.use == Use::kRead ? found->second.readers : found->second.writers);
    if (found->second.readers == 0 && found->second.writers == 0) storages_.erase(found);
  }
  count_.fetch_sub(static_cast<int>(claims.size()), std::memory_order_release);
}

const void* BusyTable::memory_key(const at::Tensor& tensor) {
  if (!tensor.defined()) return nullptr;
  if (!tensor.has_storage()) {
    const at::Tensor inner = without_wrappers(tensor);
    return inner.defined() && inner.has_storage() ? inner.storage().unsafeGetStorageImpl() : nullptr;
  }
  return tensor.storage().unsafeGetStorageImpl();
}

const void* BusyTable::graph_key() {
  static const char key = 0;
  return &key;
}

const void* BusyTable::gradient_key(const at::Tensor& tensor) { return tensor.unsafeGetTensorImpl(); }

bool BusyTable::conflicts(const at::Tensor& tensor, Use use) {
  const void* key = memory_key(tensor);
  if (key == nullptr || is_exempt(key)) return false;
  // Before the lock, because asking may itself take locks.
  const bool in_graph = use == Use::kWrite && tensor.requires_grad();
  std::lock_guard<std::mutex> lock(mutex_);
  if (in_graph && storages_.count(graph_key()) > 0) return true;
  auto found = storages_.find(key);
  if (found == storages_.end()) return false;
  return found->second.writers > 0 || (use == Use::kWrite && found->second.readers > 0);
}

bool BusyTable::conflicts(const std::vector<Claim>& claims) {
  if (!any()) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Claim& claim : claims) {
    auto found = storages_.find(claim.storage);
    if (found == storages_.end()) continue;
    if (found->second.writers > 0 || (claim.use == Use::kWrite && found->second.readers > 0)) return true;
  }
  return false;
}

bool BusyTable::gradient_busy(const at::Tensor& tensor) {
  if (exempt_leaf.defined() && tensor.is_same(exempt_leaf)) return false;
  const bool inner = !tensor.is_leaf();
  std::lock_guard<std::mutex> lock(mutex_);
  if (inner && storages_.count(graph_key()) > 0) return true;
  return storages_.count(gradient_key(tensor)) > 0;
}

}  // namespace voxtorch
