// transducer_loss on the CPU: a row at a time, in ATen's operators, a block of frames at a time.
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/kernels/transducer_loss/transducer_loss.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kImpossible ? a : a + std::log1p(std::exp(b - a));
}

Tensor activate(const std::string& name, const Tensor& x) {
  return name == "relu" ? at::relu(x) : name == "tanh" ? at::tanh(x) : at::sigmoid(x);
}

// Turns the gradient of the activation's output y into that of its input.
Tensor through_activation(const std::string& name, const Tensor& grad, const Tensor& y) {
  if (name == "relu") return at::threshold_backward(grad, y, 0);
  return name == "tanh" ? at::tanh_backward(grad, y) : at::sigmoid_backward(grad, y);
}

// The sizes of a row, and the log probabilities and occupancies of its pairs (t, u), float64 [frames, targets + 1, ..].
class Lattice {
 public:
  // `values` float64 [frames, targets + 1, 2 + durations]: of the blank, of the next target, of each duration.
  Lattice(const Tensor& values, const std::vector<int64_t>& durations)
      : frames_(values.size(0)), states_(values.size(1)), width_(values.size(2)), values_(values) {
    if (durations.empty()) {
      blanks_ = {{1, -1}};
      labels_ = {{0, -1}};
      return;
    }
    for (size_t i = 0; i < durations.size(); ++i) {
      const Arc arc{durations[i], static_cast<int64_t>(i)};
      labels_.push_back(arc);
      if (arc.duration > 0) blanks_.push_back(arc);
    }
  }

  // log Σ exp over all alignments.
  double total() {
    alpha_.assign(static_cast<size_t>(frames_ * states_), kImpossible);
    alpha_[0] = 0;
    double sum = kImpossible;
    // Forward along the arcs: all that lead to a pair come from earlier ones.
    for (int64_t t = 0; t < frames_; ++t) {
      for (int64_t u = 0; u < states_; ++u) {
        const double here = alpha_[at(t, u)];
        if (here == kImpossible) continue;
        for (const Arc& arc : blanks_) {
          const double reached = here + value(t, u, kBlank, arc);
          if (t + arc.duration < frames_) {
            double& next = alpha_[at(t + arc.duration, u)];
            next = log_add(next, reached);
          } else if (t + arc.duration == frames_ && u == states_ - 1) {
            sum = log_add(sum, reached);
          }
        }
        if (u == states_ - 1) continue;
        for (const Arc& arc : labels_) {
          if (t + arc.duration >= frames_) continue;
          double& next = alpha_[at(t + arc.duration, u + 1)];
          next = log_add(next, here + value(t, u, kLabel, arc));
        }
      }
    }
    return sum;
  }

  // How often alignments use each of the values, in the mean over their probabilities; 0 where there is no alignment.
  Tensor occupancies() {
    const double sum = total();
    const Tensor result = at::zeros_like(values_);
    if (sum == kImpossible) return result;
    double* const used = result.mutable_data_ptr<double>();
    std::vector<double> beta(static_cast<size_t>(frames_ * states_), kImpossible);
    for (int64_t t = frames_ - 1; t >= 0; --t) {
      for (int64_t u = states_ - 1; u >= 0; --u) {
        double rest = kImpossible;
        const auto take = [&](Kind kind, const Arc& arc, double after) {
          const double onward = value(t, u, kind, arc) + after;
          rest = log_add(rest, onward);
          const double share = std::exp(alpha_[at(t, u)] + onward - sum);
          double* const here = used + static_cast<int64_t>(at(t, u)) * width_;
          here[kind] += share;
          if (arc.index >= 0) here[2 + arc.index] += share;
        };
        for (const Arc& arc : blanks_) {
          if (t + arc.duration < frames_) {
            take(kBlank, arc, beta[at(t + arc.duration, u)]);
          } else if (t + arc.duration == frames_ && u == states_ - 1) {
            take(kBlank, arc, 0);
          }
        }
        if (u < states_ - 1) {
          for (const Arc& arc : labels_) {
            if (t + arc.duration < frames_) take(kLabel, arc, beta[at(t + arc.duration, u + 1)]);
          }
        }
        beta[at(t, u)] = rest;
      }
    }
    return result;
  }

