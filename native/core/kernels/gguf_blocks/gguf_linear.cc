#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "core/kernels/gguf_blocks/gguf_blocks.h"
#include "core/kernels/tile_linear/tile_linear.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kPanelBytes = int64_t{512} << 10;  // of values, which are to stay in the second-level cache
constexpr int64_t kMostOutputs = 256;                // of a panel
constexpr int64_t kFewestRows = 12;

struct Product {
  const uint8_t* blocks;
  int64_t type, row_blocks, row_bytes;
  int64_t rows, in, out;
  const float* bias;  // [out] or null
  float* output;      // [rows, out]

  void decode(int64_t first, int64_t count, uint16_t* to) const {
    decode_gguf(type, blocks + first * row_bytes, count * row_blocks, to, true);
  }
};

// Outputs of a panel: as many as stay in the cache, and few enough that each thread gets some.
int64_t outputs_of_panel(const Product& product) {
  const auto up = [](int64_t count) { return (count + kTileSide - 1) / kTileSide * kTileSide; };
  const int64_t threads = at::get_num_threads();
  const int64_t share = up((product.out + threads - 1) / threads);
  const int64_t fit = kPanelBytes / (product.in * 2) / kTileSide * kTileSide;
  return std::clamp<int64_t>(std::min(fit, share), kTileSide, kMostOutputs);
}

// The rows as the kernels of tile_linear read weights: [rows / 32, in / 32, 2, 16 pairs of inputs, 16 rows, 2].
Tensor tiles_of_rows(const Tensor& input, int64_t padded) {
  const Tensor halves = input.to(at::kBFloat16);
  const int64_t rows = input.size(0), pairs = input.size(1) / 2;
  Tensor tiles = at::empty({padded, input.size(1)}, halves.options());
  const auto* const from = reinterpret_cast<const uint32_t*>(halves.const_data_ptr());
  auto* const to = reinterpret_cast<uint32_t*>(tiles.mutable_data_ptr());
  at::parallel_for(0, padded / 16, std::max<int64_t>(1, 4096 / pairs), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      uint32_t* const place = to + group / 2 * (pairs * kTileSide) + group % 2 * 256;
      for (int64_t pair = 0; pair < pairs; ++pair) {
        uint32_t* const line = place + pair / 16 * 512 + pair % 16 * 16;
        for (int64_t r = 0; r < 16; ++r) {
          const int64_t row = group * 16 + r;
          line[r] = row < rows ? from[row * pairs + pair] : 0;
        }
      }
    }
  });
  return tiles;
}

// The other way round, with the panel as rows and the rows as a weight, since the panel comes row by row.
void by_tiles(const Tensor& input, const Product& product) {
  const int64_t padded = (product.rows + kTileSide - 1) / kTileSide * kTileSide;
  const Tensor tiles = tiles_of_rows(input, padded);
  const int64_t side = outputs_of_panel(product);
  const TileLinearSquares squares = tile_squares();
  at::parallel_for(0, (product.out + side - 1) / side, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint16_t> values(static_cast<size_t>(side * product.in));
    std::vector<float> sums(static_cast<size_t>(side * padded));
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * side, count = std::min(side, product.out - first);
      product.decode(first, count, values.data());
      TileLinear args{};
      args.type = TileLinear::Type::bfloat16;
      args.input = values.data();
      args.weight = tiles.const_data_ptr();
      args.output = sums.data();
      args.rows = count;
      args.in = product.in;
      args.out = padded;
      squares(args, 0, count, 0, padded);
      for (int64_t r = 0; r < product.rows; ++r) {
        float* const to = product.output + r * product.out + first;
        for (int64_t i = 0; i < count; ++i) {
          to[i] = sums[static_cast<size_t>(i * padded + r)] + (product.bias == nullptr ? 0 : product.bias[first + i]);
        }
      }
    }
  });
}

Tensor floats(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

}  // namespace

bool takes_tiles(const Tensor& input) { return has_tiles() && input.numel() >= input.size(-1) * kFewestRows; }

Tensor gguf_linear(const Tensor& input, const Tensor& blocks, int64_t type, const std::optional<Tensor>& bias) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const GgufFormat format = gguf_format(type);
  Product product{};
  product.blocks = blocks.const_data_ptr<uint8_t>();
  product.type = type;
  product.in = input.size(-1);
  product.row_blocks = product.in / format.weights;
  product.row_bytes = product.row_blocks * format.bytes;
  product.out = blocks.size(0);
  product.rows = input.numel() / product.in;
  const Tensor rows = input.reshape({product.rows, product.in});
  const Tensor offset = bias.has_value() && bias->defined() ? floats(*bias) : Tensor();
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = product.out;
  const Tensor output = at::empty(shape, input.options().dtype(at::kFloat));
  product.bias = offset.defined() ? offset.const_data_ptr<float>() : nullptr;
  product.output = output.mutable_data_ptr<float>();
  by_tiles(rows.contiguous(), product);
  return output.to(input.scalar_type());
}

}  // namespace voxtorch::kernels
