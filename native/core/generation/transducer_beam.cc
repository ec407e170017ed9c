// Beam search for transducers, RNN-T and TDT: the search of Graves 2012 (https://arxiv.org/abs/1211.3711), section 2.5,
// a frame at a time, with the durations of TDT (Xu et al. 2023, https://arxiv.org/abs/2304.06795) and in batches.
//
// A hypothesis is a sequence of tokens and the frame at which it goes on. Those of a row at its earliest frame are
// expanded together, of all rows at once: by a blank to a later frame, or by a token to a later frame or the same one.
// Equal sequences at the same frame are merged and their probabilities added, so with a beam that drops nothing a score
// is the sum over all alignments. Then the most probable hypotheses of the row go on, at whatever frame they are. As in
// the greedy search a blank of no duration takes one frame, and after max_symbols tokens at a frame the next one
// follows.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/topk.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "core/generation/transducer.h"

namespace voxtorch::generation {
namespace {

using at::Tensor;

constexpr int64_t kNone = -1;
constexpr int64_t kMostBeams = 256;

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == -std::numeric_limits<double>::infinity() ? a : a + std::log1p(std::exp(b - a));
}

// A sequence of tokens, as its last and the rest. Its state of the prediction network is at a place while it is live.
struct Node {
  int64_t parent, token, depth;
  int64_t place = kNone;
};

// Where the tokens of a hypothesis lie, the last first.
struct Trace {
  int64_t before, start, duration;
};

struct Hypothesis {
  int64_t frame, node;
  double score;
  int64_t trace;
};

// Before it is known whether it goes on: what its node and trace would be.
struct Candidate {
  double score, best;  // of all alignments, and of the part that the trace is of
  int64_t trace;
  bool is_longer;  // by a token at `start`
  int64_t start, duration;
};
using Key = std::tuple<int64_t, int64_t, int64_t>;  // frame, and of the sequence the rest and the last token

// The search of one row.
class Row {
 public:
  Row(int64_t length, int64_t beams, int64_t first_place) : length_(length), beams_(beams) {
    nodes_.push_back({kNone, kNone, 0, first_place});
    for (int64_t i = 2 * beams - 1; i > 0; --i) free_.push_back(first_place + i);
    (length == 0 ? done_ : live_).push_back({0, 0, 0, kNone});
  }

  bool is_done() const { return live_.empty(); }

  // Takes out the hypotheses at the earliest frame.
  const std::vector<Hypothesis>& take() {
    int64_t frame = length_;
    for (const Hypothesis& one : live_) frame = std::min(frame, one.frame);
    symbols_ = frame == frame_ ? symbols_ + 1 : 0;
    frame_ = frame;
    const auto rest =
        std::stable_partition(live_.begin(), live_.end(), [&](const Hypothesis& one) { return one.frame != frame_; });
    taken_.assign(rest, live_.end());
    live_.erase(rest, live_.end());
    for (const auto* const list : {&live_, &done_}) {
      for (const Hypothesis& one : *list) add(one.node, one.frame, one.score, one.trace);
    }
    return taken_;
  }
  int64_t frame() const { return frame_; }
  int64_t place(const Hypothesis& one) const { return nodes_[static_cast<size_t>(one.node)].place; }

  // A hypothesis goes on with a blank, and stays the same sequence.
  void add_blank(const Hypothesis& from, int64_t step, double score) {
    add(from.node, std::min(frame_ + std::max<int64_t>(step, 1), length_), score, from.trace);
  }
  // Or with a token.
  void add_token(const Hypothesis& from, int64_t token, int64_t step, int64_t duration, double score,
                 int64_t max_symbols) {
    if (step == 0 && symbols_ + 1 >= max_symbols) step = 1;
    merge({std::min(frame_ + step, length_), from.node, token}, {score, score, from.trace, true, frame_, duration});
  }

