import { writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { manualSeed, noGrad, randn, scope, Tokenizer, tensor, Whisper } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const SECONDS = 30
const RATE = 16_000
const PROMPT = [50258n, 50259n, 50359n, 50363n] // English, transcribe, without timestamps
const exactly64 = { maxNewTokens: 64, minNewTokens: 64 }

/** Tones that come and go, in noise. */
function sound() {
  const samples = randn([SECONDS * RATE])
    .mul(0.02)
    .toArray()
  return Float32Array.from(samples, (noise, i) => {
    const second = i / RATE
    const loud = 0.5 + 0.5 * Math.sin(second * 7)
    return noise + 0.3 * loud * Math.sin(second * 2 * Math.PI * (300 + 150 * Math.sin(second)))
  })
}

/** A vocabulary of Whisper's size with arbitrary tokens. */
function tokenizerJson() {
  const vocab = Object.fromEntries(Array.from({ length: 50257 }, (_, i) => [`w${i.toString(36)}`, i]))
  const decoder = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const added_tokens = [
    {
      id: 50257,
      content: '<|endoftext|>',
      special: true,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    },
  ]
  const rest = { truncation: null, padding: null, normalizer: null, pre_tokenizer: decoder, post_processor: null }
  return {
    version: '1.0',
    added_tokens,
    ...rest,
    decoder,
    model: { type: 'BPE', vocab, merges: [], unk_token: null },
  }
}

const repeatedly = (job) => async (n) => {
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await job())))
}

/** The network, what it hears, and what both sides do with them. */
async function made(folder) {
  manualSeed(1)
  const model = Whisper.fromConfig('base').eval()
  model.freeze()
  await model.save(folder)
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizerJson()))
  model.tokenizer = await Tokenizer.fromPretrained(folder)
  const half = (await Whisper.fromPretrained(folder, { dtype: 'bfloat16' })).eval()
  half.freeze()

  const samples = sound()
  const features = randn([1, 80, 3000])
  const halfFeatures = features.to('bfloat16')
  const { lastHiddenState: heard } = await noGrad(() => model.encode({ inputFeatures: features }))
  const write = (name, values) => writeFileSync(join(folder, name), Float32Array.from(values.flat(Infinity)))
  write('sound.f32', [...samples])
  write('features.f32', features.toArray())
  write('encoder.f32', heard.toArray())

  const prompt = tensor([PROMPT])
  const generate = (config) => model.generate({ inputIds: prompt, encoderHiddenStates: heard }, config)
  const generation = { minNewTokens: 64 }
  const options = { language: 'en', timestamps: false, temperature: 0, maxNewTokens: 64, generation }
  const transcribe = () => model.transcribe(samples, options)
  const cases = {
    encoder: repeatedly(() => model.encode({ inputFeatures: features })),
    encoderHalf: repeatedly(() => half.encode({ inputFeatures: halfFeatures })),
    decode: repeatedly(() => generate(exactly64)),
    beams: repeatedly(() => generate({ ...exactly64, numBeams: 5 })),
    transcription: repeatedly(transcribe),
    ...rates,
  }
  const said = await transcribe()
  const tokens = {
    decode: (await generate(exactly64)).tokens[0],
    transcription: said.segments.flatMap((segment) => segment.tokens),
  }
  return { cases, tokens }
}

let blocks
await serve(async (request) => {
  if (request.make === undefined) return blocks(request)
  const { cases, tokens } = await made(request.make)
  blocks = timedBlocks(cases)
  return { tokens }
})
