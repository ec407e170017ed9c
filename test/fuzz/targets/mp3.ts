import { StreamDecoder } from '../../../lib/audio/codecs/native.js'
import { asDecoded, audioFiles, drain } from '../audio-seeds.js'
import type { FuzzTarget } from './target.js'

/** Frames of MPEG layer III. */
export const target: FuzzTarget = {
  name: 'mp3',
  words: ['Xing', 'Info', 'LAME', '\xff\xfb\x90\x00', '\xff\xf3\x40\xc0'],
  seeds: () => audioFiles('mp3', /8000|11025|22050|44100/),
  run: (bytes) =>
    asDecoded(async () => {
      // What no frame begins in is nothing to a decoder, and an error to a reader.
      if ((await drain(new StreamDecoder('mp3'), bytes)) === 0) throw new Error('it has no samples')
    }),
}
