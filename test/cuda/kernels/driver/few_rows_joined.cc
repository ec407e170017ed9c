#include "core/kernels/few_rows/joined_args.h"

#include <memory>

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

constexpr double kValues[16] = {-1.0,
                                -0.6961928009986877,
                                -0.5250730514526367,
                                -0.39491748809814453,
                                -0.28444138169288635,
                                -0.18477343022823334,
                                -0.09105003625154495,
                                0.0,
                                0.07958029955625534,
                                0.16093020141124725,
                                0.24611230194568634,
                                0.33791524171829224,
                                0.44070982933044434,
                                0.5626170039176941,
                                0.7229568362236023,
                                1.0};

struct Case {
  int64_t rows, in;
  std::vector<int64_t> outs;
  std::vector<int64_t> ranks;  // 0: no adapter
  JoinedFunction function = JoinedFunction::kNone;
  bool gated = false;
  int64_t block = 64;
  size_t shift = 0;  // of weights, in elements or bytes of codes: 16 bytes at once do not fit
  bool wide = false;
  size_t moved = 0;  // the same of the input
};

double applied(JoinedFunction function, double x) {
  switch (function) {
    case JoinedFunction::kSilu:
      return x / (1 + std::exp(-x));
    case JoinedFunction::kGelu:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case JoinedFunction::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case JoinedFunction::kQuickGelu:
      return x / (1 + std::exp(-1.702 * x));
    case JoinedFunction::kRelu:
      return std::max(0.0, x);
    case JoinedFunction::kTanh:
      return std::tanh(x);
    case JoinedFunction::kMish:
      return x * std::tanh(std::log1p(std::exp(x)));
    default:
      return x;
  }
}

// A projection, and its weights in float64.
template <typename T>
struct Made {
  Made(const Case& c, JoinedWeight kind, size_t p)
      : out(c.outs[p]),
        rank(p < c.ranks.size() ? c.ranks[p] : 0),
        values(kind == JoinedWeight::kValues ? out * c.in + c.shift : 0),
        codes((kind == JoinedWeight::kInt8 ? out * c.in : kind == JoinedWeight::kNf4 ? (out * c.in + 1) / 2 : 0) +
              c.shift),
        scale(kind == JoinedWeight::kInt8 ? out : (out * c.in + c.block - 1) / c.block),
        bias(p == 1 ? 0 : out),
        lora_b(out * rank),
        lora_in(c.rows * (rank + 1)),
        exact(out * c.in) {
    values.draw();
    bias.draw();
    lora_b.draw();
    lora_in.draw();
    for (size_t i = 0; i < codes.size; ++i) codes.data[i] = static_cast<uint8_t>(random_bits());
    for (size_t i = 0; i < scale.size; ++i) scale.data[i] = 0.5f + static_cast<float>(random_bits() % 1024) / 512;
    for (size_t i = 0; i < exact.size(); ++i) {
      if (kind == JoinedWeight::kValues) {
        exact[i] = values[c.shift + i];
      } else if (kind == JoinedWeight::kInt8) {
        exact[i] = static_cast<int8_t>(codes.data[c.shift + i]) * scale[i / c.in] / 127;
      } else {
        const int pair = codes.data[c.shift + i / 2];
        exact[i] = kValues[i % 2 == 0 ? pair / 16 : pair % 16] * scale[i / c.block];
      }
    }
    given = {kind == JoinedWeight::kValues ? static_cast<const void*>(values.data + c.shift) : codes.data + c.shift,
             kind == JoinedWeight::kValues ? nullptr : scale.data,
             bias.size > 0 ? bias.data : nullptr,
             rank > 0 ? lora_b.data : nullptr,
             rank > 0 ? lora_in.data : nullptr,
             out,
             kind == JoinedWeight::kNf4 ? c.block : 0,
             c.block == 64 ? 6 : c.block == 32 ? 5 : -1,
             rank,
             rank + 1,
             p == 2 ? 0.5f : 1.0f};
  }

  double of(const Case& c, const T* input, int64_t row, int64_t o) const {
    double sum = 0;
    for (int64_t k = 0; k < c.in; ++k) sum += static_cast<double>(input[row * c.in + k]) * exact[o * c.in + k];
    sum *= given.factor;
    for (int64_t k = 0; k < rank; ++k) sum += lora_in[row * (rank + 1) + k] * lora_b[o * rank + k];
    return given.bias ? sum + bias[o] : sum;
  }

  int64_t out, rank;
  Array<T> values;
  Array<uint8_t> codes;
  Array<float> scale;
  Array<T> bias, lora_b;
  Array<float> lora_in;
  std::vector<double> exact;
  JoinedProjection given;
};

