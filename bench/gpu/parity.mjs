// voxtorch in Node on the device against the CPU: parity.mjs load|parity. scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
import { existsSync } from 'node:fs'

const dist = new URL('../../dist/', import.meta.url)
if (!existsSync(new URL('index.js', dist))) throw new Error('dist/ is not compiled: run `npm run build` first')
const vt = await import(new URL('index.js', dist).href)
const { op } = await import(new URL('native/call.js', dist).href)
const { ops, scope } = vt

const device = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
let failures = 0

async function check(name, run) {
  try {
    const note = await run()
    console.log(`${name}: ok${note ? ` (${note})` : ''}`)
  } catch (error) {
    failures += 1
    console.log(`${name}: FAILED: ${error.stack}`)
  }
}

function expect(condition, message) {
  if (!condition) throw new Error(message)
}

async function relativeError(actual, expected) {
  expect(`${actual.shape}` === `${expected.shape}`, `shape [${actual.shape}], expected [${expected.shape}]`)
  const [a, b] = await Promise.all([actual, expected].map((tensor) => tensor.detach().to('cpu').double().data()))
  let [difference, scale] = [0, 1e-3]
  for (let i = 0; i < b.length; i += 1) {
    if (Object.is(a[i], b[i])) continue
    expect(Number.isFinite(a[i]) === Number.isFinite(b[i]), `element ${i} is ${a[i]}, expected ${b[i]}`)
    difference = Math.max(difference, Math.abs(a[i] - b[i]))
    scale = Math.max(scale, Math.abs(b[i]))
  }
  return difference / scale
}

vt.manualSeed(5)
const randn = (...shape) => vt.randn(shape)
const integers = (high, ...shape) => vt.randint(0, high, shape)
const rmsNormResidual = op('voxtorch::rms_norm_residual')
const antiAliasedSnake = op('voxtorch::anti_aliased_snake')
const gatedPositionAttention = op('voxtorch::gated_position_attention')

// name: inputs on the CPU, and a function of them. Those in float32 are differentiated too.
const operators = {
  add: [[randn(4, 5), randn(5)], (a, b) => a.add(b, { alpha: 2 })],
  matmul: [[randn(3, 65, 33), randn(3, 33, 17)], (a, b) => a.matmul(b)],
  linear: [[randn(7, 64), randn(32, 64), randn(32)], (x, w, b) => ops.linear(x, w, b)],
  conv1d: [[randn(2, 8, 100), randn(16, 8, 5), randn(16)], (x, w, b) => ops.conv1d(x, w, b, [2], [2])],
  conv2d: [[randn(2, 3, 16, 16), randn(8, 3, 3, 3)], (x, w) => ops.conv2d(x, w)],
  gelu: [[randn(100)], (x) => x.gelu()],
  softmax: [[randn(6, 50)], (x) => x.softmax(-1)],
  logSumExp: [[randn(6, 50)], (x) => x.logsumexp([1])],
  layerNorm: [[randn(6, 48), randn(48), randn(48)], (x, w, b) => ops.layerNorm(x, [48], w, b)],
  groupNorm: [[randn(2, 8, 20), randn(8), randn(8)], (x, w, b) => ops.groupNorm(x, 4, w, b)],
  embedding: [[randn(20, 8), integers(20, 3, 6)], (w, i) => ops.embedding(w, i)],
  crossEntropy: [[randn(9, 7), integers(7, 9)], (x, y) => ops.crossEntropyLoss(x, y)],
  attention: [
    [randn(2, 4, 33, 16), randn(2, 4, 33, 16), randn(2, 4, 33, 16)],
    (q, k, v) => ops.scaledDotProductAttention(q, k, v),
  ],
  sumMean: [[randn(5, 1000)], (x) => x.sum([1]).add(x.mean())],
  variance: [[randn(5, 1000)], (x) => x.var([1])],
  cumsum: [[randn(5, 40)], (x) => x.cumsum(1)],
  sort: [[randn(300)], (x) => x.sort().values],
  topk: [[randn(5, 60)], (x) => x.topk(3).values],
  gather: [[randn(5, 9), integers(9, 5, 4)], (x, i) => x.gather(1, i)],
  indexSelect: [[randn(9, 5), integers(9, 20)], (x, i) => x.indexSelect(0, i)],
  maskedFill: [[randn(30)], (x) => x.maskedFill(x.gt(0), -1)],
  where: [[randn(30), randn(30)], (a, b) => a.where(a.gt(b), b)],
  slicing: [[randn(6, 7)], (x) => x.at(vt.slice(1, 5), vt.slice(null, null, 3))],
  fft: [[randn(4, 128)], (x) => ops.fftRfft(x).abs()],
  rmsNorm: [[randn(5, 96), randn(96)], (x, w) => ops.rmsNorm(x, [96], w)],
  rmsNormResidual: [
    [randn(5, 96), randn(5, 96), randn(96)],
    (x, r, w) => {
      const { output, residualOutput } = rmsNormResidual(x, r, w)
      return output.add(residualOutput, { alpha: 0.5 })
    },
  ],
  gatedPositionAttention: [
    [randn(2, 3, 70, 64), randn(2, 3, 70, 64), randn(2, 3, 70, 64), randn(2, 3, 70), randn(3, 139)],
    (q, k, v, gate, relative) => gatedPositionAttention(q, k, v, gate, relative, null, 0.2, 7),
  ],
  antiAliasedSnake: [
    [randn(2, 3, 517), randn(3).exp(), randn(3).exp(), randn(12).mul(0.3), randn(12).mul(0.3)],
    (x, frequency, magnitude, up, down) => antiAliasedSnake(x, frequency, magnitude, up, down),
  ],
  antiAliasedSnakeFixed: [
    [randn(2, 3, 517), randn(3).exp(), randn(3).exp(), vt.arange(12).mul(0.37).sin()],
    (x, frequency, magnitude, taps) => antiAliasedSnake(x, frequency, magnitude, taps.detach(), taps.detach()),
  ],
  rmsNormResidualOdd: [[randn(3, 4099), randn(3, 4099), randn(4099)], (x, r, w) => rmsNormResidual(x, r, w).output],
}

