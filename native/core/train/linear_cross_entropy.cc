// Softmax cross-entropy of a linear layer's output, a block of tokens at a time, so that the logits [tokens, vocab]
// never exist as a whole. For each token whose label y is not ignore_index, with x = weight h + bias, ε =
// label_smoothing:
//
//   loss = (1 - ε) (lse - x_y) + ε (lse - mean(x)) + z_loss lse²      lse = log Σ exp(x)
//
// as at::cross_entropy_loss computes it, plus the z-loss of PaLM (Chowdhery et al. 2022, section 5). Nothing is
// approximated. Softmax and sums are in float32 (float64 for float64), and so is the loss.
//
// With reduction 'mean' or 'sum' all tokens have one upstream gradient, a factor: the gradients are computed with the
// loss, while a block's logits are there, and multiplied in backward. With 'none' backward computes the logits again.
// Ignored tokens are left out before the first product.
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "core/kernels/fused_operator.h"

namespace voxtorch::train {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kName = "linear_cross_entropy";

struct Options {
  int64_t ignore_index;
  double smoothing, z_loss;
  std::string reduction;
  int64_t chunk;  // tokens; 0: chosen
};

// The tokens that count.
struct Tokens {
  Tensor hidden;  // [tokens, dim]
  Tensor labels;  // int64 [tokens]
  Tensor places;  // int64 [tokens] among all; undefined where all count
  int64_t all = 0;
  int64_t count() const { return labels.size(0); }
};

struct Wanted {
  bool hidden = false, weight = false, bias = false;
  bool any() const { return hidden || weight || bias; }
};

struct Gradients {
  Tensor hidden, weight, bias;
};

void check(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& labels, const Options& o) {
  const auto is_real = [](const Tensor& tensor) {
    return tensor.layout() == at::kStrided &&
           (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble ||
            tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf);
  };
  TORCH_CHECK(is_real(hidden), kName, ": hidden must be dense and float32, float64, bfloat16 or float16, got ",
              hidden.scalar_type());
  TORCH_CHECK(hidden.dim() >= 1 && weight.dim() == 2 && weight.size(1) == hidden.size(-1) && weight.size(0) > 0, kName,
              ": hidden must be [..., dim] and weight [classes, dim], got ", hidden.sizes(), " and ", weight.sizes());
  TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)), kName,
              ": bias must be [classes], here [", weight.size(0), "], got ",
              bias.defined() ? bias.sizes() : weight.sizes());
  TORCH_CHECK(labels.scalar_type() == at::kLong && labels.layout() == at::kStrided, kName,
              ": labels must be int64, got ", labels.scalar_type());
  TORCH_CHECK(labels.sizes().equals(hidden.sizes().slice(0, hidden.dim() - 1)), kName,
              ": labels must have the shape of hidden without its last dimension, got ", labels.sizes(), " for hidden ",
              hidden.sizes());
  for (const Tensor& tensor : {weight, bias}) {
    if (!tensor.defined()) continue;
    TORCH_CHECK(tensor.layout() == at::kStrided && tensor.scalar_type() == hidden.scalar_type(), kName,
                ": weight and bias must be dense and of hidden's dtype ", hidden.scalar_type(), ", got ",
                tensor.scalar_type());
    TORCH_CHECK(tensor.device() == hidden.device(), kName, ": weight and bias must be on hidden's device ",
                hidden.device(), ", got ", tensor.device());
  }
  TORCH_CHECK(labels.device() == hidden.device(), kName, ": labels must be on hidden's device ", hidden.device(),
              ", got ", labels.device());
  TORCH_CHECK(o.smoothing >= 0 && o.smoothing <= 1, kName, ": label_smoothing must be from 0 to 1, got ", o.smoothing);
  TORCH_CHECK(std::isfinite(o.z_loss) && o.z_loss >= 0, kName, ": z_loss must be a finite number, zero or above, got ",
              o.z_loss);
  TORCH_CHECK(o.reduction == "mean" || o.reduction == "sum" || o.reduction == "none", kName,
              ": reduction must be 'mean', 'sum' or 'none', got '", o.reduction, "'");
  TORCH_CHECK(o.chunk >= 0, kName, ": chunk must be a number of tokens, or 0 to have it chosen, got ", o.chunk);
}

