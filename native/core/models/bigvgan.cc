// BigVGAN (Lee et al. 2022, https://arxiv.org/abs/2206.04658; https://github.com/NVIDIA/BigVGAN), a vocoder, with the
// names of its published checkpoints: mel spectrogram -> transposed convolutions, each followed by blocks of dilated
// convolutions between anti-aliased periodic activations -> samples. Version 2 differs in its configuration alone.
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tanh.h>
#include <torch/library.h>

#include <cmath>

#include "core/kernels/anti_aliased_snake/anti_aliased_snake.h"
#include "core/nn/wave_conv.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::WaveConv1d;
using nn::WaveConvShape;

struct BigVganConfig {
  explicit BigVganConfig(const Config& config)
      : mels(config.integer("num_mels", 80)),
        rates(config.integers("upsample_rates", {4, 4, 2, 2, 2, 2})),
        rate_kernels(config.integers("upsample_kernel_sizes", {8, 8, 4, 4, 4, 4})),
        channels(config.integer("upsample_initial_channel", 1536)),
        kernels(config.integers("resblock_kernel_sizes", {3, 7, 11})),
        // One after another; the same number for each kernel.
        dilations(config.integers("resblock_dilations", {1, 3, 5, 1, 3, 5, 1, 3, 5})),
        block(config.text("resblock", "1")),
        activation(config.text("activation", "snakebeta")),
        log_scale(config.boolean("snake_logscale", true)),
        tanh(config.boolean("use_tanh_at_final", true)),
        final_bias(config.boolean("use_bias_at_final", true)),
        weight_norm(config.boolean("weight_norm", true)) {
    TORCH_CHECK(mels > 0 && channels > 0, "num_mels and upsample_initial_channel must be positive, got ", mels, " and ",
                channels);
    TORCH_CHECK(!rates.empty() && rates.size() == rate_kernels.size(),
                "upsample_rates and upsample_kernel_sizes must be lists of one length, got ", rates.size(), " and ",
                rate_kernels.size());
    TORCH_CHECK(rates.size() < 32 && channels >> rates.size() > 0, "upsample_initial_channel ", channels,
                " cannot be halved ", rates.size(), " times, once for each of upsample_rates");
    // Files come from strangers: more would take time without taking memory.
    constexpr size_t kMostDilations = 1000;
    constexpr int64_t kMostTaps = 65536;
    TORCH_CHECK(dilations.size() <= kMostDilations, "resblock_dilation_sizes must hold at most ", kMostDilations,
                " dilations, got ", dilations.size());
    for (size_t i = 0; i < rates.size(); ++i) {
      TORCH_CHECK(rate_kernels[i] <= kMostTaps, "upsample_kernel_sizes must be at most ", kMostTaps, ", got ",
                  rate_kernels[i]);
      TORCH_CHECK(rates[i] > 0 && rate_kernels[i] >= rates[i] && (rate_kernels[i] - rates[i]) % 2 == 0,
                  "upsample_kernel_sizes[", i, "] must be its rate ", rates[i], " or an even number more, got ",
                  rate_kernels[i]);
    }
    TORCH_CHECK(!kernels.empty() && !dilations.empty() && dilations.size() % kernels.size() == 0,
                "resblock_dilation_sizes must have a list for each of resblock_kernel_sizes, all of one length");
    for (const int64_t kernel : kernels) {
      TORCH_CHECK(kernel > 0 && kernel % 2 == 1 && kernel <= kMostTaps,
                  "resblock_kernel_sizes must be odd and at most ", kMostTaps, ", got ", kernel);
    }
    for (const int64_t dilation : dilations) {
      TORCH_CHECK(dilation > 0 && dilation <= kMostTaps, "resblock_dilation_sizes must be from 1 to ", kMostTaps,
                  ", got ", dilation);
    }
    TORCH_CHECK(block == "1" || block == "2", "resblock must be '1' or '2', got '", block, "'");
    TORCH_CHECK(activation == "snake" || activation == "snakebeta", "activation must be 'snake' or 'snakebeta', got '",
                activation, "'");
  }

  std::vector<int64_t> dilations_of(size_t kernel) const {
    const size_t each = dilations.size() / kernels.size();
    return {dilations.begin() + static_cast<int64_t>(kernel * each),
            dilations.begin() + static_cast<int64_t>((kernel + 1) * each)};
  }

  int64_t mels;
  std::vector<int64_t> rates, rate_kernels;
  int64_t channels;
  std::vector<int64_t> kernels, dilations;
  std::string block, activation;
  bool log_scale, tanh, final_bias, weight_norm;
};

