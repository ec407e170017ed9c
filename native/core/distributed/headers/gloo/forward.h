// libtorch's wheel has gloo compiled in and c10d's ProcessGroupGloo.hpp, but not the headers of gloo that it includes.
// The class holds gloo's objects by pointer only, so these declarations are all that it needs: its own layout comes
// from the ProcessGroupGloo.hpp of the libtorch that is built for. Nothing here is ever constructed or called by us.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class Device;
class UnboundBuffer;
}  // namespace transport

namespace rendezvous {
class Store {
 public:
  virtual ~Store();
  virtual void set(const std::string& key, const std::vector<char>& data) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) = 0;
};
}  // namespace rendezvous

}  // namespace gloo
