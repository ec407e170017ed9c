import { opAsync } from '../native/call.js'
import { isHalf } from '../tensor/dtype.js'
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

/**
 * ATen's in-place product of a half-precision tensor and a number rounds the number to half precision first on the CPU, so that
 * a momentum of 0.9 is 0.8984 in bfloat16; its quotient does not. Returns what to divide by, undefined to multiply.
 */
function divisorOf(self: Tensor | undefined, factor: unknown): number | number[] | undefined {
  if (self === undefined || !isHalf(self.dtype)) return undefined
  if (typeof factor === 'number') return 1 / factor
  return Array.isArray(factor) && typeof factor[0] === 'number' ? factor.map((one) => 1 / one) : undefined
}

/** The kernels, adding their jobs to a list. */
export function foreach(jobs: Job[]): Foreach {
  const run = Object.fromEntries(
    Object.entries(kernels).map(([name, run]) => [name, (...args: unknown[]) => void jobs.push(() => run(...args))]),
  ) as Foreach
  const { mul, div } = run
  run.mul = (self, factor) => {
    const divisor = divisorOf(self[0], factor)
    if (divisor === undefined) mul(self, factor)
    else div(self, divisor)
  }
  return run
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
  return (given, ...operands) => {
    const divisor = given === 'mul_' ? divisorOf(operands[0] as Tensor, operands[1]) : undefined
    const [name, args] = divisor === undefined ? [given, operands] : ['div_', [operands[0], divisor]]
    const run = single.get(name) ?? opAsync(`aten::${name}`)
    single.set(name, run)
    jobs.push(() => run(...args))
  }
}
