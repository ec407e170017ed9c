#include "core/kernels/decode_step/team.h"

#include <c10/util/Exception.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>

namespace voxtorch::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// A chunk takes some microseconds. Who waits longer for one computes it again.
constexpr auto kPatience = std::chrono::microseconds(25);
// The next token comes some hundred microseconds after the last; waking a thread costs its waker some.
constexpr auto kSpin = std::chrono::microseconds(100);
constexpr int kChunkBits = 14;
constexpr uint64_t kChunkMask = TeamJob::kMostChunks;

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

TeamJob::TeamJob(int workers, int phases, int64_t most_chunks)
    : workers_(workers),
      phases_(phases),
      committed_(static_cast<size_t>(most_chunks)),
      begun_(static_cast<size_t>(workers)) {
  TORCH_INTERNAL_ASSERT(workers > 0 && phases > 0 && most_chunks > 0 && most_chunks <= kMostChunks);
}

TeamJob::Place TeamJob::place_of(uint64_t word) {
  return {word >> (2 * kChunkBits), static_cast<int64_t>(word >> kChunkBits & kChunkMask),
          static_cast<int64_t>(word & kChunkMask)};
}

uint64_t TeamJob::word_of(uint64_t phase, int64_t chunks) {
  return phase << (2 * kChunkBits) | static_cast<uint64_t>(chunks) << kChunkBits;
}

// Between two runs a phase without chunks is next.
bool TeamJob::over() const { return place_of(place_.load(std::memory_order_acquire)).chunks == 0; }

void TeamJob::start() {
  const uint64_t phase = place_of(place_.load(std::memory_order_relaxed)).phase;
  place_.store(word_of(phase, chunks(0)), std::memory_order_release);
}

void TeamJob::run_chunk(int worker, uint64_t phase, const Place& place, int64_t chunk) {
  const int number = static_cast<int>(phase % static_cast<uint64_t>(phases_));
  uint64_t& begun = begun_[static_cast<size_t>(worker)].phase;
  if (begun != phase) {
    begin(worker, number);
    begun = phase;
  }
  compute(worker, number, chunk);
  std::atomic<uint64_t>& last = committed_[static_cast<size_t>(chunk)];
  uint64_t known = last.load(std::memory_order_relaxed);
  do {
    if (known > phase) return;  // another worker was quicker
  } while (!last.compare_exchange_weak(known, phase + 1, std::memory_order_acq_rel));
  commit(worker, number, chunk);
  if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 < place.chunks) return;
  done_.store(0, std::memory_order_relaxed);
  const bool last_phase = number + 1 == phases_;
  place_.store(word_of(phase + 1, last_phase ? 0 : chunks(number + 1)), std::memory_order_release);
}

void TeamJob::work(int worker) {
  while (true) {
    uint64_t word = place_.load(std::memory_order_acquire);
    const Place place = place_of(word);
    if (place.chunks == 0) return;
    if (place.taken < place.chunks) {
      if (place_.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel)) {
        run_chunk(worker, place.phase, place, place.taken);
      }
      continue;
    }
    const auto moved = [&] { return place_.load(std::memory_order_acquire) != word; };
    const auto until = Clock::now() + kPatience;
    while (!moved() && Clock::now() < until) {
      for (int i = 0; i < 8 && !moved(); ++i) pause_briefly();
    }
    // Those who help begin at different chunks.
    for (int64_t i = 0; i < place.chunks && !moved(); ++i) {
      const int64_t chunk = (i + worker * place.chunks / workers_) % place.chunks;
      if (committed_[static_cast<size_t>(chunk)].load(std::memory_order_acquire) > place.phase) continue;
      run_chunk(worker, place.phase, place, chunk);
    }
  }
}

struct Team::State {
  std::mutex mutex;
  std::vector<std::shared_ptr<TeamJob>> jobs;  // that are run now
  int threads = 0;                             // workers 1 to this have one
  int wanted = 0;
  std::atomic<uint32_t> calls{0};  // for work, or to look whether to end

  std::shared_ptr<TeamJob> job_for(int worker) {
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& job : jobs) {
      if (worker < job->workers() && !job->over()) return job;
    }
    return nullptr;
  }

  void call() {
    calls.fetch_add(1, std::memory_order_release);
    calls.notify_all();
  }

  void serve(int worker) {
    while (true) {
      const uint32_t seen = calls.load(std::memory_order_acquire);
      while (const auto job = job_for(worker)) job->work(worker);
      {
        // The last one goes first, so that the others' numbers stay without gaps.
        const std::lock_guard<std::mutex> lock(mutex);
        if (worker > wanted && worker == threads) {
          --threads;
          break;
        }
      }
      const auto until = Clock::now() + kSpin;
      while (calls.load(std::memory_order_acquire) == seen && Clock::now() < until) pause_briefly();
      calls.wait(seen, std::memory_order_acquire);
    }
    call();
  }

  // With the mutex.
  void grow(int helpers) {
    wanted = std::max(wanted, helpers);
    while (threads < helpers) {
      try {
        std::thread([this, worker = threads + 1] { serve(worker); }).detach();
      } catch (const std::system_error&) {
        return;  // fewer do as well
      }
      ++threads;
    }
  }
};

namespace {

// Neither it nor what threads of before a fork knew is ever destroyed: they may outlive static data at exit.
std::atomic<Team*> team{nullptr};
std::once_flag made;

}  // namespace

Team::Team() : state_(new State) {}

Team& Team::instance() {
  std::call_once(made, [] {
    team = new Team();
    pthread_atfork(nullptr, nullptr, [] { team.load()->state_ = new State; });
  });
  return *team.load();
}

void Team::run(const std::shared_ptr<TeamJob>& job) {
  State& state = *state_;
  job->start();
  const int helpers = job->workers() - 1;
  if (helpers > 0) {
    {
      const std::lock_guard<std::mutex> lock(state.mutex);
      state.grow(helpers);
      state.jobs.push_back(job);
    }
    state.call();
  }
  job->work(0);
  if (helpers > 0) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    state.jobs.erase(std::find(state.jobs.begin(), state.jobs.end(), job));
  }
}

void Team::shrink(int workers) {
  State& state = *state_;
  {
    const std::lock_guard<std::mutex> lock(state.mutex);
    if (state.wanted <= workers - 1) return;
    state.wanted = workers - 1;
  }
  state.call();
}

}  // namespace voxtorch::kernels
