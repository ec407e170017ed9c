// The networks that hear and speak for USDM on the device; scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
//   usdm.mjs same     states, units, spectrograms, samples, gradients and tokens under bans are those of the CPU
//   usdm.mjs speed    the networks' cases of `npm run bench -- usdm`, in the published sizes
import { timed } from './timed.mjs'

const vt = await import(new URL('../../dist/index.js', import.meta.url).href)

const device = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
const [mode] = process.argv.slice(2)
const XLSR = { featExtractNorm: 'layer', convBias: true, doStableLayerNorm: true }
const SNAKE = { numMels: 80, resblock: '1', activation: 'snakebeta', snakeLogscale: true, weightNorm: false }
const RATES = { upsampleRates: [4, 4, 2, 2, 2, 2], upsampleKernelSizes: [8, 8, 4, 4, 4, 4] }
const SMALL = {
  xlsr: { ...XLSR, hiddenSize: 64, intermediateSize: 128, numHiddenLayers: 3, numAttentionHeads: 4, numConvPosEmbeddingGroups: 4 }, // biome-ignore format: one line
  voicebox: {
    ...{ nFeats: 80, nTokens: 40, embeddingDim: 32, hiddenSize: 64, intermediateSize: 128, numAttentionHeads: 4 },
    ...{ numHiddenLayers: 4, convposWidth: 5, convposGroups: 4, convposDepth: 2 },
  },
  bigvgan: {
    ...SNAKE,
    ...RATES,
    upsampleInitialChannel: 64,
    resblockKernelSizes: [3],
    resblockDilationSizes: [[1, 3]],
  },
  llm: { modelType: 'llama', hiddenSize: 64, intermediateSize: 128, numHiddenLayers: 2, numAttentionHeads: 4, vocabSize: 300, initializerRange: 0.2 }, // biome-ignore format: one line
  ...{ samples: 16_000, frames: 60, banned: 100 },
}
// Those of bench/peers/usdm.mjs, and the language model of its case with bans.
const LARGE = {
  xlsr: { ...XLSR, hiddenSize: 1280, intermediateSize: 5120, numHiddenLayers: 35, numAttentionHeads: 16 },
  voicebox: {
    ...{ nFeats: 80, nTokens: 10_000, embeddingDim: 1280, hiddenSize: 1024, intermediateSize: 4096 },
    ...{ numAttentionHeads: 16, numHiddenLayers: 24, convposWidth: 31, convposGroups: 16, convposDepth: 2 },
  },
  bigvgan: {
    ...{ ...SNAKE, ...RATES, upsampleInitialChannel: 1536, resblockKernelSizes: [3, 7, 11] },
    resblockDilationSizes: [1, 2, 3].map(() => [1, 3, 5]),
  },
  llm: { modelType: 'llama', hiddenSize: 768, intermediateSize: 2048, numHiddenLayers: 12, numAttentionHeads: 12, vocabSize: 32_000, tieWordEmbeddings: true }, // biome-ignore format: one line
  ...{ samples: 160_000, frames: 430, banned: 10_000 },
}
const CLASSES = { xlsr: vt.Wav2Vec2, voicebox: vt.UnitVoicebox, bigvgan: vt.BigVGAN, llm: vt.DecoderLM }

let failed = false
function report(passed, line) {
  console.log(`${line}${passed ? '' : ': FAILED'}`)
  if (!passed) failed = true
}
const build = (sizes, name, options) => CLASSES[name].fromConfig(sizes[name], options).eval()
const numbers = async (tensor) => [...(await tensor.detach().to('cpu').double().data())]

/** Inputs of the networks, drawn on the CPU so that they are the same on every device. */
function inputsOf({ samples, frames, voicebox, llm }, where) {
  vt.manualSeed(5)
  const drawn = {
    inputValues: vt.randn([1, samples], { device: 'cpu' }).mul(0.1),
    units: vt.randint(0, voicebox.nTokens, [1, frames], { device: 'cpu' }),
    noise: vt.randn([1, 80, frames], { device: 'cpu' }),
    mel: vt.randn([1, 80, frames], { device: 'cpu' }),
    inputIds: vt.randint(0, llm.vocabSize, [1, 32], { device: 'cpu' }),
  }
  return Object.fromEntries(Object.entries(drawn).map(([name, one]) => [name, one.to(where)]))
}
const bans = ({ banned }, maxNewTokens) => ({
  ...{ maxNewTokens, eosTokenId: [], padTokenId: 1 },
  suppressTokens: Array.from({ length: banned }, (_, id) => id),
})

