import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { loadSafetensors, memoryStats, ones, scope, type Tensor } from '../lib/index.js'

/** Where tensors are made: `cuda` on the pretended device (test/cuda/device). */
export const here = (): 'cpu' | 'cuda' => (ones([1]).device === 'cpu' ? 'cpu' : 'cuda')

export interface Fixture<Case> {
  cases: Case[]
  tensors: Record<string, Tensor>
  metadata: Record<string, string>
}

/** Absolute path of a file below test/fixtures. */
export const fixturePath = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url))

/**
 * Reads `test/fixtures/<name>.safetensors`. The scripts in test/reference put the list of cases, as JSON, into the
 * file's metadata under `cases`; tensors are called `<case>/<role>/<name>`.
 */
export async function fixture<Case = Record<string, unknown>>(name: string): Promise<Fixture<Case>> {
  const { tensors, metadata } = await loadSafetensors(fixturePath(`${name}.safetensors`))
  return { cases: JSON.parse(metadata.cases ?? '[]') as Case[], tensors, metadata }
}

/** The tensors of one case and role, without the prefix, in the file's order. */
export function tensorsOf<Case>(file: Fixture<Case>, name: string, role: string): Record<string, Tensor> {
  const prefix = `${name}/${role}/`
  return Object.fromEntries(
    Object.entries(file.tensors)
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value]),
  )
}

/** max|a-b| / max|b|; Infinity where one is NaN or infinite and the other is not the same. */
export function relativeError(actual: ArrayLike<number | bigint>, expected: ArrayLike<number | bigint>): number {
  let difference = 0
  let scale = 0
  for (let i = 0; i < expected.length; i++) {
    const a = Number(actual[i])
    const b = Number(expected[i])
    if (Object.is(a, b) || a === b) {
      if (Number.isFinite(b)) scale = Math.max(scale, Math.abs(b))
      continue
    }
    if (!Number.isFinite(a) || !Number.isFinite(b)) return Number.POSITIVE_INFINITY
    difference = Math.max(difference, Math.abs(a - b))
    scale = Math.max(scale, Math.abs(b))
  }
  return scale === 0 ? difference : difference / scale
}

/** Same shape and max|a-b| / max|b| <= tolerance: what "equal within 1e-5" means in this project. */
export function expectClose(actual: Tensor, expected: Tensor, tolerance = 1e-5, label = ''): void {
  expect(actual.shape, `${label} shape`).toEqual(expected.shape)
  const error = relativeError(numbers(actual), numbers(expected))
  expect(error, `${label} max|a-b| / max|b|`).toBeLessThanOrEqual(tolerance)
}

/** max|a − b| / max|b|, computed without leaving the tensors. */
export const difference = (a: Tensor, b: Tensor): number =>
  (a.sub(b).abs().max().item() as number) / (b.abs().max().item() as number)

/** The most that rounding once to a dtype changes a value, as a share of it. */
export const ROUNDING = { float64: 2 ** -53, float32: 2 ** -24, float16: 2 ** -11, bfloat16: 2 ** -8 } as const

/**
 * As near to the float64 result `exact` as PyTorch's own operators come, which make `theirs` of the same inputs in the same
 * dtype on this processor: within 4 times their error, or 4 roundings, or what a sum of so many `terms` in float32 loses in
 * one order or another (√terms roundings, Higham 2002, 2.8). For what is fused or blocked. It still sees a fault of 1e-5.
 */
export function expectAsExact(ours: Tensor, theirs: Tensor, exact: Tensor, terms: number, label = ''): void {
  expect([ours.shape, ours.dtype], label).toEqual([theirs.shape, theirs.dtype])
  const error = (found: Tensor) => relativeError(numbers(found.double()), numbers(exact))
  const once = ROUNDING[theirs.dtype as keyof typeof ROUNDING]
  const limit = 4 * Math.max(error(theirs), once, Math.sqrt(terms) * ROUNDING.float32)
  expect(error(ours), `${label} max|a-b| / max|b|`).toBeLessThanOrEqual(limit)
}

/**
 * As near to the float64 result `exact` on the whole as `theirs`, which rounds as coarsely and in as many places: half
 * precision, or inputs that become integers. There a difference of one rounding in float32 moves some values to the next
 * step, and with them what is computed of them, so that two right results are as far from each other as from `exact`: only
 * how far they are off can be compared. The mean over many numbers hardly varies, and may be half as large again.
 */
export function expectAsNear(ours: Tensor, theirs: Tensor, exact: Tensor, label = ''): void {
  expect(ours.shape, `${label} shape`).toEqual(exact.shape)
  const error = (found: Tensor) => scope(() => found.double().sub(exact).square().mean().sqrt().item() as number)
  expect(error(ours), `${label} root mean square error`).toBeLessThanOrEqual(1.5 * error(theirs))
}

/** The elements in row-major order, whatever the strides. */
export function numbers(tensor: Tensor): (number | bigint)[] {
  // Several times as fast as nesting and flattening.
  if (/^float(32|64)$/.test(tensor.dtype)) return Array.from(tensor.dataSync() as Float32Array)
  return ([tensor.toArray()] as unknown[]).flat(Number.POSITIVE_INFINITY) as (number | bigint)[]
}

/**
 * How many tensors live once everything that earlier code let go of is collected. A test that counts tensors across an
 * `await` begins with this, since a collection in between would lower its count. A collection takes 70 ms: the last one is
 * the first that frees nothing.
 */
export async function settledTensors(): Promise<number> {
  // Finalizers run in later turns of the loop: those of one registry in each, and Node has registries of its own.
  const turns = async (count: number) => {
    for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }
  // What a job of this turn has read through a WeakRef lives until the turn ends.
  await turns(1)
  for (let last = memoryStats().liveTensors; ; ) {
    ;(globalThis.gc as () => void)()
    await turns(5)
    const live = memoryStats().liveTensors
    if (live === last) {
      // On a busy machine a finalizer may run later still.
      await turns(10)
      if (memoryStats().liveTensors === live) return live
    }
    last = live
  }
}
