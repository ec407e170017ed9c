#include "core/kernels/block_quantization.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/ScalarType.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <string>

namespace voxtorch::kernels {

using at::Tensor;

namespace {

constexpr int64_t kGrain = 16384;  // elements below which a second thread costs more than it saves

// The normal distribution's quantiles that the paper publishes.
constexpr std::array<float, 16> kNf4 = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// Seven decades from 1e-6 to 1, each cut in twice as many equal parts as the one below; a value is the middle of a
// part. 0 and 1 complete the 256. In float32 throughout and with the multiply-add of torch.linspace on AVX2 and newer,
// so that the values are bitsandbytes' to the last bit, and the same on every processor.
std::vector<float> dynamic_values(bool is_signed) {
  std::vector<float> values = {0, 1};
  for (int decade = 0; decade < 7; ++decade) {
    const int64_t parts = is_signed ? int64_t{1} << decade : int64_t{2} << decade;
    const float first = 0.1f, last = 1.0f, step = (last - first) / static_cast<float>(parts);
    const auto border = [&](int64_t i) {
      return i < (parts + 1) / 2 ? std::fma(step, static_cast<float>(i), first)
                                 : std::fma(-step, static_cast<float>(parts - i), last);
    };
    const auto factor = static_cast<float>(std::pow(10.0, decade - 6));
    for (int64_t i = 0; i < parts; ++i) {
      const float middle = factor * ((border(i) + border(i + 1)) / 2.0f);
      values.push_back(middle);
      if (is_signed) values.push_back(-middle);
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

float from_bits(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

template <size_t N>
std::array<float, N> middles_of(const std::array<float, N>& values) {
  std::array<float, N> middles;
  for (size_t i = 0; i + 1 < N; ++i) middles[i] = (values[i] + values[i + 1]) / 2.0f;
  middles[N - 1] = std::numeric_limits<float>::infinity();
  return middles;
}

constexpr int64_t kAtOnce = 64;

// Codes of up to kAtOnce numbers. All of them meet one middle after the other, which compilers make vector code of.
void nearest_nf4(const float* numbers, int64_t count, int32_t* codes) {
  static const std::array<float, 16> middles = middles_of(kNf4);
  std::fill(codes, codes + count, 0);
  for (size_t m = 0; m < 15; ++m) {
    const float middle = middles[m];
    for (int64_t i = 0; i < count; ++i) codes[i] += middle < numbers[i];
  }
}

void check_input(const char* op, const Tensor& input, int64_t block) {
  const at::ScalarType type = input.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf, op,
              ": expected float32, bfloat16 or float16, got ", c10::getDtypeNames(type).first);
  TORCH_CHECK(block > 0 && block % 2 == 0 && block <= 65536, op,
              ": the block size must be an even number from 2 to 65536, got ", block);
}

void check_codes(const char* op, const Tensor& codes, at::ScalarType type, const Tensor& absmax, int64_t scales,
                 at::ScalarType to) {
  TORCH_CHECK(codes.scalar_type() == type, op, ": codes must be ", c10::getDtypeNames(type).first, ", got ",
              c10::getDtypeNames(codes.scalar_type()).first);
  TORCH_CHECK(absmax.scalar_type() == at::kFloat && absmax.dim() == 1 && absmax.size(0) == scales, op,
              ": absmax must be float32 of shape [", scales, "], got ", c10::getDtypeNames(absmax.scalar_type()).first,
              " ", absmax.sizes());
  TORCH_CHECK(absmax.device() == codes.device(), op, ": codes are on ", codes.device(), " and absmax on ",
              absmax.device(), "; both must be on the same device");
  TORCH_CHECK(to == at::kFloat || to == at::kBFloat16 || to == at::kHalf || to == at::kDouble, op,
              ": values are float32, bfloat16, float16 or float64, not ", c10::getDtypeNames(to).first);
}

float block_scale(const float* from, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float size = std::fabs(from[i]);
    // A NaN makes the block's scale NaN, as a maximum of ATen does.
    largest = size > largest || size != size ? size : largest;
  }
  return largest;
}

float reciprocal(float scale) { return 1.0f / std::max(scale, 1e-38f); }

float unit(float number) { return std::min(1.0f, std::max(-1.0f, number)); }

// [numel] -> [blocks, block], the last filled up with zeros.
Tensor in_blocks(const Tensor& flat, int64_t block) {
  const int64_t spare = (block - flat.numel() % block) % block;
  return (spare == 0 ? flat : at::constant_pad_nd(flat, {0, spare}, 0)).view({-1, block});
}

Tensor nearest_of(const Tensor& units, const Tensor& values) {
  const Tensor middles = (values.narrow(0, 0, values.numel() - 1) + values.narrow(0, 1, values.numel() - 1)) / 2;
  return at::bucketize(units, middles).to(at::kByte);
}

// One of the tables of values on a device: uploaded once, since each copy waits for what the device still does.
// `values` live as long as the process.
template <typename Values>
Tensor table(const Values& values, c10::Device device) {
  static std::mutex mutex;
  // Never destroyed: the device may be gone before.
  static auto* const uploaded = new std::map<std::pair<const float*, std::string>, Tensor>();
  const auto upload = [&] {
    const c10::InferenceMode normal(false);
    return at::tensor(at::ArrayRef<float>(values.data(), values.size())).to(device);
  };
  const std::lock_guard<std::mutex> lock(mutex);
  const auto key = std::make_pair(values.data(), device.str());
  const auto found = uploaded->find(key);
  return found != uploaded->end() ? found->second : uploaded->emplace(key, upload()).first->second;
}

// For devices other than the CPU: units of each block and their scales.
std::tuple<Tensor, Tensor> scaled_blocks(const Tensor& input, int64_t block) {
  const Tensor blocks = in_blocks(input.reshape({-1}).to(at::kFloat), block);
  const Tensor absmax = blocks.abs().amax({1});
  return {(blocks * absmax.clamp_min(1e-38).reciprocal().unsqueeze(1)).clamp(-1, 1).flatten(), absmax};
}

int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }

// Calls `work(b, first, values, count)` for each block of a CPU tensor on several threads. A weight of another dtype is
// never there as a whole in float32.
template <typename Work>
void for_blocks(const Tensor& input, int64_t block, const Work& work) {
  const Tensor given = input.contiguous();
  const int64_t count = given.numel();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, given.scalar_type(), "quantize", [&] {
    const auto* from = given.const_data_ptr<scalar_t>();
    const int64_t grain = std::max<int64_t>(1, kGrain / block);
    at::parallel_for(0, blocks_of(count, block), grain, [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(std::min(block, count)));
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * block, size = std::min(block, count - first);
        for (int64_t i = 0; i < size; ++i) values[static_cast<size_t>(i)] = static_cast<float>(from[first + i]);
        work(b, first, values.data(), size);
      }
    });
  });
}

}  // namespace

