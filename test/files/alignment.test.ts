import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type GgufType, TYPES } from '../../lib/files/gguf/types.js'
import { loadSafetensors, loadTorch, readCTranslate2, readGguf, readNpy } from '../../lib/files/index.js'
import { type DType, noGrad, ones, scope, type Tensor } from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'
import { blockSchemeOf } from '../../lib/nn/quantized-weight.js'
import { dtypeFacts, dtypes } from '../../lib/tensor/dtype.js'
import { makeZip } from './zip-maker.js'

/**
 * Every dtype in every mapped format, at every offset modulo 16. libtorch's kernels load whole elements, so that a mapped
 * tensor at another address than a multiple of its element's size ends the process (complex128 at an odd multiple of 8: SIGSEGV).
 */

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-alignment-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const COUNT = 37
const OFFSETS = Array.from({ length: 16 }, (_, i) => i)
const write = (file: Buffer): string => {
  const path = join(folder, 'file')
  writeFileSync(path, file)
  return path
}

/** Bytes of `COUNT` elements; of floats none is NaN, so that each equals itself. */
function dataOf(dtype: DType): Buffer {
  const { bytes, kind } = dtypeFacts(dtype)
  return Buffer.from(Array.from({ length: COUNT * bytes }, (_, i) => (kind === 'bool' ? i % 2 : (i * 7 + 1) % 64)))
}

const bytesOf = (value: Tensor): Buffer => Buffer.from(value.view('uint8').toArray() as number[])

/** Kernels of copies, comparisons and sums have each looked at it. */
function expectWhole(value: Tensor, data: Buffer): void {
  expect(value.shape).toEqual([COUNT])
  expect(bytesOf(value.clone()).equals(data)).toBe(true)
  if (!value.dtype.startsWith('float8') && value.dtype !== 'complex32') expect(value.eq(value).all().item()).toBe(true)
  if (/^(float|complex)(32|64|128)$/.test(value.dtype) && value.dtype !== 'complex32') {
    expect(bytesOf(value.add(value)).equals(bytesOf(value.clone().mul(2)))).toBe(true)
  }
}

const u16 = (value: number) => Buffer.from([value & 255, value >> 8])
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
const u64 = (value: number) => Buffer.concat([u32(value), u32(0)])

/** Padding that makes what follows `before` begin at `offset` modulo 16. */
const gap = (before: number, offset: number): number => (((offset - before) % 16) + 16) % 16

function safetensors(dtype: DType, data: Buffer, offset: number): Buffer {
  const name = dtypeFacts(dtype).safetensors
  const json = `{"x":{"dtype":"${name}","shape":[${COUNT}],"data_offsets":[0,${data.length}]}}`
  const header = json + ' '.repeat(gap(8 + json.length, offset))
  return Buffer.concat([u64(header.length), Buffer.from(header), data])
}

function npy(dtype: DType, data: Buffer, offset: number): Buffer {
  const { numpy } = dtypeFacts(dtype)
  const text = `{'descr': '${numpy?.endsWith('1') ? '|' : '<'}${numpy}', 'fortran_order': False, 'shape': (${COUNT},), }`
  const header = `${text}${' '.repeat(gap(11 + text.length, offset))}\n`
  return Buffer.concat([Buffer.from('\x93NUMPY\x01\0', 'latin1'), u16(header.length), Buffer.from(header), data])
}

function gguf(code: number, dims: readonly number[], data: Buffer, offset: number): Buffer {
  const text = (value: string) => Buffer.concat([u64(value.length), Buffer.from(value)])
  const head = (padding: number) =>
    Buffer.concat([
      Buffer.from('GGUF'),
      u32(3),
      u64(1),
      u64(2),
      ...[text('general.alignment'), u32(4), u32(1)],
      ...[text('padding'), u32(8), text(' '.repeat(padding))],
      ...[text('x'), u32(dims.length), ...dims.map(u64), u32(code), u64(0)],
    ])
  return Buffer.concat([head(gap(head(0).length, offset)), data])
}

