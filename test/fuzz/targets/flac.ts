import { StreamDecoder } from '../../../lib/audio/codecs/native.js'
import { BitWriter, flacFrame, flacHead } from '../../audio/flac-bytes.js'
import { asDecoded, audioFiles, drain } from '../audio-seeds.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

/** FLAC; mutations mostly end at a checksum, so frames are also made with right ones around anything. */
export const target: FuzzTarget = {
  name: 'flac',
  words: ['fLaC', '\xff\xf8', '\x80\x00\x00\x22'],
  seeds: () => audioFiles('flac-and-ogg', /^flac/),
  generate(random: Random) {
    const assignment = random.below(11)
    const channels = assignment < 8 ? assignment + 1 : 2
    const depth = random.pick([1, 2, 4, 5, 6, 7])
    const size = 1 + random.below(300)
    const body = new BitWriter()
    for (let channel = 0; channel < channels; channel += 1) {
      body.put(random.pick([0, 1, 8, 9, 10, 11, 12, 32, 33, 63, random.below(64)]), 7).put(random.below(2), 1)
      for (let i = random.below(60); i > 0; i -= 1) body.put(random.below(256), 8)
    }
    const frames = Array.from({ length: 1 + random.below(3) }, (_, i) =>
      flacFrame(i, size, assignment, depth, body.bytes()),
    )
    return Buffer.concat([flacHead(8000, channels, 16, random.pick([0, size, 5])), ...frames])
  },
  run: (bytes) =>
    asDecoded(async () => {
      await drain(new StreamDecoder('flac'), bytes)
    }),
}