// A low-pass filter of a quarter of the rate, [1, 1, 12]: a sinc in a Kaiser window, its sum 1.
void fill_filter(const Tensor& filter) {
  constexpr int kTaps = kernels::kSnakeTaps;
  constexpr double kCutoff = 0.25, kTransition = 4 * 0.3;
  const double attenuation = 2.285 * (kTaps / 2.0 - 1) * M_PI * kTransition + 7.95;
  const double beta = 0.1102 * (attenuation - 8.7);
  const auto bessel = [](double x) {
    double sum = 1, term = 1;
    for (int k = 1; k < 50; ++k) sum += term *= (x / 2 / k) * (x / 2 / k);
    return sum;
  };
  double taps[kTaps], total = 0;
  for (int i = 0; i < kTaps; ++i) {
    const double place = 2.0 * i / (kTaps - 1) - 1, phase = M_PI * 2 * kCutoff * (i - kTaps / 2 + 0.5);
    taps[i] = bessel(beta * std::sqrt(1 - place * place)) / bessel(beta) * std::sin(phase) / phase;
    total += taps[i];
  }
  const Tensor made = at::empty({1, 1, kTaps}, at::TensorOptions().dtype(at::kDouble));
  for (int i = 0; i < kTaps; ++i) made.mutable_data_ptr<double>()[i] = taps[i] / total;
  filter.copy_(made);
}

class LowPass : public Module {
 public:
  explicit LowPass(const ModuleOptions& options)
      : Module("LowPassFilter1d", options),
        filter(buffer("filter", {1, 1, kernels::kSnakeTaps}, options.dtype, fill_filter)) {}
  const Tensor filter;
};

class DownSample : public Module {
 public:
  explicit DownSample(const ModuleOptions& options)
      : Module("DownSample1d", options), lowpass(*child<LowPass>("lowpass")) {}
  LowPass& lowpass;
};

// x + sin(alpha x)^2 / beta; without beta alpha is both.
class Snake : public Module {
 public:
  Snake(const ModuleOptions& options, const BigVganConfig& c, int64_t channels)
      : Module("Snake", options),
        alpha(parameter("alpha", {channels}, init::constant(c.log_scale ? 0 : 1))),
        beta(c.activation == "snakebeta" ? parameter("beta", {channels}, init::constant(c.log_scale ? 0 : 1))
                                         : Tensor()),
        log_scale(c.log_scale) {}

  Tensor frequency() const { return scaled(alpha); }
  Tensor magnitude() const {
    constexpr double kNoDivisionByZero = 1e-9;
    return (scaled(beta.defined() ? beta : alpha) + kNoDivisionByZero).reciprocal();
  }

 private:
  Tensor scaled(const Tensor& given) const {
    const Tensor wide = given.to(at::toOpMathType(given.scalar_type()));
    return log_scale ? wide.exp() : wide;
  }
  const Tensor alpha, beta;  // [channels]
  const bool log_scale;
};

class Activation : public Block {
 public:
  Activation(const ModuleOptions& options, const BigVganConfig& c, int64_t channels)
      : Block("Activation1d", options),
        act(*child<Snake>("act", c, channels)),
        upsample(*child<LowPass>("upsample")),
        downsample(*child<DownSample>("downsample")) {}

  Tensor forward(const Tensor& x) const {  // [batch, channels, time]
    Tensor frequency = act.frequency(), magnitude = act.magnitude();
    if (x.scalar_type() == at::kDouble || frequency.scalar_type() == at::kDouble) {
      frequency = frequency.to(x.scalar_type());
      magnitude = magnitude.to(x.scalar_type());
    }
    return watched(x, kernels::anti_aliased_snake(x, frequency, magnitude, upsample.filter, downsample.lowpass.filter));
  }

 private:
  Snake& act;
  LowPass& upsample;
  DownSample& downsample;
};

// A sum into the first's memory where no gradient wants it: fresh pages cost more than the sum.
Tensor added(Tensor fresh, const Tensor& other) {
  if (at::GradMode::is_enabled() && (fresh.requires_grad() || other.requires_grad())) return fresh + other;
  return fresh.add_(other);
}

// Anti-aliased multi-periodicity: pairs (or, of the second kind, single ones) of activation and convolution around
// which the input goes.
class AmpBlock : public Block {
 public:
  AmpBlock(const ModuleOptions& options, const BigVganConfig& c, int64_t channels, size_t kernel)
      : Block(c.block == "1" ? "AMPBlock1" : "AMPBlock2", options),
        first(*child<ModuleList<WaveConv1d>>(c.block == "1" ? "convs1" : "convs")),
        second(c.block == "1" ? child<ModuleList<WaveConv1d>>("convs2") : nullptr),
        activations(*child<ModuleList<Activation>>("activations")) {
    for (const int64_t dilation : c.dilations_of(kernel)) {
      first.add(shape(c, channels, c.kernels[kernel], dilation));
      activations.add(c, channels);
      if (second == nullptr) continue;
      second->add(shape(c, channels, c.kernels[kernel], 1));
      activations.add(c, channels);
    }
  }

