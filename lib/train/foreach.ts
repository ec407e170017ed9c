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

/** Deferred queueing of a kernel. The jobs of a step are queued together, once all their inputs exist. */
export type Job = () => Promise<unknown>

/** Queue jobs in order. While they run, nothing else may access the tensors that they change. */
export const started = (jobs: readonly Job[]): Promise<unknown>[] => jobs.map((job) => job())

/** ATen's multi-tensor kernels, which every device has. Each is a job that changes the tensors of its first list. */
export type Foreach = Record<(typeof NAMES)[number], (self: readonly Tensor[], ...rest: unknown[]) => void>

/**
 * Return the divisor to use instead of a factor, or undefined to multiply. On the CPU, ATen's in-place product of a
 * half-precision tensor and a number first rounds the number to half precision (a momentum of 0.9 becomes 0.8984 in bfloat16);
 * its quotient does not.
 */
function divisorOf(self: Tensor | undefined, factor: unknown): number | number[] | undefined {
  if (self === undefined || !isHalf(self.dtype)) return undefined
  if (typeof factor === 'number') return 1 / factor
  return Array.isArray(factor) && typeof factor[0] === 'number' ? factor.map((one) => 1 / one) : undefined
}

/** Return the kernels; each call adds a job to the list. */
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

/** Copy a list of tensors. Gradients that a queued job has yet to fill are laid out like their parameters. */
export function copies(list: readonly Tensor[], run: Foreach, like = list): Tensor[] {
  const fresh = like.map((one) => one.emptyLike())
  run.copy(fresh, list)
  return fresh
}

const single = new Map<string, ReturnType<typeof opAsync>>()

/** Return ATen's single-tensor operators by name as jobs: those that work in place or fill `out`. */
export function queuedOps(jobs: Job[]): (name: string, ...args: unknown[]) => void {
  return (given, ...operands) => {
    const divisor = given === 'mul_' ? divisorOf(operands[0] as Tensor, operands[1]) : undefined
    const [name, args] = divisor === undefined ? [given, operands] : ['div_', [operands[0], divisor]]
    const run = single.get(name) ?? opAsync(`aten::${name}`)
    single.set(name, run)
    jobs.push(() => run(...args))
  }
}
