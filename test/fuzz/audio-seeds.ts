import { readFileSync } from 'node:fs'
import type { Decoder } from '../../lib/audio/codecs/decoder.js'
import { DataError } from '../../lib/index.js'

/** The audio files of a fixture that test/reference/audio_formats.py wrote. */
export function audioFiles(fixture: string, names: RegExp): Uint8Array[] {
  const bytes = readFileSync(new URL(`../fixtures/audio/${fixture}.safetensors`, import.meta.url))
  const begin = 8 + Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, begin)) as Record<string, { data_offsets: [number, number] }>
  return Object.entries(header)
    .filter(([name]) => name.endsWith('/file/bytes') && names.test(name))
    .map(
      ([
        ,
        {
          data_offsets: [from, to],
        },
      ]) => Uint8Array.from(bytes.subarray(begin + from, begin + to)),
    )
}

/** Run a decoder as its thread does, where every Error is reported as a data error. Others are findings. */
export async function asDecoded(run: () => Promise<void>): Promise<void> {
  try {
    await run()
  } catch (error) {
    if (error instanceof Error && error.constructor === Error) throw new DataError(error.message)
    throw error
  }
}

/** Decode some megabytes at most, and return the number of samples: more is stopped outside, by `maxBytes`. */
export async function drain(decoder: Decoder, bytes: Uint8Array): Promise<number> {
  const cut = bytes.length >> 1
  let made = 0
  try {
    for (const part of [bytes.slice(0, cut), bytes.slice(cut), undefined]) {
      if (part === undefined) decoder.end()
      else decoder.feed(part)
      for (let block = await decoder.next(); block !== undefined && made < 1 << 20; block = await decoder.next()) {
        const lengths = new Set(block.channelData.map(({ length }) => length))
        if (lengths.size !== 1) throw new TypeError(`channels of ${[...lengths]} samples`)
        made += block.channelData.length * block.channelData[0]!.length
      }
    }
  } finally {
    decoder.free?.()
  }
  return made
}