function ctranslate2(code: number, data: Buffer, offset: number): Buffer {
  const text = (value: string) => Buffer.concat([u16(value.length + 1), Buffer.from(`${value}\0`)])
  const head = (padding: number) =>
    Buffer.concat([
      ...[u32(6), text(`Spec${'_'.repeat(padding)}`), u32(1), u32(1), text('x')],
      ...[Buffer.of(1), u32(COUNT), Buffer.of(code), u32(data.length)],
    ])
  return Buffer.concat([head(gap(head(0).length, offset)), data, u32(0)])
}

// Pickles, of which torch.save writes these instructions too.
const unicode = (text: string) => Buffer.concat([Buffer.from('X'), u32(Buffer.byteLength(text)), Buffer.from(text)])
const int = (value: number) => Buffer.concat([Buffer.from('J'), u32(value)])
const global = (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`)
const raw = (text: string) => Buffer.from(text, 'latin1')

/** A tensor as `_rebuild_tensor_v3` takes it: on a storage of plain bytes, with a dtype. */
function pickledTensor(dtype: DType, bytes: number, view: boolean, first = 0, count = COUNT): Buffer {
  return Buffer.concat([
    global('torch._utils', '_rebuild_tensor_v3'),
    ...[raw('(('), unicode('storage'), global('torch.storage', 'UntypedStorage'), unicode('0'), unicode('cpu')],
    ...[int(bytes), view ? raw('N') : raw(''), raw('tQ'), int(first)],
    ...[int(count), raw('\x85'), int(1), raw('\x85\x89N'), global('torch', dtype), raw('tR')],
  ])
}

const pickle = (...parts: Buffer[]) => Buffer.concat([raw('\x80\x02'), ...parts, raw('.')])
const dict = (...entries: [string, Buffer][]) =>
  Buffer.concat([raw('}('), ...entries.flatMap(([key, value]) => [unicode(key), value]), raw('u')])

/** The format before torch 1.6; a text beside the tensors moves the storage. */
function legacyTorch(tensors: Record<string, Buffer>, data: Buffer, offset: number): Buffer {
  const file = (padding: number) =>
    Buffer.concat([
      raw('\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.'),
      pickle(raw('M\xe9\x03')),
      pickle(dict(['little_endian', raw('\x88')])),
      pickle(dict(['padding', unicode(' '.repeat(padding))], ...Object.entries(tensors))),
      pickle(raw(']'), unicode('0'), raw('a')),
      u64(data.length),
    ])
  return Buffer.concat([file(gap(file(0).length, offset)), data])
}

function zippedTorch(tensors: Record<string, Buffer>, data: Buffer, offset: number): Buffer {
  const file = (padding: number) =>
    makeZip([
      { name: 'x/data.pkl', data: pickle(dict(...Object.entries(tensors))) },
      { name: 'x/padding', data: Buffer.alloc(padding) },
      { name: 'x/data/0', data },
    ])
  return file(gap(file(0).indexOf(data), offset))
}

const load = async (file: Buffer) => loadTorch<Record<string, Tensor>>(write(file), { mmap: true })

const readers: Record<string, (dtype: DType, data: Buffer, offset: number) => Promise<Tensor | undefined>> = {
  safetensors: async (dtype, data, offset) => {
    if (dtypeFacts(dtype).safetensors === undefined) return undefined
    const { tensors } = await loadSafetensors(write(safetensors(dtype, data, offset)), { mmap: true })
    return tensors.x
  },
  npy: async (dtype, data, offset) => {
    if (dtypeFacts(dtype).numpy === undefined) return undefined
    return (await readNpy(write(npy(dtype, data, offset)), { mmap: true })) as Tensor
  },
  GGUF: async (dtype, data, offset) => {
    const type = Object.values(TYPES).find((one) => one.dtype === dtype)
    if (type === undefined) return undefined
    const file = await readGguf(write(gguf(type.code, [COUNT], data, offset)))
    return (await file.load({ mmap: true })).x
  },
  CTranslate2: async (dtype, data, offset) => {
    const code = ['float32', 'int8', 'int16', 'int32', 'float16', 'bfloat16'].indexOf(dtype)
    if (code < 0) return undefined
    return (await (await readCTranslate2(write(ctranslate2(code, data, offset)))).load({ mmap: true })).x
  },
  'torch.save before 1.6': async (dtype, data, offset) =>
    (await load(legacyTorch({ x: pickledTensor(dtype, data.length, true) }, data, offset))).x,
  'torch.save': async (dtype, data, offset) =>
    (await load(zippedTorch({ x: pickledTensor(dtype, data.length, false) }, data, offset))).x,
}

describe.each(Object.entries(readers))('mapped from %s', (_, read) => {
  it.each(dtypes)('%s at every offset', async (dtype) => {
    const data = dataOf(dtype)
    for (const offset of OFFSETS) {
      await scope(async () => {
        const value = await read(dtype, data, offset)
        if (value === undefined) return
        expect(value.dtype).toBe(dtype)
        expectWhole(value, data)
      })
    }
  })
})

describe('the native mapping itself', () => {
  const map = opAsync('voxtorch::map_tensors') as (...values: unknown[]) => Promise<Tensor[]>
  it.each(dtypes)('copies what does not lie at a multiple of its element: %s', async (dtype) => {
    const { bytes, code } = dtypeFacts(dtype)
    const data = dataOf(dtype)
    for (const offset of OFFSETS.slice(1)) {
      const path = write(Buffer.concat([Buffer.alloc(offset), data]))
      const [value] = await map(path, [offset], [code], [1], [COUNT])
      // A mapped tensor changes with its file; bytes are looked at one by one, wherever they lie.
      const file = openSync(path, 'r+')
      writeSync(file, Buffer.alloc(data.length), 0, data.length, offset)
      closeSync(file)
      const isMapped = bytesOf(value as Tensor).every((byte) => byte === 0)
      value?.dispose()
      expect(isMapped, `offset ${offset}`).toBe(offset % bytes === 0)
    }
  })
})

describe('one storage seen as several dtypes', () => {
  it.each([
    ['torch.save before 1.6', legacyTorch, true],
    ['torch.save', zippedTorch, false],
  ] as const)('%s', async (_, make, view) => {
    const data = dataOf('complex128')
    const tensors = {
      bytes: pickledTensor('uint8', data.length, view, 0, data.length),
      wide: pickledTensor('complex128', data.length, view),
      half: pickledTensor('float64', data.length, view, 0, 2 * COUNT),
    }
    for (const offset of OFFSETS) {
      await scope(async () => {
        const { bytes, wide, half } = await load(make(tensors, data, offset))
        expectWhole(wide!, data)
        expect(bytesOf(half!.clone()).equals(data)).toBe(true)
        expect(bytesOf(bytes!.clone()).equals(data)).toBe(true)
      })
    }
  })
})

describe('blocks of quantized GGUF tensors', () => {
  const dequantize = op('voxtorch::gguf_dequantize') as (...values: unknown[]) => Tensor
  const multiply = op('voxtorch::quantized_linear') as (...values: unknown[]) => Tensor
  const kinds = Object.entries(TYPES).filter(([, { isRead }]) => isRead) as [GgufType, (typeof TYPES)[GgufType]][]
  it.each(kinds)('%s at every offset', async (type, { code, block, bytes }) => {
    const [rows, length] = [3, 2 * block]
    const data = Buffer.from(Array.from({ length: rows * 2 * bytes }, (_, i) => (i * 7 + 1) % 64))
    const scheme = blockSchemeOf(type)
    await scope(async () => {
      const input = ones([2, length])
      let expected: { values: Tensor; product: Tensor | undefined } | undefined
      for (const offset of OFFSETS) {
        const file = await readGguf(write(gguf(code, [length, rows], data, offset)))
        const { x } = await file.load()
        const blocks = await file.blocks('x')
        const product =
          scheme && noGrad(() => multiply(input, blocks, null, [rows, length], null, { scheme }).contiguous())
        // Offset 0 is aligned.
        expected ??= { values: dequantize(blocks.flatten().clone(), code, [rows, length]), product }
        expect(bytesOf(x!.flatten()).equals(bytesOf(expected.values.flatten()))).toBe(true)
        if (product !== undefined) {
          expect(bytesOf(product.flatten()).equals(bytesOf(expected.product!.flatten()))).toBe(true)
        }
      }
    })
  })
})
