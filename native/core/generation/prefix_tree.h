// A tree of token sequences: what may follow what was written, so that the answer is one of them.
#pragma once

#include <map>

#include "core/generation/options.h"

namespace voxtorch::generation {

class PrefixTree {
 public:
  explicit PrefixTree(const std::vector<Ids>& sequences);
  bool empty() const { return nodes_.front().next.empty(); }
  // The tokens that may follow text[from...]; `ends` are those that may follow a whole sequence.
  Ids following(const Ids& text, size_t from, const Ids& ends) const;

 private:
  struct Node {
    std::map<int64_t, size_t> next;
    bool whole = false;
  };
  std::vector<Node> nodes_;
};

}  // namespace voxtorch::generation
