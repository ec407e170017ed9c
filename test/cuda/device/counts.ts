import { op } from '../../../lib/native/call.js'

/** What the pretended device has counted since `reset`; contexts and peakBytes since the process began. */
export interface Counts {
  /** Devices on which anything was made. */
  contexts: number[]
  liveBytes: number
  peakBytes: number
  bytesToDevice: number
  /** Of these, those that nobody waited for: through pinned memory. */
  bytesToDeviceUnwaited: number
  bytesToHost: number
  launches: number
  launchesBy: Record<string, number>
  /** Graphs that were captured. A graph that is launched is one launch. */
  captures: number
  /** Kernels in the graphs that were launched. */
  replayed: number
  replayedBy: Record<string, number>
  /** How often the host waited for the device, on whatever thread, and for what. */
  waits: number
  waitsBy: Record<string, number>
  /** Those on the thread of the event loop. */
  mainThreadWaits: number
  mainThreadWaitsBy: Record<string, number>
  /** Launches by `device:stream`; stream 0 is the legacy one. */
  streamsBy: Record<string, number>
}

const read = op('pretended_cuda::counts')
const clear = op('pretended_cuda::reset')

export const counts = (): Counts => JSON.parse(read())

/** What `run` costs. */
export async function counted(run: () => unknown): Promise<Counts> {
  clear()
  await run()
  return counts()
}
