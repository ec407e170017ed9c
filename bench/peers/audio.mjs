import { kaldiFbank, logMelSpectrogram, ops, randn, resample } from 'voxtorch'
import { serve, timedBlocks } from './serve.mjs'

const minute44 = randn([60 * 44100])
const minute16 = randn([60 * 16000])
const half = randn([480000])
const wide = randn([1024, 1024])
const tall = randn([1024, 1024])
const matrix = randn([4096, 4096])
const vector = randn([4096])

const repeat = (work) => async (n) => {
  for (let i = 0; i < n; i++) (await work()).dispose()
}

await serve(
  timedBlocks({
    resample: repeat(() => resample(minute44, 44100, 16000)),
    resampleUp: repeat(() => resample(minute16, 16000, 22050)),
    fbank: repeat(() => kaldiFbank(minute16, { nMels: 128 })),
    logMel: repeat(() => logMelSpectrogram(half)),
    gemm: repeat(() => ops.async.matmul(wide, tall)),
    gemv: repeat(() => ops.async.matmul(matrix, vector)),
  }),
)
