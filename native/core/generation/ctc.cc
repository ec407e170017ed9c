// What a CTC network's frames say (Graves et al. 2006): the most likely texts, by prefix beam search (Hannun et al.
// 2014, https://arxiv.org/abs/1408.2873), and the most likely way through the frames of a given text.
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_set>

namespace voxtorch::generation {

using at::Tensor;

namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kImpossible ? a : a + std::log1p(std::exp(b - a));
}

// Log probabilities [frames, vocabulary] as doubles in memory.
struct Frames {
  Frames(const Tensor& given, int64_t blank) {
    TORCH_CHECK(given.dim() == 2 && given.is_floating_point() && given.size(1) > 0,
                "log_probs must be floating point [frames, vocabulary], got ", given.scalar_type(), " ", given.sizes());
    TORCH_CHECK_VALUE(blank >= 0 && blank < given.size(1), "blank must be one of ", given.size(1), " tokens, got ",
                      blank);
    values = given.detach().to(at::kCPU, at::kDouble).contiguous();
    count = values.size(0);
    vocabulary = values.size(1);
    TORCH_CHECK_VALUE(!values.isnan().any().item<bool>(), "log_probs has values that are not numbers");
  }
  const double* operator[](int64_t frame) const { return values.const_data_ptr<double>() + frame * vocabulary; }

  Tensor values;
  int64_t count = 0, vocabulary = 0;
};

// A prefix of a text, by its last token and the prefix before it.
struct Prefix {
  int64_t before, token;
};

// A prefix in the beam, and the log probability of all ways to it that end in a blank and in its last token.
struct Beam {
  int64_t prefix;
  double blank = kImpossible, label = kImpossible;
  double total() const { return log_add(blank, label); }
};

struct Candidate {
  Beam beam;
  int64_t before = -1, token = -1;  // of a prefix that is not in the beam yet
  double total = kImpossible;
};

class PrefixSearch {
 public:
  PrefixSearch(int64_t blank, int64_t width) : blank_(blank), width_(static_cast<size_t>(width)) {
    prefixes_.push_back({-1, -1});
    beams_.push_back({0, 0, kImpossible});
  }

  void advance(const double* frame, int64_t vocabulary) {
    std::vector<Candidate> candidates = continued(frame);
    const std::unordered_set<int64_t> known = extend_known(frame, vocabulary, candidates);
    // No more than this many can be new in the next beam, and a more likely token makes a more likely prefix, but for
    // the token that would only repeat the last one.
    const std::vector<int64_t> tokens = likeliest(frame, vocabulary, width_ + 1);
    for (size_t i = 0; i < beams_.size(); ++i) {
      const Beam& beam = beams_[i];
      for (const int64_t token : tokens) {
        if (known.count(static_cast<int64_t>(i) * vocabulary + token) != 0) continue;
        const double total = frame[token] + source(beam, token);
        if (total == kImpossible) continue;
        candidates.push_back({{-1, kImpossible, total}, beam.prefix, token, total});
      }
    }
    for (Candidate& candidate : candidates) candidate.total = candidate.beam.total();
    const auto better = [](const Candidate& a, const Candidate& b) { return a.total > b.total; };
    if (candidates.size() > width_) {
      std::nth_element(candidates.begin(), candidates.begin() + static_cast<int64_t>(width_), candidates.end(), better);
      candidates.resize(width_);
    }
    beams_.clear();
    for (Candidate& candidate : candidates) {
      if (candidate.beam.prefix < 0) {
        candidate.beam.prefix = static_cast<int64_t>(prefixes_.size());
        prefixes_.push_back({candidate.before, candidate.token});
      }
      beams_.push_back(candidate.beam);
    }
  }

  // The best first.
  std::vector<Beam> results() const {
    std::vector<Beam> sorted = beams_;
    std::stable_sort(sorted.begin(), sorted.end(), [](const Beam& a, const Beam& b) { return a.total() > b.total(); });
    return sorted;
  }

  std::vector<int64_t> text(const Beam& beam) const {
    std::vector<int64_t> tokens;
    for (int64_t at = beam.prefix; at != 0; at = prefixes_[static_cast<size_t>(at)].before) {
      tokens.push_back(prefixes_[static_cast<size_t>(at)].token);
    }
    std::reverse(tokens.begin(), tokens.end());
    return tokens;
  }

 private:
  int64_t last(const Beam& beam) const { return prefixes_[static_cast<size_t>(beam.prefix)].token; }
  // A token that repeats the last one is new only after a blank.
  double source(const Beam& beam, int64_t token) const { return token == last(beam) ? beam.blank : beam.total(); }

  // Each prefix stays what it is by a blank, or by its last token once more.
  std::vector<Candidate> continued(const double* frame) const {
    std::vector<Candidate> result;
    for (const Beam& beam : beams_) {
      const int64_t token = last(beam);
      result.push_back(
          {{beam.prefix, beam.total() + frame[blank_], token < 0 ? kImpossible : beam.label + frame[token]}});
    }
    return result;
  }

  // Prefixes of the beam that another one of the beam becomes; -> those pairs, by its place and the token.
  std::unordered_set<int64_t> extend_known(const double* frame, int64_t vocabulary,
                                           std::vector<Candidate>& candidates) const {
    std::vector<int64_t> place(prefixes_.size(), -1);
    for (size_t i = 0; i < beams_.size(); ++i) {
      place[static_cast<size_t>(beams_[i].prefix)] = static_cast<int64_t>(i);
    }
    std::unordered_set<int64_t> known;
    for (size_t i = 0; i < beams_.size(); ++i) {
      const Prefix& prefix = prefixes_[static_cast<size_t>(beams_[i].prefix)];
      if (prefix.before < 0 || place[static_cast<size_t>(prefix.before)] < 0) continue;
      const int64_t from = place[static_cast<size_t>(prefix.before)];
      known.insert(from * vocabulary + prefix.token);
      double& label = candidates[i].beam.label;
      label = log_add(label, frame[prefix.token] + source(beams_[static_cast<size_t>(from)], prefix.token));
    }
    return known;
  }

