#include "core/generation/sampling.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace voxtorch::generation {
namespace {

// The entries of a row that are left, ascending; the others are forbidden.
class Narrowing {
 public:
  Narrowing(float* scores, int64_t vocabulary, size_t least) : scores_(scores), least_(least) {
    for (int64_t i = 0; i < vocabulary; ++i) {
      if (scores[i] > kForbidden) left_.push_back(i);
    }
  }

  void temperature(double value) {
    for (const int64_t id : left_) scores_[id] /= static_cast<float>(value);
  }

  void top_k(int64_t k) {
    const size_t most = std::max(static_cast<size_t>(k), least_);
    if (left_.size() > most) keep([this, smallest = nth_score(most)](size_t i) { return score(i) >= smallest; });
  }

  // Nucleus sampling (Holtzman et al. 2019, https://arxiv.org/abs/1904.09751): the fewest tokens that hold `mass`.
  void top_p(double mass) {
    const std::vector<double> p = probabilities();
    std::vector<size_t> heap(left_.size());
    std::iota(heap.begin(), heap.end(), 0);
    // Of equal ones the last comes first, as in a stable ascending sort from its end.
    const auto smaller = [&](size_t a, size_t b) { return score(a) != score(b) ? score(a) < score(b) : a < b; };
    std::make_heap(heap.begin(), heap.end(), smaller);
    std::vector<uint8_t> kept(left_.size(), 0);
    double before = 0;
    for (size_t count = 0; !heap.empty() && (count < least_ || before < mass); ++count) {
      std::pop_heap(heap.begin(), heap.end(), smaller);
      kept[heap.back()] = 1;
      before += p[heap.back()];
      heap.pop_back();
    }
    keep([&](size_t i) { return kept[i] != 0; });
  }

  // Nguyen et al. 2024, https://arxiv.org/abs/2407.01082.
  void min_p(double share) {
    const std::vector<double> p = probabilities();
    const double bound = share * *std::max_element(p.begin(), p.end());
    const float certain = nth_score(least_);
    keep([&](size_t i) { return p[i] >= bound || score(i) >= certain; });
  }

  // Locally typical sampling (Meister et al. 2022, https://arxiv.org/abs/2202.00666).
  void typical_p(double mass) {
    const std::vector<double> p = probabilities();
    const double entropy = entropy_of(p);
    std::vector<double> distance(p.size());
    std::vector<size_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = 0; i < p.size(); ++i) distance[i] = std::abs(-std::log(p[i]) - entropy);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return distance[a] < distance[b]; });
    size_t last = 0;
    for (double sum = p[order[0]]; sum < mass && last + 1 < order.size(); sum += p[order[last]]) ++last;
    const double farthest = distance[order[std::max(last, std::min(least_, order.size()) - 1)]];
    keep([&](size_t i) { return distance[i] <= farthest; });
  }

  // Hewitt et al. 2022, https://arxiv.org/abs/2210.15191: epsilon, and eta, which follows the entropy.
  void cutoff(double epsilon, bool follows_entropy) {
    const std::vector<double> p = probabilities();
    if (follows_entropy) epsilon = std::min(epsilon, std::sqrt(epsilon) * std::exp(-entropy_of(p)));
    const float certain = nth_score(least_);
    keep([&](size_t i) { return p[i] >= epsilon || score(i) >= certain; });
  }

  // Top-H (https://arxiv.org/abs/2509.02510): among the hundred most likely, what stays below a fraction of their
  // entropy.
  void top_h(double share) {
    constexpr size_t most = 100;
    std::vector<size_t> order(left_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score(a) > score(b); });
    order.resize(std::min(order.size(), most));
    std::vector<double> p;
    for (const size_t i : order) p.push_back(std::exp(static_cast<double>(score(i)) - score(order[0])));
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& one : p) one /= total;
    const double bound = entropy_of(p) * share;
    std::vector<uint8_t> kept(left_.size(), 0);
    double sum = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      sum -= p[i] * std::log(p[i]);
      if (i == 0 || sum <= bound) kept[order[i]] = 1;
    }
    keep([&](size_t i) { return kept[i] != 0; });
  }

  bool empty() const { return left_.empty(); }

 private:
  float score(size_t i) const { return scores_[left_[i]]; }

  // The n-th largest, or the smallest where there are fewer.
  float nth_score(size_t n) const {
    std::vector<float> values(left_.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = score(i);
    const auto nth = values.begin() + static_cast<int64_t>(std::min(n, values.size())) - 1;
    std::nth_element(values.begin(), nth, values.end(), std::greater<>());
    return *nth;
  }

  std::vector<double> probabilities() const {
    float highest = kForbidden;
    for (size_t i = 0; i < left_.size(); ++i) highest = std::max(highest, score(i));
    std::vector<double> p(left_.size());
    for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp(static_cast<double>(score(i)) - highest);
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& one : p) one /= total;
    return p;
  }

  static double entropy_of(const std::vector<double>& p) {
    double sum = 0;
    for (const double one : p) sum -= one > 0 ? one * std::log(one) : 0;
    return sum;
  }

  template <typename Wanted>
  void keep(Wanted wanted) {
    std::vector<int64_t> left;
    for (size_t i = 0; i < left_.size(); ++i) {
      if (wanted(i)) left.push_back(left_[i]);
    }
    // Only now, because `wanted` looks at the scores.
    size_t next = 0;
    for (const int64_t id : left_) {
      if (next < left.size() && left[next] == id)
        ++next;
      else
        scores_[id] = kForbidden;
    }
    left_ = std::move(left);
  }

  float* const scores_;
  const size_t least_;  // that must be left
  std::vector<int64_t> left_;
};

}  // namespace

