// Files as the operators here use them: opened for reading, mapped, or written under another name and renamed.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace voxtorch::io {

// Something about a file, not about the arguments: DataError in JavaScript. The message names the file.
class FileError : public std::runtime_error {
 public:
  explicit FileError(const std::string& message);
  ~FileError() override;
};

// A regular file, open for reading.
class File {
 public:
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }
  // Throws where a range is not inside the file, so that no memory is taken for it.
  void check_range(int64_t offset, int64_t bytes) const;
  // All of a range, or FileError. Safe on several threads at once.
  void read(void* to, int64_t offset, int64_t bytes) const;

 private:
  friend class Mapping;
  std::string path_;
  int descriptor_;
  int64_t size_;
};

// A whole file in memory. Writes to it stay in this process, and the file may be unlinked or renamed over meanwhile.
// One that is cut short ends the process at the next access after its end, with its name on the standard error.
class Mapping {
 public:
  explicit Mapping(const File& file);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  char* data() const { return data_; }
  // Gives back the memory of the pages that lie wholly in this range, and what was written there with it.
  void drop(int64_t offset, int64_t bytes) const;

 private:
  char* data_ = nullptr;
  size_t bytes_;
};

// A new file that has its name only once it is whole: written next to `path`, synced and renamed by commit(). Without
// commit() nothing of it stays. A symbolic link stays one: the file that it names is replaced. A file that is there
// keeps its mode and, where that is allowed, its owner. Targets that are not regular files (a device, a pipe) are
// written to directly. lib/base/atomic.ts is the same for what JavaScript writes.
class NewFile {
 public:
  explicit NewFile(const std::string& path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const void* from, int64_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(int error) const;

  std::string path_;
  std::string target_;     // what is renamed to: the path, or where a link leads
  std::string temporary_;  // empty if the target is not a regular file
  int descriptor_ = -1;
};

}  // namespace voxtorch::io