 private:
  enum Kind { kBlank = 0, kLabel = 1 };
  struct Arc {
    int64_t duration, index;  // the index is -1 where the duration has no probability
  };

  size_t at(int64_t t, int64_t u) const { return static_cast<size_t>(t * states_ + u); }
  double value(int64_t t, int64_t u, Kind kind, const Arc& arc) const {
    const double* const here = values_.const_data_ptr<double>() + static_cast<int64_t>(at(t, u)) * width_;
    return here[kind] + (arc.index >= 0 ? here[2 + arc.index] : 0);
  }

  const int64_t frames_, states_, width_;
  const Tensor values_;
  std::vector<Arc> blanks_, labels_;
  std::vector<double> alpha_;
};

struct Gradients {
  Tensor encoder, predictor, weight, bias;  // those that are wanted are defined
};

class Rows {
 public:
  explicit Rows(const TransducerInputs& inputs) : in(inputs), type(at::toOpMathType(inputs.encoder.scalar_type())) {}

  // float64 [frames, targets + 1, 2 + durations] of a row.
  Tensor values(int64_t row) const {
    const int64_t frames = in.frames_of(row), states = in.labels_of(row) + 1;
    const Tensor result = at::empty({frames, states, 2 + in.kinds()}, at::TensorOptions().dtype(at::kDouble));
    const Tensor next = next_targets(row);
    each_block(row, [&](int64_t begin, int64_t length, const Tensor&, const Tensor& logits) {
      const Tensor tokens = logits.narrow(1, 0, in.vocabulary());
      const Tensor sum = at::logsumexp(tokens, 1, true);
      const Tensor places = next.expand({length, states}).reshape({-1, 1});
      const Tensor found = at::cat({tokens.narrow(1, in.blank, 1), tokens.gather(1, places)}, 1) - sum - in.sigma;
      const Tensor all = in.kinds() == 0
                             ? found
                             : at::cat({found, at::log_softmax(logits.narrow(1, in.vocabulary(), in.kinds()), 1)}, 1);
      result.narrow(0, begin, length).copy_(all.view({length, states, 2 + in.kinds()}));
    });
    return result;
  }

  // Adds a row's gradients, of its loss times `factor`, where `used` are the occupancies of its values.
  void add_gradients(int64_t row, const Tensor& used, double factor, Gradients& gradients) const {
    const int64_t states = in.labels_of(row) + 1;
    const Tensor next = next_targets(row);
    each_block(row, [&](int64_t begin, int64_t length, const Tensor& hidden, Tensor logits) {
      const Tensor part = used.narrow(0, begin, length).mul(factor).to(type).view({length * states, 2 + in.kinds()});
      const Tensor blank = part.narrow(1, 0, 1), label = part.narrow(1, 1, 1), any = blank + label;
      Tensor tokens = logits.narrow(1, 0, in.vocabulary());
      tokens.copy_(at::softmax(tokens, 1).mul_(any));
      tokens.narrow(1, in.blank, 1).sub_(blank);
      tokens.scatter_add_(1, next.expand({length, states}).reshape({-1, 1}), label.neg());
      if (in.kinds() > 0) {
        Tensor durations = logits.narrow(1, in.vocabulary(), in.kinds());
        durations.copy_(at::softmax(durations, 1).mul_(any).sub_(part.narrow(1, 2, in.kinds())));
      }
      if (gradients.bias.defined()) gradients.bias.add_(logits.sum(0));
      const Tensor narrow = logits.to(in.weight.scalar_type());
      if (gradients.weight.defined()) gradients.weight.add_(at::mm(narrow.t(), hidden));
      if (!gradients.encoder.defined() && !gradients.predictor.defined()) return;
      const Tensor joined = through_activation(in.activation, at::mm(narrow, in.weight), hidden)
                                .to(type)
                                .view({length, states, in.encoder.size(2)});
      if (gradients.encoder.defined()) gradients.encoder.select(0, row).narrow(0, begin, length).add_(joined.sum(1));
      if (gradients.predictor.defined()) gradients.predictor.select(0, row).narrow(0, 0, states).add_(joined.sum(0));
    });
  }

