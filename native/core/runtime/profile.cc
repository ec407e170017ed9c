// Time per operator, over all threads, while a profile is being taken.
#include <ATen/record_function.h>
#include <torch/library.h>

#include <chrono>
#include <map>
#include <mutex>

namespace voxtorch {
namespace {

struct ProfileRow {
  int64_t calls = 0;
  double total = 0;  // microseconds, children included
  double self = 0;
};
struct Profile {
  std::mutex mutex;
  std::map<std::string, ProfileRow> rows;
  at::CallbackHandle handle = 0;
  bool on = false;
};
Profile& profile() {
  static Profile* instance = new Profile();
  return *instance;
}

using Clock = std::chrono::steady_clock;
thread_local std::vector<double> child_time;

struct Span : at::ObserverContext {
  Clock::time_point start = Clock::now();
};

std::unique_ptr<at::ObserverContext> span_start(const at::RecordFunction&) {
  child_time.push_back(0);
  return std::make_unique<Span>();
}

void span_end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (context == nullptr || child_time.empty()) return;
  const double took =
      std::chrono::duration<double, std::micro>(Clock::now() - static_cast<Span*>(context)->start).count();
  const double children = child_time.back();
  child_time.pop_back();
  if (!child_time.empty()) child_time.back() += took;
  Profile& all = profile();
  std::lock_guard<std::mutex> lock(all.mutex);
  ProfileRow& row = all.rows[function.name()];
  ++row.calls;
  row.total += took;
  row.self += took - children;
}

void profile_start() {
  Profile& all = profile();
  std::lock_guard<std::mutex> lock(all.mutex);
  TORCH_CHECK_VALUE(!all.on, "a profile is being taken already; profiles do not nest");
  all.rows.clear();
  all.handle = at::addGlobalCallback(at::RecordFunctionCallback(span_start, span_end)
                                         .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
  all.on = true;
}

using Columns = std::tuple<std::vector<std::string>, std::vector<int64_t>, std::vector<double>, std::vector<double>>;

Columns profile_stop() {
  Profile& all = profile();
  Columns columns;
  std::lock_guard<std::mutex> lock(all.mutex);
  if (!all.on) return columns;
  at::removeCallback(all.handle);
  all.on = false;
  for (const auto& [name, row] : all.rows) {
    std::get<0>(columns).push_back(name);
    std::get<1>(columns).push_back(row.calls);
    std::get<2>(columns).push_back(row.total);
    std::get<3>(columns).push_back(row.self);
  }
  return columns;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("profile_start() -> ()", profile_start);
  // Times in microseconds, calls inside included and left out.
  m.def("profile_stop() -> (str[] names, int[] calls, float[] total, float[] self)", profile_stop);
}

}  // namespace voxtorch
