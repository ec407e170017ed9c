// Whisper base with its published weights: in float32, and packed into int8.
import { readFileSync } from 'node:fs'
import { logMelSpectrogram, noGrad, quantize, scope, tensor, Whisper } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const PROMPT = [50258n, 50259n, 50359n, 50363n] // English, transcribe, without timestamps
const exactly64 = { maxNewTokens: 64, minNewTokens: 64 }
const options = {
  language: 'en',
  timestamps: false,
  temperature: 0,
  maxNewTokens: 64,
  generation: { minNewTokens: 64 },
}

const repeatedly = (job) => async (n) => {
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await job())))
}

async function made({ folder, sound }) {
  const bytes = readFileSync(sound)
  const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  const features = (await logMelSpectrogram(tensor(samples))).unsqueeze(0)
  const cases = { ...rates }
  const first = {}
  for (const [name, quantized] of [
    ['', false],
    ['Int8', true],
  ]) {
    const model = (await Whisper.fromPretrained(folder)).eval()
    model.freeze()
    // The encoder stays in numbers: its products have rows enough, and codes would only be unpacked for them.
    if (quantized) quantize(model, { scheme: 'int8', modules: 'model.decoder' })
    const { lastHiddenState: heard } = await noGrad(() => model.encode({ inputFeatures: features }))
    const inputIds = tensor([PROMPT])
    const write = () => model.generate({ inputIds, encoderHiddenStates: heard }, exactly64)
    cases[`encoder${name}`] = repeatedly(() => model.encode({ inputFeatures: features }))
    cases[`decode${name}`] = repeatedly(write)
    cases[`transcription${name}`] = repeatedly(() => model.transcribe(samples, options))
    first[name] = { states: heard.narrow(1, 0, 8).flatten().toArray(), tokens: (await write()).tokens[0] }
  }
  return { cases, first }
}

let blocks
await serve(async (request) => {
  if (request.load === undefined) return blocks(request)
  const { cases, first } = await made(request.load)
  blocks = timedBlocks(cases)
  return { first }
})
