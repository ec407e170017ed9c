// Losses of transducers: RNN-T (Graves 2012, https://arxiv.org/abs/1211.3711) and TDT (Xu et al. 2023,
// https://arxiv.org/abs/2304.06795), -log of the summed probabilities of all alignments of a target sequence.
//
// The joint network is part of the operator: for frame t and u targets so far
//
//   logits(t, u) = weight activation(encoder_t + predictor_u) + bias
//
// The logits of a batch, [batch, frames, targets + 1, vocabulary], would be the largest tensor of a training by far.
// They are computed a block of frames at a time, and of each pair (t, u) only the log probabilities that alignments can
// use are kept: of the blank, of the next target and of each duration. Backward computes the blocks again.
//
// An alignment is a path from (0, 0) to (frames, targets). RNN-T: a blank leads to (t + 1, u), a target to (t, u + 1).
// TDT: each comes with one of the durations d: a blank, with d > 0, leads to (t + d, u), a target to (t + d, u + 1).
// Sums along paths are in float64.
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/kernels/fused_operator.h"
#include "core/runtime/transfers.h"

namespace voxtorch::train {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kName = "transducer_loss";
constexpr double kImpossible = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kImpossible ? a : a + std::log1p(std::exp(b - a));
}

struct Options {
  int64_t blank;
  std::vector<int64_t> durations;  // empty: RNN-T
  double sigma;                    // subtracted from the log probability of each token
  std::string activation;
  int64_t chunk;  // pairs whose logits exist at a time; 0: chosen
};

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

struct Inputs {
  Tensor encoder;    // [batch, frames, dim]
  Tensor predictor;  // [batch, targets + 1, dim]
  Tensor weight;     // [vocabulary + durations, dim]
  Tensor bias;       // [vocabulary + durations]; undefined: none
  Tensor targets;    // int64 [batch, targets], on the CPU
  std::vector<int64_t> frames, labels;
};

struct Gradients {
  Tensor encoder, predictor, weight, bias;  // those that are wanted are defined
};

class Rows {
 public:
  Rows(const Inputs& inputs, const Options& options)
      : in(inputs), o(options), type(at::toOpMathType(inputs.encoder.scalar_type())) {}

  int64_t batch() const { return in.encoder.size(0); }

  // float64 [frames, targets + 1, 2 + durations] of a row, on the CPU.
  Tensor values(int64_t row) const {
    const int64_t frames = in.frames[static_cast<size_t>(row)], states = in.labels[static_cast<size_t>(row)] + 1;
    const Tensor result = at::empty({frames, states, 2 + count()}, at::TensorOptions().dtype(at::kDouble));
    const Tensor next = next_targets(row);
    each_block(row, [&](int64_t begin, int64_t length, const Tensor&, const Tensor& logits) {
      const Tensor tokens = logits.narrow(1, 0, vocabulary());
      const Tensor sum = at::logsumexp(tokens, 1, true);
      const Tensor places = next.expand({length, states}).reshape({-1, 1});
      const Tensor found = at::cat({tokens.narrow(1, o.blank, 1), tokens.gather(1, places)}, 1) - sum - o.sigma;
      const Tensor all =
          count() == 0 ? found : at::cat({found, at::log_softmax(logits.narrow(1, vocabulary(), count()), 1)}, 1);
      result.narrow(0, begin, length).copy_(all.view({length, states, 2 + count()}));
    });
    return result;
  }

  // Adds a row's gradients, of its loss times `factor`, where `used` are the occupancies of its values.
  void add_gradients(int64_t row, const Tensor& used, double factor, Gradients& gradients) const {
    const int64_t states = in.labels[static_cast<size_t>(row)] + 1;
    const Tensor next = next_targets(row);
    each_block(row, [&](int64_t begin, int64_t length, const Tensor& hidden, Tensor logits) {
      const Tensor part = upload(used.narrow(0, begin, length).mul(factor).to(type), in.encoder.device())
                              .view({length * states, 2 + count()});
      const Tensor blank = part.narrow(1, 0, 1), label = part.narrow(1, 1, 1), any = blank + label;
      Tensor tokens = logits.narrow(1, 0, vocabulary());
      tokens.copy_(at::softmax(tokens, 1).mul_(any));
      tokens.narrow(1, o.blank, 1).sub_(blank);
      tokens.scatter_add_(1, next.expand({length, states}).reshape({-1, 1}), label.neg());
      if (count() > 0) {
        Tensor durations = logits.narrow(1, vocabulary(), count());
        durations.copy_(at::softmax(durations, 1).mul_(any).sub_(part.narrow(1, 2, count())));
      }
      if (gradients.bias.defined()) gradients.bias.add_(logits.sum(0));
      const Tensor narrow = logits.to(in.weight.scalar_type());
      if (gradients.weight.defined()) gradients.weight.add_(at::mm(narrow.t(), hidden));
      if (!gradients.encoder.defined() && !gradients.predictor.defined()) return;
      const Tensor joined = through_activation(o.activation, at::mm(narrow, in.weight), hidden)
                                .to(type)
                                .view({length, states, in.encoder.size(2)});
      if (gradients.encoder.defined()) gradients.encoder.select(0, row).narrow(0, begin, length).add_(joined.sum(1));
      if (gradients.predictor.defined()) gradients.predictor.select(0, row).narrow(0, 0, states).add_(joined.sum(0));
    });
  }

