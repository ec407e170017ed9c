// Digests of what one build of the kernels computes, on sizes around those of panels and blocks. SET is the build.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/kernels/few_rows/args.h"
#include "core/kernels/float_attention/args.h"
#include "core/kernels/float_product/args.h"
#include "core/kernels/many_rows/args.h"

using namespace voxtorch::kernels;

#define JOINED(a, b) a##_##b
#define OF(a, b) JOINED(a, b)

namespace {

class Digest {
 public:
  void add(const std::vector<float>& values) {
    for (const float value : values) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      if (value != value) bits = 1;
      hash_ = hash_ * 1099511628211u + bits;
    }
  }
  void print(const std::string& name) const { std::printf("%s %016lx\n", name.c_str(), static_cast<unsigned long>(hash_)); }

 private:
  uint64_t hash_ = 14695981039346656037u;
};

float draw() { return static_cast<float>(std::rand()) / static_cast<float>(RAND_MAX) * 8 - 4; }
std::vector<float> floats(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = draw();
  return values;
}

void many_rows() {
  using Weight = FewRows::Weight;
  struct Kind {
    const char* name;
    Weight type;
    std::vector<int> halves;  // where a block has its scales
  };
  const std::vector<Kind> kinds = {{"int8", Weight::int8, {}},    {"q8_0", Weight::q8_0, {0}},
                                   {"q4_0", Weight::q4_0, {0}},   {"q4_1", Weight::q4_1, {0, 2}},
                                   {"q4_k", Weight::q4_k, {0, 2}}, {"q6_k", Weight::q6_k, {208}}};
  for (const Kind& kind : kinds) {
    Digest digest;
    const auto [weights, bytes] = block_size(kind.type);
    for (const int64_t rows : {9, 17}) {
      for (const int64_t in : {int64_t{256}, int64_t{1280}, weights == 256 ? int64_t{512} : int64_t{96}}) {
        const int64_t out = 45, blocks = out * in / weights;
        std::vector<uint8_t> codes(static_cast<size_t>(blocks * bytes));
        for (uint8_t& code : codes) code = static_cast<uint8_t>(std::rand() % 255 + 1) ^ 0x80;  // not -128
        for (int64_t block = 0; block < blocks; ++block) {
          for (const int at : kind.halves) codes[static_cast<size_t>(block * bytes + at + 1)] = 0x20 | std::rand() % 4;
        }
        std::vector<float> input = floats(rows * in), scales = floats(out), output(static_cast<size_t>(rows * out));
        input[3] = -1000;
        std::vector<char> prepared(static_cast<size_t>(rows * many_rows_bytes(in)));
        std::vector<float> sums(static_cast<size_t>(rows * kPanelOutputs));
        FewRows args{};
        args.weight = codes.data(), args.scale = scales.data(), args.output = output.data();
        args.rows = rows, args.in = in, args.out = out, args.type = kind.type;
        OF(many_rows_prepare, SET)(input.data(), rows, in, prepared.data());
        args.input = prepared.data();
        OF(many_rows, SET)(args, 0, out, sums.data());
        digest.add(output);
      }
    }
    digest.print(std::string("many_rows ") + kind.name);
  }
}

#if !defined(PLAIN)
void few_rows() {
  using Weight = FewRows::Weight;
  for (const Weight type : {Weight::float32, Weight::bfloat16, Weight::float16}) {
    Digest digest;
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 16}) {
      for (const int64_t in : {5, 16, 330, 2048}) {
        constexpr int64_t kOut = 45;
        const std::vector<float> input = floats(rows * in), values = floats(kOut * in), bias = floats(kOut);
        // Of half precision, the upper half of a float that both can read.
        std::vector<uint16_t> halves;
        for (const float value : values) {
          uint32_t bits;
          std::memcpy(&bits, &value, sizeof(bits));
          halves.push_back(static_cast<uint16_t>(bits >> 16));
        }
        std::vector<float> output(static_cast<size_t>(rows * kOut));
        FewRows args{};
        args.input = input.data(), args.bias = bias.data(), args.output = output.data();
        args.weight = type == Weight::float32 ? static_cast<const void*>(values.data()) : halves.data();
        args.rows = rows, args.in = in, args.out = kOut, args.type = type;
        OF(few_rows, SET)(args, 0, 7);
        OF(few_rows, SET)(args, 7, kOut);
        digest.add(output);
      }
    }
    digest.print("few_rows " + std::to_string(static_cast<int>(type)));
  }
}

void attention() {
  constexpr int64_t kRows = 13, kStride = 240, kWidth = 33;
  Digest digest;
  for (const int64_t columns : {1, 15, 16, 17, 100, 240}) {
    for (const bool causal : {false, true}) {
      for (const int masked : {0, 1, 2}) {
        std::vector<float> scores = floats(kRows * kStride), mask = floats(kRows * kStride), output = floats(kRows * kWidth);
        std::vector<float> largest(kRows), sums(kRows), grads = floats(kRows * kStride), logs(kRows), delta = floats(kRows);
        for (float& value : mask) value = std::rand() % 3 == 0 ? -INFINITY : value;
        for (int i = 0; i < kRows; ++i) {
          largest[static_cast<size_t>(i)] = i % 4 == 0 ? -INFINITY : draw();
          sums[static_cast<size_t>(i)] = i % 4 == 0 ? 0 : 2;
          logs[static_cast<size_t>(i)] = i == 5 ? -INFINITY : 5 + draw();
        }
        if (masked == 0) scores[3] = NAN;
        std::vector<float> again = scores;
        ScoreBlock block{scores.data(), kRows,  columns, kStride, causal ? 3 - std::rand() % 8 : 0,
                         causal,        masked != 0 ? mask.data() : nullptr,
                         masked == 1 ? kStride : 0, masked == 1 ? 1 : 2};
        OF(float_attention_step, SET)({block, largest.data(), sums.data(), output.data(), kWidth});
        for (const auto* one : {&scores, &largest, &sums, &output}) digest.add(*one);
        block.scores = again.data();
        OF(float_attention_gradient, SET)({block, grads.data(), logs.data(), delta.data()});
        for (const auto* one : {&again, &grads}) digest.add(*one);
      }
    }
  }
  digest.print("float_attention");
}

void product() {
  const FloatProductBuild& build = OF(float_product, SET);
  const auto up = [](int64_t value, int64_t step) { return (value + step - 1) / step * step; };
  Digest digest;
  for (const int64_t m : {1, 5, 8, 13, 64}) {
    for (const int64_t n : {1, 17, 48, 49, 97, 240}) {
      for (const int64_t k : {1, 3, 64, 130}) {
        const std::vector<float> left = floats(m * k), right = floats(k * n);
        std::vector<float> to = floats(m * n), rows(static_cast<size_t>(up(m, build.rows) * k));
        std::vector<float> columns(static_cast<size_t>(up(n, build.columns) * k));
        for (const bool turned : {false, true}) {
          build.pack_rows({left.data(), turned ? 1 : k, turned ? m : 1}, m, k, rows.data());
          build.pack_columns({right.data(), turned ? 1 : n, turned ? k : 1}, n, k, columns.data());
          build.multiply(rows.data(), columns.data(), m, n, k, turned, to.data(), n);
          digest.add(to);
        }
      }
    }
  }
  digest.print("float_product");
}
#endif

}  // namespace

int main() {
  many_rows();
#if !defined(PLAIN)
  few_rows();
  attention();
  product();
#endif
}
