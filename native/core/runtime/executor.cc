#include "core/runtime/executor.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

namespace voxtorch {
namespace {

// A training step queues its next job some microseconds after the last one ended; waking a sleeping thread costs more.
constexpr auto kSpin = std::chrono::microseconds(50);
// How long a process that exits waits for a job that may wait for another process.
constexpr auto kPatience = std::chrono::seconds(1);

thread_local bool is_executor = false;
thread_local bool borrows = false;  // the executor's threads

bool is_main_thread() { return ::syscall(SYS_gettid) == ::getpid(); }

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Where the environment says how many, libtorch knows what it means by that.
int default_threads() {
  const bool chosen = std::getenv("OMP_NUM_THREADS") != nullptr || std::getenv("MKL_NUM_THREADS") != nullptr;
  return chosen ? at::get_num_threads() : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

Executor& Executor::instance() {
  // Never destroyed: its thread may outlive static data at exit, and stop() has parked it by then.
  static Executor* executor = new Executor();
  return *executor;
}

Executor::Executor() { threads_ = default_threads(); }

void Executor::submit(std::shared_ptr<Job> job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    enqueue(std::move(job));
  }
  wake_.notify_one();
}

bool Executor::lend() {
  if (is_executor || borrows) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_ || lent_ || !queue_.empty() || running_owner_ != nullptr) return false;
  lent_ = borrows = true;
  return true;
}

void Executor::take_back() {
  bool jobs_wait = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    lent_ = borrows = false;
    jobs_wait = !queue_.empty() || stopped_;
  }
  if (!jobs_wait) return;
  wake_.notify_one();
  idle_.notify_all();
}

void Executor::enqueue(std::shared_ptr<Job> job) {
  if (!started_) {
    started_ = true;
    std::thread([this] { loop(); }).detach();
  }
  queue_.push_back(std::move(job));
  waiting_.store(static_cast<int>(queue_.size()), std::memory_order_release);
}

void Executor::loop() {
  is_executor = true;
  while (true) {
    const auto spin_until = std::chrono::steady_clock::now() + kSpin;
    while (waiting_.load(std::memory_order_acquire) == 0 && std::chrono::steady_clock::now() < spin_until)
      pause_briefly();

    std::shared_ptr<Job> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return !queue_.empty() && !stopped_ && !lent_; });
      job = std::move(queue_.front());
      queue_.pop_front();
      waiting_.store(static_cast<int>(queue_.size()), std::memory_order_release);
      running_owner_ = job->owner;
    }
    if (threads_changed_.exchange(false)) at::set_num_threads(threads_.load());
    job->run();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      running_owner_ = nullptr;
    }
    idle_.notify_all();
    job->deliver();
    job.reset();
  }
}

template <typename Done>
void Executor::wait_until(std::unique_lock<std::mutex>& lock, Done done) {
  if (leaving_with_ < 0) return idle_.wait(lock, done);
  if (!idle_.wait_for(lock, kPatience, done)) std::_Exit(leaving_with_);
}

void Executor::cancel(const void* owner) {
  std::deque<std::shared_ptr<Job>> dropped;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    std::deque<std::shared_ptr<Job>> kept;
    for (auto& job : queue_) (job->owner == owner ? dropped : kept).push_back(std::move(job));
    queue_ = std::move(kept);
    waiting_.store(static_cast<int>(queue_.size()), std::memory_order_release);
    wait_until(lock, [&] { return running_owner_ != owner; });
  }
}

void Executor::stop() {
  std::unique_lock<std::mutex> lock(mutex_);
  stopped_ = true;
  for (const auto& job : queue_) job->drop();
  // libgomp ends the process from inside a job when no thread can be made. That job never ends.
  if (is_executor || borrows) return;
  const auto done = [this] { return running_owner_ == nullptr && !lent_; };
  if (is_main_thread())
    wait_until(lock, done);
  else
    idle_.wait_for(lock, kPatience, done);
}

void Executor::set_num_threads(int threads) {
  threads_ = threads;
  threads_changed_ = true;
}

size_t Executor::queued() {
  std::lock_guard<std::mutex> lock(mutex_);
  return queue_.size() + (running_owner_ != nullptr ? 1 : 0);
}

void use_one_thread_here() {
  // ATen gives each thread its number of threads at the first parallel operator, over whatever was set before; that has
  // to have happened already. The flag for it is in a header, so libtorch has one and this library another.
  at::internal::lazy_init_num_threads();
  at::get_num_threads();
  Executor& executor = Executor::instance();
  // set_num_threads also stores the number that threads without one of their own start with, so put it back.
  at::set_num_threads(1);
  executor.set_num_threads(executor.num_threads());
}

void use_threads_here(int threads) {
  // What at::set_num_threads does for this thread, without what it does for all: it also empties oneDNN's caches.
  omp_set_num_threads(threads);
  using SetLocal = int (*)(int);
  static const auto set_mkl = reinterpret_cast<SetLocal>(::dlsym(RTLD_DEFAULT, "MKL_Set_Num_Threads_Local"));
  if (set_mkl != nullptr) set_mkl(threads);
}

}  // namespace voxtorch
