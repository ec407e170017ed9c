// Keys and values of texts that were read, so that another text with the same beginning need not read it again.
#pragma once

#include <functional>
#include <list>
#include <mutex>

#include "core/generation/options.h"
#include "core/nn/kv_cache.h"

namespace voxtorch::generation {

class PrefixCache {
 public:
  // Holds at most so many bytes; what was not used for longest goes first.
  explicit PrefixCache(int64_t most_bytes) : most_bytes_(most_bytes) {}

  // Forgets everything where the network's weights or active adapters are others than at the last call. Gives a number
  // that is another one then: what was read under another number must not be kept.
  int64_t check(const Module& network);
  bool keeps() const { return most_bytes_ > 0; }
  // The longest beginning of a text that is there, less than all of it: 0 or its tokens, which `cache`, empty, then
  // has.
  // `fits` says of a cache whether the text begins with its keys.
  using Fits = std::function<bool(const nn::KvCache&)>;
  int64_t copy_to(const Ids& text, const Fits& fits, nn::KvCache& cache);
  // How long it is.
  int64_t known(const Ids& text, const Fits& fits) const;
  // Takes a cache whose tokens are these. It has no other users.
  void keep(Ids text, c10::intrusive_ptr<nn::KvCache> cache);

  struct Facts {
    int64_t texts = 0, bytes = 0;
    int64_t asked = 0, reused = 0;  // tokens of all prompts that were looked up, and those of them that were there
  };
  Facts facts() const;  // from any thread
  void count(int64_t asked, int64_t reused);

 private:
  struct Entry {
    Ids text;
    c10::intrusive_ptr<nn::KvCache> cache;
    int64_t bytes() const { return cache->bytes() + static_cast<int64_t>(text.size() * sizeof(int64_t)); }
  };
  using Entries = std::list<Entry>;  // the latest first

  std::pair<Entries::const_iterator, int64_t> find(const Ids& text, const Fits& fits) const;
  void tell();

  const int64_t most_bytes_;
  Entries entries_;
  std::vector<uintptr_t> identity_;
  int64_t epoch_ = 0;
  std::vector<std::shared_ptr<const void>> held_;  // no others may get their addresses
  mutable std::mutex mutex_;
  Facts facts_;
};

// Tokens that two texts begin with alike.
int64_t common_beginning(const Ids& a, const Ids& b);

// A shorter beginning is read anew sooner than it is copied.
constexpr int64_t kLeastShared = 8;

}  // namespace voxtorch::generation
