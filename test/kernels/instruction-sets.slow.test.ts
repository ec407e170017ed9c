import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

// The kernels on older processors: each process is held to an instruction set and runs all of instruction-sets.mjs. A name that
// the processor lacks is replaced by what it has, so these run everywhere.
interface Results extends Record<string, unknown> {
  isa: string | null
  tilesOfInt8: { gelu: number; gelu_new: number; relu: number }
  attention: { bfloat16: number; float16: number }
}

async function run(capability: string, threads: number, isa?: string): Promise<Results> {
  const { ATEN_CPU_CAPABILITY: _, ONEDNN_MAX_CPU_ISA: __, OMP_NUM_THREADS: ___, ...plain } = process.env
  const env = {
    ...plain,
    ...(capability !== '' && { ATEN_CPU_CAPABILITY: capability }),
    ...(isa && { ONEDNN_MAX_CPU_ISA: isa }),
    ...(threads > 0 && { OMP_NUM_THREADS: String(threads) }),
  }
  const script = fileURLToPath(new URL('instruction-sets.mjs', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [script, String(threads)], { env })
  return JSON.parse(stdout)
}

const baseline = await run('default', 1, 'ALL')
const fused = await run('avx2', 1, 'ALL')
const settings: [name: string, capability: string, threads: number, isa?: string][] = [
  ['ATen and oneDNN at their oldest, 2 threads', 'default', 2],
  ['AVX2, 2 threads', 'avx2', 2],
  ['ATen at AVX2, oneDNN as it likes', 'avx2', 2, 'ALL'],
  ['AVX-512, 3 threads', 'avx512', 3, 'ALL'],
  ['AVX-512 without VNNI', 'avx512', 2, 'AVX512_CORE'],
  ['what the processor has', '', 0],
]

describe.each(settings)('%s', async (_, capability, threads, isa) => {
  const found = await run(capability, threads, isa)

  it.each(['rowsInIntegers', 'fewRows', 'rmsNormResidual', 'gatedPositionAttention', 'antiAliasedSnake'])(
    '%s gives the bits of the oldest processor on one thread',
    (name) => {
      expect(baseline[name]).toHaveLength(64)
      expect(found[name]).toBe(baseline[name])
    },
  )

  it('denseRows gives the bits of every processor with fused multiply-adds', () => {
    const expected = capability === 'default' ? baseline : fused
    expect(expected.denseRows).toHaveLength(64)
    expect(found.denseRows).toBe(expected.denseRows)
  })

  it('int8 weights in tiles equal the product of rounded rows', () => {
    const { gelu, gelu_new: tanh, relu } = found.tilesOfInt8
    expect(gelu).toBeLessThan(1e-5)
    expect(tanh).toBeLessThan(1e-5)
    // In bfloat16.
    expect(relu).toBeLessThan(2 ** -8)
  })

  it('attention works in half precision', () => {
    // Rounded once more than the values themselves, which have 8 and 11 bits.
    expect(found.attention.bfloat16).toBeLessThan(2 ** -6)
    expect(found.attention.float16).toBeLessThan(2 ** -9)
  })

  it.runIf(process.arch === 'x64' && capability !== 'avx2')(
    'oneDNN is held back with ATen, unless told otherwise',
    () => {
      expect(found.isa).toBe(isa ?? (capability === 'default' ? 'SSE41' : null))
    },
  )
})