  // Keeps the best candidates. Calls read(place, token, new place) for the sequences whose states are missing.
  template <typename Read>
  void keep(const Read& read) {
    std::vector<std::pair<Key, Candidate>> best(candidates_.begin(), candidates_.end());
    candidates_.clear();
    std::stable_sort(best.begin(), best.end(),
                     [](const auto& a, const auto& b) { return a.second.score > b.second.score; });
    if (static_cast<int64_t>(best.size()) > beams_) best.resize(static_cast<size_t>(beams_));
    std::vector<int64_t> before;
    for (const auto* const list : {&live_, &taken_}) {
      for (const Hypothesis& one : *list) before.push_back(one.node);
    }
    live_.clear();
    done_.clear();
    std::vector<int64_t> now;
    for (const auto& [key, one] : best) {
      const auto [frame, parent, token] = key;
      const int64_t node = node_of(parent, token);
      int64_t trace = one.trace;
      if (one.is_longer) {
        trace = static_cast<int64_t>(traces_.size());
        traces_.push_back({one.trace, one.start, one.duration});
      }
      (frame == length_ ? done_ : live_).push_back({frame, node, one.score, trace});
      if (frame == length_) continue;
      now.push_back(node);
      Node& of = nodes_[static_cast<size_t>(node)];
      if (of.place != kNone) continue;
      of.place = free_.back();
      free_.pop_back();
      // Its rest was just expanded.
      read(nodes_[static_cast<size_t>(of.parent)].place, of.token, of.place);
    }
    std::sort(now.begin(), now.end());
    for (const int64_t node : before) {
      int64_t& place = nodes_[static_cast<size_t>(node)].place;
      if (place == kNone || std::binary_search(now.begin(), now.end(), node)) continue;
      free_.push_back(place);
      place = kNone;
    }
  }

  // The best, by its score for each token and the end to the power of `penalty`.
  const Hypothesis& result(double penalty) const {
    const auto normalized = [&](const Hypothesis& one) {
      return one.score / std::pow(static_cast<double>(depth(one) + 1), penalty);
    };
    return *std::max_element(done_.begin(), done_.end(),
                             [&](const Hypothesis& a, const Hypothesis& b) { return normalized(a) < normalized(b); });
  }
  int64_t depth(const Hypothesis& one) const { return nodes_[static_cast<size_t>(one.node)].depth; }

  void append(const Hypothesis& one, Ids& tokens, Ids& starts, Ids& durations) const {
    for (int64_t node = one.node; node != 0; node = nodes_[static_cast<size_t>(node)].parent)
      tokens.push_back(nodes_[static_cast<size_t>(node)].token);
    for (int64_t trace = one.trace; trace != kNone; trace = traces_[static_cast<size_t>(trace)].before) {
      starts.push_back(traces_[static_cast<size_t>(trace)].start);
      durations.push_back(traces_[static_cast<size_t>(trace)].duration);
    }
    for (Ids* const list : {&tokens, &starts, &durations}) std::reverse(list->end() - depth(one), list->end());
  }

 private:
  void add(int64_t node, int64_t frame, double score, int64_t trace) {
    const Node& of = nodes_[static_cast<size_t>(node)];
    merge({frame, of.parent, of.token}, {score, score, trace, false, 0, 0});
  }
  void merge(const Key& key, Candidate one) {
    // NaN has no order.
    if (std::isnan(one.score)) one.score = one.best = -std::numeric_limits<double>::infinity();
    const auto [found, is_new] = candidates_.emplace(key, one);
    if (is_new) return;
    const double sum = log_add(found->second.score, one.score);
    if (one.best > found->second.best) found->second = one;
    found->second.score = sum;
  }
  int64_t node_of(int64_t parent, int64_t token) {
    if (parent == kNone) return 0;
    const auto [found, is_new] = children_.emplace(std::make_pair(parent, token), static_cast<int64_t>(nodes_.size()));
    if (is_new) nodes_.push_back({parent, token, nodes_[static_cast<size_t>(parent)].depth + 1});
    return found->second;
  }

