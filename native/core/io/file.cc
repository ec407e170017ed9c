#include "core/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
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
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

void Mapping::drop(int64_t offset, int64_t bytes) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t from = (reinterpret_cast<uintptr_t>(data_) + static_cast<uintptr_t>(offset) + page - 1) & ~(page - 1);
  const uintptr_t to = (reinterpret_cast<uintptr_t>(data_) + static_cast<uintptr_t>(offset + bytes)) & ~(page - 1);
  if (from < to) ::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

NewFile::NewFile(const std::string& path) : path_(path), folder_(folder_of(path)) {
  // Short, whatever the path: names end at 255 bytes.
  temporary_ = folder_ + "/" + temporary_name();
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(errno);
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
  if (::fsync(descriptor_) != 0) fail(errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 && errno != EINTR) fail(errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  temporary_.clear();
  // The name itself lasts through a power cut only when the folder is synced. Some file systems cannot, and lose
  // nothing by it.
  const int folder = ::open(folder_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

void NewFile::fail(int error) const { io::fail(path_, "written", error); }

}  // namespace voxtorch::io
