// What a token and a training step cost on CUDA, counted on the pretended device: kernels, those in a graph too; what the
// host launches, a graph being one; waits of the host; bytes copied. A layer's are those of a network with four layers
// less those of one with one.
//   node --import ./test/cuda/device/preload.mjs test/cuda/device/table.mjs [NAME]
const dist = new URL('../../../dist/modules/', import.meta.url)
const vt = await import(new URL('index.js', dist).href)
const { op } = await import(new URL('native/call.js', dist).href)
const [read, clear] = [op('pretended_cuda::counts'), op('pretended_cuda::reset')]

const device = 'cuda'
const only = process.argv[2] ?? ''
const verbose = process.argv.includes('--verbose')
const SEVEN = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']

async function counted(run) {
  clear()
  await run()
  return JSON.parse(read())
}

/** @param {number} layers */
const llama = (layers, dtype = 'bfloat16') =>
  vt.DecoderLM.fromConfig(
    {
      ...{ modelType: 'llama', vocabSize: 97, hiddenSize: 64, intermediateSize: 128 },
      ...{ numHiddenLayers: layers, numAttentionHeads: 4, numKeyValueHeads: 2 },
    },
    { device, dtype, seed: 3 },
  ).eval()
const lora = (model) => {
  vt.getPeftModel(model, { r: 8, loraAlpha: 16, targetModules: SEVEN })
  return model
}
const packed = (scheme) => async (model) => {
  await vt.quantize(model, { scheme })
  return model
}

/** A language model's token: what runs of 20 and of 10 differ by. */
const token =
  ({ rows = 1, masked = false, change = (model) => model, ...config } = {}) =>
  async (layers) => {
    const model = await change(llama(layers))
    const inputIds = vt.randint(0, 97, [rows, 5]).to(device)
    const attentionMask = masked
      ? vt.tensor(Array.from({ length: rows }, (_, i) => [0, 1, 2, 3, 4].map((j) => (j < i ? 0 : 1)))).to('int64')
      : undefined
    const given = attentionMask ? { inputIds, attentionMask: attentionMask.to(device) } : { inputIds }
    const write = (maxNewTokens) => counted(() => model.generate(given, { maxNewTokens, eosTokenId: [], ...config }))
    await write(4)
    return perToken(await write(10), await write(20))
  }

const whisper = async (layers) => {
  const model = vt.Whisper.fromConfig(
    {
      ...{ vocabSize: 120, dModel: 64, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 64, numMelBins: 80 },
      ...{ decoderLayers: layers, decoderAttentionHeads: 2, decoderFfnDim: 128, maxSourcePositions: 200 },
      ...{ bosTokenId: 100, eosTokenId: 101, padTokenId: 102, decoderStartTokenId: 103 },
    },
    { device, dtype: 'bfloat16', seed: 3 },
  ).eval()
  const inputFeatures = vt.randn([1, 80, 400], { device, dtype: 'bfloat16' })
  const write = (maxNewTokens) => counted(() => model.generate({ inputFeatures }, { maxNewTokens, eosTokenId: [] }))
  await write(4)
  return perToken(await write(10), await write(20))
}

function perToken(less, more) {
  const per = (name) => (more[name] - less[name]) / 10
  const by = Object.entries(more.launchesBy).map(([name, count]) => [name, (count - (less.launchesBy[name] ?? 0)) / 10])
  return {
    ...{
      launches: per('launches'),
      kernels: per('launches') + (per('replayed') || 0),
      waits: per('waits'),
      up: per('bytesToDevice'),
      down: per('bytesToHost'),
    },
    by: Object.fromEntries(by.filter(([, count]) => count > 0)),
    waitsBy: more.waitsBy,
  }
}

/** The third step of a training, which the first two have warmed. */
const step =
  (make, { eightBit = false, scaled = false } = {}) =>
  async (layers) => {
    const { model, inputs } = await make(layers)
    model.train()
    const parameters = [...model.parameters()].filter((parameter) => parameter.requiresGrad)
    const optimizer = new (eightBit ? vt.AdamW8bit : vt.AdamW)(parameters, { lr: 1e-4 })
    const scaler = scaled ? new vt.GradScaler() : null
    const run = () =>
      vt.scope(async () => {
        const { loss } = await model.forward(inputs)
        await (scaler ? scaler.scale(loss) : loss).backward()
        scaler?.unscale(optimizer)
        await vt.clipGradNorm(parameters, 1)
        await (scaler ? scaler.step(optimizer) : optimizer.step())
        scaler?.update()
        optimizer.zeroGrad()
      })
    await run()
    await run()
    const { launches, waits, bytesToDevice: up, bytesToHost: down, launchesBy: by, waitsBy } = await counted(run)
    return { launches, kernels: launches, waits, up, down, by, waitsBy }
  }

const ids = (rows, time, most) => vt.randint(0, most, [rows, time]).to(device)
const none = { hiddenDropout: 0, attentionDropout: 0, activationDropout: 0, featProjDropout: 0, layerdrop: 0 }
const language = (layers) => {
  const inputIds = ids(2, 12, 97)
  return { model: lora(llama(layers)), inputs: { inputIds, labels: inputIds } }
}
const full = (layers) => {
  const inputIds = ids(2, 12, 97)
  return { model: llama(layers, 'float32'), inputs: { inputIds, labels: inputIds } }
}

