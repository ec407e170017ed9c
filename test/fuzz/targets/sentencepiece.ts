import { readdirSync, readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { fromSentencePiece } from '../../../lib/text/sentencepiece/tokenizer.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

const folder = new URL('../../fixtures/text/', import.meta.url)

const TEXT = ' Héllo, the  wörld \u2581 ﬁ １２ 😀\n<s>[IMG]ing the e\u0301'

const varint = (value: number): number[] => {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80)
  return [...bytes, rest]
}
const field = (number: number, wire: number): number[] => varint(number * 8 + wire)
const bytesField = (number: number, bytes: readonly number[]): number[] => [
  ...field(number, 2),
  ...varint(bytes.length),
  ...bytes,
]
const float = (value: number): number[] => [...Buffer.from(Float32Array.of(value).buffer)]

const texts = [
  'a',
  'b',
  'ab',
  'aba',
  '\u2581',
  '\u2581a',
  '\u2581\u2581',
  'e\u0301',
  '😀',
  '<0x41>',
  '<unk>',
  '<s>',
  '',
  'é',
  'x\u2581y',
]

function piece(random: Random, text: string, type: number): number[] {
  const score = random.pick([-1, -2, -2, -3.5, 0, 5, Number.POSITIVE_INFINITY, Number.NaN, -3e38])
  return bytesField(1, [
    ...bytesField(1, [...Buffer.from(text)]),
    ...field(2, 5),
    ...float(random.chance(0.95) ? -random.below(9) : score),
    ...field(3, 0),
    ...varint(random.chance(0.98) ? type : random.below(9)),
  ])
}

/** Small models of every algorithm, most of them valid. */
function generate(random: Random): Uint8Array {
  const bytes = piece(random, '<unk>', 2)
  const pool = [...texts]
  for (let i = random.below(12); i > 0; i--) {
    const text = pool.splice(random.below(pool.length), 1)[0] ?? 'z'
    bytes.push(...piece(random, text, text.startsWith('<') ? 3 : random.pick([1, 1, 1, 1, 4, 5, 6])))
  }
  const falls = random.chance(0.2)
  for (let byte = 0; falls && byte < 256; byte++) {
    bytes.push(...piece(random, `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 6))
  }
  const trainer = [...field(3, 0), ...varint(random.chance(0.95) ? 1 + random.below(4) : random.below(99))]
  if (falls) trainer.push(...field(35, 0), 1)
  if (random.chance(0.3)) trainer.push(...field(24, 0), 1)
  if (random.chance(0.3)) trainer.push(...field(41, 0), ...varint(random.pick([0, 1, 2 ** 31, 2 ** 52])))
  bytes.push(...bytesField(2, trainer))
  const normalizer: number[] = []
  for (const flag of [3, 4, 5]) if (random.chance(0.5)) normalizer.push(...field(flag, 0), random.below(2))
  if (random.chance(0.3)) {
    const units = random.below(20)
    normalizer.push(
      ...bytesField(2, [units * 4, 0, 0, 0, ...Array.from({ length: units * 4 + 3 }, () => random.below(256)), 0]),
    )
  }
  bytes.push(...bytesField(3, normalizer))
  return Uint8Array.from(bytes)
}

export const target: FuzzTarget = {
  name: 'sentencepiece',
  seeds: () =>
    readdirSync(folder)
      .filter((name) => name.endsWith('.model.gz'))
      .map((name) => gunzipSync(readFileSync(new URL(name, folder)))),
  generate,
  words: [
    '<unk>',
    '\u2581',
    '<0x00>',
    '\x0a',
    '\x12',
    '\x1a',
    '\xff\xff\xff\xff\x0f',
    '\x00\x00\x80\x7f',
    '\x00\x00\xc0\x7f',
  ],
  run(bytes) {
    const { pipeline, decode } = fromSentencePiece(bytes, 'fuzz.model', null)
    const { inputIds } = pipeline.run(TEXT)
    decode(inputIds, false)
    decode([0, 1, 2, 3, 4, 5, 2 ** 31], false)
  },
}
