// An InternVL on the device; scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
//   internvl.mjs same     logits, gradients through projection and adapters, an answer and labels are those of the CPU
//   internvl.mjs speed    the cases of `npm run bench -- emoverse`, of the 1B's widths with all of its layers, in bfloat16
import { timed } from './timed.mjs'

const vt = await import(new URL('../../dist/index.js', import.meta.url).href)

const device = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
const [mode] = process.argv.slice(2)
const VISION = { qkvBias: true, qkNormalization: false, normType: 'layer_norm', initializerFactor: 1 }
const SMALL = {
  visionConfig: {
    ...{ ...VISION, hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 64 },
    ...{ imageSize: 56, patchSize: 14, initializerRange: 0.2 },
  },
  llmConfig: {
    ...{ modelType: 'qwen2', vocabSize: 200, hiddenSize: 64, intermediateSize: 128, numHiddenLayers: 2 },
    ...{ numAttentionHeads: 4, numKeyValueHeads: 2, initializerRange: 0.2 },
  },
  imgContextTokenId: 190,
}
const LARGE = {
  visionConfig: {
    ...{ ...VISION, hiddenSize: 1024, numHiddenLayers: 24, numAttentionHeads: 16, intermediateSize: 4096 },
    imageSize: 448,
  },
  llmConfig: {
    ...{ modelType: 'qwen2', vocabSize: 151655, hiddenSize: 896, intermediateSize: 4864, numHiddenLayers: 24 },
    ...{ numAttentionHeads: 14, numKeyValueHeads: 2, ropeTheta: 1e6 },
  },
  imgContextTokenId: 151648,
}
const TARGETS = '^(language_model|mlp1)(?!.*(lm_head|output|emb|wte|shared)).*'
const LABELS = Array.from({ length: 7 }, (_, i) => [20 + i, 13, 11])
const endless = { eosTokenId: [], padTokenId: 1 }

let failed = false
function report(passed, line) {
  console.log(`${line}${passed ? '' : ': FAILED'}`)
  if (!passed) failed = true
}

/** Text, a number of tiles, text; the last eight tokens are labels. */
function textOf({ imgContextTokenId, visionConfig }, tiles, words = 32) {
  const { imageSize, patchSize = 14 } = visionConfig
  const seen = tiles * (imageSize / patchSize / 2) ** 2
  const ids = Array.from({ length: words + seen }, (_, i) => 5 + ((i * 37) % 150))
  ids.fill(imgContextTokenId, words / 2, words / 2 + seen)
  return { ids, labels: ids.map((id, i) => (i < ids.length - 8 ? -100 : id)) }
}
const row = (ids) => vt.tensor([ids], { dtype: 'int64' }).to(device)
const numbers = async (tensor) => [...(await tensor.detach().to('cpu').double().data())]

async function valuesOn(where, state, pixels) {
  const { ids, labels } = textOf(SMALL, 3)
  const on = (values) => vt.tensor([values], { dtype: 'int64' }).to(where)
  const pixelValues = pixels.to(where)
  const model = vt.InternVL.fromConfig(SMALL, { device: where }).freeze().eval()
  model.loadStateDict(state)
  const plain = await vt.noGrad(() => model.forward({ inputIds: on(ids), pixelValues }))
  const { tokens } = await vt.noGrad(() =>
    model.generate({ inputIds: on(ids), pixelValues }, { maxNewTokens: 12, ...endless }),
  )
  const { imageEmbeds } = plain
  const { probabilities } = await vt.noGrad(() => vt.scoreLabels(model, { inputIds: on(ids), imageEmbeds }, LABELS))
  vt.manualSeed(4)
  vt.getPeftModel(model, { r: 4, loraDropout: 0, initLoraWeights: 'gaussian', targetModules: TARGETS })
  const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
  // What was drawn on one device is not what would be drawn on the other.
  vt.noGrad(() => {
    for (const [i, [, one]] of trained.entries()) one.fill_(0.01 * ((i % 7) - 3))
  })
  const { loss } = await model.forward({ inputIds: on(ids), labels: on(labels), pixelValues })
  await loss.backward()
  const values = { logits: plain.logits, loss }
  for (const [name, { grad }] of trained) values[`gradient of ${name}`] = grad
  return { values, tokens: `${tokens[0]}`, scores: probabilities.flat() }
}

