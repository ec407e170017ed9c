// Memory of CPU tensors. A network asks for the same sizes at every step; what libtorch's allocator gives back to the
// system in between comes as fresh pages again, and to fault those in takes up to a third of a forward pass.
#pragma once

#include <cstddef>

namespace voxtorch::memory {

// From here on CPU tensors of this process come from heaps of our own. Memory that nothing has used for ten seconds
// goes back to the system, and cached and used memory together stay within a quarter above the recent peak of the used.
// Does nothing a second time, or where VOXTORCH_NO_CPU_CACHE is set (for tools that watch each allocation).
void use_cpu_cache();

// Gives what is cached, but for blocks below 1 KiB, back to the system.
void release_cpu_cache();

size_t cached_cpu_bytes();

// Memory in a mapping of its own, which is only address space until it is written to: for weights, of which a file may
// take the place. `give_mapping_back` takes the same number of bytes. Null where there is no room.
void* take_mapping(size_t bytes);
void give_mapping_back(void* data, size_t bytes);

}  // namespace voxtorch::memory
