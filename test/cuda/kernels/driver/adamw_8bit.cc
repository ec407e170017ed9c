#include "core/kernels/adamw_8bit/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

// Any code book will do: 256 values in order, with 1 and, without signs, 0.
struct Book {
  explicit Book(bool is_signed) : device(256) {
    std::uniform_real_distribution<float> uniform(is_signed ? -1.0f : 0.0f, 1.0f);
    for (size_t i = 0; i < 256; ++i) device.data[i] = uniform(random_bits);
    device.data[0] = is_signed ? -1.0f : 0.0f;
    device.data[1] = 0;
    device.data[2] = 1;
    std::sort(device.data, device.data + 256);
  }
  uint8_t nearest(float number) const {
    int code = 0;
    for (int i = 0; i < 255; ++i) code += (device.data[i] + device.data[i + 1]) / 2.0f < number;
    return static_cast<uint8_t>(code);
  }
  Array<float> device;
};

// A parameter as the kernel has it, and as the loops below have it.
template <typename T>
struct Parameter {
  Parameter(size_t count, bool packed)
      : count(count), packed(packed), blocks((count + 255) / 256), param(count), grad(count), codes1(packed ? count : 0),
        codes2(packed ? count : 0), wide1(packed ? 0 : count), wide2(packed ? 0 : count), scale1(packed ? blocks : 0),
        scale2(packed ? blocks : 0), step(1) {
    param.draw();
    grad.draw();
    std::uniform_int_distribution<int> code(0, 255);
    std::uniform_real_distribution<float> positive(0.01f, 1.0f);
    for (size_t i = 0; i < codes1.size; ++i) {
      codes1.data[i] = static_cast<uint8_t>(code(random_bits));
      codes2.data[i] = static_cast<uint8_t>(code(random_bits));
    }
    for (size_t i = 0; i < scale1.size; ++i) {
      scale1.data[i] = positive(random_bits);
      scale2.data[i] = positive(random_bits);
    }
    for (size_t i = 0; i < wide1.size; ++i) {
      wide1.data[i] = positive(random_bits) - 0.5f;
      wide2.data[i] = positive(random_bits);
    }
    step.data[0] = static_cast<float>(1 + code(random_bits) % 40);
  }

  size_t count;
  bool packed;
  size_t blocks;
  Array<T> param, grad;
  Array<uint8_t> codes1, codes2;
  Array<float> wide1, wide2, scale1, scale2, step;
};

// What the CPU's pass over a parameter computes, in its order and rounding.
template <typename T>
bool same_as_loops(const AdamLaunch& rule, const Parameter<T>& before, const Parameter<T>& after, const Book& with_sign,
                   const Book& without) {
  const double step = before.step.data[0];
  const auto root = static_cast<float>(std::sqrt(1 - std::pow(rule.beta2, step)));
  const auto rate = static_cast<float>(rule.lr / (1 - std::pow(rule.beta1, step)));
  bool same = true;
  const auto bits_differ = [](auto a, auto b) { return std::memcmp(&a, &b, sizeof a) != 0; };
  for (size_t start = 0; start < before.count; start += 256) {
    const size_t size = std::min<size_t>(256, before.count - start), block = start / 256;
    float first[256], second[256], most[2] = {0, 0};
    for (size_t i = 0; i < size; ++i) {
      const size_t at = start + i;
      first[i] = before.packed ? with_sign.device.data[before.codes1.data[at]] * before.scale1.data[block]
                               : before.wide1.data[at];
      second[i] = before.packed ? without.device.data[before.codes2.data[at]] * before.scale2.data[block]
                                : before.wide2.data[at];
      const float slope = rule.sign * static_cast<float>(before.grad.data[at]);
      first[i] = first[i] * rule.keep1 + slope * rule.add1;
      second[i] = second[i] * rule.keep2 + rule.add2 * slope * slope;
      const float divisor = std::sqrt(second[i]) / root + rule.eps;
      const T next = static_cast<T>(static_cast<float>(before.param.data[at]) * rule.decay - rate * first[i] / divisor);
      same = same && !bits_differ(next, after.param.data[at]);
      most[0] = std::max(most[0], std::fabs(first[i]));
      most[1] = std::max(most[1], std::fabs(second[i]));
    }
    if (!before.packed) {
      for (size_t i = 0; i < size; ++i) {
        same = same && !bits_differ(first[i], after.wide1.data[start + i]) &&
               !bits_differ(second[i], after.wide2.data[start + i]);
      }
      continue;
    }
    same = same && !bits_differ(most[0], after.scale1.data[block]) && !bits_differ(most[1], after.scale2.data[block]);
    const float factor[2] = {1.0f / std::max(most[0], 1e-38f), 1.0f / std::max(most[1], 1e-38f)};
    for (size_t i = 0; i < size; ++i) {
      const auto unit = [](float number) { return std::min(1.0f, std::max(-1.0f, number)); };
      same = same && after.codes1.data[start + i] == with_sign.nearest(unit(first[i] * factor[0])) &&
             after.codes2.data[start + i] == without.nearest(unit(second[i] * factor[1]));
    }
  }
  return same;
}

