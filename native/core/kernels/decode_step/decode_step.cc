#include "core/kernels/decode_step/decode_step.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/kernels/decode_step/plan.h"
#include "core/kernels/decode_step/screen.h"
#include "core/kernels/decode_step/team.h"
#include "core/kernels/many_rows/args.h"

namespace voxtorch::kernels {

using at::Tensor;

namespace {

// Tokens before a head is copied to be screened: that takes as long as reading two or three.
constexpr int64_t kTokensUnscreened = 4;
// A head is not screened any more once, over all tokens, more than one word in so many had to be read all the same.
constexpr int64_t kMostRead = 4;

}  // namespace

class DecodeStep::Job final : public TeamJob {
 public:
  Job(std::unique_ptr<StepPlan> plan, int workers);

  void set(const Tensor& ids, const Tensor& embedded, const std::vector<int64_t>& places, const Tensor& mask,
           const Tensor& shift, float* logits);
  // Whether the next token's head is screened, which only its most likely words ask for.
  bool screens(bool likeliest);
  // Of each row, after a run whose head was.
  std::vector<int64_t> words();

 protected:
  int64_t chunks(int phase) const override;
  void begin(int worker, int phase) override;
  void compute(int worker, int phase, int64_t chunk) override;
  void commit(int worker, int phase, int64_t chunk) override;

 private:
  // Memory of one worker.
  struct alignas(64) Worker {
    float* input;           // [rows, most_in]: after the norm, or what attention has
    float* paired;          // as bfloat16 wants it
    float *lanes, *codes;   // as nf4 wants it, and kinds with integer inputs
    float *first, *second;  // [rows, most_chunk]
    float* sums;            // of many_rows.h
    float* turned;
    float* normed;               // [rows, (heads + kv_heads) * head_dim]: query and key
    float *own_key, *own_value;  // of the cache's type
    const float* from;           // the phase's input
  };
  // What a chunk of attention sees: pieces [first, last) of kStepPlaces of one row and key head.
  struct Sight {
    int64_t row, head, first, last;
  };

  // Of the plan, but for a head that is screened.
  const StepPhase& phase_of(int phase) const {
    const auto index = static_cast<size_t>(phase);
    const bool head = index + 1 == plan_->phases.size();
    return head && screens_.load(std::memory_order_acquire) ? rough_head_ : plan_->phases[index];
  }
  void look_up(const int64_t* ids);
  // The first piece that is seen, and how many there are.
  std::pair<int64_t, int64_t> pieces(const StepPhase& phase, int64_t place) const;
  int64_t span(int64_t pieces) const;
  // Pieces of a chunk.
  int64_t span_of(const StepPhase& phase) const;
  Sight sight(const StepPhase& phase, int64_t chunk) const;
  int64_t place_of(int64_t row) const { return places_[static_cast<size_t>(row)].load(std::memory_order_relaxed); }
  float* piece(int64_t index, int64_t row, int64_t head) const;
  void norm_heads(const Worker& mine, const StepPhase& phase) const;
  void attend(Worker& mine, const StepPhase& phase, int64_t chunk) const;
  void keep_attended(const Worker& mine, const StepPhase& phase, int64_t chunk);
  void multiply(const Worker& mine, const StepProduct& product, int64_t begin, int64_t end, float* output) const;

  // In the memory of the row.
  int64_t at_cache(int64_t row, int64_t head, int64_t place) const {
    const int64_t bytes = plan_->type == StepType::kFloat32 ? 4 : 2;
    return (head * plan_->capacities[static_cast<size_t>(row)] + place) * plan_->head_dim * bytes;
  }

