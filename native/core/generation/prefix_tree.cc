#include "core/generation/prefix_tree.h"

namespace voxtorch::generation {

PrefixTree::PrefixTree(const std::vector<Ids>& sequences) : nodes_(1) {
  for (const Ids& sequence : sequences) {
    size_t at = 0;
    for (const int64_t id : sequence) {
      const auto [place, fresh] = nodes_[at].next.emplace(id, nodes_.size());
      at = place->second;
      if (fresh) nodes_.emplace_back();
    }
    nodes_[at].whole = true;
  }
}

Ids PrefixTree::following(const Ids& text, size_t from, const Ids& ends) const {
  size_t at = 0;
  for (size_t i = from; i < text.size(); ++i) {
    const auto found = nodes_[at].next.find(text[i]);
    if (found == nodes_[at].next.end()) return ends;
    at = found->second;
  }
  Ids result;
  for (const auto& [id, node] : nodes_[at].next) result.push_back(id);
  if (nodes_[at].whole) result.insert(result.end(), ends.begin(), ends.end());
  return result;
}

}  // namespace voxtorch::generation
