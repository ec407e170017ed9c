// Choosing by chance: what narrows the choice, in transformers' order, and the draw itself.
#pragma once

#include "core/generation/options.h"

namespace voxtorch::generation {

// Forbids what temperature, top-h, top-k, top-p, min-p, typical-p, epsilon and eta leave out, in a row of scores.
void narrow_choice(const Options& options, float* scores, int64_t vocabulary);

// The tokens that are not forbidden, and how likely each is, in the order of their ids.
struct Choice {
  std::vector<int64_t> ids;
  std::vector<double> weights;
  double total = 0;
};
Choice choice_of(const float* scores, int64_t count);
// The inverse of the cumulative distribution at u, 0 <= u < 1. Throws where nothing can be drawn.
size_t draw(const Choice& choice, double u);

// log softmax of a row, in place; and of one of its entries.
void normalize(float* scores, int64_t count);
float log_probability(const float* scores, int64_t count, int64_t id);

}  // namespace voxtorch::generation
