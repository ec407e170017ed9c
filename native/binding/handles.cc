#include "binding/handles.h"

#include <random>

namespace voxtorch {
namespace {

constexpr uint32_t kIndexBits = 24;
constexpr double kIndexRange = double(1u << kIndexBits);
constexpr uint32_t kGenerationLimit = 1u << 28;

// Only a storage that this result alone holds was made by this call: views and parameters are not counted again. One
// that cannot be resized stands on memory lent by another owner, such as a mapped file.
uint64_t fresh_cpu_bytes(const c10::IValue& value) {
  if (!value.isTensor()) return 0;
  const at::Tensor& tensor = value.toTensor();
  if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.has_storage()) return 0;
  const c10::Storage& storage = tensor.storage();
  return storage.use_count() == 1 && tensor.use_count() == 1 && storage.resizable() ? storage.nbytes() : 0;
}

}  // namespace

Slab::Slab() : scopes_(1) {
  std::random_device device;
  first_generation_ = 1 + device() % (kGenerationLimit / 2);
}

int64_t Slab::index_of(double handle) const {
  if (!(handle >= kIndexRange) || handle >= kIndexRange * kGenerationLimit) return -1;
  const uint64_t bits = static_cast<uint64_t>(handle);
  const uint64_t index = bits & ((1u << kIndexBits) - 1);
  if (index >= entries_.size()) return -1;
  const Entry& entry = entries_[index];
  return entry.used && entry.generation == (bits >> kIndexBits) ? static_cast<int64_t>(index) : -1;
}

const c10::IValue* Slab::find(double handle) const {
  const int64_t index = index_of(handle);
  return index < 0 ? nullptr : &entries_[index].value;
}

double Slab::add(c10::IValue value, uint32_t scope) {
  const uint64_t bytes = fresh_cpu_bytes(value);
  int32_t index = free_;
  if (index >= 0) {
    free_ = entries_[index].next;
  } else {
    TORCH_CHECK(entries_.size() < (1u << kIndexBits), "more than 16,777,215 tensors are alive in this thread");
    index = static_cast<int32_t>(entries_.size());
    entries_.emplace_back();
    entries_[index].generation = first_generation_;
  }
  Entry& entry = entries_[index];
  entry.value = std::move(value);
  entry.bytes = bytes;
  entry.used = true;
  external_bytes_ += static_cast<int64_t>(bytes);
  link(index, scope);
  ++live_;
  return double(entry.generation) * kIndexRange + index;
}

void Slab::link(int32_t index, uint32_t scope) {
  if (scope >= scopes_.size() || !scopes_[scope].used) scope = 0;
  Entry& entry = entries_[index];
  entry.scope = scope;
  entry.previous = -1;
  entry.next = -1;
  if (scope == 0) return;
  Scope& list = scopes_[scope];
  entry.next = list.head;
  if (list.head >= 0) entries_[list.head].previous = index;
  list.head = index;
}

void Slab::unlink(int32_t index) {
  Entry& entry = entries_[index];
  if (entry.scope == 0) return;
  Scope& list = scopes_[entry.scope];
  if (entry.previous >= 0)
    entries_[entry.previous].next = entry.next;
  else
    list.head = entry.next;
  if (entry.next >= 0) entries_[entry.next].previous = entry.previous;
}

void Slab::free_entry(int32_t index) {
  unlink(index);
  Entry& entry = entries_[index];
  external_bytes_ -= static_cast<int64_t>(entry.bytes);
  entry.used = false;
  entry.bytes = 0;
  entry.scope = 0;
  --live_;
  // An entry whose generations are used up is retired rather than reused.
  if (++entry.generation < kGenerationLimit) {
    entry.next = free_;
    free_ = index;
  }
  // Last, because destroying a tensor may run code that adds or frees entries.
  c10::IValue dying = std::move(entry.value);
  entry.value = c10::IValue();
}

bool Slab::release(double handle) {
  const int64_t index = index_of(handle);
  if (index < 0) return false;
  free_entry(static_cast<int32_t>(index));
  return true;
}

bool Slab::move(double handle, uint32_t scope) {
  const int64_t index = index_of(handle);
  if (index < 0) return false;
  unlink(static_cast<int32_t>(index));
  link(static_cast<int32_t>(index), scope);
  return true;
}

uint32_t Slab::scope_of(double handle) const {
  const int64_t index = index_of(handle);
  return index < 0 ? 0 : entries_[index].scope;
}

uint32_t Slab::open_scope() {
  uint32_t scope;
  if (free_scopes_.empty()) {
    scope = static_cast<uint32_t>(scopes_.size());
    scopes_.emplace_back();
  } else {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  }
  scopes_[scope] = Scope{-1, true};
  ++live_scopes_;
  return scope;
}

uint32_t Slab::close_scope(uint32_t scope) {
  if (scope == 0 || scope >= scopes_.size() || !scopes_[scope].used) return 0;
  uint32_t freed = 0;
  while (scopes_[scope].head >= 0) {
    free_entry(scopes_[scope].head);
    ++freed;
  }
  scopes_[scope].used = false;
  free_scopes_.push_back(scope);
  --live_scopes_;
  return freed;
}

void Slab::clear() {
  for (size_t index = 0; index < entries_.size(); ++index) {
    if (entries_[index].used) free_entry(static_cast<int32_t>(index));
  }
}

}  // namespace voxtorch
