// A heap of address space for the larger CPU blocks. What is given back is cut and joined again for blocks of other
// sizes, so that gradients come to lie where activations were: a training step holds little more than what it uses at
// its peak. The free lists are those of Masmano et al. 2004, "TLSF: a new dynamic memory allocator for real-time
// systems".
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>

namespace voxtorch::memory {

// How long a free block keeps its pages, milliseconds.
constexpr uint32_t kDecay = 10'000;

// Stands before the bytes of every block.
struct alignas(64) Block {
  Block* next;  // of its free list
  Block* prev;
  Block* newer;  // of all free blocks
  Block* older;
  Block* before;  // in memory
  size_t bytes;   // with this header
  size_t dirty;   // about how many of a free block's bytes take memory
  uint32_t freed_at;
  uint8_t owner;
  bool is_free;
};
static_assert(sizeof(Block) == 64);

class CpuHeap {
 public:
  enum class Pages { ordinary, huge };
  CpuHeap(uint8_t owner, Pages pages) : owner_(owner), pages_(pages) {}
  CpuHeap(const CpuHeap&) = delete;
  CpuHeap& operator=(const CpuHeap&) = delete;

  // A block of at least `bytes`, header included; null where there is no room. Only its header is written.
  Block* take(size_t bytes);
  void give(Block* block);
  // Gives the pages of every free block back to the system.
  void release();
  // Those of the blocks that nothing has used for the decay period.
  void trim();
  size_t cached();

 private:
  struct Smaller {
    using is_transparent = void;
    bool operator()(const Block* a, size_t bytes) const { return a->bytes < bytes; }
    bool operator()(const Block* a, const Block* b) const { return a->bytes != b->bytes ? a->bytes < b->bytes : a < b; }
  };
  bool reserve();
  Block* find(size_t bytes);
  Block* extend(size_t bytes);
  void cut(Block* block, size_t bytes);
  Block* join(Block* block);
  Block* after(const Block* block) const;
  void insert(Block* block);
  void remove(Block* block);
  void clean(Block* block);
  void settle();
  void clean_old(uint32_t now);
  void keep_within_peak();

  const uint8_t owner_;  // what blocks carry, for who gives them back
  const Pages pages_;
  std::mutex mutex_;
  bool reserved_ = false;
  size_t memory_ = 0;    // of the machine
  char* top_ = nullptr;  // nothing was ever used from here on
  char* end_ = nullptr;
  Block* last_ = nullptr;  // the block before top_
  std::set<Block*, Smaller> free_;
  Block* newest_ = nullptr;
  Block* oldest_ = nullptr;
  size_t used_ = 0;
  size_t cached_ = 0;
  // Of used_, in this decay period and the one before.
  size_t peak_ = 0;
  size_t last_peak_ = 0;
  uint32_t peak_since_ = 0;
  uint32_t swept_at_ = 0;
};

}  // namespace voxtorch::memory
