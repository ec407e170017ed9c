import { AudioSource } from '../../../lib/audio/source.js'
import { chunk, formatChunk, pcm16, riff, wideSizes } from '../../audio/wav-bytes.js'
import { audioFiles } from '../audio-seeds.js'
import type { FuzzTarget } from './target.js'

const samples = pcm16(0, 1, -1, 32767, -32768, 1000)

/** The header and all the samples of an uncompressed file. Bytes of other formats, which a thread decodes, are passed over. */
export const target: FuzzTarget = {
  name: 'wav',
  words: [
    'RIFF',
    'RF64',
    'BW64',
    'WAVE',
    'fmt ',
    'data',
    'ds64',
    'LIST',
    'fact',
    'PEAK',
    'FORM',
    'AIFC',
    'COMM',
    'SSND',
    'ima4',
    'sowt',
    'caff',
    'desc',
    'lpcm',
    '.snd',
    '\xff\xff\xff\xff',
  ],
  seeds: () => [
    riff([formatChunk(), chunk('data', samples)]),
    riff([chunk('LIST', Buffer.from('INFOISFT')), formatChunk({ channels: 2, bits: 24 }), chunk('data', samples)]),
    riff([formatChunk({ bits: 8 }), chunk('odd!', Buffer.from('abc')), chunk('data', samples)]),
    riff([formatChunk({ tag: 3, bits: 32 }), chunk('fact', Buffer.alloc(4)), chunk('data', samples)]),
    riff([formatChunk({ tag: 3, bits: 64 }), chunk('data', Buffer.alloc(16))]),
    riff([formatChunk({ subformat: 1, bits: 32, channels: 3 }), chunk('data', samples)]),
    riff([formatChunk({ tag: 6, bits: 8 }), chunk('data', samples)]),
    riff([formatChunk({ tag: 7, bits: 8 }), chunk('data', samples, 0xffffffff)], 'RIFF', 0xffffffff),
    ...audioFiles('containers', /ADPCM|(AIFF|AU|CAF|W64)-(PCM_24|FLOAT|ULAW)/),
    riff([wideSizes(BigInt(samples.length)), formatChunk(), chunk('data', samples, 0xffffffff)], 'RF64', 0xffffffff),
  ],
  async run(bytes) {
    const kind = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(4, bytes.length)).toString('latin1')
    if (!['RIFF', 'RF64', 'BW64', 'FORM', '.snd', 'dns.', 'caff', 'riff'].includes(kind)) return
    const source = await AudioSource.open('fuzz', bytes)
    try {
      let frames = 0
      for await (const planes of source.blocks(0, Number.POSITIVE_INFINITY)) frames += planes[0]!.length
      if (frames !== source.frames) throw new Error(`${frames} frames were read, the header has ${source.frames}`)
    } finally {
      await source.close()
    }
  },
}