async function evaluate(where, [inputs, run]) {
  const leaves = inputs.map((input) => {
    const leaf = input.to(where).detach().clone()
    if (leaf.dtype === 'float32') leaf.requiresGrad = true
    return leaf
  })
  const result = run(...leaves)
  const wanted = leaves.filter((leaf) => leaf.requiresGrad)
  // A cotangent that is the same everywhere and not constant.
  const count = result.shape.reduce((product, size) => product * size, 1)
  const cotangent = vt.arange(count).reshape(result.shape).mul(0.37).sin().to(where)
  return [result, ...(await vt.autograd.grad([result], wanted, { gradOutputs: [cotangent], allowUnused: true }))]
}

/** The losses of a small network's first steps. */
async function train(where) {
  vt.manualSeed(11)
  const [x, y] = [vt.randn([64, 20]).to(where), vt.randint(0, 4, [64]).to(where)]
  const weights = [[32, 20], [32], [4, 32], [4]].map((shape) => {
    const weight = vt.randn(shape).mul(0.2).to(where).detach()
    weight.requiresGrad = true
    return weight
  })
  const optimizer = new vt.AdamW(weights, { lr: 1e-2 })
  const losses = []
  for (let step = 0; step < 20; step += 1) {
    await scope(async () => {
      const hidden = ops.linear(x, weights[0], weights[1]).gelu()
      const loss = ops.crossEntropyLoss(ops.linear(rmsNormResidual(hidden).output, weights[2], weights[3]), y)
      await loss.backward()
      await optimizer.step()
      optimizer.zeroGrad()
      losses.push(loss.item())
    })
  }
  return losses
}

const SALMONN = {
  whisper: {
    ...{ dModel: 32, encoderLayers: 2, encoderAttentionHeads: 2, encoderFfnDim: 48, maxSourcePositions: 200 },
    decoderAttentionHeads: 2,
  },
  beats: {
    ...{ embedDim: 16, encoderEmbedDim: 32, encoderFfnEmbedDim: 48, encoderAttentionHeads: 2, encoderLayers: 2 },
    ...{ convPosGroups: 4, relativePositionEmbedding: true, gruRelPos: true, deepNorm: true },
  },
  llm: { vocabSize: 101, hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2, numAttentionHeads: 4 },
  qformer: { hiddenSize: 24, numAttentionHeads: 3, intermediateSize: 32 },
}

/** Embeddings of two clips, one beyond the encoder's window; a loss and gradients; the ids of an answer. */
async function salmonn(where, state) {
  const model = vt.Salmonn.fromConfig(SALMONN, { device: where }).eval()
  model.loadStateDict(state)
  const clips = [0.7, 5.3].map((seconds) =>
    Float32Array.from({ length: 16000 * seconds }, (_, i) => 0.2 * Math.sin(i / 9) * Math.sin(i / 2000)),
  )
  const heard = await model.encodeAudio(clips)
  const inputsEmbeds = vt.cat(heard, 0).unsqueeze(0)
  const { logits } = await model.llm.forward({ inputsEmbeds })
  await logits.square().mean().backward()
  const { tokens } = await vt.noGrad(() => model.llm.generate({ inputsEmbeds }, { minNewTokens: 12, maxNewTokens: 12 }))
  const gradients = [model.speech_query_tokens.grad, model.speech_llama_proj.weight.grad]
  return { values: [...heard, logits, ...gradients], tokens: `${tokens}` }
}

