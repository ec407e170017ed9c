import { kaldiFbank, logMelSpectrogram, randn, resample } from 'voxtorch'
import { rates, repeated } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const minute44 = randn([60 * 44100])
const minute16 = randn([60 * 16000])
const half = randn([480000])

await serve(
  timedBlocks({
    resample: repeated(() => resample(minute44, 44100, 16000)),
    resampleUp: repeated(() => resample(minute16, 16000, 22050)),
    fbank: repeated(() => kaldiFbank(minute16, { nMels: 128 })),
    logMel: repeated(() => logMelSpectrogram(half)),
    ...rates,
  }),
)