  const Inputs& in;
  const Options& o;
  const at::ScalarType type;

 private:
  int64_t count() const { return static_cast<int64_t>(o.durations.size()); }
  int64_t vocabulary() const { return in.weight.size(0) - count(); }

  // int64 [targets + 1]: the target that comes next; the last has none, and stands for nothing that is used.
  Tensor next_targets(int64_t row) const {
    const int64_t labels = in.labels[static_cast<size_t>(row)];
    const Tensor result = at::full({labels + 1}, o.blank, at::TensorOptions().dtype(at::kLong));
    result.narrow(0, 0, labels).copy_(in.targets.select(0, row).narrow(0, 0, labels));
    return upload(result, in.encoder.device());
  }

  // Calls take(first frame, frames, hidden [pairs, dim], logits [pairs, vocabulary + durations]), which may change
  // them.
  template <typename Take>
  void each_block(int64_t row, const Take& take) const {
    const int64_t frames = in.frames[static_cast<size_t>(row)], states = in.labels[static_cast<size_t>(row)] + 1;
    const int64_t elements = int64_t{1} << (in.encoder.is_cuda() ? 25 : 23);
    const int64_t pairs = o.chunk > 0 ? o.chunk : elements / in.weight.size(0);
    const int64_t step = std::max<int64_t>(pairs / states, 1);
    const Tensor predictor = in.predictor.select(0, row).narrow(0, 0, states).unsqueeze(0);
    for (int64_t begin = 0; begin < frames; begin += step) {
      const int64_t length = std::min(step, frames - begin);
      const Tensor encoder = in.encoder.select(0, row).narrow(0, begin, length).unsqueeze(1);
      const Tensor hidden = activate(o.activation, encoder + predictor).flatten(0, 1);
      const Tensor product =
          in.bias.defined() ? at::addmm(in.bias, hidden, in.weight.t()) : at::mm(hidden, in.weight.t());
      take(begin, length, hidden, product.to(type));
    }
  }
};

std::vector<int64_t> lengths_of(const char* name, const Tensor& lengths, int64_t batch, int64_t least, int64_t most) {
  TORCH_CHECK(lengths.dim() == 1 && lengths.size(0) == batch &&
                  (lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt),
              kName, ": ", name, " must be int64 [", batch, "], got ", lengths.scalar_type(), " ", lengths.sizes());
  const Tensor here = lengths.to(at::kCPU, at::kLong).contiguous();
  std::vector<int64_t> result(here.const_data_ptr<int64_t>(), here.const_data_ptr<int64_t>() + batch);
  for (const int64_t length : result) {
    TORCH_CHECK_VALUE(length >= least && length <= most, kName, ": ", name, " must be from ", least, " to ", most,
                      ", got ", length);
  }
  return result;
}

