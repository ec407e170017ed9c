// The slab: every tensor that JavaScript can name lives in one entry of its environment's slab.
//
// A handle is a double holding generation * 2^24 + index. An entry's generation changes when it is freed, so a stale
// handle, a made-up one or one of another thread (generations start at a random number per environment) is refused.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <vector>

namespace voxtorch {

class Slab {
 public:
  Slab();

  // Stores a value in `scope` (0: none) and returns its handle.
  double add(c10::IValue value, uint32_t scope);
  // The entry's value, or nullptr for a handle that is not live here.
  const c10::IValue* find(double handle) const;
  // False when the handle was not live (freeing twice is harmless).
  bool release(double handle);
  bool move(double handle, uint32_t scope);
  uint32_t scope_of(double handle) const;

  uint32_t open_scope();
  // Frees everything still in the scope and returns how many that was.
  uint32_t close_scope(uint32_t scope);

  uint32_t live() const { return live_; }
  uint32_t live_scopes() const { return live_scopes_; }
  // CPU bytes made by JavaScript calls that are still referenced from here, each storage counted once.
  int64_t external_bytes() const { return external_bytes_; }
  void clear();

 private:
  struct Entry {
    c10::IValue value;
    uint64_t bytes = 0;
    uint32_t generation = 0;
    uint32_t scope = 0;
    int32_t next = -1;  // in the scope's list, or in the free list
    int32_t previous = -1;
    bool used = false;
  };
  struct Scope {
    int32_t head = -1;
    bool used = false;
  };

  int64_t index_of(double handle) const;
  void link(int32_t index, uint32_t scope);
  void unlink(int32_t index);
  void free_entry(int32_t index);

  std::vector<Entry> entries_;
  std::vector<Scope> scopes_;
  std::vector<uint32_t> free_scopes_;
  int32_t free_ = -1;
  uint32_t first_generation_;
  uint32_t live_ = 0;
  uint32_t live_scopes_ = 0;
  int64_t external_bytes_ = 0;
};

}  // namespace voxtorch
