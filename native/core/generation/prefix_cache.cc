#include "core/generation/prefix_cache.h"

#include <algorithm>
#include <bit>

#include "core/nn/adapter.h"

namespace voxtorch::generation {

namespace {

using Identity = std::vector<uintptr_t>;

void add(Identity& identity, const at::Tensor& tensor) {
  if (!tensor.defined()) return identity.push_back(0);
  identity.push_back(tensor.has_storage() ? reinterpret_cast<uintptr_t>(tensor.storage().data()) : 0);
  identity.push_back(tensor.is_inference() ? 0 : static_cast<uintptr_t>(tensor._version()));
}

// What a pass reads: addresses and versions of weights, buffers and active adapters.
void add(Identity& identity, std::vector<std::shared_ptr<const void>>& held, const Module& module) {
  for (const auto& [name, tensor] : module.parameters()) add(identity, tensor);
  for (const auto& [name, buffer] : module.buffers()) add(identity, buffer.tensor);
  identity.push_back(module.training());
  if (nn::AdapterSlot* slot = const_cast<Module&>(module).adapters()) {
    if (const auto active = slot->active()) {
      for (const auto& tensor : active->a) add(identity, tensor);
      for (const auto& tensor : active->b) add(identity, tensor);
      for (const double scaling : active->scaling) identity.push_back(std::bit_cast<uintptr_t>(scaling));
      add(identity, active->magnitude.value_or(at::Tensor()));
      held.push_back(active);
    }
  }
  for (const auto& [name, child] : module.children()) add(identity, held, *child);
}

}  // namespace

int64_t common_beginning(const Ids& a, const Ids& b) {
  const auto most = static_cast<int64_t>(std::min(a.size(), b.size()));
  return std::mismatch(a.begin(), a.begin() + most, b.begin()).first - a.begin();
}

int64_t PrefixCache::check(const Module& network) {
  if (!keeps()) return epoch_;
  Identity identity;
  std::vector<std::shared_ptr<const void>> held;
  add(identity, held, network);
  if (identity == identity_) return epoch_;
  ++epoch_;
  entries_.clear();
  identity_ = std::move(identity);
  held_ = std::move(held);
  tell();
  return epoch_;
}

std::pair<PrefixCache::Entries::const_iterator, int64_t> PrefixCache::find(const Ids& text, const Fits& fits) const {
  auto best = entries_.end();
  int64_t longest = 0;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const int64_t common = common_beginning(entry->text, text);
    if (common > longest && fits(*entry->cache)) {
      longest = common;
      best = entry;
    }
  }
  // What follows the last token is to be computed.
  longest = std::min(longest, static_cast<int64_t>(text.size()) - 1);
  return {best, longest < kLeastShared ? 0 : longest};
}

int64_t PrefixCache::known(const Ids& text, const Fits& fits) const { return find(text, fits).second; }

int64_t PrefixCache::copy_to(const Ids& text, const Fits& fits, nn::KvCache& cache) {
  const auto [entry, longest] = find(text, fits);
  if (longest == 0) return 0;
  cache.begin_with(*entry->cache, longest);
  entries_.splice(entries_.begin(), entries_, entry);
  return longest;
}

void PrefixCache::keep(Ids text, c10::intrusive_ptr<nn::KvCache> cache) {
  if (static_cast<int64_t>(text.size()) < kLeastShared || !keeps()) return;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const int64_t common = common_beginning(entry->text, text);
    if (common == static_cast<int64_t>(text.size())) {
      entries_.splice(entries_.begin(), entries_, entry);
      return;
    }
    entry = common == static_cast<int64_t>(entry->text.size()) ? entries_.erase(entry) : std::next(entry);
  }
  cache->compact();
  Entry latest{std::move(text), std::move(cache)};
  int64_t bytes = latest.bytes();
  if (bytes <= most_bytes_) {
    for (const Entry& entry : entries_) bytes += entry.bytes();
    entries_.push_front(std::move(latest));
    while (bytes > most_bytes_) {
      bytes -= entries_.back().bytes();
      entries_.pop_back();
    }
  }
  tell();
}

void PrefixCache::tell() {
  const std::lock_guard<std::mutex> lock(mutex_);
  facts_.texts = static_cast<int64_t>(entries_.size());
  facts_.bytes = 0;
  for (const Entry& entry : entries_) facts_.bytes += entry.bytes();
}

void PrefixCache::count(int64_t asked, int64_t reused) {
  const std::lock_guard<std::mutex> lock(mutex_);
  facts_.asked += asked;
  facts_.reused += reused;
}

PrefixCache::Facts PrefixCache::facts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return facts_;
}

}  // namespace voxtorch::generation
