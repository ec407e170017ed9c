import { MatroskaDecoder } from '../../../lib/audio/codecs/matroska.js'
import { asDecoded, audioFiles, drain } from '../audio-seeds.js'
import type { FuzzTarget } from './target.js'

/** WebM and Matroska of every codec that is read. */
export const target: FuzzTarget = {
  name: 'matroska',
  words: [
    '\x1f\x43\xb6\x75',
    '\x16\x54\xae\x6b',
    '\xae',
    '\xa3',
    '\xa0',
    '\x01\xff\xff\xff\xff\xff\xff\xff',
    'A_OPUS',
    'A_FLAC',
  ],
  seeds: () => audioFiles('matroska', /^(webm|mka)/),
  run: (bytes) =>
    asDecoded(async () => {
      await drain(new MatroskaDecoder(), bytes)
    }),
}
