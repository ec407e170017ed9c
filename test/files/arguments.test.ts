import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as audio from '../../lib/audio/index.js'
import * as files from '../../lib/files/index.js'
import { scope, VoxtorchError } from '../../lib/index.js'
import * as vision from '../../lib/vision/index.js'
import { fixture } from '../helpers.js'

/**
 * Everything public of voxtorch/files and of the readers of audio and pictures, called with what is no argument of theirs, in
 * every place: each refuses it with an error of ours, or does with it what its types do not promise.
 */

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-arguments-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const nowhere = join(folder, 'none', 'file')

function detached(): ArrayBuffer {
  const buffer = new ArrayBuffer(64)
  structuredClone(buffer, { transfer: [buffer] })
  return buffer
}

const WRONG: [name: string, value: () => unknown][] = [
  ['undefined', () => undefined],
  ['null', () => null],
  ['0', () => 0],
  ['-1', () => -1],
  ['1.5', () => 1.5],
  ['NaN', () => Number.NaN],
  ['1n', () => 1n],
  ['true', () => true],
  ["''", () => ''],
  ['a zero in a text', () => 'x\0y'],
  ['a symbol', () => Symbol('wrong')],
  ['a function', () => () => 7],
  ['[]', () => []],
  ['[null]', () => [null]],
  ['{}', () => ({})],
  ['an object without a prototype', () => Object.create(null)],
  ['an unknown option', () => ({ nonsense: 1 })],
  ['a detached ArrayBuffer', detached],
  [
    'bytes of a detached ArrayBuffer',
    () => {
      const bytes = new Uint8Array(64)
      structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
      return bytes
    },
  ],
]

/** Whatever a call gives is waited for; what it would go on to give, once. */
async function called(call: () => unknown): Promise<void> {
  const result = await call()
  if (typeof result !== 'object' || result === null) return
  const iterator = (result as AsyncIterable<unknown>)[Symbol.asyncIterator]?.()
  if (iterator === undefined) return
  await iterator.next()
  await iterator.return?.()
}

const PUBLIC = Object.entries({ files, vision, audio }).flatMap(([module, names]) =>
  Object.entries(names).flatMap(([name, value]) =>
    typeof value === 'function' ? [[`${module}: ${name}`, value as (...args: unknown[]) => unknown] as const] : [],
  ),
)

describe.each(PUBLIC)('%s', (_, target) => {
  const isClass = /^class\b/.test(Function.prototype.toString.call(target))
  const calls: [string, (value: () => unknown) => unknown][] = isClass
    ? [
        ['alone', (value) => Reflect.construct(target, [value()])],
        ['twice', (value) => Reflect.construct(target, [value(), value()])],
        ['behind a list', (value) => Reflect.construct(target, [[], value()])],
      ]
    : [
        ['alone', (value) => target(value())],
        ['behind a path', (value) => target(nowhere, value())],
        ['behind two paths', (value) => target(nowhere, {}, value())],
        ['everywhere', (value) => target(value(), value(), value(), value())],
      ]
  it.each(WRONG)('%s', async (_, value) => {
    for (const [place, call] of calls) {
      const error = await scope(() => called(() => call(value)).catch((error: unknown) => error))
      if (error !== undefined) expect(error, `${place}: ${(error as Error).stack}`).toBeInstanceOf(VoxtorchError)
    }
  })
})

describe('methods of what readers give', async () => {
  const gguf = await fixture('files/gguf')
  const ggufPath = join(folder, 'a.gguf')
  writeFileSync(ggufPath, gguf.tensors['file/in/file']!.dataSync() as Uint8Array)
  const ctranslate2 = await fixture('files/ctranslate2')
  const binPath = join(folder, 'model.bin')
  writeFileSync(binPath, ctranslate2.tensors['float16/in/file']!.dataSync() as Uint8Array)
  const frames = join(folder, 'frames')
  mkdirSync(frames)
  for (const name of ['1.ppm', '2.ppm']) writeFileSync(join(frames, name), 'P3 1 1 255 1 2 3')
  const instances: [string, object][] = [
    ['GgufFile', await files.readGguf(ggufPath)],
    ['CTranslate2File', await files.readCTranslate2(binPath)],
    ['Video', await vision.openVideo(frames)],
  ]
  const methods = instances.flatMap(([name, instance]) =>
    Object.getOwnPropertyNames(Object.getPrototypeOf(instance)).flatMap((method) => {
      if (method === 'constructor' || method === 'close') return []
      const { value } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(instance), method) ?? {}
      return typeof value === 'function' ? [[`${name}.${method}`, value.bind(instance)] as const] : []
    }),
  )
  it.each(methods)('%s', async (_, method) => {
    for (const [name, value] of WRONG) {
      const option = (key: string) => ({ [key]: value() })
      const calls = [
        [value()],
        [[], value()],
        [[value()]],
        [[0], value()],
        ...[
          'names',
          'mmap',
          'device',
          'dtype',
          'maxBytes',
          'signal',
          'sampleRate',
          'channels',
          'start',
          'duration',
        ].map((key) => [option(key)]),
      ]
      for (const args of calls) {
        const error = await scope(() => called(() => method(...args)).catch((error: unknown) => error))
        if (error !== undefined) expect(error, `${name}: ${(error as Error).stack}`).toBeInstanceOf(VoxtorchError)
      }
    }
  })
})