async function valuesOn(where) {
  const { inputValues, units, noise, mel, inputIds } = inputsOf(SMALL, where)
  const made = Object.fromEntries(
    Object.keys(CLASSES).map((name) => [name, build(SMALL, name, { seed: 3 }).to({ device: where })]),
  )
  const values = {}
  const { lastHiddenState } = await made.xlsr.forward({ inputValues })
  values['states of XLS-R'] = lastHiddenState
  const centroids = lastHiddenState.detach().select(0, 0).narrow(0, 0, 20).contiguous()
  const extractor = await vt.UnitExtractor.fromPretrained({ encoder: made.xlsr, kmeans: centroids, layer: 3 })
  const heard = [...(await extractor.extract({ samples: inputValues.flatten(), sampleRate: 16_000 }))]
  values['a spectrogram with guidance'] = await made.voicebox.generate({ units, noise, steps: 5, guidance: 1 })
  values['a spectrogram in a voice'] = await made.voicebox.generate({
    ...{ units, noise, steps: 4, solver: 'euler', guidance: 1 },
    ...{ prompt: mel.narrow(2, 0, 20), promptNoise: 'fixed' },
  })
  const { loss } = await made.voicebox.loss({ units, mel, noise, time: vt.tensor([0.3]).to(where) })
  await loss.backward()
  const { waveform } = await made.bigvgan.forward({ mel })
  await waveform.square().mean().backward()
  Object.assign(values, { "the Voicebox's loss": loss, samples: waveform })
  for (const name of ['voicebox', 'bigvgan']) {
    for (const [parameter, { grad }] of made[name].namedParameters()) {
      if (grad) values[`gradient of ${name}'s ${parameter}`] = grad.clone()
    }
  }
  const { tokens } = await made.llm.generate({ inputIds }, bans(SMALL, 24))
  return { values, heard, tokens: tokens[0].map(Number) }
}

async function same() {
  const [actual, expected] = [await valuesOn(device), await valuesOn('cpu')]
  let worst = ['nothing', 0]
  for (const [name, value] of Object.entries(expected.values)) {
    const [a, b] = [await numbers(actual.values[name]), await numbers(value)]
    const scale = Math.max(1e-3, ...b.map(Math.abs))
    const error = a.length === b.length ? Math.max(...b.map((one, i) => Math.abs(one - a[i]))) / scale : Infinity
    if (!(error <= worst[1])) worst = [name, error]
  }
  const count = Object.keys(expected.values).length
  const apart = `apart by ${worst[1].toExponential(1)}, most ${worst[0]}`
  report(count > 50 && worst[1] <= 1e-3, `${count} states, spectrograms, samples and gradients: ${apart}`)
  for (const [what, key] of [
    ['units of a second', 'heard'],
    ['tokens under bans', 'tokens'],
  ]) {
    report(
      expected[key].length > 20 && `${actual[key]}` === `${expected[key]}`,
      `${expected[key].length} ${what} are the same`,
    )
  }
  const least = Math.min(...actual.tokens)
  report(least >= SMALL.banned, `no banned token was written: the least is ${least}`)
}

async function speed() {
  const sizes = device === 'cpu' || process.env.VOXTORCH_GPU_CHECK_SIZE ? SMALL : LARGE
  const { inputValues, units, noise, mel, inputIds } = inputsOf(sizes, device)
  const ready = (tensor) => tensor.flatten().narrow(0, 0, 1).float().data()
  const seconds = (count) => `${((count * 256) / 22_050).toFixed(1)} s`
  const runs = {
    xlsr: [
      `XLS-R, ${sizes.xlsr.numHiddenLayers} blocks, ${sizes.samples / 16_000} s`,
      async (network) => ready((await network.forward({ inputValues })).lastHiddenState),
    ],
    voicebox: [
      `Voicebox, 2 evaluations with guidance, ${seconds(sizes.frames)}`,
      async (network) => ready(await network.generate({ units, noise, steps: 2, solver: 'euler', guidance: 1 })),
    ],
    bigvgan: [`BigVGAN, ${seconds(sizes.frames)}`, async (network) => ready((await network.forward({ mel })).waveform)],
    llm: [`32 tokens, ${sizes.banned} banned`, (network) => network.generate({ inputIds }, bans(sizes, 32))],
  }
  // One after the other: together they would take 8 GB.
  for (const [name, [what, run]] of Object.entries(runs)) {
    const network = build(sizes, name, { device, seed: 1 }).freeze()
    await timed(vt, what, () => vt.noGrad(() => run(network)))
    network.dispose()
    vt.emptyCache()
  }
}

await (mode === 'speed' ? speed() : same())
process.exitCode = failed ? 1 : 0
