// The processes of one training have a launcher that ends all of them when one dies. This is for its own death.
#pragma once

namespace voxtorch {

// In a process that `voxtorch launch` has started (VOXTORCH_LAUNCHER_PID is its process): when the launcher is gone,
// even by SIGKILL, this process gets SIGTERM, and SIGKILL if it is still there after ten seconds. Does nothing a second
// time.
void end_with_launcher();

}  // namespace voxtorch
