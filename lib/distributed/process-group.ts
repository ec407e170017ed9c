import { misuse, requireNumber, requireObject, requireOneOf, requireString, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op, opAsync } from '../native/call.js'
import { type Launch, launchedAs, readLaunch } from './environment.js'

export interface ProcessGroupOptions {
  /** 'gloo' carries CPU tensors; 'nccl' CUDA tensors, and CPU tensors over Gloo. Default 'gloo'. */
  backend?: 'gloo' | 'nccl'
  /** Milliseconds that a process waits for another, to meet and in every collective. Default 600,000: ten minutes. */
  timeout?: number
  /** This process's number, 0 … worldSize - 1. Default: the environment variable `RANK`. */
  rank?: number
  /** How many processes there are. Default: `WORLD_SIZE`. */
  worldSize?: number
  /** Host of rank 0. Default: `MASTER_ADDR`. */
  masterAddr?: string
  /** Port on which rank 0 serves the store where all meet. Default: `MASTER_PORT`. */
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
 * Joins the processes that train together, over libtorch's own c10d. Every process calls it once, with the environment
 * that `npx voxtorch launch`, torchrun or a cluster gives it; it resolves when all are there.
 *
 * **Waiting**: collectives are jobs of the one executor. The event loop stays free, but jobs queued behind a collective
 * wait until the other processes have answered, at most `timeout`. One group per process; workers share it with the
 * main thread's executor, and only one thread may use it.
 *
 * @throws DistributedError where the others do not come in time or cannot be reached
 * @throws ConfigError for options and variables that are missing or wrong, and where a group is open
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
    throw new ConfigError('There is a process group already: call destroyProcessGroup() before another one', {})
  }
  const launch = readLaunch(given)
  const { masterAddr, masterPort, rank, worldSize, listenFd } = launch
  opening = true
  try {
    // The socket can be used once.
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

// A collective that nobody answers must not hold up the end of the process.
const exiting = (code: number): void => leave(code & 255)

/** Closes the connections to the other processes, on the executor; what DistributedDataParallel used of them too. */
export async function destroyProcessGroup(): Promise<void> {
  if (!open) return
  const { id } = open
  open = null
  process.off('exit', exiting)
  await destroy(id)
}

/** Whether `initProcessGroup` was called and `destroyProcessGroup` not. */
export const isInitialized = (): boolean => open !== null

/** This process's number; before `initProcessGroup` what the launcher said, and 0 where there is no launcher. */
export const rank = (): number => (open ?? launchedAs()).rank

/** How many processes train together; before `initProcessGroup` what the launcher said, and 1 without one. */
export const worldSize = (): number => (open ?? launchedAs()).worldSize

/** This process's number on its machine: which GPU it should use. */
export const localRank = (): number => open?.localRank ?? Number(process.env.LOCAL_RANK ?? 0)

/** True in the one process that logs, evaluates and saves: rank 0. */
export const isMainProcess = (): boolean => rank() === 0

/** The open group's number in native code. */
export function groupId(where: string): number {
  if (open) return open.id
  throw new ConfigError(`${where} needs a process group: await initProcessGroup() first`, {})
}

/** A rank that exists. */
export function requireRank(where: string, argument: string, value: number): void {
  requireWhole(where, argument, value)
  if (value >= worldSize()) throw misuse(where, argument, `a rank below ${worldSize()}`, value)
}