// Reads the labels from the device, once: a label outside the classes must be an error, and on CUDA it would end the
// process's context. What follows from them is found on the host, and goes up without a wait.
Tokens counting_tokens(const Tensor& hidden, const Tensor& labels, int64_t ignore_index, int64_t classes) {
  Tokens tokens;
  tokens.labels = labels.reshape({-1});
  tokens.all = tokens.labels.size(0);
  tokens.hidden = hidden.reshape({tokens.all, hidden.size(-1)});
  Tensor here = tokens.labels.to(at::kCPU);
  const Tensor places = at::nonzero(here.ne(ignore_index)).squeeze(1);
  if (places.size(0) < tokens.all) {
    here = here.index_select(0, places);
    tokens.places =
        hidden.is_cuda() ? places.pin_memory().to(hidden.device(), /*non_blocking=*/true) : places.to(hidden.device());
    tokens.labels = tokens.labels.index_select(0, tokens.places);
    tokens.hidden = tokens.hidden.index_select(0, tokens.places);
  }
  if (tokens.count() > 0) {
    const auto [least, most] = at::aminmax(here);
    const int64_t low = least.item<int64_t>(), high = most.item<int64_t>();
    TORCH_CHECK_INDEX(low >= 0 && high < classes, kName, ": label ", low < 0 ? low : high, " is outside the ", classes,
                      " classes and is not ignore_index ", ignore_index);
  }
  return tokens;
}

int64_t chunk_size(const Options& o, int64_t classes, bool cuda) {
  if (o.chunk > 0) return o.chunk;
  // Enough rows to keep the matrix products busy: each block reads the whole weight and its gradient once.
  const int64_t elements = int64_t{1} << (cuda ? 25 : 23);
  return std::max<int64_t>(elements / classes, cuda ? 512 : 128);
}

// Adds a block's part of the weight's gradient, gradᵀ hidden. Half types are multiplied a slice of classes at a time,
// so that their product, which is not yet float32, stays small.
void add_weight_gradient(Tensor& into, const Tensor& grad, const Tensor& hidden, bool first) {
  if (into.scalar_type() == grad.scalar_type()) {
    at::addmm_out(into, into, grad.t(), hidden, first ? 0 : 1, 1);
    return;
  }
  constexpr int64_t kSlice = 8192;
  for (int64_t begin = 0; begin < grad.size(1); begin += kSlice) {
    const int64_t length = std::min(kSlice, grad.size(1) - begin);
    Tensor part = into.narrow(0, begin, length);
    const Tensor product = at::mm(grad.narrow(1, begin, length).t(), hidden);
    first ? part.copy_(product) : part.add_(product);
  }
}

class Computation {
 public:
  Computation(const Tokens& tokens, const Tensor& weight, const Tensor& bias, const Options& options)
      : tokens(tokens), weight(weight), bias(bias), o(options), type(at::toOpMathType(weight.scalar_type())) {}

