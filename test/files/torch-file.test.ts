import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LoadTorchOptions } from '../../lib/files/index.js'
import { CheckpointError, ConfigError, loadTorch, memoryStats, noGrad, scope, type Tensor } from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { difference, pythonCases } from './python-values.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-torch-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const cases = pythonCases('torch')
const pathOf = (name: string): string => {
  const path = join(folder, `${name.replaceAll(/\W/g, '-')}.pt`)
  writeFileSync(path, [...cases, ...pythonCases('torch-refused')].find((one) => one.name === name)!.file)
  return path
}

describe('equal to torch.load', () => {
  for (const { name, value } of cases) {
    it(name, async () => {
      const before = await settledTensors()
      for (const mmap of [false, true]) {
        await scope(async () => expect(difference(await loadTorch(pathOf(name), { mmap }), value)).toBeUndefined())
      }
      expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    })
  }
})

describe('what shares a storage shares it here', () => {
  for (const name of ['views, zip', 'views, before 1.6']) {
    it(name, async () => {
      await scope(async () => {
        const { base, transposed, middle } = await loadTorch<Record<string, Tensor>>(pathOf(name))
        noGrad(() => base!.setAt([7], 99))
        expect(middle!.toArray()).toEqual([99, 8])
        expect(transposed!.at(1, 1).item()).toBe(99)
      })
    })
  }

  it('also when it is converted', async () => {
    await scope(async () => {
      const { base, middle } = await loadTorch<Record<string, Tensor>>(pathOf('views, zip'), { dtype: 'bfloat16' })
      expect([base!.dtype, middle!.dtype]).toEqual(['bfloat16', 'bfloat16'])
      noGrad(() => base!.setAt([7], 99))
      expect(middle!.toArray()).toEqual([99, 8])
    })
  })

  it('and a change of mapped memory stays in this process', async () => {
    const path = pathOf('views, zip')
    await scope(async () => {
      const { base } = await loadTorch<Record<string, Tensor>>(path, { mmap: true })
      noGrad(() => base!.fill_(-1))
      const again = await loadTorch<Record<string, Tensor>>(path)
      expect(again.base!.at(23).item()).toBe(23)
    })
  })
})

describe('options', () => {
  it('dtype converts floating point tensors only', async () => {
    await scope(async () => {
      const found = await loadTorch<Record<string, Tensor>>(pathOf('dtypes, zip'), { dtype: 'float32' })
      const kinds = Object.entries(found).filter(([name]) => /^(b?float|half)/.test(name))
      expect(kinds.length).toBe(6)
      for (const [, value] of kinds) expect(value.dtype).toBe('float32')
      expect([found.int64!.dtype, found.bool!.dtype, found.complex64!.dtype]).toEqual(['int64', 'bool', 'complex64'])
    })
  })

  it('names reads what is asked', async () => {
    await scope(async () => {
      const path = pathOf('checkpoint, zip')
      const names = ['model.0.weight', 'optimizer.state.0.step']
      const found = await loadTorch<{ model: object; epoch: number; optimizer: { state: Map<number, object> } }>(path, {
        names,
      })
      expect(Object.keys(found.model)).toEqual(['0.weight'])
      expect(Object.keys(found.optimizer.state.get(0)!)).toEqual(['step'])
      expect(found.epoch).toBe(3)
      expect(found).not.toHaveProperty('grad')
      const all = await loadTorch<{ model: object }>(path, { names: (name) => name.startsWith('model.2.') })
      expect(Object.keys(all.model)).toEqual(['2.weight', '2.bias', '2.tied'])
      await expect(loadTorch(path, { names: ['model.0.wieght'] })).rejects.toThrow(
        /expected tensors named "model\.0\.wieght"/,
      )
    })
  })

  it('refuses wrong ones', async () => {
    const wrong = (options: unknown) => loadTorch(pathOf('one tensor, zip'), options as LoadTorchOptions)
    await expect(wrong({ dtype: 'int8' })).rejects.toThrow(ConfigError)
    await expect(wrong({ dtype: 'float' })).rejects.toThrow(ConfigError)
    await expect(wrong({ device: 'gpu' })).rejects.toThrow(ConfigError)
    await expect(wrong({ names: 'a' })).rejects.toThrow(ConfigError)
    await expect(wrong({ mmap: 1 })).rejects.toThrow(ConfigError)
    await expect(wrong(5)).rejects.toThrow(ConfigError)
    await expect(loadTorch(undefined as never)).rejects.toThrow(ConfigError)
  })
})

describe('files that are no data', () => {
  const reasons: Record<string, RegExp> = {
    module: /torch\.nn\.modules\.linear\.Linear.*model\.state_dict\(\)/,
    'module, before 1.6': /nn\.Module|torch\.nn\.modules\.linear\.Linear/,
    sparse: /sparse tensor\. Call to_dense\(\)/,
    'sparse rows': /sparse tensor\. Call to_dense\(\)/,
    quantised: /quantized.*dequantize\(\)/,
    meta: /meta tensor/,
    script: /TorchScript/,
    'big-endian': /big-endian/,
  }
  let before = 0
  beforeAll(async () => {
    before = await settledTensors()
  })

  for (const { name } of pythonCases('torch-refused')) {
    it(name, async () => {
      const path = pathOf(name)
      const error = await loadTorch(path).catch((cause) => cause)
      expect(error).toBeInstanceOf(CheckpointError)
      expect(error.message).toMatch(reasons[name]!)
      expect(error.file).toBe(path)
      expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    })
  }
})