void check(const Tensor& encoder, const Tensor& predictor, const Tensor& weight, const Tensor& bias,
           const Tensor& targets, const Options& o) {
  const auto is_real = [](const Tensor& x) { return x.layout() == at::kStrided && x.is_floating_point(); };
  TORCH_CHECK(is_real(encoder) && is_real(predictor) && is_real(weight), kName,
              ": encoder, predictor and weight must be dense and floating point, got ", encoder.scalar_type(), ", ",
              predictor.scalar_type(), " and ", weight.scalar_type());
  TORCH_CHECK(encoder.dim() == 3 && predictor.dim() == 3 && weight.dim() == 2 && predictor.size(0) == encoder.size(0) &&
                  predictor.size(2) == encoder.size(2) && weight.size(1) == encoder.size(2),
              kName, ": encoder must be [batch, frames, dim], predictor [batch, targets + 1, dim] and weight ",
              "[vocabulary + durations, dim], got ", encoder.sizes(), ", ", predictor.sizes(), " and ", weight.sizes());
  TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)), kName, ": bias must be [",
              weight.size(0), "], got ", bias.defined() ? bias.sizes() : weight.sizes());
  for (const Tensor& tensor : {predictor, weight, bias}) {
    if (!tensor.defined()) continue;
    TORCH_CHECK(tensor.scalar_type() == encoder.scalar_type() && tensor.device() == encoder.device(), kName,
                ": predictor, weight and bias must have encoder's dtype and device, ", encoder.scalar_type(), " on ",
                encoder.device(), ", got ", tensor.scalar_type(), " on ", tensor.device());
  }
  TORCH_CHECK(targets.dim() == 2 && targets.size(0) == encoder.size(0) && targets.size(1) + 1 == predictor.size(1) &&
                  targets.scalar_type() == at::kLong,
              kName, ": targets must be int64 [", encoder.size(0), ", ", predictor.size(1) - 1,
              "], one fewer than predictor has, got ", targets.scalar_type(), " ", targets.sizes());
  const auto vocabulary = weight.size(0) - static_cast<int64_t>(o.durations.size());
  TORCH_CHECK_VALUE(o.blank >= 0 && o.blank < vocabulary, kName, ": blank must be one of ", vocabulary, " tokens, got ",
                    o.blank);
  for (const int64_t duration : o.durations) {
    TORCH_CHECK_VALUE(duration >= 0 && duration <= (1 << 30), kName,
                      ": durations must not be negative or above 2^30, got ", duration);
  }
  TORCH_CHECK_VALUE(
      o.durations.empty() || std::any_of(o.durations.begin(), o.durations.end(), [](int64_t d) { return d > 0; }),
      kName, ": durations must have one above 0");
  TORCH_CHECK_VALUE(std::isfinite(o.sigma), kName, ": sigma must be a finite number, got ", o.sigma);
  TORCH_CHECK_VALUE(o.activation == "relu" || o.activation == "tanh" || o.activation == "sigmoid", kName,
                    ": activation must be 'relu', 'tanh' or 'sigmoid', got '", o.activation, "'");
  TORCH_CHECK_VALUE(o.chunk >= 0, kName, ": chunk must be a number of pairs, or 0 to have it chosen, got ", o.chunk);
}

Inputs inputs_of(const Tensor& encoder, const Tensor& predictor, const Tensor& weight, const Tensor& bias,
                 const Tensor& targets, const Tensor& frames, const Tensor& labels, const Options& o) {
  const int64_t batch = encoder.size(0);
  Inputs in{encoder, predictor, weight, bias, targets.to(at::kCPU), {}, {}};
  in.frames = lengths_of("encoder_lengths", frames, batch, 1, encoder.size(1));
  in.labels = lengths_of("target_lengths", labels, batch, 0, targets.size(1));
  const int64_t vocabulary = weight.size(0) - static_cast<int64_t>(o.durations.size());
  for (int64_t row = 0; row < batch; ++row) {
    const Tensor own = in.targets.select(0, row).narrow(0, 0, in.labels[static_cast<size_t>(row)]).contiguous();
    for (int64_t i = 0; i < own.size(0); ++i) {
      const int64_t target = own.const_data_ptr<int64_t>()[i];
      TORCH_CHECK_INDEX(target >= 0 && target < vocabulary && target != o.blank, kName, ": target ", target, " of row ",
                        row, " is not one of the ", vocabulary, " tokens, or is the blank");
    }
  }
  return in;
}

Tensor losses_of(const Rows& rows) {
  const Tensor losses = at::empty({rows.batch()}, at::TensorOptions().dtype(at::kDouble));
  for (int64_t row = 0; row < rows.batch(); ++row) {
    losses.mutable_data_ptr<double>()[row] = -Lattice(rows.values(row), rows.o.durations).total();
  }
  return losses.to(rows.type).to(rows.in.encoder.device());
}