void narrow_choice(const Options& o, float* scores, int64_t vocabulary) {
  // With beams, something that does not end the text must be left.
  const size_t least = o.beams == 1 ? 1 : std::max<size_t>(2, o.eos.size() + 1);
  Narrowing choice(scores, vocabulary, least);
  if (choice.empty()) return;
  if (o.temperature != 1) choice.temperature(o.temperature);
  if (o.top_h >= 0) choice.top_h(o.top_h);
  if (o.top_k > 0) choice.top_k(o.top_k);
  if (o.top_p < 1) choice.top_p(o.top_p);
  if (o.min_p > 0) choice.min_p(o.min_p);
  if (o.typical_p < 1) choice.typical_p(o.typical_p);
  if (o.epsilon > 0 && o.epsilon < 1) choice.cutoff(o.epsilon, false);
  if (o.eta > 0 && o.eta < 1) choice.cutoff(o.eta, true);
}

Choice choice_of(const float* scores, int64_t count) {
  Choice choice;
  float highest = kForbidden;
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_VALUE(!std::isnan(scores[i]), "the network's score of token ", i, " is not a number");
    highest = std::max(highest, scores[i]);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (!(scores[i] > kForbidden)) continue;
    choice.ids.push_back(i);
    choice.weights.push_back(std::exp(static_cast<double>(scores[i]) - highest));
    choice.total += choice.weights.back();
  }
  return choice;
}

size_t draw(const Choice& choice, double u) {
  TORCH_CHECK_VALUE(choice.total > 0, "no token is left to draw: all are forbidden");
  TORCH_CHECK_VALUE(u >= 0 && u < 1, "a uniform draw must be from 0 to below 1, got ", u);
  const double bound = u * choice.total;
  double sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < choice.ids.size(); ++i) {
    if (choice.weights[i] > 0) last = i;
    sum += choice.weights[i];
    if (sum > bound) return i;
  }
  return last;  // rounding
}

namespace {
double log_sum(const float* scores, int64_t count) {
  const float highest = *std::max_element(scores, scores + count);
  if (!std::isfinite(highest)) return highest;
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(scores[i]) - highest);
  return highest + std::log(sum);
}
}  // namespace

void normalize(float* scores, int64_t count) {
  const double sum = log_sum(scores, count);
  for (int64_t i = 0; i < count; ++i) scores[i] = static_cast<float>(scores[i] - sum);
}

float log_probability(const float* scores, int64_t count, int64_t id) {
  return static_cast<float>(scores[id] - log_sum(scores, count));
}

}  // namespace voxtorch::generation
