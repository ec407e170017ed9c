#include "core/generation/batch.h"

#include <algorithm>

namespace voxtorch::generation {

using at::Tensor;

namespace {

const Generative& generative(const Module& network) {
  const auto* found = dynamic_cast<const Generative*>(&network);
  TORCH_CHECK_VALUE(found != nullptr && found->token_bytes() > 0, "a network of kind ", network.kind,
                    " does not read for several texts in one pass; language models do");
  return *found;
}

}  // namespace

Batch::Batch(const Config& config)
    : Module("GenerationBatch", {}),
      most_tokens_(config.integer("max_num_batched_tokens", 128)),
      prefixes_(config.integer("prefix_cache_bytes", 0)) {
  TORCH_CHECK_VALUE(most_tokens_ > 0, "max_num_batched_tokens must be above 0");
}

void Batch::join(int64_t id, c10::intrusive_ptr<Session> session, const c10::intrusive_ptr<Module>& network,
                 const Start& start) {
  generative(*network);
  session->open(network, start);
  members_.push_back({id, std::move(session)});
}

void Batch::leave(int64_t id) {
  const auto found = std::find_if(members_.begin(), members_.end(), [&](const Member& one) { return one.id == id; });
  // What it has read is complete: no pass is running now.
  if (found == members_.end()) return;
  drop(*found, found->epoch);
}

void Batch::drop(Member& member, int64_t epoch) {
  Session& session = *member.session;
  reader_.reset();  // which may keep the memory of its cache
  if (member.reads && member.epoch == epoch && prefixes_.keeps()) {
    Ids text = session.in_cache();
    if (!text.empty()) prefixes_.keep(std::move(text), session.take_cache());
  }
  members_.remove_if([&](const Member& one) { return &one == &member; });
}

// Whether a member reads of its prompt in this pass. What others have read of it is copied; where an earlier member
// is about to read more of it, it waits for that.
bool Batch::begin(const Generative& network, Member& member, int64_t epoch) {
  if (member.reads) return true;
  const Ids* const text = member.session->prompt();
  if (text != nullptr && prefixes_.keeps()) {
    const auto shared = [&](const Ids& other) {
      return std::min(common_beginning(other, *text), static_cast<int64_t>(text->size()) - 1);
    };
    const auto fits = [&](const nn::KvCache& cache) {
      return network.begins_with(cache, static_cast<int64_t>(text->size()));
    };
    int64_t there = prefixes_.known(*text, fits), coming = 0;
    const Member* source = nullptr;
    bool came_earlier = true;
    for (const Member& other : members_) {
      if (&other == &member) came_earlier = false;
      const Ids* const prompt = other.session->prompt();
      if (&other == &member || prompt == nullptr) continue;
      if (came_earlier && other.session->unread() > 0) coming = std::max(coming, shared(*prompt));
      if (!other.reads || other.epoch != epoch || !fits(other.session->cache())) continue;
      const int64_t common = shared(other.session->in_cache());
      if (common > there && common >= kLeastShared) {
        there = common;
        source = &other;
      }
    }
    if (coming >= there + kLeastShared) return false;
    nn::KvCache& cache = member.session->cache();
    if (source != nullptr) {
      cache.begin_with(source->session->cache(), there);
    } else if (there > 0) {
      there = prefixes_.copy_to(*text, fits, cache);
    }
    if (there > 0) member.session->skip(there);
    member.cached = there;
    prefixes_.count(static_cast<int64_t>(text->size()), there);
  }
  member.reads = true;
  member.epoch = epoch;
  return true;
}

std::vector<Batch::Part> Batch::parts_of_pass(const Generative& network, const Ids& paused, int64_t epoch) {
  std::vector<Part> parts;
  std::vector<Member*> reading;
  for (Member& member : members_) {
    if (member.session->unread() > 0) {
      if (begin(network, member, epoch)) reading.push_back(&member);
    } else if (std::find(paused.begin(), paused.end(), member.id) == paused.end()) {
      parts.push_back({&member, member.session->piece(1)});
    }
  }
  // Members that generate continue while others read prompts: a pass reads a limited number of prompt tokens, divided
  // equally.
  int64_t left = std::max<int64_t>(1, most_tokens_ - static_cast<int64_t>(parts.size()));
  for (size_t i = 0; i < reading.size() && left > 0; ++i) {
    const int64_t share = std::max<int64_t>(1, left / static_cast<int64_t>(reading.size() - i));
    parts.push_back({reading[i], reading[i]->session->piece(share)});
    left -= parts.back().piece.time();
  }
  return parts;
}

// What is wrong with one text is that text's: where a pass over all fails, each is read by itself.
void Batch::read(std::vector<Part>& parts, const c10::intrusive_ptr<Module>& network) {
  if (parts.empty()) return;
  if (!reader_ || network_ != network) {
    reader_ = generative(*network).together();
    network_ = network;
  }
  std::vector<int64_t> lengths;
  std::vector<Piece> pieces;
  for (const Part& part : parts) {
    lengths.push_back(part.piece.cache->length());
    pieces.push_back(part.piece);
  }
  const auto alone = [&](Part& part) {
    const bool writes = part.member->session->unread() == 0;
    part.logits = writes ? part.member->session->read_alone() : reader_->read({part.piece});
  };
  if (parts.size() > 1) {
    try {
      const Tensor logits = reader_->read(pieces);
      int64_t row = 0;
      for (Part& part : parts) {
        if (part.piece.wanted) part.logits = logits.narrow(0, row++, 1);
      }
      return;
    } catch (const std::exception&) {
      for (size_t i = 0; i < parts.size(); ++i) {
        nn::KvCache& cache = *parts[i].piece.cache;
        if (cache.length() > lengths[i]) cache.crop(lengths[i]);
      }
    }
  }
  for (Part& part : parts) {
    try {
      alone(part);
    } catch (...) {
      part.error = std::current_exception();
    }
  }
}

Batch::Told Batch::step(const c10::intrusive_ptr<Module>& network, const Ids& paused,
                        const std::map<int64_t, Allowed>& allowed) {
  const int64_t epoch = prefixes_.check(*network);
  for (auto next = members_.begin(); next != members_.end();) {
    Member& member = *next++;
    if (member.session->cancelled()) drop(member, epoch);
  }
  std::vector<Part> parts = parts_of_pass(generative(*network), paused, epoch);
  read(parts, network);
  Told told;
  for (Part& part : parts) {
    Member& member = *part.member;
    Session& session = *member.session;
    if (session.cancelled()) continue;
    try {
      if (part.error) std::rethrow_exception(part.error);
      if (!session.has_read(part.piece.time(), part.logits)) continue;
      const auto mine = allowed.find(member.id);
      const Added added = session.choose_next(mine == allowed.end() ? nullptr : &mine->second);
      told.members.push_back(member.id);
      told.tokens.push_back(added.ids.at(0));
      told.ends.push_back(added.ends.at(0));
      told.logprobs.push_back(added.logprobs.empty() ? 0 : added.logprobs[0]);
      told.cached.push_back(member.cached);
      if (added.done) drop(member, epoch);
    } catch (...) {
      errors_[member.id] = std::current_exception();
      told.failed.push_back(member.id);
      members_.remove_if([&](const Member& one) { return &one == &member; });
    }
  }
  return told;
}

void Batch::rethrow(int64_t member) {
  const auto found = errors_.find(member);
  if (found == errors_.end()) return;
  const std::exception_ptr error = found->second;
  errors_.erase(found);
  std::rethrow_exception(error);
}

}  // namespace voxtorch::generation
