// The executor: one FIFO thread for the whole process. Forward, backward, optimizer steps and whatever else is queued
// run here, in order, with all intra-op threads. JavaScript threads run small operators with one, and borrow all
// threads for a large one while the executor has no work (wide_call.h): two OpenMP pools at work would slow both.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace voxtorch {

class Executor {
 public:
  // Jobs carry the environment they belong to, so that its exit can cancel them.
  struct Job {
    virtual ~Job() = default;
    virtual void run() = 0;
    // Tells whoever waits, once the executor no longer counts the job.
    virtual void deliver() {}
    // Tells whoever waits that the job will not run, because the process exits.
    virtual void drop() {}
    const void* owner = nullptr;
  };

  static Executor& instance();

  void submit(std::shared_ptr<Job> job);
  // Lets the calling thread compute with all threads: jobs wait until it gives them back. False where one runs or
  // waits, or another thread has them.
  bool lend();
  void take_back();
  // Drops the owner's queued jobs and waits for the one that is running, if it is the owner's.
  void cancel(const void* owner);
  // Waits for the running job and takes no more: called once, before the process's static data dies.
  void stop();
  // From here on the process is exiting with this code: cancel() and stop() end it after a second when a job does not
  // end, as one that waits for another process may not.
  void leave(int code) { leaving_with_ = code; }

  void set_num_threads(int threads);
  int num_threads() const { return threads_.load(); }
  size_t queued();

 private:
  Executor();
  void enqueue(std::shared_ptr<Job> job);
  void loop();
  template <typename Done>
  void wait_until(std::unique_lock<std::mutex>& lock, Done done);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::deque<std::shared_ptr<Job>> queue_;
  std::atomic<int> waiting_{0};  // jobs in the queue, readable without the mutex by the spinning thread
  const void* running_owner_ = nullptr;
  bool lent_ = false;
  bool stopped_ = false;
  std::atomic<int> threads_{0};
  std::atomic<bool> threads_changed_{true};
  bool started_ = false;
  std::atomic<int> leaving_with_{-1};
};

// Gives the calling thread one intra-op thread without changing what other threads use: once, before use_threads_here.
void use_one_thread_here();
// The same for any number, in some nanoseconds.
void use_threads_here(int threads);

}  // namespace voxtorch