DynamicCodes::DynamicCodes(bool is_signed) {
  const std::vector<float> values = dynamic_values(is_signed);
  TORCH_INTERNAL_ASSERT(values.size() == 256);
  std::copy(values.begin(), values.end(), values_.begin());
  middles_ = middles_of(values_);
  const auto below = [&](float number) {
    return static_cast<uint8_t>(std::lower_bound(middles_.begin(), middles_.end(), number) - middles_.begin());
  };
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    const auto edge = [&](int64_t at) { return from_bits(static_cast<uint32_t>(at + kFirst) << kShift); };
    starts_[0][slot] = slot == 0 ? below(0) : below(edge(slot));
    starts_[1][slot] = below(slot == kSlots - 1 ? -std::numeric_limits<float>::infinity() : -edge(slot + 1));
  }
}

const DynamicCodes& DynamicCodes::of(bool is_signed) {
  static const DynamicCodes with_sign(true), without(false);
  return is_signed ? with_sign : without;
}

Tensor DynamicCodes::on(c10::Device device) const { return table(values_, device); }

std::tuple<Tensor, Tensor> quantize_blockwise(const Tensor& input, bool is_signed, int64_t block) {
  check_input("quantize_blockwise", input, block);
  const at::NoGradGuard no_grad;
  const DynamicCodes& book = DynamicCodes::of(is_signed);
  const int64_t count = input.numel();
  if (!input.is_cpu()) {
    if (count == 0) return {at::empty_like(input, input.options().dtype(at::kByte)), input.flatten().to(at::kFloat)};
    const auto [units, absmax] = scaled_blocks(input, block);
    return {nearest_of(units, table(book.values(), input.device())).narrow(0, 0, count).view(input.sizes()), absmax};
  }
  const Tensor codes = at::empty(input.sizes(), input.options().dtype(at::kByte));
  const Tensor absmax = at::empty({blocks_of(count, block)}, input.options().dtype(at::kFloat));
  auto* to = codes.mutable_data_ptr<uint8_t>();
  auto* scales = absmax.mutable_data_ptr<float>();
  for_blocks(input, block, [&](int64_t b, int64_t first, const float* values, int64_t size) {
    scales[b] = block_scale(values, size);
    const float factor = reciprocal(scales[b]);
    for (int64_t i = 0; i < size; ++i) to[first + i] = book.nearest(unit(values[i] * factor));
  });
  return {codes, absmax};
}

