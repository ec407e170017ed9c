import {
  argumentError,
  requireNumber,
  requireObject,
  requireOneOf,
  requireString,
  requireWhole,
} from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op, opAsync } from '../native/call.js'
import { type Launch, launchedAs, readLaunch } from './environment.js'

export interface ProcessGroupOptions {
  /** 'gloo' communicates CPU tensors; 'nccl' CUDA tensors, and CPU tensors over Gloo. Default 'gloo'. */
  backend?: 'gloo' | 'nccl'
  /** Milliseconds that a process waits for another, at the rendezvous and in every collective. Default 600,000: ten minutes. */
  timeout?: number
  /** Rank of this process, 0 … worldSize - 1. Default: the environment variable `RANK`. */
  rank?: number
  /** Number of processes. Default: `WORLD_SIZE`. */
  worldSize?: number
  /** Host of rank 0. Default: `MASTER_ADDR`. */
  masterAddr?: string
  /** Port on which rank 0 serves the rendezvous store. Default: `MASTER_PORT`. */
  masterPort?: number
}

interface OpenGroup extends Launch {
  id: number
}

const KEYS = ['backend', 'timeout', 'rank', 'worldSize', 'masterAddr', 'masterPort'] as const

const init = opAsync('voxtorch::distributed_init')
const destroy = opAsync('voxtorch::distributed_destroy')
const leave = op('voxtorch::distributed_leave')

let open: OpenGroup | null = null
let opening = false

/**
 * Join the processes that train together, with libtorch's own c10d. Every process calls it once, in the environment that `npx
 * voxtorch launch`, torchrun or a cluster sets up; it resolves when all have joined.
 *
 * **Waiting**: collectives are jobs of the only executor. The event loop stays free, but jobs queued after a collective wait
 * until the other processes have answered, at most `timeout`. There is one group per process; workers use the main thread's
 * executor, and only one thread may use the group.
 *
 * @throws DistributedError if the others do not join in time or cannot be reached
 * @throws ConfigError for options and variables that are missing or invalid, and if a group is open
 */
export async function initProcessGroup(options: ProcessGroupOptions = {}): Promise<void> {
  requireObject(WHERE, 'its options', options)
  for (const key of Object.keys(options)) requireOneOf(WHERE, 'an option', key, KEYS)
  const { backend = 'gloo', timeout = 600_000, ...given } = options
  requireOneOf(WHERE, 'backend', backend, ['gloo', 'nccl'])
  requireNumber(WHERE, 'timeout', timeout, { least: 1 })
  if (given.masterAddr !== undefined) requireString(WHERE, 'masterAddr', given.masterAddr)
  if (given.masterPort !== undefined) requireWhole(WHERE, 'masterPort', given.masterPort)
  if (open || opening) {
    throw new ConfigError('initProcessGroup: expected no open process group. Call destroyProcessGroup() first', {})
  }
  const launch = readLaunch(given)
  const { masterAddr, masterPort, rank, worldSize, listenFd } = launch
  opening = true
  try {
    // The socket can be used only once.
    if (listenFd >= 0) delete process.env.VOXTORCH_STORE_FD
    const serve = rank === 0 && !launch.launcherServes
    const id = await init(backend, masterAddr, masterPort, rank, worldSize, Math.ceil(timeout), serve, listenFd)
    open = { ...launch, id }
    process.on('exit', exiting)
  } finally {
    opening = false
  }
}

const WHERE = 'initProcessGroup'

// A collective without an answer must not delay the exit of the process.
const exiting = (code: number): void => leave(code & 255)

/** Close the connections to the other processes, on the executor, including those of DistributedDataParallel. */
export async function destroyProcessGroup(): Promise<void> {
  if (!open) return
  const { id } = open
  open = null
  process.off('exit', exiting)
  await destroy(id)
}

/** Return whether a process group is open. */
export const isInitialized = (): boolean => open !== null

/** Return the rank of this process; before `initProcessGroup` the launcher's value, and 0 without a launcher. */
export const getRank = (): number => (open ?? launchedAs()).rank

/** Return the number of processes; before `initProcessGroup` the launcher's value, and 1 without one. */
export const getWorldSize = (): number => (open ?? launchedAs()).worldSize

/** Return the rank of this process on its machine: the index of the GPU to use. */
export const getLocalRank = (): number => open?.localRank ?? Number(process.env.LOCAL_RANK ?? 0)

/** Return whether this is rank 0, the process that logs, evaluates and saves. */
export const isMainProcess = (): boolean => getRank() === 0

/** Return the open group's id in native code. */
export function groupId(where: string): number {
  if (open) return open.id
  throw new ConfigError(`${where}: expected an open process group. Await initProcessGroup() first`, {})
}

/** Check that a rank exists. */
export function requireRank(where: string, argument: string, value: number): void {
  requireWhole(where, argument, value)
  if (value >= getWorldSize()) throw argumentError(where, argument, `a rank below ${getWorldSize()}`, value)
}
