import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const modules = new URL('../../dist/modules/', import.meta.url)
// Long enough rows for attention to pack its matrices.
const PROGRAM = `
  import { manualSeed, ops, randn } from '${new URL('index.js', modules)}'
  manualSeed(1)
  const values = [0, 1, 2].map(() => randn([2, 4, 128, 64]))
  const attend = ([q, k, v], dtype) =>
    ops.scaledDotProductAttention(q.to({ dtype }), k.to({ dtype }), v.to({ dtype }), null, 0, true).float()
  const wide = attend(values, 'float32')
  const errors = ['bfloat16', 'float16'].map((dtype) => attend(values, dtype).sub(wide).abs().max().div(wide.abs().max()).item())
  console.log(JSON.stringify([errors, process.env.ONEDNN_MAX_CPU_ISA ?? null]))
`
const run = (env: NodeJS.ProcessEnv): [errors: number[], isa: string | null] => {
  const { ATEN_CPU_CAPABILITY: _, ONEDNN_MAX_CPU_ISA: __, ...plain } = process.env
  const command = ['--input-type=module', '-e', PROGRAM]
  return JSON.parse(
    execFileSync(process.execPath, command, { cwd: fileURLToPath(modules), env: { ...plain, ...env } }).toString(),
  )
}

it.each(['default', 'avx2', 'avx512', undefined])(
  'attention in half precision works where ATen is held to %s',
  (level) => {
    const [errors] = run(level === undefined ? {} : { ATEN_CPU_CAPABILITY: level })
    // Rounded once more than the values themselves, which have 8 and 11 bits.
    expect(errors[0]).toBeLessThan(2 ** -6)
    expect(errors[1]).toBeLessThan(2 ** -9)
  },
)

it.runIf(process.arch === 'x64')('oneDNN is held back with ATen, unless it is told otherwise', () => {
  expect(run({ ATEN_CPU_CAPABILITY: 'default' })[1]).toBe('SSE41')
  expect(run({ ATEN_CPU_CAPABILITY: 'default', ONEDNN_MAX_CPU_ISA: 'AVX' })[1]).toBe('AVX')
  expect(run({})[1]).toBeNull()
})
