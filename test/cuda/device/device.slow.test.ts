import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'
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
    // Of a failure, its name and message: `.ci/run` prints the first lines of what is compared.
    expect(/(?:FAIL|Unhandled|FATAL)[\s\S]{0,2000}/.exec(said)?.[0]).toBeUndefined()
    expect(status).toBe(0)
  })
})
