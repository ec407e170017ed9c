#include "core/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <random>
#include <system_error>

namespace voxtorch::io {
namespace {

// Linux transfers at most 2 GiB less a page in one call.
constexpr int64_t kLargestTransfer = int64_t(1) << 30;

std::string sentence(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail(const std::string& path, const std::string& what, int error) {
  throw FileError(path + " cannot be " + what + ": " + sentence(error));
}

// Two writers of one path, in one process or several, must not meet.
std::string temporary_name() {
  static std::atomic<uint64_t> count{0};
  static const uint64_t seed = (uint64_t(std::random_device{}()) << 32) | std::random_device{}();
  return ".voxtorch-" + std::to_string(::getpid()) + "-" + std::to_string(seed) + "-" + std::to_string(count++) +
         ".tmp";
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The path, or where the symbolic link that it is leads in the end; that file need not be there.
std::string target_of(std::string path) {
  char link[4096];
  // As many as Linux follows itself.
  for (int followed = 0; followed < 40; ++followed) {
    const ssize_t length = ::readlink(path.c_str(), link, sizeof link);
    if (length < 0) break;
    const std::string to(link, static_cast<size_t>(length));
    path = to.front() == '/' ? to : folder_of(path) + "/" + to;
  }
  return path;
}

// The owner first: to change it takes bits of the mode away.
void take_over(int descriptor, const struct stat& old) {
  const bool owned = ::fchown(descriptor, old.st_uid, old.st_gid) == 0 || ::fchown(descriptor, -1, old.st_gid) == 0;
  // The permissions of the group are dropped if the file has another group.
  ::fchmod(descriptor, old.st_mode & (owned ? 07777 : 07707));
}

// What is mapped, for on_bus_error: in plain memory, since a signal's handler may take no lock.
struct Mapped {
  std::atomic<char*> data{nullptr};
  size_t bytes = 0;
  char path[512] = {};
};
std::array<Mapped, 256> mapped;
std::mutex mapped_mutex;
struct sigaction before_bus_error;

// A page of a mapping whose file has become shorter has no bytes, and the system ends the process that reads it. This
// says which file it was. Several threads may read of it: the first one says so, and the others leave it the time.
void on_bus_error(int, siginfo_t* info, void*) {
  static std::atomic_flag is_said = ATOMIC_FLAG_INIT;
  const bool is_another = is_said.test_and_set();
  const timespec moment = {0, 100'000'000};
  if (is_another) ::nanosleep(&moment, nullptr);
  const auto* const at = static_cast<const char*>(info->si_addr);
  for (const Mapped& one : mapped) {
    const char* const data = one.data.load(std::memory_order_acquire);
    if (is_another || data == nullptr || at < data || at >= data + one.bytes) continue;
    const auto say = [](const char* text) { return ::write(STDERR_FILENO, text, std::strlen(text)) >= 0; };
    static_cast<void>(
        say("voxtorch: ") && say(one.path) &&
        say(" was cut short while it was mapped (mmap: true): replace such a file by renaming another, or "
            "load it without mmap\n"));
    break;
  }
  // The same access once more, under whatever held before.
  ::sigaction(SIGBUS, &before_bus_error, nullptr);
}

void remember(char* data, size_t bytes, int descriptor) {
  const std::lock_guard<std::mutex> lock(mapped_mutex);
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    return ::sigaction(SIGBUS, &action, &before_bus_error) == 0;
  }();
  static_cast<void>(installed);
  for (Mapped& one : mapped) {
    if (one.data.load(std::memory_order_relaxed) != nullptr) continue;
    one.bytes = bytes;
    // The file may have been opened under a name that says nothing, a descriptor's.
    const ssize_t length =
        ::readlink(("/proc/self/fd/" + std::to_string(descriptor)).c_str(), one.path, sizeof one.path - 1);
    one.path[std::max<ssize_t>(length, 0)] = 0;
    one.data.store(data, std::memory_order_release);
    return;
  }
}

void forget(const char* data) {
  const std::lock_guard<std::mutex> lock(mapped_mutex);
  for (Mapped& one : mapped)
    if (one.data.load(std::memory_order_relaxed) == data) one.data.store(nullptr, std::memory_order_release);
}

}  // namespace

FileError::FileError(const std::string& message) : std::runtime_error(message) {}
FileError::~FileError() = default;

File::File(const std::string& path) : path_(path) {
  // Opening a pipe would wait for its writer.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail(path, "opened", errno);
  struct stat facts;
  if (::fstat(descriptor_, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    ::close(descriptor_);
    throw FileError(path + " is not a regular file");
  }
  size_ = facts.st_size;
}

File::~File() { ::close(descriptor_); }

void File::check_range(int64_t offset, int64_t bytes) const {
  if (offset >= 0 && bytes >= 0 && offset <= size_ && bytes <= size_ - offset) return;
  throw FileError(path_ + " has " + std::to_string(size_) + " bytes; " + std::to_string(bytes) + " bytes from byte " +
                  std::to_string(offset) + " on are not in it");
}

void File::read(void* to, int64_t offset, int64_t bytes) const {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t count =
        ::pread(descriptor_, static_cast<char*>(to) + done, std::min(bytes - done, kLargestTransfer), offset + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, "read", errno);
    if (count == 0)
      throw FileError(path_ + " was cut short while it was read, at byte " + std::to_string(offset + done));
    done += count;
  }
}

Mapping::Mapping(const File& file) : bytes_(static_cast<size_t>(file.size_)) {
  if (bytes_ == 0) return;
  // Writable, because tensors are; private, so what is written never reaches the file. Nothing is reserved for it.
  void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.descriptor_, 0);
  if (at == MAP_FAILED) fail(file.path_, "mapped", errno);
  data_ = static_cast<char*>(at);
  remember(data_, bytes_, file.descriptor_);
}

Mapping::~Mapping() {
  if (data_ == nullptr) return;
  forget(data_);
  ::munmap(data_, bytes_);
}

void Mapping::drop(int64_t offset, int64_t bytes) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t from = (reinterpret_cast<uintptr_t>(data_) + static_cast<uintptr_t>(offset) + page - 1) & ~(page - 1);
  const uintptr_t to = (reinterpret_cast<uintptr_t>(data_) + static_cast<uintptr_t>(offset + bytes)) & ~(page - 1);
  if (from < to) ::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

NewFile::NewFile(const std::string& path) : path_(path) {
  struct stat old;
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) fail(errno);
  if (exists && !S_ISREG(old.st_mode)) {
    // Not created, and without waiting for the reader of a pipe.
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (descriptor_ < 0) fail(errno);
    ::fcntl(descriptor_, F_SETFL, ::fcntl(descriptor_, F_GETFL) & ~O_NONBLOCK);
    return;
  }
  target_ = target_of(path);
  // Short, whatever the path: names end at 255 bytes.
  const std::string temporary = folder_of(target_) + "/" + temporary_name();
  descriptor_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, exists ? 0600 : 0666);
  if (descriptor_ < 0) fail(errno);
  temporary_ = temporary;
  if (exists) take_over(descriptor_, old);
}

NewFile::~NewFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void NewFile::write(const void* from, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t count =
        ::write(descriptor_, static_cast<const char*>(from) + done, std::min(bytes - done, kLargestTransfer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(errno);
    done += count;
  }
}

void NewFile::commit() {
  if (!temporary_.empty() && ::fsync(descriptor_) != 0) fail(errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 && errno != EINTR) fail(errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno);
  temporary_.clear();
  // The name itself lasts through a power cut only when the folder is synced. Some file systems cannot, and lose
  // nothing by it.
  const int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

void NewFile::fail(int error) const { io::fail(path_, "written", error); }

}  // namespace voxtorch::io
