// The instructions of tensor cores, from the text that the kernel holds: mma.sync m16n8k16 of half precision with sums
// in float32, ldmatrix of four matrices, and the conversion of two numbers to a word. Which lane holds which number is
// as the PTX ISA documents the fragments. All 32 lanes of a warp must come to the same instruction; a lane that is
// elsewhere, operands that do not fit and rows that are not on 16 bytes end the process.
//
// Compiled with sanitizers, unlike emulation.cc, so that they see what ldmatrix reads.
#include "mma.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace emulation {
namespace {

constexpr unsigned kWarp = 32;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "emulation: %s (thread %u of block %u)\n", what.c_str(), thread_index.x, block_index.x);
  std::abort();
}

// On the stack: it is read anew by every lane, and what lanes share would order them in ThreadSanitizer's eyes.
struct Instruction {
  std::string_view name;
  int groups[4][4];  // the numbers of the operands in each {} or [], or alone
  int sizes[4];
  int count = 0;
};

// "name {%0, %1}, [%2], %3;"
Instruction parse(std::string_view text) {
  Instruction result;
  result.name = text.substr(0, text.find(' '));
  bool open = false;
  for (size_t i = result.name.size(); i < text.size(); ++i) {
    const char c = text[i];
    const bool operand = c == '%';
    if (c == '{' || c == '[' || (operand && !open)) {
      if (result.count == 4) die("an instruction has more groups of operands than the emulation knows");
      result.sizes[result.count++] = 0;
    }
    if (c == '{' || c == '[') open = true;
    if (c == '}' || c == ']') open = false;
    if (!operand) continue;
    int number = 0;
    while (i + 1 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '9') number = 10 * number + text[++i] - '0';
    int& size = result.sizes[result.count - 1];
    if (size == 4) die("an instruction has more operands than the emulation knows");
    result.groups[result.count - 1][size++] = number;
  }
  return result;
}

// What each lane brought to the instruction that its warp is at.
struct Lane {
  const char* text = nullptr;
  const Operand* operands = nullptr;
};
Lane lanes[1024 / kWarp][kWarp];

// `compute(lanes)` once all have come, `finish()` once all have computed.
template <typename Compute, typename Finish>
void together(const char* text, const Operand* operands, Compute compute, Finish finish) {
  const unsigned number = thread_index.x + block_size.x * (thread_index.y + block_size.y * thread_index.z);
  Lane(&warp)[kWarp] = lanes[number / kWarp];
  const unsigned own = number % kWarp;
  warp[own] = {text, operands};
  wait_for_lanes(0xffffffffu, 0, own, true);
  for (const Lane& lane : warp) {
    if (lane.text == nullptr || std::strcmp(lane.text, text) != 0)
      die(std::string("the lanes of a warp are not all at ") + text);
  }
  compute(warp, own);
  wait_for_lanes(0xffffffffu, 0, own, true);
  warp[own] = {};
  finish();
}

void give(const Operand& operand, uint32_t word) {
  if (operand.place == nullptr || operand.constraint[0] == 'r' || operand.constraint[0] == 'f')
    die("an instruction writes to an operand that is not written to");
  std::memcpy(operand.place, &word, sizeof word);
}

struct Group {
  const char* constraint;
  int size;
};

void check_operands(const Instruction& is, const Operand* operands, std::initializer_list<Group> expected) {
  bool fits = is.count == static_cast<int>(expected.size());
  for (int g = 0; fits && g < is.count; ++g) {
    fits = is.sizes[g] == expected.begin()[g].size;
    for (int i = 0; fits && i < is.sizes[g]; ++i)
      fits = std::strcmp(operands[is.groups[g][i]].constraint, expected.begin()[g].constraint) == 0;
  }
  if (!fits) die(std::string(is.name) + " has other operands, or constraints, than it should");
}

template <typename Half>
float number_of(uint32_t word, int which) {
  Half half;
  half.x = static_cast<uint16_t>(word >> 16 * which);
  return static_cast<float>(half);
}