async function same() {
  const state = vt.InternVL.fromConfig(SMALL, { seed: 3 }).stateDict()
  const pixels = vt.randn([3, 3, 56, 56])
  const [actual, expected] = [await valuesOn(device, state, pixels), await valuesOn('cpu', state, pixels)]
  let worst = ['nothing', 0]
  for (const [name, value] of Object.entries(expected.values)) {
    const [a, b] = [await numbers(actual.values[name]), await numbers(value)]
    const scale = Math.max(1e-3, ...b.map(Math.abs))
    const error = a.length === b.length ? Math.max(...b.map((one, i) => Math.abs(one - a[i]))) / scale : Infinity
    if (!(error <= worst[1])) worst = [name, error]
  }
  const count = Object.keys(expected.values).length
  report(
    worst[1] <= 1e-4,
    `${count} logits, losses and gradients: apart by ${worst[1].toExponential(1)}, most ${worst[0]}`,
  )
  report(actual.tokens === expected.tokens, `an answer of ${actual.tokens.split(',').length} tokens is that of the CPU`)
  const scores = Math.max(...expected.scores.map((one, i) => Math.abs(one - actual.scores[i])))
  report(expected.scores.length === 7 && scores <= 1e-4, `7 labels: apart by ${scores.toExponential(1)}`)
}

async function speed() {
  const config = device === 'cpu' || process.env.VOXTORCH_GPU_CHECK_SIZE ? SMALL : LARGE
  const side = config.visionConfig.imageSize
  const model = vt.InternVL.fromConfig(config, { device, seed: 1 }).to({ dtype: 'bfloat16' }).eval().freeze()
  const pixels = (tiles) => vt.randn([tiles, 3, side, side]).to({ device, dtype: 'bfloat16' })
  const [four, eight] = [pixels(4), pixels(8)]
  const { ids, labels } = textOf(config, 8)
  const [inputIds, wanted] = [row(ids), row(labels)]
  const imageFeatures = await vt.noGrad(() => model.encodeImages(eight))
  const imageEmbeds = await vt.noGrad(() => model.projectImages(imageFeatures))
  const prefill = () => vt.noGrad(() => model.forward({ inputIds, imageEmbeds, logitsToKeep: 1 }))
  const write = (maxNewTokens) => model.generate({ inputIds, imageEmbeds }, { maxNewTokens, ...endless })
  const step = (pictures) => async () => {
    const { loss } = await model.forward({ inputIds, labels: wanted, ...pictures })
    await loss.backward()
    model.zeroGrad()
    await loss.data()
  }
  const wait = async (made) => void (await made.flatten().narrow(0, 0, 1).float().data())
  const cases = {
    'vision part, 4 tiles': async () => wait(await vt.noGrad(() => model.encodeImages(four))),
    'prefill, 8 frames': async () => wait((await prefill()).logits),
    '7 labels after 8 frames': () => vt.scoreLabels(model, { inputIds, imageEmbeds }, LABELS),
  }
  for (const [name, run] of Object.entries(cases)) await timed(vt, name, run)
  await write(8)
  const seconds = []
  for (const count of [20, 120]) {
    const began = performance.now()
    await write(count)
    seconds.push((performance.now() - began) / 1000)
  }
  console.log(`a token after 8 frames: ${(10 * (seconds[1] - seconds[0])).toFixed(3)} ms`)
  vt.getPeftModel(model, { r: 8, loraAlpha: 32, loraDropout: 0.05, targetModules: TARGETS })
  model.train()
  await timed(vt, 'LoRA step, 8 frames', step({ pixelValues: eight }))
  await timed(vt, 'LoRA step, 8 frames, features kept', step({ imageFeatures }))
}

await (mode === 'speed' ? speed() : same())
process.exitCode = failed ? 1 : 0