Tensor dequantize_blockwise(const Tensor& codes, const Tensor& absmax, bool is_signed, int64_t block,
                            at::ScalarType type) {
  check_input("dequantize_blockwise", absmax, block);
  const int64_t count = codes.numel();
  check_codes("dequantize_blockwise", codes, at::kByte, absmax, blocks_of(count, block), type);
  const at::NoGradGuard no_grad;
  const DynamicCodes& book = DynamicCodes::of(is_signed);
  if (!codes.is_cpu()) {
    const Tensor units = table(book.values(), codes.device()).index_select(0, codes.reshape({-1}).to(at::kInt));
    return (in_blocks(units, block) * absmax.unsqueeze(1)).flatten().narrow(0, 0, count).view(codes.sizes()).to(type);
  }
  const Tensor given = codes.contiguous(), scale = absmax.contiguous();
  const Tensor values = at::empty(codes.sizes(), codes.options().dtype(at::kFloat));
  const auto* from = given.const_data_ptr<uint8_t>();
  const auto* scales = scale.const_data_ptr<float>();
  auto* to = values.mutable_data_ptr<float>();
  at::parallel_for(0, scale.numel(), std::max<int64_t>(1, kGrain / block), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t last = std::min(count, (b + 1) * block);
      for (int64_t i = b * block; i < last; ++i) to[i] = book.value(from[i]) * scales[b];
    }
  });
  return values.to(type);
}

std::tuple<Tensor, Tensor> quantize_nf4(const Tensor& input, int64_t block) {
  check_input("quantize_nf4", input, block);
  TORCH_CHECK(input.numel() > 0, "quantize_nf4: the tensor is empty");
  const at::NoGradGuard no_grad;
  const int64_t count = input.numel(), bytes = (count + 1) / 2;
  if (!input.is_cpu()) {
    const auto [units, absmax] = scaled_blocks(input, block);
    const Tensor pairs = nearest_of(units, table(kNf4, input.device())).view({-1, 2}).narrow(0, 0, bytes);
    return {(pairs.select(1, 0) * 16 + pairs.select(1, 1)).view({-1, 1}), absmax};
  }
  const Tensor codes = at::empty({bytes, 1}, input.options().dtype(at::kByte));
  const Tensor absmax = at::empty({blocks_of(count, block)}, input.options().dtype(at::kFloat));
  auto* to = codes.mutable_data_ptr<uint8_t>();
  auto* scales = absmax.mutable_data_ptr<float>();
  for_blocks(input, block, [&](int64_t b, int64_t first, const float* values, int64_t size) {
    scales[b] = block_scale(values, size);
    const float factor = reciprocal(scales[b]);
    std::array<float, kAtOnce> units;
    std::array<int32_t, kAtOnce> found;
    for (int64_t begin = 0; begin < size; begin += kAtOnce) {
      const int64_t count = std::min(kAtOnce, size - begin), even = count + count % 2;
      units[static_cast<size_t>(even - 1)] = 0;
      for (int64_t i = 0; i < count; ++i) units[static_cast<size_t>(i)] = unit(values[begin + i] * factor);
      nearest_nf4(units.data(), even, found.data());
      uint8_t* pairs = to + (first + begin) / 2;
      for (int64_t i = 0; i < even; i += 2) {
        const auto at = static_cast<size_t>(i);
        pairs[i / 2] = static_cast<uint8_t>(found[at] << 4 | found[at + 1]);
      }
    }
  });
  return {codes, absmax};
}