float as_float(uint32_t word) {
  float number;
  std::memcpy(&number, &word, sizeof number);
  return number;
}
uint32_t as_word(float number) {
  uint32_t word;
  std::memcpy(&word, &number, sizeof word);
  return word;
}

template <typename Half>
void multiply(const char* text, const Instruction& is, const Operand* operands) {
  check_operands(is, operands, {{"+f", 4}, {"r", 4}, {"r", 2}, {"+f", 4}});
  float sums[4];
  together(
      text, operands,
      [&](const Lane* warp, unsigned lane) {
        const int group = static_cast<int>(lane) / 4, pair = static_cast<int>(lane) % 4 * 2;
        for (int i = 0; i < 4; ++i) {
          const int row = group + 8 * (i / 2), column = pair + i % 2;
          float sum = as_float(operands[is.groups[3][i]].word);
          for (int k = 0; k < 16; k += 2) {
            const uint32_t left = warp[row % 8 * 4 + k % 8 / 2].operands[is.groups[1][row / 8 + k / 8 * 2]].word;
            const uint32_t right = warp[column * 4 + k % 8 / 2].operands[is.groups[2][k / 8]].word;
            for (const int which : {0, 1}) sum += number_of<Half>(left, which) * number_of<Half>(right, which);
          }
          sums[i] = sum;
        }
      },
      [&] {
        for (int i = 0; i < 4; ++i) give(operands[is.groups[0][i]], as_word(sums[i]));
      });
}

void load(const char* text, const Instruction& is, const Operand* operands, bool transposed) {
  check_operands(is, operands, {{"=r", 4}, {"r", 1}});
  uint32_t words[4];
  together(
      text, operands,
      [&](const Lane* warp, unsigned lane) {
        const int group = static_cast<int>(lane) / 4, pair = static_cast<int>(lane) % 4 * 2;
        const auto at = [&](int matrix, int row, int column) {
          const uint32_t address = warp[8 * matrix + row].operands[is.groups[1][0]].word;
          if (address % 16 != 0) die("a row of ldmatrix is not on 16 bytes");
          const char* const data = static_cast<const char*>(dynamic_memory()) + address;
          return static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(data)[column]);
        };
        for (int m = 0; m < 4; ++m) {
          words[m] = transposed ? at(m, pair, group) | at(m, pair + 1, group) << 16
                                : at(m, group, pair) | at(m, group, pair + 1) << 16;
        }
      },
      [&] {
        for (int m = 0; m < 4; ++m) give(operands[is.groups[0][m]], words[m]);
      });
}

// The first source goes into the upper half.
template <typename Half>
void convert(const Instruction& is, const Operand* operands) {
  check_operands(is, operands, {{"=r", 1}, {"f", 1}, {"f", 1}});
  const Half high(as_float(operands[is.groups[1][0]].word)), low(as_float(operands[is.groups[2][0]].word));
  give(operands[is.groups[0][0]], static_cast<uint32_t>(high.x) << 16 | low.x);
}

}  // namespace

void ptx(const char* text, std::initializer_list<Operand> operands) {
  const Instruction is = parse(text);
  for (int g = 0; g < is.count; ++g) {
    for (int i = 0; i < is.sizes[g]; ++i) {
      if (static_cast<size_t>(is.groups[g][i]) >= operands.size())
        die(std::string(is.name) + " names an operand that it is not given");
    }
  }
  const Operand* const given = operands.begin();
  if (is.name == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") return multiply<c10::BFloat16>(text, is, given);
  if (is.name == "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32") return multiply<c10::Half>(text, is, given);
  if (is.name == "ldmatrix.sync.aligned.m8n8.x4.shared.b16") return load(text, is, given, false);
  if (is.name == "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16") return load(text, is, given, true);
  if (is.name == "cvt.rn.bf16x2.f32") return convert<c10::BFloat16>(is, given);
  if (is.name == "cvt.rn.f16x2.f32") return convert<c10::Half>(is, given);
  die("the instruction " + std::string(is.name) + " is not known");
}

size_t shared_address(const void* pointer) {
  return static_cast<size_t>(static_cast<const char*>(pointer) - static_cast<const char*>(dynamic_memory()));
}

}  // namespace emulation
