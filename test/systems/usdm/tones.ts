import { join } from 'node:path'
import { manualSeed, Random, scope, tensor, writeWav } from '../../../lib/index.js'
import { type VoiceboxRecord, writeVoiceboxFilelist } from '../../../lib/systems/usdm/index.js'

/** Write clips of three tones, whose units say which tone it is, and their lists train.txt and valid.txt. */
export async function makeTones(folder: string): Promise<void> {
  manualSeed(1)
  const random = new Random(4)
  for (const [split, count] of [
    ['train', 10],
    ['valid', 3],
  ] as const) {
    const records: VoiceboxRecord[] = []
    for (let i = 0; i < count; i += 1) {
      const units = Int32Array.from({ length: 10 + 3 * i }, (_, k) => (Math.floor(k / 4) + i) % 3)
      const sound = Float32Array.from({ length: 441 * units.length + random.below(500) }, (_, n) => {
        const unit = units[Math.min(units.length - 1, Math.floor(n / 441))] as number
        return 0.3 * Math.sin((2 * Math.PI * [300, 1100, 2600][unit]! * n) / 22_050) + 0.01 * (random.float() - 0.5)
      })
      await scope(() => writeWav(join(folder, `${split}${i}.wav`), tensor(sound), { sampleRate: 22_050 }))
      records.push({ audio: `${split}${i}.wav`, units })
    }
    await writeVoiceboxFilelist(join(folder, `${split}.txt`), records)
  }
}