  // The loss of each token; and, where wanted, gradients of their sum, each token's weighted with upstream [tokens] or,
  // where that is undefined, with `factor`.
  Tensor run(const Wanted& wanted, const Tensor& upstream, double factor, Gradients& gradients) const {
    const at::TensorOptions accurate = weight.options().dtype(type);
    const int64_t classes = weight.size(0), step = chunk_size(o, classes, weight.is_cuda());
    const Tensor losses = at::empty({tokens.count()}, accurate);
    if (wanted.hidden) gradients.hidden = at::empty_like(tokens.hidden, at::MemoryFormat::Contiguous);
    if (wanted.weight) {
      gradients.weight = tokens.count() > 0 ? at::empty(weight.sizes(), accurate) : at::zeros(weight.sizes(), accurate);
    }
    if (wanted.bias) gradients.bias = at::zeros({classes}, accurate);

    const int64_t rows = std::min(step, tokens.count());
    Tensor products = at::empty({rows, classes}, weight.options());
    Tensor logits = type == weight.scalar_type() ? products : at::empty({rows, classes}, accurate);
    for (int64_t begin = 0; begin < tokens.count(); begin += step) {
      const int64_t length = std::min(step, tokens.count() - begin);
      const auto block = [&](const Tensor& tensor) { return tensor.narrow(0, begin, length); };
      const Tensor hidden = block(tokens.hidden);
      Tensor product = products.narrow(0, 0, length), x = logits.narrow(0, 0, length);
      if (bias.defined())
        at::addmm_out(product, bias, hidden, weight.t());
      else
        at::mm_out(product, hidden, weight.t());
      if (!product.is_same(x)) x.copy_(product);
      losses_and_softmax(x, block(tokens.labels), block(losses), upstream.defined() ? block(upstream) : Tensor(),
                         factor, wanted.any());
      if (!wanted.any()) continue;
      if (wanted.bias) gradients.bias.add_(x.sum(0));
      if (!product.is_same(x)) product.copy_(x);
      if (wanted.hidden) {
        Tensor into = block(gradients.hidden);
        at::mm_out(into, product, weight);
      }
      if (wanted.weight) add_weight_gradient(gradients.weight, product, hidden, begin == 0);
    }
    return losses;
  }

 private:
  // Turns the logits x [rows, classes] into the gradient of the losses with respect to them.
  void losses_and_softmax(Tensor& x, const Tensor& labels, const Tensor& losses, const Tensor& upstream, double factor,
                          bool with_gradient) const {
    const double even = o.smoothing / static_cast<double>(x.size(1));
    const Tensor largest = x.amax({1}, true);  // [rows, 1]
    x.sub_(largest);
    const Tensor places = labels.unsqueeze(1);
    Tensor of_target = x.gather(1, places).mul_(1 - o.smoothing);
    if (o.smoothing > 0) of_target.add_(x.sum({1}, true), even);
    x.exp_();
    const Tensor sum = x.sum({1}, true);
    const Tensor log_sum = sum.log();
    Tensor loss = log_sum - of_target;
    Tensor share;  // of the softmax in the gradient
    if (o.z_loss > 0) {
      const Tensor lse = log_sum + largest;
      loss.add_(lse * lse, o.z_loss);
      share = lse.mul(2 * o.z_loss).add_(1).div_(sum);
    } else {
      share = sum.reciprocal();
    }
    losses.copy_(loss.squeeze(1));
    if (!with_gradient) return;
    const Tensor weights = upstream.defined() ? upstream.unsqueeze(1) : at::full_like(sum, factor);
    x.mul_(share.mul_(weights));
    if (o.smoothing > 0) x.sub_(weights, even);
    x.scatter_add_(1, places, weights * (o.smoothing - 1));
  }

  const Tokens& tokens;
  const Tensor &weight, &bias;
  const Options& o;
  const at::ScalarType type;
};

Tensor reduced(const Tensor& losses, const Tokens& tokens, const Options& o, const Tensor& labels) {
  if (o.reduction == "mean") return losses.mean();
  if (o.reduction == "sum") return losses.sum();
  if (!tokens.places.defined()) return losses.view(labels.sizes());
  return at::zeros({tokens.all}, losses.options()).index_copy_(0, tokens.places, losses).view(labels.sizes());
}

Tensor at_their_places(const Tensor& grad, const Tensor& places, at::IntArrayRef sizes) {
  if (!places.defined()) return grad.view(sizes);
  const int64_t dim = sizes.back();
  return at::zeros({c10::multiply_integers(sizes.slice(0, sizes.size() - 1)), dim}, grad.options())
      .index_copy_(0, places, grad)
      .view(sizes);
}