  std::vector<int64_t> likeliest(const double* frame, int64_t vocabulary, size_t most) const {
    std::vector<int64_t> tokens;
    for (int64_t i = 0; i < vocabulary; ++i) {
      if (i != blank_) tokens.push_back(i);
    }
    if (tokens.size() <= most) return tokens;
    std::nth_element(tokens.begin(), tokens.begin() + static_cast<int64_t>(most), tokens.end(),
                     [frame](int64_t a, int64_t b) { return frame[a] > frame[b]; });
    tokens.resize(most);
    return tokens;
  }

  const int64_t blank_;
  const size_t width_;
  std::vector<Prefix> prefixes_;  // the empty one first
  std::vector<Beam> beams_;
};

using Ids = std::vector<int64_t>;

std::tuple<Ids, Ids, std::vector<double>> beam_search(const Tensor& log_probs, int64_t blank, int64_t width,
                                                      int64_t best) {
  TORCH_CHECK_VALUE(width > 0 && width <= 1 << 16, "beam_width must be from 1 to 65536, got ", width);
  const Frames frames(log_probs, blank);
  PrefixSearch search(blank, width);
  for (int64_t frame = 0; frame < frames.count; ++frame) search.advance(frames[frame], frames.vocabulary);
  Ids tokens, counts;
  std::vector<double> scores;
  for (const Beam& beam : search.results()) {
    if (static_cast<int64_t>(scores.size()) == best) break;
    const Ids text = search.text(beam);
    tokens.insert(tokens.end(), text.begin(), text.end());
    counts.push_back(static_cast<int64_t>(text.size()));
    scores.push_back(beam.total());
  }
  return {std::move(tokens), std::move(counts), std::move(scores)};
}

// The states of a text are its tokens with a blank before, between and after: state s is token s / 2 where s is odd.
std::tuple<Ids, double> align(const Tensor& log_probs, const Ids& text, int64_t blank) {
  const Frames frames(log_probs, blank);
  for (const int64_t token : text) {
    TORCH_CHECK_VALUE(token >= 0 && token < frames.vocabulary && token != blank, "tokens has ", token,
                      ", which is not a token of a text");
  }
  constexpr int64_t kMostSteps = int64_t{1} << 31;
  const auto states = static_cast<int64_t>(2 * text.size() + 1);
  TORCH_CHECK_VALUE(frames.count == 0 || states <= kMostSteps / frames.count, text.size(), " tokens and ", frames.count,
                    " frames are too many to align at once; align pieces of them");
  if (frames.count == 0) {
    TORCH_CHECK_VALUE(text.empty(), "no frames cannot hold ", text.size(), " tokens");
    return {Ids(), 0};
  }
  const auto token_of = [&](int64_t state) { return state % 2 == 1 ? text[static_cast<size_t>(state / 2)] : blank; };
  std::vector<double> best(static_cast<size_t>(states), kImpossible), next(best);
  std::vector<uint8_t> steps(static_cast<size_t>(frames.count * states), 0);  // how many states were gone on
  best[0] = frames[0][blank];
  if (states > 1) best[1] = frames[0][text[0]];
  for (int64_t frame = 1; frame < frames.count; ++frame) {
    for (int64_t state = 0; state < states; ++state) {
      const auto from = [&](int64_t step) {
        return state < step ? kImpossible : best[static_cast<size_t>(state - step)];
      };
      const bool may_skip = state % 2 == 1 && state >= 3 && token_of(state) != token_of(state - 2);
      uint8_t step = 0;
      if (from(1) > from(step)) step = 1;
      if (may_skip && from(2) > from(step)) step = 2;
      next[static_cast<size_t>(state)] = from(step) + frames[frame][token_of(state)];
      steps[static_cast<size_t>(frame * states + state)] = step;
    }
    std::swap(best, next);
  }
  int64_t state = states - 1;
  if (states > 1 && best[static_cast<size_t>(state - 1)] > best[static_cast<size_t>(state)]) --state;
  const double score = best[static_cast<size_t>(state)];
  TORCH_CHECK_VALUE(score > kImpossible, frames.count, " frames cannot hold these ", text.size(), " tokens");
  Ids path(static_cast<size_t>(frames.count));
  for (int64_t frame = frames.count - 1; frame >= 0; --frame) {
    path[static_cast<size_t>(frame)] = token_of(state);
    state -= steps[static_cast<size_t>(frame * states + state)];
  }
  return {std::move(path), score};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // The most likely texts of log_probs [frames, vocabulary], the best first: their tokens one after the other, how many
  // each has, and the log of the sum of the probabilities of all its ways through the frames.
  m.def(
      "ctc_beam_search(Tensor log_probs, *, int blank=0, int beam_width=100, int n_best=1) -> (int[] tokens, int[] "
      "counts, float[] scores)",
      beam_search);
  // The most likely way of a text through the frames: a token or blank for each, and its log probability.
  m.def("ctc_align(Tensor log_probs, int[] tokens, *, int blank=0) -> (int[] path, float score)", align);
}

}  // namespace voxtorch::generation