  const TransducerInputs& in;
  const at::ScalarType type;

 private:
  // int64 [targets + 1]: the target that comes next; the last has none, and stands for nothing that is used.
  Tensor next_targets(int64_t row) const {
    const Tensor result = at::full({in.labels_of(row) + 1}, in.blank, at::TensorOptions().dtype(at::kLong));
    std::copy_n(in.targets.begin() + in.first_target(row), in.labels_of(row), result.mutable_data_ptr<int64_t>());
    return result;
  }

  // Calls take(first frame, frames, hidden [pairs, dim], logits [pairs, vocabulary + durations]), which may change
  // them.
  template <typename Take>
  void each_block(int64_t row, const Take& take) const {
    const int64_t frames = in.frames_of(row), states = in.labels_of(row) + 1;
    const int64_t pairs = in.chunk > 0 ? in.chunk : (int64_t{1} << 23) / in.weight.size(0);
    const int64_t step = std::max<int64_t>(pairs / states, 1);
    const Tensor predictor = in.predictor.select(0, row).narrow(0, 0, states).unsqueeze(0);
    for (int64_t begin = 0; begin < frames; begin += step) {
      const int64_t length = std::min(step, frames - begin);
      const Tensor encoder = in.encoder.select(0, row).narrow(0, begin, length).unsqueeze(1);
      const Tensor hidden = activate(in.activation, encoder + predictor).flatten(0, 1);
      const Tensor product =
          in.bias.defined() ? at::addmm(in.bias, hidden, in.weight.t()) : at::mm(hidden, in.weight.t());
      take(begin, length, hidden, product.to(type));
    }
  }
};

TransducerOutput forward_cpu(VOXTORCH_TRANSDUCER_PARAMETERS) {
  const TransducerInputs in = transducer_inputs(VOXTORCH_TRANSDUCER_ARGUMENTS);
  const Rows rows(in);
  const Tensor losses = at::empty({in.batch()}, at::TensorOptions().dtype(at::kDouble));
  for (int64_t row = 0; row < in.batch(); ++row) {
    losses.mutable_data_ptr<double>()[row] = -Lattice(rows.values(row), in.durations).total();
  }
  // Backward computes a row's values again.
  const Tensor none = at::empty({0}, losses.options());
  return {losses.to(rows.type), none, none};
}

TransducerGradients backward_cpu(const Tensor& grad, const Tensor&, const Tensor&, std::array<bool, 4> mask,
                                 VOXTORCH_TRANSDUCER_PARAMETERS) {
  const TransducerInputs in = transducer_inputs(VOXTORCH_TRANSDUCER_ARGUMENTS);
  check_transducer_grad(grad, in);
  const Rows rows(in);
  const auto zeros = [&](size_t i, const Tensor& like) {
    return mask[i] && like.defined() ? at::zeros(like.sizes(), like.options().dtype(rows.type)) : Tensor();
  };
  Gradients gradients{zeros(0, encoder), zeros(1, predictor), zeros(2, weight), zeros(3, in.bias)};
  const Tensor upstream = grad.to(at::kDouble).contiguous();
  for (int64_t row = 0; row < in.batch(); ++row) {
    const double factor = upstream.const_data_ptr<double>()[row];
    if (factor == 0) continue;
    rows.add_gradients(row, Lattice(rows.values(row), in.durations).occupancies(), factor, gradients);
  }
  return {in_dtype_of(gradients.encoder, encoder), in_dtype_of(gradients.predictor, predictor),
          in_dtype_of(gradients.weight, weight), in_dtype_of(gradients.bias, in.bias)};
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) {
  m.impl("transducer_loss_forward", forward_cpu);
  m.impl("transducer_loss_backward", backward_cpu);
}

}  // namespace voxtorch::kernels
