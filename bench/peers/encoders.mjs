import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { noGrad, Roberta, randint, randn, saveSafetensors, scope, WavLM } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const ids = randint(5, 50265, [8, 128])
const wave = randn([1, 160_000])

const config = { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 1, layerNormEps: 1e-5 }
const networks = {
  roberta: [new Roberta(config), { inputIds: ids }],
  wavlm: [new WavLM({}), { inputValues: wave }],
  robertaHalf: [new Roberta(config, { dtype: 'bfloat16' }), { inputIds: ids }],
  wavlmHalf: [new WavLM({}, { dtype: 'bfloat16' }), { inputValues: wave.to('bfloat16') }],
}
for (const [network] of Object.values(networks)) network.eval()
// What only infers is frozen.
for (const name of ['robertaHalf', 'wavlmHalf']) networks[name][0].freeze()

const forward = (name) => async (n) => {
  const [network, inputs] = networks[name]
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await network.forward(inputs))))
}

// Dropout is off: what is compared is the arithmetic.
const step = (name) => async (n) => {
  const [network, inputs] = networks[name]
  for (let i = 0; i < n; i++) {
    await scope(async () => {
      await (await network.forward(inputs)).lastHiddenState.sum().backward()
    })
    network.zeroGrad()
  }
}

/** Networks, inputs and what they give, for the other sides. */
async function write(folder) {
  const tensors = { ids, wave }
  for (const name of ['roberta', 'wavlm']) {
    const [network, inputs] = networks[name]
    mkdirSync(join(folder, name))
    await network.save(join(folder, name))
    tensors[name] = (await noGrad(() => network.forward(inputs))).lastHiddenState
  }
  await saveSafetensors(join(folder, 'values.safetensors'), tensors)
}

const blocks = timedBlocks({
  ...Object.fromEntries(Object.keys(networks).map((name) => [name, forward(name)])),
  robertaStep: step('roberta'),
  wavlmStep: step('wavlm'),
  ...rates,
})

await serve(async (request) => {
  if (request.make === undefined) return blocks(request)
  await write(request.make)
  return {}
})