template <typename T>
void run(const Case& c, JoinedWeight kind, bool tiles) {
  const auto type = static_cast<JoinedType>(Type<T>::index);
  std::string name = std::string(tiles ? "few_rows_tiles " : "few_rows_joined ") + Type<T>::name + " weight " +
                     std::to_string(static_cast<int>(kind)) + " [" + std::to_string(c.rows) + ", " +
                     std::to_string(c.in) + "] to";
  std::vector<std::unique_ptr<Made<T>>> made;
  Joined args{};
  for (size_t p = 0; p < c.outs.size(); ++p) {
    name += " " + std::to_string(c.outs[p]);
    made.push_back(std::make_unique<Made<T>>(c, kind, p));
    args.projections[p] = made[p]->given;
    args.width += c.outs[p];
  }
  if (c.gated) args.width = c.outs[0];
  Array<T> input(c.rows * c.in + c.moved), narrow(c.wide ? 0 : c.rows * args.width);
  Array<float> wide(c.wide ? c.rows * args.width : 0);
  input.draw();
  args.input = input.data + c.moved;
  args.output = c.wide ? static_cast<void*>(wide.data) : narrow.data;
  args.rows = c.rows;
  args.in = c.in;
  args.count = static_cast<int>(c.outs.size());
  args.function = c.function;
  args.gated = c.gated;
  args.wide = c.wide;
  for (int i = 0; i < 16; ++i) args.values[i] = static_cast<float>(kValues[i]);
  // As many multiprocessors as make one warp, or several, compute a group.
  const uint64_t before = emulation::streamed;
  const int launched = tiles ? launch_joined_tiles(type, kind, args, nullptr)
                             : launch_joined(type, kind, args, c.rows % 2 == 0 ? 132 : 1, nullptr);
  check(launched == 0, name + " is launched");
  // Where vectors are read, and no row of weights is there twice to fill a group, each is read once for eight rows.
  uint64_t bytes = 0;
  bool whole = emulation::streamed > before;
  for (const auto& each : made) {
    whole = whole && each->out % 4 == 0;
    bytes += kind == JoinedWeight::kValues ? each->values.size * sizeof(T) : each->codes.size;
  }
  if (whole) check(emulation::streamed - before == bytes * ((c.rows + 7) / 8), name + " reads weights once");

  std::vector<double> expected;
  for (int64_t row = 0; row < c.rows; ++row) {
    for (size_t p = 0; p < (c.gated ? 1 : c.outs.size()); ++p) {
      for (int64_t o = 0; o < c.outs[p]; ++o) {
        const double value = applied(c.function, made[p]->of(c, input.data + c.moved, row, o));
        expected.push_back(c.gated ? value * made[1]->of(c, input.data + c.moved, row, o) : value);
      }
    }
  }
  if (c.wide) {
    compare(name, wide, expected, Type<T>::exact);
  } else {
    compare(name, narrow, expected, Type<T>::rounded);
  }
}

template <typename T>
void cases(bool tiles) {
  for (const JoinedWeight kind : {JoinedWeight::kValues, JoinedWeight::kInt8, JoinedWeight::kNf4}) {
    if (tiles && kind == JoinedWeight::kValues) continue;
    const auto each = [&](const Case& c) { run<T>(c, kind, tiles); };
    const auto mul = [&](int64_t rows, int64_t in, int64_t out, JoinedFunction function, size_t shift = 0) {
      each({rows, in, {out, out}, {3, 0}, function, true, 64, shift});
    };
    if (tiles) {
      each({9, 64, {70, 5, 33}, {4, 0, 7}});           // more than a tile of outputs, groups that are not full
      each({65, 33, {66}, {}, JoinedFunction::kSilu});  // one row and one input more than a tile
      each({64, 96, {64}, {}, JoinedFunction::kNone, false, 128, 0, true});
      mul(10, 40, 35, JoinedFunction::kGelu);
      each({9, 48, {3}, {}});  // vectors, and half of those that are there at once
      mul(3, 64, 34, JoinedFunction::kRelu, 1);
      continue;
    }
    each({1, 256, {9, 4, 6}, {4, 0, 33}});                 // groups that are not full, a rank of more than a warp
    each({8, 2080, {7}, {5}});                             // several warps a group, the last vectors of some alone
    each({2, 544, {5, 3}, {}, JoinedFunction::kNone, false, 32});
    each({3, 96, {4}, {}, JoinedFunction::kMish});         // a row that there is not
    each({8, 160, {12, 4, 8}, {}});
    each({2, 64, {5}, {}, JoinedFunction::kNone, false, 64, 0, false, 1});
    each({11, 128, {8}, {4}, JoinedFunction::kSilu});
    each({19, 64, {3, 2}, {2, 2}});                        // three times eight rows
    each({5, 37, {6, 1, 2}, {1, 0, 3}, JoinedFunction::kNone, false, 10});  // an odd width, blocks across rows
    each({2, 64, {5}, {}, JoinedFunction::kNone, false, 48});  // blocks that are no power of two
    each({4, 64, {9}, {}, JoinedFunction::kGelu, false, 64, 1});            // not aligned
    each({7, 64, {9}, {}, JoinedFunction::kNone, false, 64, 0, true});
    each({1, 1, {1}, {}, JoinedFunction::kTanh, false, 2});
    mul(1, 288, 7, JoinedFunction::kSilu);
    mul(6, 288, 8, JoinedFunction::kGeluTanh);
    mul(2, 30, 3, JoinedFunction::kQuickGelu);
    mul(4, 64, 2, JoinedFunction::kRelu);
  }
}

}  // namespace

void few_rows_joined(bool quick) {
  cases<float>(false);
  if (quick) return;
  cases<c10::BFloat16>(false);
  cases<c10::Half>(false);
}

void few_rows_tiles(bool quick) {
  cases<float>(true);
  if (quick) return;
  cases<c10::BFloat16>(true);
  cases<c10::Half>(true);
}

}  // namespace driver
