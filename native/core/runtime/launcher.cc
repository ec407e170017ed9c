#include "core/runtime/launcher.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

namespace voxtorch {
namespace {

constexpr auto kLook = std::chrono::seconds(1);
constexpr auto kGrace = std::chrono::seconds(10);  // as long as the launcher itself gives

// The kernel's own PR_SET_PDEATHSIG sends one signal, which a process that hangs may never act upon.
[[noreturn]] void watch(pid_t launcher) {
  // Whoever is orphaned gets another parent.
  while (::getppid() == launcher) std::this_thread::sleep_for(kLook);
  ::kill(::getpid(), SIGTERM);
  std::this_thread::sleep_for(kGrace);
  ::kill(::getpid(), SIGKILL);
  std::abort();
}

void start() {
  const char* const text = std::getenv("VOXTORCH_LAUNCHER_PID");
  if (text == nullptr) return;
  const auto launcher = static_cast<pid_t>(std::strtol(text, nullptr, 10));
  // A process of a rank's own has the variable too, and another parent.
  const bool gone = launcher > 1 && ::kill(launcher, 0) != 0 && errno == ESRCH;
  if (launcher <= 1 || (::getppid() != launcher && !gone)) return;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread(watch, launcher).detach();
  } catch (const std::system_error&) {
    // Where no thread can be made, training fails by itself.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

void end_with_launcher() {
  static std::once_flag once;
  std::call_once(once, start);
}

}  // namespace voxtorch
