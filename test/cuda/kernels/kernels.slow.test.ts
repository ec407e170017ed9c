import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { PATIENCE } from '../../patience.js'
import { build, kernels } from './build.mjs'
import { mutations, noticed } from './mutations.mjs'
import { translate } from './translate.mjs'

// The CUDA kernels without a GPU (README.md). Compiling them for the first time takes a minute of one core; then nothing.

const supported = process.arch === 'x64' && process.platform === 'linux'

async function driven(kind: 'plain' | 'asan', given: string[], env: Record<string, string> = {}): Promise<string> {
  const driver = await build(kind)
  const { status, stdout, stderr } = spawnSync(driver, given, {
    encoding: 'utf8',
    timeout: PATIENCE,
    env: { ...process.env, LD_PRELOAD: '', ASAN_OPTIONS: '', UBSAN_OPTIONS: '', ...env },
  })
  expect(status, `${stdout}\n${stderr}`).toBe(0)
  return stdout.trim().split('\n').at(-1)!
}

describe.skipIf(!supported)('the emulated CUDA kernels', () => {
  test('compute what plain loops in float64 do, whatever masked keys hold', async () => {
    expect(kernels).toHaveLength(10)
    expect(await driven('plain', [])).toMatch(/^\d{3,} passed, 0 failed$/)
  })

  test('and in another order of threads, with other inputs', async () => {
    expect(await driven('plain', ['all', 'quick'], { EMULATION_SEED: '7' })).toMatch(/^\d+ passed, 0 failed$/)
  })

  test('need no more shared memory than sm_86 and sm_89 have', async () => {
    const out = await driven('plain', ['gated_position_attention'], { EMULATION_SHARED: String(99 * 1024) })
    expect(out).toMatch(/^\d+ passed, 0 failed$/)
  })

  test('stay within their memory, by AddressSanitizer and UBSan', async () => {
    const cases = process.env.VOXTORCH_CUDA_SUITES === 'all' ? [] : ['all', 'quick']
    expect(await driven('asan', cases)).toMatch(/^\d{3,} passed, 0 failed$/)
  })

  // A few of the mutations; `node test/cuda/kernels/main.mjs --mutations` tries all.
  test.each([
    ['rms_norm_residual', 'all blocks add to one part'],
    ['window_cross_attention', 'no bound on the queries'],
    ['decode_attention', 'tickets are not zero again'],
    ['few_rows_tiles', 'inputs behind the end'],
    ['transducer_loss', 'a state that a chunk begins within'],
    ['rotary_append', 'places that the cache does not have'],
    ['anti_aliased_snake', 'places that two tiles see count twice'],
    ['gated_position_attention', 'free keys give the distances a gradient'],
  ])('%s: %s is noticed', async (kernel, name) => {
    const [mutation] = mutations().filter((one) => one.kernel === kernel && one.name === name)
    expect(await noticed(mutation!, ['plain', 'asan'])).not.toBeNull()
  })
})

test('PTX becomes a call of the emulation, and what is not understood is refused', () => {
  const made = translate('asm volatile("mma {%0}, {%1};" : "+f"(sum[0]) : "r"(left) : "memory");', 'a.cu')
  expect(made).toContain(
    '::emulation::ptx("mma {%0}, {%1};", {::emulation::Operand("+f", sum[0]), ::emulation::Operand("r", left)});',
  )
  expect(() => translate('asm("nop");', 'a.cu')).toThrow(/a\.cu has PTX/)
})

test('a launch that the translation does not know is refused, not left out', () => {
  expect(() => translate('f <<<1, 2>>>(x);', 'a.cu')).toThrow(/a\.cu launches a kernel/)
  expect(() => translate('extern __shared__ float *x[];', 'a.cu')).toThrow(/a\.cu/)
})
