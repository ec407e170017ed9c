// Which storages the executor's jobs use, so that a synchronous operator on a JavaScript thread never races with one.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace voxtorch {

enum class Use { kRead, kWrite };

class BusyTable {
 public:
  static BusyTable& instance();

  struct Claim {
    const void* storage;
    Use use;
  };

  void claim(const std::vector<Claim>& claims);
  void release(const std::vector<Claim>& claims);

  bool any() const { return count_.load(std::memory_order_acquire) > 0; }
  // Whether a job in flight forbids this use: a write needs exclusive use, a read needs that there is no writer.
  bool conflicts(const at::Tensor& tensor, Use use);
  // The same of what another job would claim.
  bool conflicts(const std::vector<Claim>& claims);

  // What identifies a tensor's memory (its storage), and its gradient slot (the tensor itself).
  static const void* memory_key(const at::Tensor& tensor);
  static const void* gradient_key(const at::Tensor& tensor);
  // Claimed by every backward pass: it may use any tensor of a graph.
  static const void* graph_key();
  bool gradient_busy(const at::Tensor& tensor);

  // While it lives, this thread may use a leaf and its gradient in spite of all claims.
  class Exempt {
   public:
    explicit Exempt(at::Tensor leaf);
    ~Exempt();
    Exempt(const Exempt&) = delete;

   private:
    at::Tensor before_;
  };

 private:
  struct Counts {
    int readers = 0;
    int writers = 0;
  };
  static bool is_exempt(const void* memory);

  std::mutex mutex_;
  std::unordered_map<const void*, Counts> storages_;
  std::atomic<int> count_{0};
};

}  // namespace voxtorch
