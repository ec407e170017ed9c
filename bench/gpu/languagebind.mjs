// LanguageBind on the device; scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
//   languagebind.mjs same     embeddings of text, audio and video, and a LoRA step of the video encoder, equal the CPU's
//   languagebind.mjs speed    the networks' cases of `npm run bench -- languagebind`, in the published sizes
import { timed } from './timed.mjs'

const vt = await import(new URL('../../dist/index.js', import.meta.url).href)

const device = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
const [mode] = process.argv.slice(2)
const NARROW = { hiddenSize: 64, intermediateSize: 128, numHiddenLayers: 2, numAttentionHeads: 4, hiddenAct: 'gelu' }
const SMALL = {
  video: {
    textConfig: { ...NARROW, vocabSize: 120, maxPositionEmbeddings: 12 },
    visionConfig: { ...NARROW, imageSize: 56, patchSize: 14, addTimeAttn: true, numFrames: 8 },
    projectionDim: 32,
  },
  audio: {
    textConfig: { ...NARROW, vocabSize: 120, maxPositionEmbeddings: 12 },
    visionConfig: { ...NARROW, numMelBins: 28, targetLength: 112, patchSize: 14 },
    projectionDim: 32,
  },
}
const LARGE = { video: 'LanguageBind_Video_FT', audio: 'LanguageBind_Audio_FT' }

let failed = false
function report(passed, line) {
  console.log(`${line}${passed ? '' : ': FAILED'}`)
  if (!passed) failed = true
}

/** Texts that end with the largest id, whose state their encoder returns; and their pairs with images. */
function inputsOf(config, items, where) {
  const { textConfig = {}, visionConfig } = config.video
  const { vocabSize = 49_408, maxPositionEmbeddings: length = 77 } = textConfig
  const ids = Array.from({ length: items }, (_, row) =>
    Array.from({ length }, (_, i) => (i < length - 1 ? 1 + ((row * 31 + i * 37) % (vocabSize - 3)) : vocabSize - 1)),
  )
  const { imageSize: side } = visionConfig
  const { numMelBins, targetLength } = config.audio.visionConfig
  return {
    text: { inputIds: vt.tensor(ids, { dtype: 'int64' }).to(where) },
    video: vt.randn([items, 3, 8, side, side]).to(where),
    audio: vt.randn([items, 3, numMelBins, targetLength]).to(where),
  }
}
const numbers = async (tensor) => [...(await tensor.detach().to('cpu').double().data())]

async function valuesOn(where, state) {
  vt.manualSeed(5)
  const inputs = inputsOf(SMALL, 3, where)
  const model = vt.LanguageBind.fromConfig(SMALL, { device: where }).freeze().eval()
  model.loadStateDict(state)
  const values = { ...(await vt.noGrad(() => model.forward(inputs))) }
  const training = new vt.ContrastiveModel(model, { modality: 'video', lora: { r: 4, loraDropout: 0 } })
  const trained = training.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
  // What was drawn on one device is not what would be drawn on the other.
  vt.noGrad(() => {
    for (const [i, [name, one]] of trained.entries()) if (/lora/.test(name)) one.fill_(0.01 * ((i % 7) - 3))
  })
  const optimizer = new vt.AdamW(
    trained.map(([, one]) => one),
    { lr: 1e-3 },
  )
  const { text, video } = inputs
  const { loss, logits } = await training.forward({ text, video })
  await loss.backward()
  Object.assign(values, { loss, logits })
  for (const [name, { grad }] of trained) values[`gradient of ${name}`] = grad.clone()
  // AdamW's first step is the gradient's sign: the loss after it is compared, not the weights, where noise would have a sign.
  await optimizer.step()
  values['loss after the step'] = await vt.noGrad(async () => (await training.forward({ text, video })).loss)
  return values
}

async function same() {
  const state = vt.LanguageBind.fromConfig(SMALL, { seed: 3 }).stateDict()
  const [actual, expected] = [await valuesOn(device, state), await valuesOn('cpu', state)]
  let worst = ['nothing', 0]
  for (const [name, value] of Object.entries(expected)) {
    const [a, b] = [await numbers(actual[name]), await numbers(value)]
    const scale = Math.max(1e-3, ...b.map(Math.abs))
    const error = a.length === b.length ? Math.max(...b.map((one, i) => Math.abs(one - a[i]))) / scale : Infinity
    if (!(error <= worst[1])) worst = [name, error]
  }
  const count = Object.keys(expected).length
  report(
    count > 6 && worst[1] <= 1e-4,
    `${count} embeddings, losses and gradients: apart by ${worst[1].toExponential(1)}, most ${worst[0]}`,
  )
  const [before, after] = [expected.loss.item(), expected['loss after the step'].item()]
  report(before !== after, `a LoRA step: from ${before.toFixed(4)} to ${after.toFixed(4)}`)
}

async function speed() {
  const config = device === 'cpu' || process.env.VOXTORCH_GPU_CHECK_SIZE ? SMALL : LARGE
  const model = vt.LanguageBind.fromConfig(config, { device, seed: 1 }).eval().freeze()
  const { text } = inputsOf(model.config, 8, device)
  const clip = inputsOf(model.config, 1, device)
  const pairs = inputsOf(model.config, 2, device)
  const embed = (name, input) => async () => {
    const found = await vt.noGrad(() => model.forward({ [name]: input }))
    await found[name].flatten().narrow(0, 0, 1).float().data()
  }
  await timed(vt, 'text encoder, 8 texts', embed('text', text))
  await timed(vt, 'audio encoder', embed('audio', clip.audio))
  await timed(vt, 'video encoder, 8 frames', embed('video', clip.video))
  const training = new vt.ContrastiveModel(model, { modality: 'video' })
  const optimizer = new vt.AdamW(
    training.parameters().filter(({ requiresGrad }) => requiresGrad),
    { lr: 1e-4 },
  )
  training.train()
  await timed(vt, 'LoRA step with AdamW, 2 clips and texts', async () => {
    const { loss } = await training.forward({ text: pairs.text, video: pairs.video })
    await loss.backward()
    await optimizer.step()
    optimizer.zeroGrad()
    await loss.data()
  })
  training.eval()
  model.to({ dtype: 'bfloat16' })
  await timed(vt, 'video encoder, 8 frames, bfloat16, with adapters', embed('video', clip.video.to('bfloat16')))
}

await (mode === 'speed' ? speed() : same())
process.exitCode = failed ? 1 : 0
