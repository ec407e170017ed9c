import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { describe, expect, it } from 'vitest'
import { PATIENCE } from '../../patience.js'
import { buildDevice, buildKernels } from './build.mjs'

const preload = resolve('test/cuda/device/preload.mjs')
const run = (...values: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, values, {
    encoding: 'utf8',
    timeout: PATIENCE,
    env: { ...process.env, OMP_NUM_THREADS: '1', NODE_OPTIONS: '', VOXTORCH_GPU_CHECK_SIZE: '300' },
  })
  return { status, said: `${stdout}${stderr}` }
}

describe('the pretended CUDA device', () => {
  it('is compiled with the compiler of the addon, and so are our kernels for it', {
    timeout: 3 * PATIENCE,
  }, async () => {
    expect(await buildDevice()).toMatch(/\.so$/)
    expect(await buildKernels()).toMatch(/\.so$/)
  })

  it('gives what the CPU gives', () => {
    const { status, said } = run('--import', preload, 'bench/gpu/parity.mjs', 'parity')
    expect(said).toContain('all passed')
    expect(status).toBe(0)
  })

  it('leaves the other devices alone, where none was named', () => {
    const forward = `
      const vt = await import('./dist/modules/index.js')
      const { op } = await import('./dist/modules/native/call.js')
      const config = { modelType: 'llama', vocabSize: 97, hiddenSize: 64, intermediateSize: 96, numHiddenLayers: 2 }
      const model = vt.DecoderLM.fromConfig({ ...config, numAttentionHeads: 4 }, { device: 'cuda', seed: 3 }).eval()
      await model.forward({ inputIds: vt.tensor([[3, 14, 15]], { dtype: 'int64' }).to('cuda') })
      console.log(op('pretended_cuda::counts')())`
    const { said, status } = run('--import', preload, '--input-type=module', '-e', forward)
    expect(status).toBe(0)
    const { contexts, streamsBy } = JSON.parse(said)
    expect(contexts).toEqual([0])
    expect(Object.keys(streamsBy)).not.toEqual([])
    expect(Object.keys(streamsBy).filter((stream) => !/^0:[1-9]/.test(stream))).toEqual([])
  })

  it("ends a process that touches its memory as the host's", () => {
    const touch = `
      const { native } = await import('./dist/modules/native/addon.js')
      const vt = await import('./dist/modules/index.js')
      const { op } = await import('./dist/modules/native/call.js')
      op('pretended_cuda::touch')(vt.ones([4], { device: 'cuda' }))`
    const { status } = run('--import', preload, '--input-type=module', '-e', touch)
    expect(status).not.toBe(0)
  })

  it('does without a driver that is new enough, and says so', () => {
    const versions = `
      const { native } = await import('./dist/modules/native/addon.js')
      const { op } = await import('./dist/modules/native/call.js')
      console.log(op('voxtorch::versions')().config)`
    process.env.PRETENDED_CUDA_DRIVER = 'old'
    const { said, status } = run('--import', preload, '--input-type=module', '-e', versions)
    delete process.env.PRETENDED_CUDA_DRIVER
    expect(said).toMatch(/^unknown: .*driver version is insufficient/m)
    expect(status).toBe(0)
  })

  it('passes the tests of what was found with it', { timeout: 2 * PATIENCE }, () => {
    const vitest = resolve('node_modules/vitest/vitest.mjs')
    const config = 'test/cuda/device/vitest.config.ts'
    // Two processes for all files: each start loads libtorch, the device and its kernels.
    const { status, said } = run(vitest, 'run', '--config', config, '--no-isolate', 'test/cuda/device')
    // `.ci/run` prints the first lines of a failure: they name the tests that failed.
    const failure = /(?:FAIL|Unhandled|FATAL)[\s\S]{0,2000}/.exec(stripVTControlCharacters(said))?.[0]
    if (failure || status !== 0) throw new Error(failure ?? `vitest ended with ${status}: ${said.slice(-2000)}`)
  })
})
