// PTX instructions of the tensor cores: ../translate.mjs rewrites `asm` to a call of ptx(). What an instruction does, and
// which lane holds what, stands in mma.cc; those that it does not know end the process.
#pragma once
#include "emulation.h"

namespace emulation {

// What stands for %0, %1, ... in an instruction's text: a constraint, as in the inline assembly, and a place or a number.
struct Operand {
  Operand(const char* constraint, float& place) : constraint(constraint), place(&place) {
    std::memcpy(&word, &place, sizeof word);
  }
  Operand(const char* constraint, uint32_t& place) : constraint(constraint), place(&place) {
    word = constraint[0] == '=' ? 0 : place;
  }
  Operand(const char* constraint, const float& number) : constraint(constraint) {
    std::memcpy(&word, &number, sizeof word);
  }
  Operand(const char* constraint, const uint32_t& number) : constraint(constraint), word(number) {}

  const char* constraint;
  void* place = nullptr;
  uint32_t word = 0;
};

void ptx(const char* text, std::initializer_list<Operand> operands);

// In bytes from the begin of the block's dynamic shared memory.
size_t shared_address(const void* pointer);

}  // namespace emulation

inline size_t __cvta_generic_to_shared(const void* pointer) { return emulation::shared_address(pointer); }
