import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { TorchValue } from '../../lib/files/index.js'
import {
  AdamW,
  CheckpointError,
  ConfigError,
  DTypeError,
  Linear,
  load,
  randn,
  save,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-save-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, 'saved.pt')

const returned = async (value: TorchValue) => {
  await save(value, path)
  return load(path)
}

test('plain values come back, integers of any size included', async () => {
  const integers = [
    0,
    -1,
    255,
    256,
    2 ** 31 - 1,
    -(2 ** 31),
    2 ** 31,
    2 ** 53 - 1,
    2n ** 63n,
    -(2n ** 63n),
    -(2n ** 200n),
    128n ** 9n,
  ]
  const value = {
    ...{
      none: null,
      yes: true,
      no: false,
      text: 'é 日本 😀',
      half: 0.5,
      infinite: -Infinity,
      bytes: new Uint8Array([0, 128, 255]),
    },
    list: [1, ['two', []], {}],
  }
  expect(await returned(value)).toEqual(value)
  expect((await returned(integers)) as unknown[]).toEqual(
    integers.map((one) => (Number.isSafeInteger(Number(one)) ? Number(one) : one)),
  )
  expect(Object.is(await returned(-0), -0)).toBe(true)
  expect(await returned(Number.NaN)).toBeNaN()
  expect(await returned(new Set([1, 'a']))).toEqual(new Set([1, 'a']))
  expect(
    await returned(
      new Map<TorchValue, TorchValue>([
        [1, 'a'],
        [2, null],
      ]),
    ),
  ).toEqual(
    new Map<unknown, unknown>([
      [1, 'a'],
      [2, null],
    ]),
  )
})

test('tensors of every dtype with a storage, of any shape and strides', () =>
  scope(async () => {
    const dtypes = [
      'float32',
      'float64',
      'float16',
      'bfloat16',
      'int64',
      'int32',
      'int16',
      'int8',
      'uint8',
      'bool',
      'complex64',
    ] as const
    for (const dtype of dtypes) {
      const x = tensor([
        [1, 0, 3],
        [0, 5, 6],
      ]).to({ dtype })
      const [y, transposed, part] = (await returned([x, x.t(), x.at(1)])) as [Tensor, Tensor, Tensor]
      expect([y.dtype, y.shape, y.tolist()]).toEqual([dtype, [2, 3], x.tolist()])
      expect([transposed.tolist(), part.tolist()]).toEqual([x.t().tolist(), x.at(1).tolist()])
    }
    const [scalar, empty, wanted] = (await returned([
      tensor(2.5),
      zeros([0, 3]),
      zeros([1], { requiresGrad: true }),
    ])) as Tensor[]
    expect([scalar!.shape, scalar!.item(), empty!.shape, wanted!.tolist()]).toEqual([[], 2.5, [0, 3], [0]])
  }))

test('a checkpoint of a module and its optimizer', () =>
  scope(async () => {
    const layer = new Linear(2, 3)
    const optimizer = new AdamW(layer.parameters(), { lr: 0.1 })
    await layer
      .forward(randn([4, 2]))
      .sum()
      .backward()
    await optimizer.step()
    await save({ model: layer.stateDict(), epoch: 3 }, path)
    const saved = await load<{ model: Record<string, Tensor>; epoch: number }>(path)
    expect(saved.epoch).toBe(3)
    expect(saved.model.weight!.tolist()).toEqual(layer.weight.tolist())
    layer.loadStateDict(saved.model)
    layer.dispose()
  }))

test('what it cannot write is refused by its place, and leaves no file', async () => {
  const other = join(folder, 'refused.pt')
  const circle: unknown[] = []
  circle.push({ again: circle })
  await expect(save(circle as TorchValue, other)).rejects.toThrow(/expected value\[0\].again not to contain itself/)
  await expect(save({ a: [new Date() as never] }, other)).rejects.toThrow(
    /save: expected value.a\[0\] to be tensors and plain values, got a Date/,
  )
  await expect(save({ f: (() => 1) as never }, other)).rejects.toThrow(ConfigError)
  await expect(save('\ud800', other)).rejects.toThrow(/whole characters/)
  await scope(async () => {
    await expect(save(zeros([2], { dtype: 'float8_e5m2' }), other)).rejects.toThrow(DTypeError)
    await expect(save(zeros([2], { device: 'meta' }), other)).rejects.toThrow(/'meta'/)
  })
  await expect(save(1, join(folder, 'no/such/folder.pt'))).rejects.toThrow(CheckpointError)
  expect(() => readFileSync(other)).toThrow(/ENOENT/)
})

test('the pickle is what torch.load reads with weights_only', async () => {
  // data_writers_check.py loads such a file in Python; this is the pickle that it loaded.
  await scope(async () => {
    await save({ w: tensor([1, 2], { dtype: 'float32' }), n: 7 }, path)
    const text = readFileSync(path).toString('latin1')
    expect(text).toContain(
      'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ\x02\0\0\0tQ',
    )
    expect(op('aten::equal')((await load<{ w: Tensor }>(path)).w, tensor([1, 2], { dtype: 'float32' }))).toBe(true)
  })
})