void refuse_second_derivative() {
  TORCH_CHECK(!at::GradMode::is_enabled(), kName,
              " has no second derivative: compute the logits with linear and the loss with cross_entropy_loss");
}

// float16 has no room for a gradient that is divided by the number of tokens, or for one that GradScaler's factor has
// not met yet: there both come after the products, in float32.
bool is_narrow(const Tensor& tensor) { return tensor.scalar_type() == at::kHalf; }

struct Reduced : torch::autograd::Function<Reduced> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const OptionalTensor& given_bias, const Tensor& labels, const Options& o,
                        const Wanted& wanted) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Tensor bias = given_bias.value_or(Tensor());
    const Tokens tokens = counting_tokens(hidden, labels, o.ignore_index, weight.size(0));
    const double whole = o.reduction == "mean" ? 1 / static_cast<double>(std::max<int64_t>(tokens.count(), 1)) : 1;
    const bool narrow = is_narrow(hidden);
    Gradients gradients;
    const Tensor losses = Computation(tokens, weight, bias, o).run(wanted, {}, narrow ? 1 : whole, gradients);
    // Backward would otherwise run a second time, with gradients that the first has given away.
    ctx->save_for_backward({labels});
    if (wanted.hidden) ctx->saved_data["hidden"] = gradients.hidden;
    if (wanted.weight)
      ctx->saved_data["weight"] = narrow ? gradients.weight : gradients.weight.to(weight.scalar_type());
    if (wanted.bias) ctx->saved_data["bias"] = narrow ? gradients.bias : gradients.bias.to(weight.scalar_type());
    if (tokens.places.defined()) ctx->saved_data["places"] = tokens.places;
    ctx->saved_data["sizes"] = hidden.sizes().vec();
    ctx->saved_data["factor"] = narrow ? whole : 1.0;
    ctx->saved_data["dtype"] = static_cast<int64_t>(weight.scalar_type());
    return reduced(losses, tokens, o, labels);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative();
    ctx->get_saved_variables();
    const bool keep = torch::autograd::get_current_graph_task_keep_graph();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt());
    const Tensor factor = grads[0] * ctx->saved_data["factor"].toDouble();
    // On the CPU a factor of 1, the usual one, costs no pass over the gradients.
    const bool is_one = factor.is_cpu() && factor.item<double>() == 1;
    const auto finished = [&](const char* name) {
      const auto found = ctx->saved_data.find(name);
      if (found == ctx->saved_data.end()) return Tensor();
      Tensor saved = found->second.toTensor();
      if (!keep) ctx->saved_data.erase(found);
      if (is_one && saved.scalar_type() == dtype) return keep ? saved.clone() : saved;
      if (saved.scalar_type() != at::toOpMathType(dtype)) return saved.to(factor.scalar_type()).mul_(factor).to(dtype);
      return (keep ? saved * factor : saved.mul_(factor)).to(dtype);
    };
    Tensor hidden = finished("hidden");
    if (hidden.defined()) {
      const auto places = ctx->saved_data.find("places");
      hidden = at_their_places(hidden, places == ctx->saved_data.end() ? Tensor() : places->second.toTensor(),
                               ctx->saved_data["sizes"].toIntVector());
    }
    return {hidden, finished("weight"), finished("bias"), Tensor(), Tensor(), Tensor()};
  }
};

