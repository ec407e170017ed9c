// Large operators that a JavaScript thread calls: they run on the executor's thread, with all intra-op threads, while
// the caller waits. So one pool of threads computes, whoever calls. Where the executor has other work, the caller
// computes alone on its own core.
#pragma once

#include <functional>
#include <limits>
#include <string>

#include "core/runtime/context.h"

namespace voxtorch {

constexpr int64_t kNeverWide = std::numeric_limits<int64_t>::max();

// Number of elements of its inputs from which an operator takes longer on one core than all cores and handing it over
// take together; kNeverWide for an operator that gains nothing, or whose result would depend on the number of threads.
int64_t wide_from(const std::string& name, bool is_view, bool is_factory);

// Runs `work` on the executor's thread in this context, and rethrows what it throws. False, and nothing was run, where
// the executor has other work or one thread only.
bool run_wide(const Context& context, const std::function<void()>& work);

}  // namespace voxtorch