const XLSR = {
  ...{ hiddenSize: 32, numHiddenLayers: 3, numAttentionHeads: 4, intermediateSize: 48, convDim: new Array(7).fill(16) },
  ...{ featExtractNorm: 'layer', doStableLayerNorm: true, convBias: true },
  ...{ numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 4 },
}
const VOICEBOX = {
  ...{ nFeats: 80, nTokens: 40, embeddingDim: 16, hiddenSize: 64, intermediateSize: 96, numAttentionHeads: 4 },
  ...{ numHiddenLayers: 4, convposWidth: 5, convposGroups: 4, activationDropout: 0 },
}
const BIGVGAN = {
  ...{ upsampleInitialChannel: 64, upsampleRates: [4, 4], upsampleKernelSizes: [8, 8] },
  ...{ resblockKernelSizes: [3, 7], resblockDilationSizes: [[1, 3, 5], [1, 3, 5]] }, // biome-ignore format: one line
}
const MISTRAL = {
  ...{ modelType: 'mistral', vocabSize: 90, hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2 },
  ...{ numAttentionHeads: 4, numKeyValueHeads: 2, slidingWindow: 6, windowInclusive: true },
}

/** One step through each of USDM's networks: the encoder, a packed row of two sequences, the Voicebox's loss and samples, the vocoder. */
async function usdm(where, states) {
  const of = (Network, config, name) => {
    const network = Network.fromConfig(config, { device: where })
    network.loadStateDict(states[name])
    return network
  }
  const on = (tensor) => tensor.to(where)
  const wave = (length, i) =>
    vt
      .arange(length)
      .mul(0.013 * (i + 1))
      .sin()
      .mul(0.3)
  const xlsr = new vt.UnitEncoder(of(vt.Wav2Vec2, XLSR, 'xlsr').eval(), 2)
  const heard = await vt.noGrad(() => xlsr.states([5000, 8001].map((length, i) => on(wave(length, i)))))
  const llm = of(vt.DecoderLM, MISTRAL, 'llm')
  const inputIds = on(vt.arange(30, { dtype: 'int64' }).mul(7).remainder(90).unsqueeze(0))
  const { loss: said } = await llm.forward({ inputIds, labels: inputIds, sequenceLengths: [13, 17] })
  await said.backward()
  const voicebox = of(vt.UnitVoicebox, VOICEBOX, 'voicebox')
  const units = on(vt.arange(40, { dtype: 'int64' }).reshape([2, 20]))
  const noise = on(wave(3200, 1).reshape([2, 80, 20]))
  const visible = on(vt.arange(40).reshape([2, 20]).remainder(3).eq(0))
  const { loss } = await voicebox.loss({ units, mel: noise.cos(), noise, visible, time: on(vt.tensor([0.3, 0.8])) })
  await loss.backward()
  voicebox.eval()
  const mel = await vt.noGrad(() => voicebox.generate({ units, noise, steps: 4, solver: 'heun', guidance: 1 }))
  const bigvgan = of(vt.BigVGAN, BIGVGAN, 'bigvgan')
  const { waveform } = await bigvgan.forward({ mel })
  await waveform.square().mean().backward()
  const gradients = [llm, voicebox, bigvgan].flatMap((one) => one.parameters().map(({ grad }) => grad))
  return [...heard, said, loss, mel, waveform, ...gradients.filter((gradient) => gradient !== null)]
}