Tensor dequantize_nf4(const Tensor& codes, const Tensor& absmax, at::IntArrayRef shape, int64_t block,
                      at::ScalarType type) {
  check_input("dequantize_nf4", absmax, block);
  int64_t count = 1;
  for (const int64_t size : shape) {
    TORCH_CHECK(size > 0 && size <= std::numeric_limits<int64_t>::max() / 4 / count,
                "dequantize_nf4: no tensor has the shape ", shape);
    count *= size;
  }
  TORCH_CHECK(codes.numel() == (count + 1) / 2, "dequantize_nf4: a tensor of shape ", shape, " has ", (count + 1) / 2,
              " bytes of codes, got ", codes.numel());
  check_codes("dequantize_nf4", codes, at::kByte, absmax, blocks_of(count, block), type);
  const at::NoGradGuard no_grad;
  if (!codes.is_cpu()) {
    const Tensor bytes = codes.reshape({-1});
    const Tensor halves = at::stack({bytes.bitwise_right_shift(4), bytes.bitwise_and(15)}, 1).flatten();
    const Tensor units = table(kNf4, codes.device()).index_select(0, halves.narrow(0, 0, count).to(at::kInt));
    return (in_blocks(units, block) * absmax.unsqueeze(1)).flatten().narrow(0, 0, count).view(shape).to(type);
  }
  const Tensor given = codes.contiguous(), scale = absmax.contiguous();
  const Tensor values = at::empty(shape, codes.options().dtype(type));
  const auto* from = given.const_data_ptr<uint8_t>();
  const auto* scales = scale.const_data_ptr<float>();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, type, "dequantize_nf4", [&] {
    auto* to = values.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, absmax.numel(), std::max<int64_t>(1, kGrain / block), [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        std::array<scalar_t, 16> scaled;
        for (size_t i = 0; i < 16; ++i) scaled[i] = static_cast<scalar_t>(kNf4[i] * scales[b]);
        const int64_t first = b * block, last = std::min(count, first + block), paired = last - last % 2;
        for (int64_t i = first; i < paired; i += 2) {
          to[i] = scaled[from[i / 2] >> 4];
          to[i + 1] = scaled[from[i / 2] & 15];
        }
        if (paired < last) to[paired] = scaled[from[paired / 2] >> 4];
      }
    });
  });
  return values;
}

const std::array<float, 16>& nf4_values() { return kNf4; }

