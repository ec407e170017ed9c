#include "core/kernels/transducer_loss/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;
using Numbers = std::vector<double>;
using Ids = std::vector<int64_t>;

struct Case {
  Ids frames, labels, durations;
  int64_t dim, vocabulary, blank, chunk;
  double sigma;
  TransducerActivation activation;
  int64_t padding = 0;  // frames and states that no row has
};

struct Copy {
  explicit Copy(const Ids& list) : array(list.size()) { std::copy(list.begin(), list.end(), array.data); }
  Array<int64_t> array;
};

constexpr double kNever = -kInfinity;
double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kNever ? a : a + std::log1p(std::exp(b - a));
}

// A row in plain loops: arcs push their sums onward from frame to frame, and backward collects them.
struct Row {
  int64_t frames, states;
  Ids durations;
  Numbers blank, target, kinds;  // log probabilities of the pairs

  template <typename Visit>
  void arcs(int64_t t, int64_t u, const Visit& visit) const {
    const int64_t pair = t * states + u, count = static_cast<int64_t>(durations.size());
    for (int64_t k = 0; k < std::max<int64_t>(count, 1); ++k) {
      const double of_kind = count == 0 ? 0 : kinds[pair * count + k];
      const int64_t step = count == 0 ? 1 : durations[k];
      if (step > 0 && (t + step < frames || (t + step == frames && u == states - 1)))
        visit(0, k, t + step, u, blank[pair] + of_kind);
      const int64_t spell = count == 0 ? 0 : durations[k];
      if (u + 1 < states && t + spell < frames) visit(1, k, t + spell, u + 1, target[pair] + of_kind);
    }
  }

  // Frames beyond the end have one place, the last.
  int64_t place(int64_t t, int64_t u) const { return t == frames ? frames * states : t * states + u; }

  Numbers alpha() const {
    Numbers sums(frames * states + 1, kNever);
    sums[0] = 0;
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t u = 0; u < states; ++u) {
        arcs(t, u, [&](int, int64_t, int64_t to_t, int64_t to_u, double value) {
          double& next = sums[place(to_t, to_u)];
          next = log_add(next, sums[place(t, u)] + value);
        });
      }
    }
    return sums;
  }
  Numbers beta() const {
    Numbers sums(frames * states + 1, kNever);
    sums.back() = 0;
    for (int64_t t = frames - 1; t >= 0; --t) {
      for (int64_t u = states - 1; u >= 0; --u) {
        arcs(t, u, [&](int, int64_t, int64_t to_t, int64_t to_u, double value) {
          double& here = sums[place(t, u)];
          here = log_add(here, value + sums[place(to_t, to_u)]);
        });
      }
    }
    return sums;
  }
};

double activated(TransducerActivation activation, double x) {
  if (activation == TransducerActivation::kRelu) return std::max(x, 0.0);
  return activation == TransducerActivation::kTanh ? std::tanh(x) : 1 / (1 + std::exp(-x));
}
double derivative(TransducerActivation activation, double y) {
  if (activation == TransducerActivation::kRelu) return y > 0 ? 1 : 0;
  return activation == TransducerActivation::kTanh ? 1 - y * y : y * (1 - y);
}

