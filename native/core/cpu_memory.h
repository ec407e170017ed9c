// Memory of CPU tensors. A network asks for the same sizes at every step; what libtorch's allocator gives back to the
// system in between comes as fresh pages again, and to fault those in takes up to a third of a forward pass.
#pragma once

#include <cstddef>

namespace voxtorch::memory {

// From here on CPU tensors of this process come from a cache of blocks. Blocks that nothing has used for ten seconds go
// back to the system, and cached and used blocks together stay within a quarter above the recent peak of the used ones.
// Does nothing a second time, or where VOXTORCH_NO_CPU_CACHE is set (for tools that watch each allocation).
void use_cpu_cache();

// Gives every cached block of 1 KiB and more back to the system.
void release_cpu_cache();

size_t cached_cpu_bytes();

}  // namespace voxtorch::memory
