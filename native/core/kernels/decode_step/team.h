// Workers that run the phases of a job together, without a region of its own for each: a decoding step has sixty of
// them and more, each of some tens of microseconds.
//
// A phase is cut into small chunks. A free worker takes a part of the remaining ones, in order, because memory
// is faster in order. A chunk is computed into the worker's own memory and then committed, once. A worker without
// chunks computes again those whose worker the system has preempted; the late result is dropped. So only one chunk is
// lost, not a time slice.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace voxtorch::kernels {

class TeamJob {
 public:
  virtual ~TeamJob() = default;

  int workers() const { return workers_; }

 protected:
  TeamJob(int workers, int phases, int64_t most_chunks);

  // Chunks of a phase, from 1 to kMostChunks and no more than most_chunks. What decides it must not change in a run.
  virtual int64_t chunks(int phase) const = 0;
  // Before the first chunk of each phase that a worker takes.
  virtual void begin(int worker, int phase) = 0;
  // Into the worker's own memory. What others wrote is read: a worker that comes too late may find any numbers there,
  // and its result is dropped.
  virtual void compute(int worker, int phase, int64_t chunk) = 0;
  // To where the next phases read it: called once for each chunk.
  virtual void commit(int worker, int phase, int64_t chunk) = 0;

 public:
  static constexpr int64_t kMostChunks = (1 << 14) - 1;

 private:
  friend class Team;
  // Of what is to be done: a number of the phase that counts on over all runs, its chunks, and those that are taken.
  struct Place {
    uint64_t phase;
    int64_t chunks, taken;
  };
  static Place place_of(uint64_t word);
  static uint64_t word_of(uint64_t phase, int64_t chunks);

  bool over() const;
  void start();
  void work(int worker);
  void run_chunk(int worker, const Place& place, int64_t chunk);
  void help(int worker, uint64_t word);

  const int workers_;
  const int phases_;
  std::atomic<uint64_t> place_{0};
  alignas(64) std::atomic<int64_t> done_{0};  // chunks of the phase that are committed
  // Of each chunk, 1 + the last phase in which it was committed, and in which someone else began to compute it.
  std::vector<std::atomic<uint64_t>> committed_, helped_;
  struct alignas(64) Begun {
    uint64_t phase = ~uint64_t{0};
  };
  std::vector<Begun> begun_;  // of each worker
};

// One for the process. Threads are made when there is work for them, spin briefly after it and then sleep; a forked
// child has none and makes its own.
class Team {
 public:
  static Team& instance();

  // All phases; the calling thread is worker 0, and continues alone where other workers are missing. Several threads
  // may run a job each.
  void run(const std::shared_ptr<TeamJob>& job);
  // Ends threads beyond this number of workers.
  void shrink(int workers);

  struct State;

 private:
  Team();
  State* state_;
};

}  // namespace voxtorch::kernels