namespace {

// One after the other and in float64: the same on any number of threads.
Tensor mean_of(const Tensor& scales) {
  if (!scales.is_cpu()) return scales.mean(at::kDouble).to(at::kFloat).view({1});
  const auto* from = scales.const_data_ptr<float>();
  double sum = 0;
  for (int64_t i = 0; i < scales.numel(); ++i) sum += static_cast<double>(from[i]);
  return at::full({1}, sum / static_cast<double>(scales.numel()), scales.options());
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> quantize_scales(const Tensor& scales) {
  TORCH_CHECK(scales.scalar_type() == at::kFloat && scales.dim() == 1 && scales.numel() > 0,
              "quantize_scales: scales must be float32 of shape [blocks], got ",
              c10::getDtypeNames(scales.scalar_type()).first, " ", scales.sizes());
  const at::NoGradGuard no_grad;
  const Tensor given = scales.contiguous(), offset = mean_of(given);
  const auto [codes, absmax] = quantize_blockwise(given - offset, true, kScaleBlock);
  return {codes, absmax, offset};
}

Tensor dequantize_scales(const Tensor& codes, const Tensor& absmax, const Tensor& offset) {
  TORCH_CHECK(codes.dim() == 1, "dequantize_scales: codes must have shape [blocks], got ", codes.sizes());
  TORCH_CHECK(offset.scalar_type() == at::kFloat && offset.dim() == 1 && offset.size(0) == 1,
              "dequantize_scales: the offset must be float32 of shape [1], got ",
              c10::getDtypeNames(offset.scalar_type()).first, " ", offset.sizes());
  TORCH_CHECK(offset.device() == codes.device(), "dequantize_scales: codes are on ", codes.device(),
              " and the offset on ", offset.device(), "; both must be on the same device");
  const at::NoGradGuard no_grad;
  return dequantize_blockwise(codes, absmax, true, kScaleBlock, at::kFloat).add_(offset);
}

std::tuple<Tensor, Tensor> quantize_int8(const Tensor& weight) {
  check_input("quantize_int8", weight, 2);
  TORCH_CHECK(weight.dim() == 2 && weight.numel() > 0, "quantize_int8: expected shape [out, in], got ", weight.sizes());
  const at::NoGradGuard no_grad;
  if (!weight.is_cpu()) {
    const Tensor values = weight.to(at::kFloat);
    const Tensor absmax = values.abs().amax({1});
    const Tensor steps = (values * (127 / absmax.clamp_min(1e-36)).unsqueeze(1)).round_();
    return {steps.clamp_(-127, 127).to(at::kChar), absmax};
  }
  const Tensor codes = at::empty(weight.sizes(), weight.options().dtype(at::kChar));
  const Tensor absmax = at::empty({weight.size(0)}, weight.options().dtype(at::kFloat));
  auto* to = codes.mutable_data_ptr<int8_t>();
  auto* scales = absmax.mutable_data_ptr<float>();
  for_blocks(weight, weight.size(1), [&](int64_t row, int64_t first, const float* values, int64_t size) {
    scales[row] = block_scale(values, size);
    const float factor = 127 / std::max(scales[row], 1e-36f);
    for (int64_t i = 0; i < size; ++i) {
      const float step = std::nearbyint(values[i] * factor);
      to[first + i] = static_cast<int8_t>(step < -127 ? -127 : step > 127 ? 127 : step == step ? step : 0);
    }
  });
  return {codes, absmax};
}

Tensor dequantize_int8(const Tensor& codes, const Tensor& absmax, at::ScalarType type) {
  TORCH_CHECK(codes.dim() == 2, "dequantize_int8: codes must have shape [out, in], got ", codes.sizes());
  check_codes("dequantize_int8", codes, at::kChar, absmax, codes.size(0), type);
  const at::NoGradGuard no_grad;
  if (!codes.is_cpu()) return (codes.to(at::kFloat) * (absmax / 127).unsqueeze(1)).to(type);
  const Tensor given = codes.contiguous(), scale = absmax.contiguous();
  const Tensor values = at::empty(codes.sizes(), codes.options().dtype(type));
  const int64_t width = codes.size(1);
  const auto* from = given.const_data_ptr<int8_t>();
  const auto* scales = scale.const_data_ptr<float>();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, type, "dequantize_int8", [&] {
    auto* to = values.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, codes.size(0), std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width)),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         const float step = scales[row] / 127;
                         const int8_t* codes_of_row = from + row * width;
                         scalar_t* values_of_row = to + row * width;
                         for (int64_t i = 0; i < width; ++i) {
                           values_of_row[i] = static_cast<scalar_t>(static_cast<float>(codes_of_row[i]) * step);
                         }
                       }
                     });
  });
  return values;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("dynamic_code_book(*, bool signed=True) -> Tensor",
        [](bool is_signed) { return table(DynamicCodes::of(is_signed).values(), c10::kCPU); });
  m.def("quantize_blockwise(Tensor input, *, bool signed=True, int block_size=256) -> (Tensor codes, Tensor absmax)",
        quantize_blockwise);
  m.def(
      "dequantize_blockwise(Tensor codes, Tensor absmax, *, bool signed=True, int block_size=256, "
      "ScalarType dtype=float) -> Tensor",
      dequantize_blockwise);
  m.def("quantize_nf4(Tensor input, *, int block_size=64) -> (Tensor codes, Tensor absmax)", quantize_nf4);
  m.def(
      "dequantize_nf4(Tensor codes, Tensor absmax, int[] shape, *, int block_size=64, ScalarType dtype=float) -> "
      "Tensor",
      [](const Tensor& codes, const Tensor& absmax, at::IntArrayRef shape, int64_t block, at::ScalarType type) {
        return dequantize_nf4(codes, absmax, shape, block, type);
      });
  m.def("quantize_scales(Tensor scales) -> (Tensor codes, Tensor absmax, Tensor offset)", quantize_scales);
  m.def("dequantize_scales(Tensor codes, Tensor absmax, Tensor offset) -> Tensor", dequantize_scales);
  m.def("quantize_int8(Tensor weight) -> (Tensor codes, Tensor absmax)", quantize_int8);
  m.def("dequantize_int8(Tensor codes, Tensor absmax, *, ScalarType dtype=float) -> Tensor", dequantize_int8);
}

}  // namespace voxtorch::kernels
