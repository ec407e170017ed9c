// Continuous batching (Yu et al. 2022, Orca, https://www.usenix.org/conference/osdi22/presentation/yu): sessions of one
// network join and leave between passes, each of which reads one token of every text that is being written, and pieces
// of the prompts that are new. Each session chooses its tokens as it does alone.
#pragma once

#include <exception>
#include <list>

#include "core/generation/prefix_cache.h"
#include "core/generation/session.h"

namespace voxtorch::generation {

class Batch : public Module {
 public:
  explicit Batch(const Config& config);

  // The session takes its prompt; nothing is read before the next step.
  void join(int64_t member, c10::intrusive_ptr<Session> session, const c10::intrusive_ptr<Module>& network,
            const Start& start);
  void leave(int64_t member);

  // A token of each member that got one. Those that failed, or are done, have left.
  struct Told {
    Ids members, tokens, ends, cached;  // cached: tokens of the prompt that need not have been read
    std::vector<double> logprobs;
    Ids failed;
  };
  // Members in `paused` write nothing this time. `allowed`: of members whose choice is constrained.
  Told step(const c10::intrusive_ptr<Module>& network, const Ids& paused, const std::map<int64_t, Allowed>& allowed);
  // Throws what a member failed with.
  void rethrow(int64_t member);

  PrefixCache::Facts facts() const { return prefixes_.facts(); }

 private:
  struct Member {
    int64_t id;
    c10::intrusive_ptr<Session> session;
    bool reads = false;  // some of its prompt
    int64_t cached = 0;
    int64_t epoch = 0;  // of prefixes_, when it began to read
  };
  struct Part {
    Member* member;
    Piece piece;
    at::Tensor logits = {};
    std::exception_ptr error = {};
  };

  std::vector<Part> parts_of_pass(const Generative& network, const Ids& paused, int64_t epoch);
  bool begin(const Generative& network, Member& member, int64_t epoch);
  void read(std::vector<Part>& parts, const c10::intrusive_ptr<Module>& network);
  void drop(Member& member, int64_t epoch);

  const int64_t most_tokens_;
  PrefixCache prefixes_;
  c10::intrusive_ptr<Module> network_;  // of the reader
  std::unique_ptr<TogetherReader> reader_;
  std::list<Member> members_;  // who came first stands first
  std::map<int64_t, std::exception_ptr> errors_;
};

}  // namespace voxtorch::generation