  Tensor forward(const Tensor& input) const {
    Tensor x = input;
    const size_t each = second == nullptr ? 1 : 2;
    for (size_t i = 0; i < first.size(); ++i) {
      Tensor y = first[i].forward(activations[each * i].forward(x));
      if (second != nullptr) y = (*second)[i].forward(activations[each * i + 1].forward(y));
      x = first[i].hooked() || (second != nullptr && (*second)[i].hooked()) ? y + x : added(std::move(y), x);
    }
    return watched(input, x);
  }

 private:
  static WaveConvShape shape(const BigVganConfig& c, int64_t channels, int64_t kernel, int64_t dilation) {
    return {.in = channels,
            .out = channels,
            .kernel = kernel,
            .padding = dilation * (kernel - 1) / 2,
            .dilation = dilation,
            .weight_norm = c.weight_norm,
            .std = 0.01};
  }

  ModuleList<WaveConv1d>& first;
  ModuleList<WaveConv1d>* const second;  // null in blocks of the second kind
  ModuleList<Activation>& activations;
};

class BigVgan : public Module {
 public:
  BigVgan(const ModuleOptions& options, const Config& given)
      : Module("BigVGAN", options),
        config(given),
        conv_pre(*child<WaveConv1d>("conv_pre", WaveConvShape{.in = config.mels,
                                                              .out = config.channels,
                                                              .kernel = 7,
                                                              .padding = 3,
                                                              .weight_norm = config.weight_norm})),
        ups(*child<ModuleList<ModuleList<WaveConv1d>>>("ups")),
        blocks(*child<ModuleList<AmpBlock>>("resblocks")),
        activation_post(*child<Activation>("activation_post", config, config.channels >> config.rates.size())),
        conv_post(*child<WaveConv1d>("conv_post", WaveConvShape{.in = config.channels >> config.rates.size(),
                                                                .out = 1,
                                                                .kernel = 7,
                                                                .padding = 3,
                                                                .bias = config.final_bias,
                                                                .weight_norm = config.weight_norm,
                                                                .std = 0.01})) {
    for (size_t i = 0; i < config.rates.size(); ++i) {
      const int64_t rate = config.rates[i], kernel = config.rate_kernels[i];
      ups.add().add(WaveConvShape{.in = config.channels >> i,
                                  .out = config.channels >> (i + 1),
                                  .kernel = kernel,
                                  .stride = rate,
                                  .padding = (kernel - rate) / 2,
                                  .transposed = true,
                                  .weight_norm = config.weight_norm,
                                  .std = 0.01});
      for (size_t j = 0; j < config.kernels.size(); ++j) blocks.add(config, config.channels >> (i + 1), j);
    }
  }

  Tensor forward(const Tensor& mel) const {
    TORCH_CHECK(mel.dim() == 3 && mel.size(0) > 0 && mel.size(1) == config.mels && mel.size(2) > 0,
                "mel must be [batch, num_mels, frames] with num_mels ", config.mels, " and at least one frame, got ",
                mel.sizes());
    TORCH_CHECK(mel.is_floating_point(), "mel must have a floating-point dtype, got ", mel.scalar_type());
    const size_t kinds = config.kernels.size();
    Tensor x = conv_pre.forward(mel);
    for (size_t i = 0; i < ups.size(); ++i) {
      x = ups[i][0].forward(x);  // [batch, channels >> (i + 1), time]
      Tensor sum;
      for (size_t j = 0; j < kinds; ++j) {
        const AmpBlock& block = blocks[i * kinds + j];
        const Tensor out = block.forward(x);
        sum = !sum.defined() ? out : sum + out;
      }
      x = sum / static_cast<double>(kinds);
    }
    x = conv_post.forward(activation_post.forward(x)).squeeze(1);
    return config.tanh ? at::tanh(x) : at::clamp(x, -1, 1);  // [batch, samples]
  }

 private:
  const BigVganConfig config;
  WaveConv1d& conv_pre;
  ModuleList<ModuleList<WaveConv1d>>& ups;  // lists of one, as published
  ModuleList<AmpBlock>& blocks;             // for each rate one of each kernel size
  Activation& activation_post;
  WaveConv1d& conv_post;
};

const RegisteredModule registered_bigvgan("bigvgan", make_module<BigVgan>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("bigvgan_forward(__torch__.torch.classes.voxtorch.Module self, Tensor mel) -> Tensor waveform",
        [](const c10::intrusive_ptr<Module>& self, const Tensor& mel) {
          return network<BigVgan>(self, "bigvgan_forward").forward(mel);
        });
}

}  // namespace voxtorch::models