class SpectraShaped extends vt.Module {
  constructor(layers) {
    super()
    const sizes = { hiddenSize: 48, intermediateSize: 96, numAttentionHeads: 4, numHiddenLayers: layers }
    this.text = new vt.Roberta({ ...sizes, vocabSize: 200, hiddenDropoutProb: 0, attentionProbsDropoutProb: 0 })
    this.audio = new vt.WavLM({ ...sizes, applySpecAugment: false, ...none })
    this.fusion = new vt.TransformerEncoderLayer(48, 4, { dimFeedforward: 96, dropout: 0, batchFirst: true })
    this.head = new vt.Linear(48, 6)
  }
  async forward({ inputIds, inputValues, labels }) {
    const text = await this.text.forward({ inputIds })
    const audio = await this.audio.forward({ inputValues })
    const fused = this.fusion.forward(vt.cat([text.lastHiddenState, audio.lastHiddenState], 1))
    return { loss: vt.functional.crossEntropy(this.head.forward(fused.select(1, 0)), labels) }
  }
}
const spectra = (layers) =>
  vt.withDevice(device, () => ({
    model: new SpectraShaped(layers),
    inputs: { inputIds: ids(2, 16, 180), inputValues: vt.randn([2, 8000]), labels: vt.tensor([1, 4]) },
  }))

class SalmonnShaped extends vt.Module {
  constructor(layers) {
    super()
    this.inner = vt.Salmonn.fromConfig(
      {
        whisper: {
          ...{
            dModel: 32,
            encoderLayers: layers,
            encoderAttentionHeads: 2,
            encoderFfnDim: 48,
            maxSourcePositions: 200,
          },
          decoderAttentionHeads: 2,
        },
        beats: {
          ...{ embedDim: 16, encoderEmbedDim: 32, encoderFfnEmbedDim: 48, encoderAttentionHeads: 2 },
          ...{
            encoderLayers: layers,
            convPosGroups: 4,
            relativePositionEmbedding: true,
            gruRelPos: true,
            deepNorm: true,
          },
        },
        llm: { vocabSize: 101, hiddenSize: 32, intermediateSize: 48, numHiddenLayers: layers, numAttentionHeads: 4 },
        qformer: { hiddenSize: 24, numAttentionHeads: 3, intermediateSize: 32 },
      },
      { device },
    )
  }
  async forward({ clips, target }) {
    const heard = await this.inner.encodeAudio(clips)
    const { logits } = await this.inner.llm.forward({ inputsEmbeds: vt.cat(heard, 0).unsqueeze(0) })
    const time = logits.shape[1]
    return { loss: vt.functional.crossEntropy(logits.squeeze(0), target.narrow(0, 0, time)) }
  }
}
const salmonn = (layers) => ({
  model: new SalmonnShaped(layers),
  inputs: {
    clips: [Float32Array.from({ length: 16000 }, (_, i) => 0.2 * Math.sin(i / 9) * Math.sin(i / 2000))],
    target: ids(1, 400, 101).squeeze(0),
  },
})

const rows = {
  'token, bf16': token(),
  'token, bf16, LoRA on all seven': token({ change: lora }),
  'token, int8': token({ change: packed('int8') }),
  'token, NF4': token({ change: packed('nf4') }),
  'token, 8 rows': token({ rows: 8 }),
  'token, 3 rows, padded': token({ rows: 3, masked: true }),
  'token, 3 beams': token({ numBeams: 3 }),
  'token, sampled': token({ doSample: true, topK: 20 }),
  'token, Whisper': whisper,
  'step, LLaMA with LoRA, bf16': step(language),
  'step, LLaMA, fp32': step(full),
  'step, LLaMA, fp32, 8-bit AdamW': step(full, { eightBit: true }),
  'step, LLaMA, fp32, GradScaler': step(full, { scaled: true }),
  'step, SPECTRA-shaped': step(spectra),
  'step, SALMONN-shaped': step(salmonn),
}

console.log('| | kernels a layer | kernels besides | launched by the host, 4 layers | waits | bytes up | bytes down |')
console.log('| --- | --- | --- | --- | --- | --- | --- |')
for (const [name, run] of Object.entries(rows)) {
  if (!name.includes(only)) continue
  vt.manualSeed(1)
  try {
    const [one, four] = [await run(1), await run(4)]
    const layer = (four.kernels - one.kernels) / 3
    const short = (number) => Math.round(number * 10) / 10
    console.log(
      `| ${name} | ${short(layer)} | ${short(one.kernels - layer)} | ${short(four.launches)} | ${short(four.waits)} | ${short(four.up)} | ${short(four.down)} |`,
    )
    if (verbose) console.log(one.by, four.by, four.waitsBy)
  } catch (error) {
    console.log(`| ${name} | ${error.message.split('\n')[0].slice(0, 150)} |`)
    if (verbose) console.log(error)
  }
}
