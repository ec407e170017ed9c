import { logMelSpectrogram, noGrad, ops, randn, scope, tensor, Whisper } from 'voxtorch'
import { serve, timedBlocks } from './serve.mjs'

const wave = randn([480_000])
const features = randn([1, 80, 3000])
const wide = randn([1024, 1024])
const tall = randn([1024, 1024])
const matrix = randn([4096, 4096])
const vector = randn([4096])

const model = Whisper.fromConfig('base').eval()
const half = Whisper.fromConfig('base', { dtype: 'bfloat16' }).eval()
half.freeze()
const halfFeatures = features.to('bfloat16')
const { lastHiddenState: heard } = await noGrad(() => model.encode({ inputFeatures: features }))

const prompt = tensor([[50258n, 50259n, 50359n, 50363n]])
const exactly64 = { maxNewTokens: 64, minNewTokens: 64 }

const repeatedly = (job) => async (n) => {
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await job())))
}
const write = (config) => repeatedly(() => model.generate({ inputIds: prompt, encoderHiddenStates: heard }, config))

const transcription = async () => {
  const mel = await logMelSpectrogram(wave)
  await model.generate({ inputIds: prompt, inputFeatures: mel.unsqueeze(0) }, exactly64)
}

await serve(
  timedBlocks({
    encoder: repeatedly(() => model.encode({ inputFeatures: features })),
    encoderHalf: repeatedly(() => half.encode({ inputFeatures: halfFeatures })),
    decode: write(exactly64),
    beams: write({ ...exactly64, numBeams: 5 }),
    transcription: repeatedly(transcription),
    gemm: repeatedly(() => ops.async.matmul(wide, tall)),
    gemv: repeatedly(() => ops.async.matmul(matrix, vector)),
  }),
)
