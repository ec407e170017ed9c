import { join } from 'node:path'
import { kaldiFbank, logMelSpectrogram, randn, readAudio, resample } from 'voxtorch'
import { rates, repeated } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const minute44 = randn([60 * 44100])
const minute16 = randn([60 * 16000])
const half = randn([480000])

const folder = process.env.VOXTORCH_BENCH_FILES
const read = async (name) => (await readAudio(join(folder, name))).samples
const reading = (name) => repeated(() => read(name))

/** Reads eight files at once, n times. */
async function readMany(n) {
  for (let i = 0; i < n; i++) {
    const clips = await Promise.all(Array.from({ length: 8 }, () => read('speech.flac')))
    for (const clip of clips) clip.dispose()
  }
}

await serve(
  timedBlocks({
    resample: repeated(() => resample(minute44, 44100, 16000)),
    resampleUp: repeated(() => resample(minute16, 16000, 22050)),
    fbank: repeated(() => kaldiFbank(minute16, { nMels: 128 })),
    logMel: repeated(() => logMelSpectrogram(half)),
    readWAV: reading('speech.wav'),
    readFLAC: reading('speech.flac'),
    readMP3: reading('speech.mp3'),
    readVorbis: reading('speech.ogg'),
    readOpus: reading('speech.opus'),
    readMany,
    ...rates,
  }),
)
