#include "core/runtime/cpu_heap.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <time.h>

#include <algorithm>

namespace voxtorch::memory {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 * kMiB;
constexpr size_t kAlignment = sizeof(Block);
constexpr size_t kLeast = 16 * kAlignment;  // less is not cut off
constexpr size_t kSlack = 64 * kMiB;        // cached whatever the peak is
constexpr uint32_t kSweep = 1'000;          // ms

uint32_t milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return uint32_t(uint64_t(now.tv_sec) * 1000 + uint64_t(now.tv_nsec) / 1'000'000);
}

}  // namespace

Block* CpuHeap::take(size_t bytes) {
  bytes = (std::max(bytes, kLeast) + kAlignment - 1) / kAlignment * kAlignment;
  const std::lock_guard<std::mutex> lock(mutex_);
  Block* block = find(bytes);
  if (block != nullptr) {
    remove(block);
    cut(block, bytes);
  } else {
    block = extend(bytes);
    if (block == nullptr) return nullptr;
  }
  block->is_free = false;
  block->owner = owner_;
  used_ += block->bytes;
  peak_ = std::max(peak_, used_);
  keep_within_peak();
  return block;
}

void CpuHeap::give(Block* block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  used_ -= block->bytes;
  block->dirty = block->bytes;
  block->freed_at = milliseconds();
  insert(join(block));
  settle();
}

void CpuHeap::release() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Block* block = oldest_; block != nullptr; block = block->newer) clean(block);
}

void CpuHeap::trim() {
  const std::lock_guard<std::mutex> lock(mutex_);
  clean_old(milliseconds());
}

size_t CpuHeap::cached() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return cached_;
}

// Address space costs nothing until it is used. Where it is limited, none is taken from those who need it otherwise.
bool CpuHeap::reserve() {
  if (reserved_) return end_ != nullptr;
  reserved_ = true;
  struct sysinfo machine;
  struct rlimit limit;
  if (sysinfo(&machine) != 0 || getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return false;
  memory_ = (size_t(machine.totalram) + size_t(machine.totalswap)) * machine.mem_unit;
  const size_t bytes = 4 * memory_;
  void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return false;
  const auto from = reinterpret_cast<uintptr_t>(data);
  top_ = reinterpret_cast<char*>((from + kHugePage - 1) / kHugePage * kHugePage);
  end_ = static_cast<char*>(data) + bytes;
#ifdef MADV_HUGEPAGE
  if (pages_ == Pages::huge) madvise(top_, size_t(end_ - top_), MADV_HUGEPAGE);
#endif
  return true;
}

Block* CpuHeap::find(size_t bytes) {
  const auto found = free_.lower_bound(bytes);
  return found == free_.end() ? nullptr : *found;
}

Block* CpuHeap::extend(size_t bytes) {
  // What the machine can never hold is for the system to refuse.
  if (!reserve() || bytes > memory_) return nullptr;
  Block* const last = last_ != nullptr && last_->is_free ? last_ : nullptr;
  const size_t more = last != nullptr ? bytes - last->bytes : bytes;
  if (size_t(end_ - top_) < more) return nullptr;
  Block* block = last;
  if (last != nullptr) {
    remove(last);
  } else {
    block = reinterpret_cast<Block*>(top_);
    block->before = last_;
    last_ = block;
  }
  block->bytes = bytes;
  top_ += more;
  return block;
}

// What is more than `bytes` becomes a free block of its own.
void CpuHeap::cut(Block* block, size_t bytes) {
  const size_t rest = block->bytes - bytes;
  if (rest < kLeast) return;
  auto* const tail = reinterpret_cast<Block*>(reinterpret_cast<char*>(block) + bytes);
  tail->before = block;
  tail->bytes = rest;
  tail->dirty = block->dirty > bytes ? block->dirty - bytes : 0;
  tail->freed_at = block->freed_at;
  if (last_ == block)
    last_ = tail;
  else
    after(block)->before = tail;
  block->bytes = bytes;
  insert(tail);
}

// With the free blocks on both sides.
Block* CpuHeap::join(Block* block) {
  const auto swallow = [this](Block* first, Block* second) {
    first->bytes += second->bytes;
    first->dirty += second->dirty;
    if (last_ == second)
      last_ = first;
    else
      after(first)->before = first;
  };
  if (Block* const next = after(block); next != nullptr && next->is_free) {
    remove(next);
    swallow(block, next);
  }
  if (Block* const before = block->before; before != nullptr && before->is_free) {
    remove(before);
    before->freed_at = block->freed_at;
    swallow(before, block);
    return before;
  }
  return block;
}

Block* CpuHeap::after(const Block* block) const {
  char* const end = reinterpret_cast<char*>(const_cast<Block*>(block)) + block->bytes;
  return end == top_ ? nullptr : reinterpret_cast<Block*>(end);
}

void CpuHeap::insert(Block* block) {
  block->is_free = true;
  cached_ += block->dirty;
  free_.insert(block);
  block->newer = nullptr;
  block->older = newest_;
  (newest_ != nullptr ? newest_->newer : oldest_) = block;
  newest_ = block;
}

void CpuHeap::remove(Block* block) {
  cached_ -= block->dirty;
  free_.erase(block);
  (block->newer != nullptr ? block->newer->older : newest_) = block->older;
  (block->older != nullptr ? block->older->newer : oldest_) = block->newer;
}

// All its whole pages but the one that its header is in.
void CpuHeap::clean(Block* block) {
  if (block->dirty == 0) return;
  const auto from = (reinterpret_cast<uintptr_t>(block + 1) + kPage - 1) / kPage * kPage;
  const auto to = (reinterpret_cast<uintptr_t>(block) + block->bytes) / kPage * kPage;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
  cached_ -= block->dirty;
  block->dirty = 0;
}

// Now and then: what nothing has used for the decay period goes back.
void CpuHeap::settle() {
  const uint32_t now = milliseconds();
  if (now - swept_at_ <= kSweep) return;
  swept_at_ = now;
  if (now - peak_since_ > kDecay) {
    peak_since_ = now;
    last_peak_ = peak_;
    peak_ = used_;
  }
  clean_old(now);
}

void CpuHeap::clean_old(uint32_t now) {
  for (Block* block = oldest_; block != nullptr && now - block->freed_at > kDecay; block = block->newer) clean(block);
}

void CpuHeap::keep_within_peak() {
  const size_t peak = std::max(peak_, last_peak_), limit = peak + peak / 4 + kSlack;
  for (Block* block = oldest_; block != nullptr && used_ + cached_ > limit; block = block->newer) clean(block);
}

}  // namespace voxtorch::memory
