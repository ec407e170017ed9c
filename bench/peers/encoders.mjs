import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { FastConformerEncoder, noGrad, Roberta, randint, randn, saveSafetensors, scope, WavLM } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const ids = randint(5, 50265, [8, 128])
const wave = randn([1, 160_000])

const config = { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 1, layerNormEps: 1e-5 }
// What only infers is frozen. FastConformer in the sizes of parakeet-rnnt-0.6b; 100 frames of features are a second.
const MAKE = {
  roberta: () => [new Roberta(config), { inputIds: ids }],
  wavlm: () => [new WavLM({}), { inputValues: wave }],
  robertaHalf: () => [new Roberta(config, { dtype: 'bfloat16' }).freeze(), { inputIds: ids }],
  wavlmHalf: () => [new WavLM({}, { dtype: 'bfloat16' }).freeze(), { inputValues: wave.to('bfloat16') }],
  parakeet: () => [new FastConformerEncoder({}).freeze(), { inputFeatures: randn([1, 1001, 80]) }],
  parakeetLong: () => [made('parakeet')[0], { inputFeatures: randn([1, 6001, 80]) }],
}
const networks = {}
function made(name) {
  if (networks[name] === undefined) {
    networks[name] = MAKE[name]()
    networks[name][0].eval()
  }
  return networks[name]
}

const forward = (name) => async (n) => {
  const [network, inputs] = made(name)
  for (let i = 0; i < n; i++) await noGrad(() => scope(async () => void (await network.forward(inputs))))
}

// Dropout is off: what is compared is the arithmetic.
const step = (name) => async (n) => {
  const [network, inputs] = made(name)
  for (let i = 0; i < n; i++) {
    await scope(async () => {
      await (await network.forward(inputs)).lastHiddenState.sum().backward()
    })
    network.zeroGrad()
  }
}

/** Networks, inputs and what they give, for the other sides. */
async function write(folder, names) {
  const tensors = {}
  for (const name of names) {
    const [network, inputs] = made(name)
    if (name !== 'parakeetLong') {
      mkdirSync(join(folder, name))
      await network.save(join(folder, name))
    }
    ;[tensors[`${name}.in`]] = Object.values(inputs)
    tensors[`${name}.out`] = (await noGrad(() => network.forward(inputs))).lastHiddenState
  }
  await saveSafetensors(join(folder, 'values.safetensors'), tensors)
}

const blocks = timedBlocks({
  ...Object.fromEntries(Object.keys(MAKE).map((name) => [name, forward(name)])),
  robertaStep: step('roberta'),
  wavlmStep: step('wavlm'),
  ...rates,
})

await serve(async (request) => {
  if (request.make === undefined) return blocks(request)
  await write(request.make, request.names)
  return {}
})
