import { memoryStats } from '../../lib/index.js'

/** What this thread holds, without the jobs of other threads. */
export function counts(): { liveTensors: number; liveBytes: number; liveScopes: number } {
  const { liveTensors, liveBytes, liveScopes } = memoryStats()
  return { liveTensors, liveBytes, liveScopes }
}