template <typename T>
void run(const Case& c) {
  using Acc = typename Type<T>::Acc;
  const auto type = static_cast<TransducerType>(Type<T>::index);
  const int64_t batch = c.frames.size(), kinds = c.durations.size(), outputs = c.vocabulary + kinds;
  Ids first_pairs{0}, first_targets{0}, targets;
  for (int64_t row = 0; row < batch; ++row) {
    first_pairs.push_back(first_pairs.back() + c.frames[row] * (c.labels[row] + 1));
    first_targets.push_back(first_targets.back() + c.labels[row]);
    for (int64_t u = 0; u < c.labels[row]; ++u) {
      const int64_t id = (row + 2 * u) % (c.vocabulary - 1);
      targets.push_back(id < c.blank ? id : id + 1);
    }
  }
  const int64_t pairs = first_pairs.back(), frames = *std::max_element(c.frames.begin(), c.frames.end()) + c.padding,
                states = *std::max_element(c.labels.begin(), c.labels.end()) + 1 + c.padding;
  const std::string name = std::string("transducer_loss ") + Type<T>::name + " of " + std::to_string(pairs) +
                           " pairs, " + std::to_string(kinds) + " durations, chunks of " + std::to_string(c.chunk) +
                           ": ";
  const Copy pairs_at(first_pairs), targets_at(first_targets), target_ids(targets), duration_ids(c.durations);
  const TransducerRows rows{pairs_at.array.data,
                            targets_at.array.data,
                            target_ids.array.data,
                            duration_ids.array.data,
                            batch,
                            frames,
                            states,
                            c.dim,
                            c.vocabulary,
                            kinds,
                            c.blank};
  const auto chunks = [&](const auto& visit) {
    bool launched = true;
    for (int64_t first = 0; first < pairs; first += c.chunk)
      launched = launched && visit(TransducerChunk{first, std::min(c.chunk, pairs - first)}) == 0;
    return launched;
  };

  Array<T> encoder(batch * frames * c.dim), predictor(batch * states * c.dim), hidden(pairs * c.dim);
  Array<T> logits(pairs * outputs), hidden_grad(pairs * c.dim);
  Array<Acc> values(pairs * (kTransducerValues + kinds)), used(pairs * (kTransducerUses + kinds));
  Array<Acc> losses(batch), grad(batch), to_encoder(encoder.size), to_predictor(predictor.size);
  Array<double> alpha(pairs), beta(pairs), total(batch);
  encoder.draw();
  predictor.draw();
  logits.draw();
  hidden_grad.draw();
  grad.draw(1);
  to_encoder.zero();
  to_predictor.zero();
  if (batch > 1) grad.data[1] = 0;
  std::vector<T> drawn(logits.data, logits.data + logits.size);

  Numbers h(hidden.size), v(values.size), uses(used.size), all(batch), dlogits(logits.size), de(encoder.size),
      dp(predictor.size);
  std::vector<Row> lattices;
  for (int64_t row = 0; row < batch; ++row) {
    Row lattice{c.frames[row], c.labels[row] + 1, c.durations, {}, {}, {}};
    for (int64_t pair = first_pairs[row]; pair < first_pairs[row + 1]; ++pair) {
      const int64_t t = (pair - first_pairs[row]) / lattice.states, u = (pair - first_pairs[row]) % lattice.states;
      const int64_t next = u < c.labels[row] ? targets[first_targets[row] + u] : c.blank;
      const T* const from = drawn.data() + pair * outputs;
      double largest = kNever, sum = 0, most = kNever, of_kinds = 0;
      for (int64_t i = 0; i < c.vocabulary; ++i) largest = std::max(largest, static_cast<double>(from[i]));
      for (int64_t i = 0; i < c.vocabulary; ++i) sum += std::exp(from[i] - largest);
      for (int64_t k = 0; k < kinds; ++k) most = std::max(most, static_cast<double>(from[c.vocabulary + k]));
      for (int64_t k = 0; k < kinds; ++k) of_kinds += std::exp(from[c.vocabulary + k] - most);
      double* const to = v.data() + pair * (kTransducerValues + kinds);
      to[kTransducerLargest] = largest;
      to[kTransducerSum] = sum;
      to[kTransducerBlank] = from[c.blank] - largest - std::log(sum) - c.sigma;
      to[kTransducerTarget] = from[next] - largest - std::log(sum) - c.sigma;
      for (int64_t k = 0; k < kinds; ++k)
        to[kTransducerValues + k] = from[c.vocabulary + k] - most - std::log(of_kinds);
      lattice.blank.push_back(to[kTransducerBlank]);
      lattice.target.push_back(to[kTransducerTarget]);
      lattice.kinds.insert(lattice.kinds.end(), to + kTransducerValues, to + kTransducerValues + kinds);
      for (int64_t d = 0; d < c.dim; ++d) {
        const int64_t e = (row * frames + t) * c.dim + d, p = (row * states + u) * c.dim + d;
        h[pair * c.dim + d] = activated(c.activation, static_cast<double>(static_cast<T>(encoder[e] + predictor[p])));
      }
    }
    const Numbers a = lattice.alpha(), b = lattice.beta();
    all[row] = a.back();
    for (int64_t t = 0; t < lattice.frames && a.back() != kNever; ++t) {
      for (int64_t u = 0; u < lattice.states; ++u) {
        double* const to = uses.data() + (first_pairs[row] + t * lattice.states + u) * (kTransducerUses + kinds);
        lattice.arcs(t, u, [&](int kind, int64_t k, int64_t to_t, int64_t to_u, double value) {
          const double share =
              grad[row] * std::exp(a[lattice.place(t, u)] + value + b[lattice.place(to_t, to_u)] - a.back());
          to[kind] += share;
          if (kinds > 0) to[kTransducerUses + k] += share;
        });
      }
    }
    for (int64_t pair = first_pairs[row]; pair < first_pairs[row + 1]; ++pair) {
      const int64_t u = (pair - first_pairs[row]) % lattice.states;
      const double *value = v.data() + pair * (kTransducerValues + kinds),
                   *use = uses.data() + pair * (kTransducerUses + kinds);
      double* const to = dlogits.data() + pair * outputs;
      for (int64_t i = 0; i < c.vocabulary; ++i) {
        to[i] = (use[0] + use[1]) * std::exp(drawn[pair * outputs + i] - value[0]) / value[1];
        if (i == c.blank) to[i] -= use[0];
        if (u < c.labels[row] && i == targets[first_targets[row] + u]) to[i] -= use[1];
      }
      for (int64_t k = 0; k < kinds; ++k)
        to[c.vocabulary + k] = (use[0] + use[1]) * std::exp(value[kTransducerValues + k]) - use[kTransducerUses + k];
    }
  }

  check(chunks([&](TransducerChunk chunk) {
          return launch_transducer_join(type, {rows, chunk, c.activation, encoder.data, predictor.data,
                                               hidden.data + chunk.first * c.dim},
                                        nullptr);
        }) && chunks([&](TransducerChunk chunk) {
          return launch_transducer_gather(
              type, {rows, chunk, c.sigma, logits.data + chunk.first * outputs, values.data}, nullptr);
        }),
        name + "join and gather are launched");
  TransducerLattice lattice{rows, values.data, alpha.data, total.data, losses.data, beta.data, grad.data, used.data};
  check(launch_transducer_forward(type, lattice, nullptr) == 0 && launch_transducer_backward(type, lattice, nullptr) == 0,
        name + "the lattices are launched");
  check(chunks([&](TransducerChunk chunk) {
          return launch_transducer_gradient(
              type, {rows, chunk, values.data, used.data, logits.data + chunk.first * outputs}, nullptr);
        }),
        name + "the gradient is launched");
  compare(name + "hidden", hidden, h, Type<T>::rounded);
  compare(name + "values", values, v, Type<T>::exact);
  for (int64_t row = 0; row < batch; ++row) {
    const bool reached = all[row] != kNever;
    const double off = std::fabs(total.data[row] - all[row]), rounding = 10 * Type<T>::exact * std::fabs(all[row]);
    check(reached ? off <= rounding && std::fabs(losses[row] + all[row]) <= rounding
                  : total.data[row] == kNever && losses[row] == kInfinity,
          name + "loss of row " + std::to_string(row));
  }
  // Differences of sums along paths: as near as the longest sum is rounded.
  const double length = static_cast<double>(frames + states);
  compare(name + "uses", used, uses, Type<T>::exact * std::max(10.0, length / 4));
  compare(name + "gradient of logits", logits, dlogits,
          std::max(Type<T>::rounded, Type<T>::exact * std::max(10.0, length / 4)));

  for (int64_t row = 0; row < batch; ++row) {
    const int64_t of_row = c.labels[row] + 1;
    for (int64_t pair = first_pairs[row]; pair < first_pairs[row + 1]; ++pair) {
      const int64_t t = (pair - first_pairs[row]) / of_row, u = (pair - first_pairs[row]) % of_row;
      for (int64_t d = 0; d < c.dim; ++d) {
        const double value =
            hidden_grad[pair * c.dim + d] * derivative(c.activation, hidden[pair * c.dim + d]);
        de[(row * frames + t) * c.dim + d] += value;
        dp[(row * states + u) * c.dim + d] += value;
      }
    }
  }
  for (const bool both : {true, false}) {
    to_encoder.zero();
    check(chunks([&](TransducerChunk chunk) {
            return launch_transducer_scatter(
                type,
                {rows, chunk, c.activation, hidden.data + chunk.first * c.dim, hidden_grad.data + chunk.first * c.dim,
                 to_encoder.data, both ? to_predictor.data : nullptr},
                nullptr);
          }),
          name + "scatter is launched");
    compare(name + "gradient of encoder", to_encoder, de, 10 * Type<T>::exact);
  }
  compare(name + "gradient of predictor", to_predictor, dp, 10 * Type<T>::exact);
}

