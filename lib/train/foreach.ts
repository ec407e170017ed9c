import { opAsync } from '../native/call.js'
import type { Tensor } from '../tensor/index.js'

const NAMES = [
  'abs',
  'add',
  'addcdiv',
  'addcmul',
  'clamp_max',
  'clamp_min',
  'copy',
  'div',
  'lerp',
  'maximum',
  'mul',
  'neg',
  'reciprocal',
  'sign',
  'sqrt',
  'sub',
  'zero',
] as const

const kernels = Object.fromEntries(NAMES.map((name) => [name, opAsync(`aten::_foreach_${name}_`)]))

/** A kernel that is to be queued: all of a step are, together, once everything that they need is there. */
export type Job = () => Promise<unknown>

/** Queues jobs in their order. While they run nothing else may look at what they change. */
export const started = (jobs: readonly Job[]): Promise<unknown>[] => jobs.map((job) => job())

/** ATen's multi-tensor kernels, which every device has: each is a job that changes the tensors of its first list. */
export type Foreach = Record<(typeof NAMES)[number], (self: readonly Tensor[], ...rest: unknown[]) => void>

/** The kernels, adding their jobs to a list. */
export function foreach(jobs: Job[]): Foreach {
  return Object.fromEntries(
    Object.entries(kernels).map(([name, run]) => [name, (...args: unknown[]) => void jobs.push(() => run(...args))]),
  ) as Foreach
}

/** Fresh tensors with the values of a list; gradients that a job is still to fill are laid out as their parameters. */
export function copies(list: readonly Tensor[], run: Foreach, like = list): Tensor[] {
  const fresh = like.map((one) => one.emptyLike())
  run.copy(fresh, list)
  return fresh
}

const single = new Map<string, ReturnType<typeof opAsync>>()

/** The same for ATen's operators of single tensors, by name: those that work in place or fill `out`. */
export function queuedOps(jobs: Job[]): (name: string, ...args: unknown[]) => void {
  return (name, ...args) => {
    const run = single.get(name) ?? opAsync(`aten::${name}`)
    single.set(name, run)
    jobs.push(() => run(...args))
  }
}
