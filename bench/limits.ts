import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { BenchError, peersFolder } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { summarise } from './statistics.js'

/** Operations, or bytes, a second; 0 for instructions that the processor does not have. */
export type Limits = Record<'reading' | 'float32' | 'bfloat16' | 'int8' | 'amx_bfloat16' | 'amx_int8', number>

const LABELS: Record<keyof Limits, string> = {
  reading: 'reading memory',
  float32: 'multiply and add, float32',
  bfloat16: 'dot products, bfloat16',
  int8: 'dot products, int8',
  amx_bfloat16: 'tiles, bfloat16',
  amx_int8: 'tiles, int8',
}

/** Compile peers/limits.cc for this processor, and return what it measures with so many threads in each round. */
export function measureLimits(threads: number, rounds: number): Limits[] {
  const folder = scratchFolder()
  try {
    const program = join(folder, 'limits')
    const flags = ['-O3', '-march=native', '-std=c++17', '-pthread']
    execFileSync(process.env.CXX ?? 'c++', [...flags, join(peersFolder, 'limits.cc'), '-o', program])
    return Array.from({ length: rounds }, () => {
      const limits: Limits = JSON.parse(execFileSync(program, [String(threads)], { encoding: 'utf8' }))
      return limits
    })
  } catch (cause) {
    throw new BenchError(`limits: ${String((cause as Error).message)}. CXX names the compiler.`)
  } finally {
    removeScratch(folder)
  }
}

/** Measure what this machine can do at most, and what part of it a large product and a product with a vector reach. */
export async function run({ rounds = 5 }: Options): Promise<Report> {
  const threads = availableParallelism()
  const measured = measureLimits(threads, rounds)
  const { rates, versions } = await measureRates()
  const reached: Partial<Record<keyof Limits, number>> = { float32: rates.gemm.voxtorch, reading: rates.gemv.voxtorch }
  const rows = (Object.keys(LABELS) as (keyof Limits)[]).flatMap((name): Row[] => {
    const limit = summarise(measured.map((one) => one[name] / 1e9))
    if (limit.max === 0) return []
    const own = reached[name]
    const ratio = own === undefined ? undefined : own / limit.median
    const unit = name === 'reading' ? 'GB/s' : 'GFLOP/s'
    const label = `${LABELS[name]}, ${threads} threads`
    return [
      { label, unit, voxtorch: summarise(own === undefined ? [] : [own]), torch: limit, against: 'machine', ratio },
    ]
  })
  return { question: 'limits', rounds, rows, rates, versions }
}