  const int64_t length_, beams_;
  int64_t frame_ = kNone, symbols_ = 0;  // tokens at the frame before those that are taken
  std::vector<Node> nodes_;
  std::map<std::pair<int64_t, int64_t>, int64_t> children_;
  std::vector<Trace> traces_;
  std::vector<Hypothesis> live_, done_, taken_;
  std::map<Key, Candidate> candidates_;
  Ids free_;
};

// Of each pair its log probabilities, float64 [pairs, ..] on the CPU: of the blank, of the durations, of the most
// probable tokens, and which these are.
Tensor scores_of(const Transducer& t, const Tensor& logits, int64_t count) {
  const at::ScalarType type = at::toOpMathType(logits.scalar_type());
  const Tensor tokens = at::log_softmax(logits.narrow(1, 0, t.vocabulary()), 1, type);
  const auto [values, ids] = tokens.topk(count, 1);
  std::vector<Tensor> parts{tokens.narrow(1, t.blank, 1).to(at::kDouble)};
  if (t.kinds() > 0)
    parts.push_back(at::log_softmax(logits.narrow(1, t.vocabulary(), t.kinds()), 1, type).to(at::kDouble));
  parts.push_back(values.to(at::kDouble));
  parts.push_back(ids.to(at::kDouble));
  return at::cat(parts, 1).to(at::kCPU).contiguous();
}

std::tuple<Ids, Ids, Ids, Ids, std::vector<double>> beam(VOXTORCH_TRANSDUCER_SEARCH, int64_t beams,
                                                         double length_penalty) {
  constexpr const char* name = "transducer_beam";
  TORCH_CHECK_VALUE(beams > 0 && beams <= kMostBeams, name, ": beams must be from 1 to ", kMostBeams, ", got ", beams);
  TORCH_CHECK_VALUE(std::isfinite(length_penalty), name, ": length_penalty must be a finite number, got ",
                    length_penalty);
  const at::NoGradGuard no_grad;
  const Transducer t(name, VOXTORCH_TRANSDUCER_SEARCH_ARGUMENTS);
  const int64_t places = 2 * beams, count = std::min(beams + 1, t.vocabulary());
  std::vector<Row> rows;
  rows.reserve(static_cast<size_t>(t.batch()));
  for (int64_t row = 0; row < t.batch(); ++row) rows.emplace_back(t.length(row), beams, row * places);
  const auto is_searching = [](const Row& row) { return !row.is_done(); };
  if (std::any_of(rows.begin(), rows.end(), is_searching)) {
    Predictor predictor(t, t.batch() * places);
    while (std::any_of(rows.begin(), rows.end(), is_searching)) {
      Ids of_rows, frames, from;
      std::vector<Hypothesis> taken;
      for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].is_done()) continue;
        for (const Hypothesis& one : rows[i].take()) {
          taken.push_back(one);
          of_rows.push_back(static_cast<int64_t>(i));
          frames.push_back(rows[i].frame());
          from.push_back(rows[i].place(one));
        }
      }
      const Tensor scores = scores_of(t, t.joint(of_rows, frames, predictor.of(from)), count);
      const double* of = scores.const_data_ptr<double>();
      for (size_t i = 0; i < taken.size(); ++i, of += scores.size(1)) {
        Row& row = rows[static_cast<size_t>(of_rows[i])];
        const double *kinds = of + 1, *values = kinds + t.kinds(), *ids = values + count;
        // Each with every duration.
        const auto each = [&](double score, const auto& visit) {
          if (t.kinds() == 0) visit(kNone, score);
          for (int64_t k = 0; k < t.kinds(); ++k) visit(t.durations[static_cast<size_t>(k)], score + kinds[k]);
        };
        each(taken[i].score + *of, [&](int64_t step, double score) { row.add_blank(taken[i], step, score); });
        for (int64_t j = 0; j < count; ++j) {
          const auto token = static_cast<int64_t>(ids[j]);
          if (token == t.blank) continue;
          // A token of RNN-T lasts for its frame.
          each(taken[i].score + values[j], [&](int64_t step, double score) {
            row.add_token(taken[i], token, std::max<int64_t>(step, 0), step == kNone ? 1 : step, score, t.max_symbols);
          });
        }
      }
      Ids sources, tokens, targets;
      int64_t last = kNone;
      for (const int64_t row : of_rows) {
        if (row == last) continue;
        last = row;
        rows[static_cast<size_t>(row)].keep([&](int64_t source, int64_t token, int64_t target) {
          sources.push_back(source);
          tokens.push_back(token);
          targets.push_back(target);
        });
      }
      if (!sources.empty()) predictor.read(sources, tokens, targets);
    }
  }
  Ids tokens, starts, spans, counts;
  std::vector<double> totals;
  for (const Row& row : rows) {
    const Hypothesis& best = row.result(length_penalty);
    row.append(best, tokens, starts, spans);
    counts.push_back(row.depth(best));
    totals.push_back(best.score);
  }
  return {std::move(tokens), std::move(starts), std::move(spans), std::move(counts), std::move(totals)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // As transducer_greedy; scores: the log probability of each row's tokens.
  m.def(
      "transducer_beam(Tensor encoder, Tensor lengths, Tensor embedding, Tensor[] lstm, Tensor projection, Tensor? "
      "projection_bias, Tensor head, Tensor? head_bias, *, int blank, int[] durations=[], int max_symbols=10, str "
      "activation='relu', int beams, float length_penalty=0.) -> (int[] tokens, int[] frames, int[] durations, int[] "
      "counts, float[] scores)",
      beam);
}

}  // namespace voxtorch::generation