struct Recorded : torch::autograd::Function<Recorded> {
  static Tensor forward(AutogradContext* ctx, const Tensor& encoder, const Tensor& predictor, const Tensor& weight,
                        const OptionalTensor& given_bias, const Tensor& targets, const Tensor& frames,
                        const Tensor& labels, const Options& o) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Tensor bias = given_bias.value_or(Tensor());
    const Inputs in = inputs_of(encoder, predictor, weight, bias, targets, frames, labels, o);
    ctx->save_for_backward({encoder, predictor, weight, bias, targets, frames, labels});
    ctx->saved_data["options"] = std::make_tuple(o.blank, o.durations, o.sigma, o.activation, o.chunk);
    return losses_of(Rows(in, o));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), kName, " has no second derivative");
    const variable_list saved = ctx->get_saved_variables();
    const auto [blank, durations, sigma, activation, chunk] =
        ctx->saved_data["options"].to<std::tuple<int64_t, std::vector<int64_t>, double, std::string, int64_t>>();
    const Options o{blank, durations, sigma, activation, chunk};
    const Inputs in = inputs_of(saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6], o);
    const Rows rows(in, o);
    const auto zeros = [&](size_t i) {
      return ctx->needs_input_grad(i) && saved[i].defined()
                 ? at::zeros(saved[i].sizes(), saved[i].options().dtype(rows.type))
                 : Tensor();
    };
    Gradients gradients{zeros(0), zeros(1), zeros(2), zeros(3)};
    const Tensor upstream = grads[0].to(at::kCPU, at::kDouble).contiguous();
    for (int64_t row = 0; row < rows.batch(); ++row) {
      const double factor = upstream.const_data_ptr<double>()[row];
      if (factor == 0) continue;
      rows.add_gradients(row, Lattice(rows.values(row), o.durations).occupancies(), factor, gradients);
    }
    const auto as = [](const Tensor& grad, const Tensor& like) {
      return grad.defined() ? grad.to(like.scalar_type()) : grad;
    };
    return {as(gradients.encoder, saved[0]),
            as(gradients.predictor, saved[1]),
            as(gradients.weight, saved[2]),
            as(gradients.bias, saved[3]),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

Tensor transducer_loss(const Tensor& encoder, const Tensor& predictor, const Tensor& weight,
                       const OptionalTensor& given_bias, const Tensor& targets, const Tensor& frames,
                       const Tensor& labels, int64_t blank, at::IntArrayRef durations, double sigma,
                       std::string_view activation, int64_t chunk) {
  const Options o{blank, durations.vec(), sigma, std::string(activation), chunk};
  const Tensor bias = given_bias.value_or(Tensor());
  check(encoder, predictor, weight, bias, targets, o);
  if (encoder.is_meta()) {
    return at::empty({encoder.size(0)}, encoder.options().dtype(at::toOpMathType(encoder.scalar_type())));
  }
  const auto wants = [](const Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); };
  if (at::GradMode::is_enabled() && (wants(encoder) || wants(predictor) || wants(weight) || wants(bias))) {
    return Recorded::apply(encoder, predictor, weight, bias.defined() ? OptionalTensor(bias) : std::nullopt, targets,
                           frames, labels, o);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Inputs in = inputs_of(encoder, predictor, weight, bias, targets, frames, labels, o);
  return losses_of(Rows(in, o));
}

// The products are computed in autocast's dtype, as linear's are, and the rest in float32.
Tensor under_autocast(const Tensor& encoder, const Tensor& predictor, const Tensor& weight, const OptionalTensor& bias,
                      const Tensor& targets, const Tensor& frames, const Tensor& labels, int64_t blank,
                      at::IntArrayRef durations, double sigma, std::string_view activation, int64_t chunk) {
  const kernels::AutocastTo lowered(encoder);
  return transducer_loss(lowered(encoder), lowered(predictor), lowered(weight),
                         bias ? OptionalTensor(lowered(*bias)) : bias, targets, frames, labels, blank, durations, sigma,
                         activation, chunk);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // The loss of each row, [batch], float32 for half types. Without durations RNN-T. chunk: pairs of a frame and a
  // target whose logits exist at a time; 0 chooses.
  m.def(
      "transducer_loss(Tensor encoder, Tensor predictor, Tensor weight, Tensor? bias, Tensor targets, Tensor "
      "encoder_lengths, Tensor target_lengths, *, int blank, int[] durations=[], float sigma=0., str "
      "activation='relu', "
      "int chunk=0) -> Tensor losses",
      transducer_loss);
}

VOXTORCH_AUTOCAST("transducer_loss", under_autocast)

}  // namespace voxtorch::train
