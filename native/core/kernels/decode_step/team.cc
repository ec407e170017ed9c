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

// A chunk takes some microseconds. A worker that waits longer for one computes it again.
constexpr auto kPatience = std::chrono::microseconds(25);
// The next token comes some hundred microseconds after the last; waking a thread costs its waker some.
constexpr auto kSpin = std::chrono::microseconds(100);
// Workers take this fraction of an equal part of the remaining chunks.
constexpr int kShares = 2;
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
      helped_(static_cast<size_t>(most_chunks)),
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

void TeamJob::run_chunk(int worker, const Place& place, int64_t chunk) {
  const int number = static_cast<int>(place.phase % static_cast<uint64_t>(phases_));
  std::atomic<uint64_t>& last = committed_[static_cast<size_t>(chunk)];
  uint64_t known = last.load(std::memory_order_acquire);
  if (known > place.phase) return;
  uint64_t& begun = begun_[static_cast<size_t>(worker)].phase;
  if (begun != place.phase) {
    begin(worker, number);
    begun = place.phase;
  }
  compute(worker, number, chunk);
  do {
    if (known > place.phase) return;  // another worker was quicker
  } while (!last.compare_exchange_weak(known, place.phase + 1, std::memory_order_acq_rel));
  commit(worker, number, chunk);
  if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 < place.chunks) return;
  done_.store(0, std::memory_order_relaxed);
  const bool last_phase = number + 1 == phases_;
  place_.store(word_of(place.phase + 1, last_phase ? 0 : chunks(number + 1)), std::memory_order_release);
}

void TeamJob::work(int worker) {
  while (true) {
    uint64_t word = place_.load(std::memory_order_acquire);
    const Place place = place_of(word);
    if (place.chunks == 0) return;
    if (place.taken == place.chunks) {
      help(worker, word);
      continue;
    }
    const int64_t share = std::max<int64_t>(1, (place.chunks - place.taken) / (kShares * workers_));
    if (!place_.compare_exchange_weak(word, word + static_cast<uint64_t>(share), std::memory_order_acq_rel)) continue;
    for (int64_t i = 0; i < share; ++i) run_chunk(worker, place, place.taken + i);
  }
}

// Until the phase is over.
void TeamJob::help(int worker, uint64_t word) {
  const Place place = place_of(word);
  const auto moved = [&] { return place_.load(std::memory_order_acquire) != word; };
  for (int round = 0; !moved(); ++round) {
    const auto until = Clock::now() + kPatience;
    while (!moved() && Clock::now() < until) {
      for (int i = 0; i < 8 && !moved(); ++i) pause_briefly();
    }
    // In reverse order, because the worker that took them goes forward. Helpers divide them, so no worker is waited
    // for.
    for (int64_t chunk = place.chunks - 1; chunk >= 0 && !moved(); --chunk) {
      const auto index = static_cast<size_t>(chunk);
      if (committed_[index].load(std::memory_order_acquire) > place.phase) continue;
      if (helped_[index].exchange(place.phase + 1, std::memory_order_relaxed) > place.phase && round == 0) continue;
      run_chunk(worker, place, chunk);
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
std::once_flag team_made;

}  // namespace

Team::Team() : state_(new State) {}

Team& Team::instance() {
  std::call_once(team_made, [] {
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