async function parity() {
  for (const [name, entry] of Object.entries(operators)) {
    await check(name, () =>
      scope(async () => {
        const [actual, expected] = [await evaluate(device, entry), await evaluate('cpu', entry)]
        let worst = 0
        for (const [i, value] of expected.entries()) {
          expect((value === null) === (actual[i] === null), `gradient ${i} is missing on one side`)
          if (value === null) continue
          expect(actual[i].device.startsWith(device), `result ${i} is on ${actual[i].device}`)
          worst = Math.max(worst, await relativeError(actual[i], value))
        }
        expect(worst <= 1e-4, `${device} and cpu differ by ${worst.toExponential(1)}`)
        return worst.toExponential(1)
      }),
    )
  }

  await check('twenty training steps', async () => {
    const [actual, expected] = [await train(device), await train('cpu')]
    const worst = Math.max(...expected.map((loss, i) => Math.abs(loss - actual[i])))
    expect(worst < 1e-3, `losses differ by ${worst}: ${actual} against ${expected}`)
    return `loss ${actual[0].toFixed(3)} to ${actual.at(-1).toFixed(3)}, apart by ${worst.toExponential(1)}`
  })
  await check('SALMONN: what is heard, gradients and an answer', () =>
    scope(async () => {
      const state = vt.Salmonn.fromConfig(SALMONN).stateDict()
      const [actual, expected] = [await salmonn(device, state), await salmonn('cpu', state)]
      let worst = 0
      for (const [i, value] of expected.values.entries()) {
        expect(actual.values[i].device.startsWith(device), `result ${i} is on ${actual.values[i].device}`)
        worst = Math.max(worst, await relativeError(actual.values[i], value))
      }
      expect(worst <= 1e-3, `${device} and cpu differ by ${worst.toExponential(1)}`)
      expect(actual.tokens === expected.tokens, `answers are ${actual.tokens} and ${expected.tokens}`)
      return worst.toExponential(1)
    }),
  )
  await check('USDM: a step of each network, and its gradients', () =>
    scope(async () => {
      const states = {
        xlsr: vt.Wav2Vec2.fromConfig(XLSR, { seed: 1 }).stateDict(),
        llm: vt.DecoderLM.fromConfig(MISTRAL, { seed: 2 }).stateDict(),
        voicebox: vt.UnitVoicebox.fromConfig(VOICEBOX, { seed: 3 }).stateDict(),
        bigvgan: vt.BigVGAN.fromConfig(BIGVGAN, { seed: 4 }).stateDict(),
      }
      const [actual, expected] = [await usdm(device, states), await usdm('cpu', states)]
      expect(actual.length === expected.length, `${actual.length} values, expected ${expected.length}`)
      let worst = 0
      for (const [i, value] of expected.entries()) {
        expect(actual[i].device.startsWith(device), `result ${i} is on ${actual[i].device}`)
        worst = Math.max(worst, await relativeError(actual[i], value))
      }
      expect(worst <= 1e-3, `${device} and cpu differ by ${worst.toExponential(1)}`)
      return `${expected.length} values, ${worst.toExponential(1)}`
    }),
  )
  await check('autocast', () =>
    scope(() =>
      vt.autocast({ device: device.split(':')[0], dtype: 'bfloat16' }, () => {
        const product = vt.randn([8, 8], { device }).matmul(vt.randn([8, 8], { device }))
        expect(product.dtype === 'bfloat16', `matmul gave ${product.dtype}`)
        const { output } = rmsNormResidual(product, null, vt.ones([8], { device }))
        expect(output.dtype === 'float32', `rms_norm_residual gave ${output.dtype}`)
      }),
    ),
  )
  await check('a seed gives the same numbers again', () =>
    scope(async () => {
      const draw = () => {
        vt.manualSeed(3)
        return vt.randn([1000], { device })
      }
      expect((await relativeError(draw(), draw())) === 0, 'they differ')
    }),
  )
  await check('the event loop runs on while a queued job and data() run', () =>
    scope(async () => {
      let [worst, last] = [0, performance.now()]
      const timer = setInterval(() => {
        worst = Math.max(worst, performance.now() - last)
        last = performance.now()
      }, 1)
      // A GPU is busy for a while with large matrices; what computes on the CPU is with small ones.
      const size = Number(process.env.VOXTORCH_GPU_CHECK_SIZE ?? (device === 'cpu' ? 600 : 4096))
      let product = vt.randn([size, size], { device, requiresGrad: true })
      for (let i = 0; i < 10; i += 1) product = product.matmul(product).mul(1e-3)
      await product.sum().backward()
      await product.data()
      clearInterval(timer)
      return `longest pause ${worst.toFixed(0)} ms`
    }),
  )
  await check('no tensor is left', () => {
    const before = vt.memoryStats().liveTensors
    scope(() => {
      rmsNormResidual(vt.randn([4, 8], { device }))
    })
    expect(vt.memoryStats().liveTensors === before, 'some are')
  })
  if (device === 'cpu') return
  await check('tensors on two devices give an error that says so', () => {
    for (const call of [
      () => rmsNormResidual(vt.ones([4], { device }), vt.ones([4])),
      () => vt.ones([4], { device }).add(vt.ones([4])),
    ]) {
      try {
        call()
      } catch (error) {
        expect(error instanceof vt.DeviceError, `${error}`)
        continue
      }
      throw new Error('nothing was thrown')
    }
  })
  await check('more memory than there is', async () => {
    try {
      vt.empty([2 ** 42], { device })
    } catch (error) {
      expect(error instanceof vt.OutOfMemoryError, `${error}`)
      vt.ones([4], { device }).sum().item()
      return
    }
    throw new Error('nothing was thrown')
  })
}

await check('device', () => {
  expect(device === 'cpu' || vt.cuda.isAvailable(), `CUDA is not available: ${vt.cuda.unavailableReason()}`)
  return `${device}, Node ${process.versions.node}, sum ${vt.ones([3], { device }).sum().item()}`
})
if (process.argv[2] === 'parity' && failures === 0) await parity()
console.log(failures === 0 ? 'all passed' : `${failures} failed`)
process.exitCode = failures === 0 ? 0 : 1