struct Size {
  size_t count;
  bool packed;
};

template <typename T>
void run(const std::vector<Size>& sizes, int multiprocessors, bool maximize) {
  const Book with_sign(true), without(false);
  const auto seed = random_bits();
  std::vector<Parameter<T>*> before, after;
  // The same numbers twice: what the kernel changes, and what they were.
  for (auto* list : {&before, &after}) {
    random_bits.seed(seed);
    for (const Size& size : sizes) list->push_back(new Parameter<T>(size.count, size.packed));
  }
  const double lr = 0.003, beta1 = 0.9, beta2 = 0.995;
  AdamLaunch launch{lr, beta1, beta2, maximize ? -1.0f : 1.0f, static_cast<float>(1 - lr * 0.1),
                    static_cast<float>(beta1), static_cast<float>(1 - beta1), static_cast<float>(beta2),
                    static_cast<float>(1 - beta2), 1e-8f, static_cast<int>(sizes.size()), with_sign.device.data,
                    without.device.data, {}, {}};
  for (size_t i = 0; i < sizes.size(); ++i) {
    Parameter<T>& one = *after[i];
    launch.begins[i + 1] = launch.begins[i] + static_cast<uint32_t>(one.blocks);
    launch.tensor[i] = {one.param.data,
                        one.grad.data,
                        one.packed ? static_cast<void*>(one.codes1.data) : one.wide1.data,
                        one.packed ? static_cast<void*>(one.codes2.data) : one.wide2.data,
                        one.packed ? one.scale1.data : nullptr,
                        one.packed ? one.scale2.data : nullptr,
                        one.step.data,
                        static_cast<int64_t>(one.count)};
  }
  const std::string name = std::string("adamw_8bit ") + Type<T>::name + ", " + std::to_string(sizes.size()) +
                           " parameters, " + std::to_string(multiprocessors) + " multiprocessors: ";
  check(launch_adamw_8bit(static_cast<AdamType>(Type<T>::index), launch, multiprocessors, nullptr) == 0,
        name + "is launched");
  for (size_t i = 0; i < sizes.size(); ++i) {
    check(same_as_loops(launch, *before[i], *after[i], with_sign, without),
          name + std::to_string(sizes[i].count) + " elements have the bits of plain loops");
    delete before[i];
    delete after[i];
  }
}

template <typename T>
void cases() {
  run<T>({{1, true}}, 1, false);
  run<T>({{4099, true}, {255, false}, {256, true}, {257, true}, {3, false}, {5000, true}}, 132, false);
  run<T>({{9000, true}, {40000, true}, {31, true}}, 1, true);  // runs of blocks that end in other parameters
  run<T>(std::vector<Size>(kAdamTensors, {300, true}), 132, false);
}

}  // namespace

void adamw_8bit(bool quick) {
  cases<float>();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
}

}  // namespace driver