template <typename T>
void cases() {
  constexpr auto relu = TransducerActivation::kRelu, tanh = TransducerActivation::kTanh,
                 sigmoid = TransducerActivation::kSigmoid;
  run<T>({{4, 1, 3}, {3, 2, 0}, {}, 5, 7, 6, 5, 0, relu, 2});             // chunks that begin within frames and rows
  run<T>({{5, 7, 1}, {2, 3, 0}, {0, 1, 2, 3, 4}, 40, 33, 0, 11, 0.05, tanh});
  run<T>({{1}, {0}, {}, 1, 2, 1, 1, 0, sigmoid});                         // one frame, no target
  run<T>({{7, 3, 6}, {2, 1, 2}, {2, 4}, 9, 12, 5, 100, 0, sigmoid, 1});   // a row without an alignment
  run<T>({{6}, {3}, {1, 0, 1}, 3, 4, 3, 4, 0, relu});                     // a duration twice
  run<T>({{130, 3}, {129, 4}, {}, 1, 2, 1, 9000, 0, relu});  // a diagonal beyond a block's threads
  run<T>({{2}, {1}, {0, 1}, 290, 310, 309, 3, 0, tanh});                  // rows beyond a block's threads
}

// A number that is none is not taken for a row without an alignment.
void none() {
  const Copy pairs({0, 4}), first({0, 1}), targets({0}), durations({});
  const TransducerRows rows{pairs.array.data, first.array.data, targets.array.data, durations.array.data, 1, 2, 2, 1, 2, 0, 1};
  Array<float> values(16), losses(1);
  Array<double> alpha(4), total(1);
  check(launch_transducer_forward(TransducerType::kFloat32,
                                  {rows, values.data, alpha.data, total.data, losses.data, nullptr, nullptr, nullptr},
                                  nullptr) == 0 &&
            std::isnan(losses[0]),
        "transducer_loss: the loss of NaN is NaN");
}

}  // namespace

void transducer_loss(bool quick) {
  cases<float>();
  none();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
  cases<double>();
}

}  // namespace driver