struct PerToken : torch::autograd::Function<PerToken> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const OptionalTensor& given_bias, const Tensor& labels, const Options& o,
                        const Wanted& wanted) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Tensor bias = given_bias.value_or(Tensor());
    const Tokens tokens = counting_tokens(hidden, labels, o.ignore_index, weight.size(0));
    Gradients none;
    const Tensor losses = Computation(tokens, weight, bias, o).run({}, {}, 1, none);
    ctx->save_for_backward({hidden, weight, bias, labels});
    ctx->saved_data["options"] = std::make_tuple(o.ignore_index, o.smoothing, o.z_loss, o.chunk);
    ctx->saved_data["wanted"] = std::make_tuple(wanted.hidden, wanted.weight, wanted.bias);
    return reduced(losses, tokens, o, labels);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative();
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &hidden = saved[0], &weight = saved[1];
    const auto [ignore_index, smoothing, z_loss, chunk] =
        ctx->saved_data["options"].to<std::tuple<int64_t, double, double, int64_t>>();
    const auto [of_hidden, of_weight, of_bias] = ctx->saved_data["wanted"].to<std::tuple<bool, bool, bool>>();
    const Options o{ignore_index, smoothing, z_loss, "none", chunk};
    const Tokens tokens = counting_tokens(hidden, saved[3], ignore_index, weight.size(0));
    Tensor upstream = grads[0].reshape({-1});
    if (tokens.places.defined()) upstream = upstream.index_select(0, tokens.places);
    Gradients g;
    Computation(tokens, weight, saved[2], o).run({of_hidden, of_weight, of_bias}, upstream, 1, g);
    if (g.hidden.defined()) g.hidden = at_their_places(g.hidden, tokens.places, hidden.sizes());
    if (g.weight.defined()) g.weight = g.weight.to(weight.scalar_type());
    if (g.bias.defined()) g.bias = g.bias.to(weight.scalar_type());
    return {g.hidden, g.weight, g.bias, Tensor(), Tensor(), Tensor()};
  }
};

Tensor linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const OptionalTensor& given_bias,
                            const Tensor& labels, int64_t ignore_index, double smoothing, double z_loss,
                            std::string_view reduction, int64_t chunk) {
  const Options o{ignore_index, smoothing, z_loss, std::string(reduction), chunk};
  const Tensor bias = given_bias.value_or(Tensor());
  check(hidden, weight, bias, labels, o);
  if (hidden.is_meta()) {
    const Tensor loss = at::linear(hidden, weight, given_bias).sum(-1).to(at::toOpMathType(hidden.scalar_type()));
    return o.reduction == "none" ? loss : loss.sum();
  }
  const auto wants = [](const Tensor& tensor) {
    return at::GradMode::is_enabled() && tensor.defined() && tensor.requires_grad();
  };
  const Wanted wanted{wants(hidden), wants(weight), wants(bias)};
  if (wanted.any()) {
    const OptionalTensor own_bias = bias.defined() ? OptionalTensor(bias) : std::nullopt;
    return o.reduction == "none" ? PerToken::apply(hidden, weight, own_bias, labels, o, wanted)
                                 : Reduced::apply(hidden, weight, own_bias, labels, o, wanted);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Tokens tokens = counting_tokens(hidden, labels, o.ignore_index, weight.size(0));
  Gradients none;
  return reduced(Computation(tokens, weight, bias, o).run({}, {}, 1, none), tokens, o, labels);
}

// The products are computed in autocast's dtype, as linear's are, and the rest in float32, as cross-entropy is.
Tensor under_autocast(const Tensor& hidden, const Tensor& weight, const OptionalTensor& bias, const Tensor& labels,
                      int64_t ignore_index, double smoothing, double z_loss, std::string_view reduction,
                      int64_t chunk) {
  const kernels::AutocastTo lowered(hidden);
  return linear_cross_entropy(lowered(hidden), lowered(weight), bias ? OptionalTensor(lowered(*bias)) : bias, labels,
                              ignore_index, smoothing, z_loss, reduction, chunk);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // The loss is float32 for half types. chunk: tokens whose logits exist at a time; 0 chooses.
  m.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor? bias, Tensor labels, int ignore_index=-100, float "
      "label_smoothing=0., float z_loss=0., str reduction='mean', int chunk=0) -> Tensor loss",
      linear_cross_entropy);
}

VOXTORCH_AUTOCAST("linear_cross_entropy", under_autocast)

}  // namespace voxtorch::train