  const std::unique_ptr<StepPlan> plan_;
  const StepRows& build_;
  const FewRowsOutputs outputs_;
  std::vector<Worker> mine_;
  // Of the token. A late worker may read that of the next one.
  std::unique_ptr<std::atomic<int64_t>[]> places_;  // of each row
  std::atomic<bool> masked_{false};
  std::vector<int64_t> positions_;
  std::unique_ptr<bool[]> mask_;  // [rows, capacity]
  float* logits_ = nullptr;
  std::atomic<bool> screens_{false};
  std::unique_ptr<HeadScreen> screen_;
  StepPhase rough_head_;  // cut as the head itself is: who comes too late has a chunk of either
  int64_t asked_ = 0;     // tokens of which the most likely words were asked for
  int64_t screened_ = 0;  // those of them whose head was screened
  int64_t read_ = 0;      // words that were multiplied as they are, over all of those
};

DecodeStep::Job::Job(std::unique_ptr<StepPlan> plan, int workers)
    : TeamJob(workers, static_cast<int>(plan->phases.size()), plan->most_chunks),
      plan_(std::move(plan)),
      build_(step_rows()),
      outputs_(outputs_of()),
      places_(new std::atomic<int64_t>[static_cast<size_t>(plan_->rows)]()),
      positions_(static_cast<size_t>(plan_->rows)),
      mask_(new bool[static_cast<size_t>(plan_->rows * plan_->capacity)]()) {
  StepPlan& p = *plan_;
  const int64_t in = std::max(p.most_in, p.heads * p.head_dim);
  const int64_t out = std::max({p.rows * p.most_chunk, p.dim, span(p.most_pieces()) * p.group() * (p.head_dim + 2)});
  for (int i = 0; i < workers; ++i) {
    const int64_t prepared = p.most_prepared / static_cast<int64_t>(sizeof(float)) + 1;
    mine_.push_back({p.memory(p.rows * in), p.memory(p.rows * in), p.memory(prepared), p.memory(prepared),
                     p.memory(out), p.memory(out), p.memory(p.many() ? p.rows * kPanelOutputs : 0),
                     p.memory((p.group() + 1) * p.head_dim),
                     p.memory(p.norm_heads > 0 ? p.rows * (p.heads + p.kv_heads) * p.head_dim : 0),
                     p.memory(p.head_dim), p.memory(p.head_dim), nullptr});
  }
}

void DecodeStep::Job::set(const Tensor& ids, const Tensor& embedded, const std::vector<int64_t>& places,
                          const Tensor& mask, const Tensor& shift, float* logits) {
  const StepPlan& p = *plan_;
  TORCH_INTERNAL_ASSERT(static_cast<int64_t>(places.size()) == p.rows && ids.numel() == p.rows && ids.is_contiguous());
  for (size_t row = 0; row < places.size(); ++row) {
    TORCH_INTERNAL_ASSERT(places[row] >= 0 && places[row] < p.capacities[row]);
    TORCH_INTERNAL_ASSERT(!mask.defined() || (mask.size(0) == p.rows && mask.size(1) >= places[row]));
  }
  if (embedded.defined()) {
    TORCH_INTERNAL_ASSERT(embedded.is_contiguous() && embedded.numel() == p.rows * p.dim);
    std::memcpy(p.stream, embedded.const_data_ptr<float>(), static_cast<size_t>(p.rows * p.dim) * sizeof(float));
  } else {
    look_up(ids.const_data_ptr<int64_t>());
  }
  if (p.embedding_scale != 1) {
    for (int64_t i = 0; i < p.rows * p.dim; ++i) p.stream[i] *= p.embedding_scale;
  }
  for (int64_t row = 0; row < p.rows; ++row) {
    const int64_t place = places[static_cast<size_t>(row)];
    const int64_t position = place + (shift.defined() ? shift.const_data_ptr<int64_t>()[row] : 0);
    positions_[static_cast<size_t>(row)] = std::clamp<int64_t>(position, 0, p.capacity - 1);
    places_[static_cast<size_t>(row)].store(place, std::memory_order_relaxed);
    if (mask.defined()) {
      std::memcpy(mask_.get() + row * p.capacity, mask.const_data_ptr<bool>() + row * mask.stride(0),
                  static_cast<size_t>(place));
    }
  }
  masked_.store(mask.defined(), std::memory_order_relaxed);
  logits_ = logits;
}

void DecodeStep::Job::look_up(const int64_t* ids) {
  const StepPlan& p = *plan_;
  const int64_t bytes = p.type == StepType::kFloat32 ? 4 : 2;
  for (int64_t row = 0; row < p.rows; ++row) {
    TORCH_CHECK_INDEX(ids[row] >= 0 && ids[row] < p.words_count, "input_ids must be from 0 to ", p.words_count - 1,
                      ", got ", ids[row]);
  }
  for (int64_t row = 0; row < p.rows; ++row) {
    build_.widen[static_cast<int>(p.type)](static_cast<const char*>(p.words) + ids[row] * p.dim * bytes,
                                           p.stream + row * p.dim, p.dim);
  }
}

std::pair<int64_t, int64_t> DecodeStep::Job::pieces(const StepPhase& phase, int64_t place) const {
  const int64_t first = phase.window > 0 ? std::max<int64_t>(0, place + 1 - phase.window) / kStepPlaces : 0;
  return {first, place / kStepPlaces + 1 - first};
}

int64_t DecodeStep::Job::span(int64_t pieces) const {
  return 1 + plan_->rows * plan_->kv_heads * pieces / (plan_->most_chunks / 2);
}

bool DecodeStep::Job::screens(bool likeliest) {
  bool now = likeliest && plan_->screened && asked_++ >= kTokensUnscreened;
  if (now && !screen_) {
    const StepPhase& head = plan_->phases.back();
    screen_ = std::make_unique<HeadScreen>(head.products.front().weight);
    rough_head_ = head;
    FewRows& rough = rough_head_.products.front().weight;
    rough = screen_->product();
    rough.rows = plan_->rows;
  }
  now = now && read_ * kMostRead <= screened_ * plan_->vocabulary;
  screens_.store(now, std::memory_order_release);
  return now;
}

std::vector<int64_t> DecodeStep::Job::words() {
  const StepPlan& p = *plan_;
  // The head's input once more: worker 0, who calls, need not have had a chunk of it.
  begin(0, static_cast<int>(p.phases.size()) - 1);
  const Worker& mine = mine_.front();
  const int64_t bytes = integer_row_bytes(p.dim);
  std::vector<int64_t> found;
  for (int64_t row = 0; row < p.rows; ++row) {
    screen_->candidates(mine.from + row * p.dim, reinterpret_cast<const char*>(mine.codes) + row * bytes,
                        logits_ + row * p.vocabulary, found);
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  FewRows head = p.phases.back().products.front().weight;
  head.input = mine.from;
  head.output = logits_;
  if (head.type == FewRows::Weight::bfloat16) {
    for (int64_t row = 0; row < p.rows; ++row)
      build_.pair_up(mine.from + row * p.dim, mine.paired + row * p.dim, p.dim);
    head.input = mine.paired;
  }
  // All rows at once, as in a whole head: other numbers of rows sum in another order.
  const auto multiply = build_.dense[static_cast<int>(step_type(head.type))];
  for (const int64_t word : found) multiply(head, word, word + 1);
  ++screened_;
  read_ += static_cast<int64_t>(found.size());
  std::vector<int64_t> best;
  for (int64_t row = 0; row < p.rows; ++row) best.push_back(kernels::likeliest(logits_ + row * p.vocabulary, found));
  return best;
}

int64_t DecodeStep::Job::chunks(int phase) const {
  const StepPhase& what = phase_of(phase);
  if (!what.products.empty()) return static_cast<int64_t>(what.chunks.size());
  if (what.adds) return plan_->rows;
  const int64_t each = span_of(what);
  int64_t all = 0;
  for (int64_t row = 0; row < plan_->rows; ++row) all += (pieces(what, place_of(row)).second + each - 1) / each;
  return all * plan_->kv_heads;
}

int64_t DecodeStep::Job::span_of(const StepPhase& phase) const {
  int64_t most = 0;
  for (int64_t row = 0; row < plan_->rows; ++row) most = std::max(most, pieces(phase, place_of(row)).second);
  return span(most);
}

DecodeStep::Job::Sight DecodeStep::Job::sight(const StepPhase& phase, int64_t chunk) const {
  const int64_t each = span_of(phase), heads = plan_->kv_heads;
  for (int64_t row = 0; row < plan_->rows; ++row) {
    const int64_t count = pieces(phase, place_of(row)).second, chunks = heads * ((count + each - 1) / each);
    if (chunk < chunks) {
      const int64_t first = chunk / heads * each;
      return {row, chunk % heads, first, std::min(first + each, count)};
    }
    chunk -= chunks;
  }
  return {0, 0, 0, 0};  // of a worker that comes too late
}

// Of a query head.
float* DecodeStep::Job::piece(int64_t index, int64_t row, int64_t head) const {
  return plan_->pieces + ((index * plan_->rows + row) * plan_->heads + head) * (plan_->head_dim + 2);
}

void DecodeStep::Job::begin(int worker, int phase) {
  const StepPlan& p = *plan_;
  const StepPhase& what = phase_of(phase);
  Worker& mine = mine_[static_cast<size_t>(worker)];
  if (what.products.empty()) {
    if (what.query_norm != nullptr) norm_heads(mine, what);
    return;
  }
  mine.from = mine.input;
  int64_t in = p.dim;
  if (what.input == StepPhase::Input::stream && what.norm == nullptr) {
    mine.from = p.stream;
  } else if (what.input == StepPhase::Input::stream) {
    for (int64_t row = 0; row < p.rows; ++row) {
      build_.norm({p.stream + row * p.dim, what.norm, mine.input + row * p.dim, p.dim, p.eps});
    }
  } else if (what.input == StepPhase::Input::attended) {
    in = p.heads * p.head_dim;
    // The phase before is that of attention, or one of adapters after it.
    const StepPhase* attention = &what;
    while (attention->keys.empty()) --attention;
    const int64_t stride = p.rows * p.heads * (p.head_dim + 2);
    for (int64_t row = 0; row < p.rows; ++row) {
      const int64_t count = pieces(*attention, place_of(row)).second;
      for (int64_t head = 0; head < p.heads; ++head) {
        build_.join({piece(0, row, head), mine.input + (row * p.heads + head) * p.head_dim, p.head_dim, count, stride});
      }
    }
  } else {
    in = p.inner_width;
    mine.from = p.inner;
  }
  using Weight = FewRows::Weight;
  bool paired = false, lanes = false, codes = false;
  for (const StepProduct& one : what.products) {
    const Weight type = one.weight.type;
    if (type == Weight::bfloat16 && !std::exchange(paired, true)) {
      for (int64_t row = 0; row < p.rows; ++row) build_.pair_up(mine.from + row * in, mine.paired + row * in, in);
    } else if (type == Weight::nf4 && !std::exchange(lanes, true)) {
      prepare_rows(type, mine.from, p.rows, in, mine.lanes);
    } else if (has_integer_inputs(type) && !std::exchange(codes, true)) {
      if (p.many())
        many_rows_build().prepare(mine.from, p.rows, in, mine.codes);
      else
        prepare_rows(type, mine.from, p.rows, in, mine.codes);
    }
  }
}

void DecodeStep::Job::multiply(const Worker& mine, const StepProduct& product, int64_t begin, int64_t end,
                               float* output) const {
  FewRows weight = product.weight;
  weight.stride = end - begin;
  weight.output = output - begin;
  switch (weight.type) {
    case FewRows::Weight::float32:
      weight.input = mine.from;
      build_.dense[0](weight, begin, end);
      break;
    case FewRows::Weight::bfloat16:
      weight.input = mine.paired;
      build_.dense[1](weight, begin, end);
      break;
    case FewRows::Weight::float16:
      weight.input = mine.from;
      build_.dense[2](weight, begin, end);
      break;
    default:
      weight.input = weight.type == FewRows::Weight::nf4 ? mine.lanes : mine.codes;
      if (plan_->many() && has_integer_inputs(weight.type))
        many_rows_build().outputs(weight, begin, end, mine.sums);
      else
        outputs_(weight, begin, end);
  }
  if (product.lora_b == nullptr) return;
  for (int64_t row = 0; row < plan_->rows; ++row) {
    build_.add_product(product.lora_b + begin * product.rank, plan_->low + row * plan_->low_width + product.lora_column,
                       product.rank, product.lora_scaling, output + row * weight.stride, weight.stride);
  }
}

void DecodeStep::Job::compute(int worker, int phase, int64_t chunk) {
  Worker& mine = mine_[static_cast<size_t>(worker)];
  const StepPhase& what = phase_of(phase);
  if (what.adds) {
    const int64_t dim = plan_->dim;
    return build_.norm({plan_->branch + chunk * dim, what.norm, mine.first, dim, plan_->eps});
  }
  if (what.products.empty()) return attend(mine, what, chunk);
  const auto [index, begin, end] = what.chunks[static_cast<size_t>(chunk)];
  const StepProduct& product = what.products[index];
  multiply(mine, product, begin, end, mine.first);
  if (what.output != StepPhase::Output::gated) return;
  multiply(mine, what.products[1], begin, end, mine.second);
  for (int64_t row = 0; row < plan_->rows; ++row) {
    const int64_t at = row * (end - begin);
    build_.gate(plan_->function, mine.first + at, mine.second + at, end - begin);
  }
}

void DecodeStep::Job::commit(int worker, int phase, int64_t chunk) {
  const Worker& mine = mine_[static_cast<size_t>(worker)];
  const StepPhase& what = phase_of(phase);
  if (what.adds) {
    float* const to = plan_->stream + chunk * plan_->dim;
    for (int64_t i = 0; i < plan_->dim; ++i) to[i] += plan_->residual_scale * mine.first[i];
    return;
  }
  if (what.products.empty()) return keep_attended(mine, what, chunk);
  const auto [index, begin, end] = what.chunks[static_cast<size_t>(chunk)];
  const StepProduct& product = what.products[index];
  for (int64_t row = 0; row < plan_->rows; ++row) {
    const float* from = mine.first + row * (end - begin);
    float* to = (what.to != nullptr ? what.to : logits_) + row * what.width + product.column + begin;
    if (what.output == StepPhase::Output::add) {
      for (int64_t i = 0; i < end - begin; ++i) to[i] += plan_->residual_scale * from[i];
    } else {
      std::memcpy(to, from, static_cast<size_t>(end - begin) * sizeof(float));
    }
  }
}

void DecodeStep::Job::norm_heads(const Worker& mine, const StepPhase& phase) const {
  const StepPlan& p = *plan_;
  const bool each = p.norm_heads == 1;
  const int64_t query = p.heads * p.head_dim, key = p.kv_heads * p.head_dim;
  for (int64_t row = 0; row < p.rows; ++row) {
    const float* from = p.qkv + row * p.qkv_width;
    float* to = mine.normed + row * (query + key);
    const int64_t query_step = each ? p.head_dim : query, key_step = each ? p.head_dim : key;
    for (int64_t at = 0; at < query; at += query_step) {
      build_.norm({from + at, phase.query_norm, to + at, query_step, p.eps});
    }
    for (int64_t at = query; at < query + key; at += key_step) {
      build_.norm({from + at, phase.key_norm, to + at, key_step, p.eps});
    }
  }
}

void DecodeStep::Job::attend(Worker& mine, const StepPhase& phase, int64_t chunk) const {
  const StepPlan& p = *plan_;
  const int64_t group = p.group(), dim = p.head_dim;
  const Sight seen = sight(phase, chunk);
  const auto row = static_cast<size_t>(seen.row);
  const int64_t place = place_of(seen.row);
  const auto [first, count] = pieces(phase, place);
  const int64_t earliest = phase.window > 0 ? std::max<int64_t>(0, place + 1 - phase.window) : 0;
  const float* qkv = p.qkv + seen.row * p.qkv_width;
  const int64_t position = positions_[row];
  StepAttention args{};
  const float* heads = p.norm_heads > 0 ? mine.normed + seen.row * (p.heads + p.kv_heads) * dim : qkv;
  args.query = heads + seen.head * (p.by_group ? group + 2 : group) * dim;
  args.rotated = p.rotated;
  args.cos = phase.cos + position * p.rotated / 2;
  args.sin = phase.sin + position * p.rotated / 2;
  args.keys = phase.keys[row] + at_cache(seen.row, seen.head, 0);
  args.values = phase.values[row] + at_cache(seen.row, seen.head, 0);
  args.mask = masked_.load(std::memory_order_relaxed) ? mask_.get() + seen.row * p.capacity : nullptr;
  args.group = group;
  args.dim = dim;
  args.scale = p.attention_scale;
  args.cap = p.attention_cap;
  args.turned = mine.turned;
  args.own_key = mine.own_key;
  args.own_value = mine.own_value;
  for (int64_t i = seen.first; i < seen.last; ++i) {
    args.begin = std::max(earliest, (first + i) * kStepPlaces);
    args.end = std::min(place, (first + i + 1) * kStepPlaces);
    args.output = mine.first + (i - seen.first) * group * (dim + 2);
    if (i + 1 == count) {
      args.key = p.by_group ? args.query + group * dim : heads + (p.heads + seen.head) * dim;
      args.value = p.by_group ? args.key + dim : qkv + (p.heads + p.kv_heads + seen.head) * dim;
    }
    build_.attend[static_cast<int>(p.type)](args);
  }
}

void DecodeStep::Job::keep_attended(const Worker& mine, const StepPhase& phase, int64_t chunk) {
  const StepPlan& p = *plan_;
  const int64_t size = p.group() * (p.head_dim + 2);
  const Sight seen = sight(phase, chunk);
  const int64_t place = place_of(seen.row);
  for (int64_t i = seen.first; i < seen.last; ++i) {
    std::memcpy(piece(i, seen.row, seen.head * p.group()), mine.first + (i - seen.first) * size,
                static_cast<size_t>(size) * sizeof(float));
  }
  if (seen.last < pieces(phase, place).second) return;
  const size_t bytes = static_cast<size_t>(p.head_dim) * (p.type == StepType::kFloat32 ? 4 : 2);
  const auto row = static_cast<size_t>(seen.row);
  std::memcpy(phase.keys[row] + at_cache(seen.row, seen.head, place), mine.own_key, bytes);
  std::memcpy(phase.values[row] + at_cache(seen.row, seen.head, place), mine.own_value, bytes);
}

std::unique_ptr<DecodeStep> DecodeStep::make(const StepNetwork& network, int workers) {
  auto plan = step_plan(network, workers);
  if (!plan) return nullptr;
  Team::instance().shrink(workers);
  return std::unique_ptr<DecodeStep>(new DecodeStep(std::make_shared<Job>(std::move(plan), workers)));
}

void DecodeStep::run(const Tensor& ids, const Tensor& embedded, const std::vector<int64_t>& places, const Tensor& mask,
                     const Tensor& shift, float* logits) {
  job_->screens(false);
  job_->set(ids, embedded, places, mask, shift, logits);
  Team::instance().run(job_);
}

std::vector<int64_t> DecodeStep::likeliest(const Tensor& ids, const Tensor& embedded,
                                           const std::vector<int64_t>& places, const Tensor& mask, const Tensor& shift,
                                           float* logits) {
  const bool screened = job_->screens(true);
  job_->set(ids, embedded, places, mask, shift, logits);
  Team::instance().run(job_);
  return screened ? job_->words() : std::vector<int64_t>();
}

}  // namespace voxtorch::kernels
