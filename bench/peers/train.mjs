import { readFileSync, writeFileSync } from 'node:fs'
import * as vt from 'voxtorch'
import { serve } from './serve.mjs'
import { fill, ids, pattern } from './weights.mjs'

const kibibytes = (field) =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1])

const none = { hiddenDropout: 0, attentionDropout: 0, activationDropout: 0, featProjDropout: 0, layerdrop: 0 }

/** Text and audio in one layer over both, and a classifier on the first position. */
class SpectraShaped extends vt.Module {
  text = new vt.Roberta({
    vocabSize: 8000,
    numHiddenLayers: 4,
    maxPositionEmbeddings: 514,
    typeVocabSize: 2,
    hiddenDropoutProb: 0,
    attentionProbsDropoutProb: 0,
  })
  audio = new vt.WavLM({ numHiddenLayers: 4, applySpecAugment: false, ...none })
  fusion = new vt.TransformerEncoderLayer(768, 12, {
    dimFeedforward: 3072,
    dropout: 0,
    activation: 'gelu',
    batchFirst: true,
  })
  head = new vt.Linear(768, 6)

  async forward({ inputIds, inputValues, labels }) {
    const text = await this.text.forward({ inputIds })
    const audio = await this.audio.forward({ inputValues })
    const fused = this.fusion.forward(vt.cat([text.lastHiddenState, audio.lastHiddenState], 1))
    return { loss: vt.functional.crossEntropy(this.head.forward(fused.select(1, 0)), labels) }
  }
}

function spectra() {
  const inputValues = pattern.narrow(0, 0, 2 * 64_000).view([2, 64_000])
  const inputs = { inputIds: ids(2, 64, 7000).add(5), inputValues, labels: vt.tensor([1, 4]) }
  return { model: new SpectraShaped(), inputs }
}

function llama() {
  const config = { vocabSize: 32000, hiddenSize: 512, intermediateSize: 1376, numHiddenLayers: 6, numAttentionHeads: 8 }
  const inputIds = ids(4, 128, 32000)
  return { model: new vt.DecoderLM({ ...config, modelType: 'llama' }), inputs: { inputIds, labels: inputIds } }
}

class Whisper extends vt.Module {
  network = new vt.Whisper({
    dModel: 512,
    encoderLayers: 6,
    decoderLayers: 6,
    encoderAttentionHeads: 8,
    decoderAttentionHeads: 8,
    encoderFfnDim: 2048,
    decoderFfnDim: 2048,
  })

  forward(inputs) {
    return this.network.forward(inputs)
  }
}

function whisper() {
  const inputFeatures = pattern.narrow(0, 0, 2 * 80 * 3000).view([2, 80, 3000])
  return { model: new Whisper(), inputs: { inputFeatures, labels: ids(2, 64, 50000) } }
}

/** Two clips of 10 seconds, with texts. */
function qwen2Audio() {
  const audioTokenIndex = 31999
  const model = vt.AudioLM.fromConfig({
    ...{ modelType: 'qwen2_audio', audioTokenIndex },
    audioConfig: { dModel: 640, encoderLayers: 6, encoderAttentionHeads: 10, encoderFfnDim: 2560, numMelBins: 128 },
    textConfig: {
      ...{ modelType: 'qwen2', vocabSize: 32000, hiddenSize: 1024, intermediateSize: 2752, numHiddenLayers: 6 },
      ...{ numAttentionHeads: 8, numKeyValueHeads: 8 },
    },
  })
  const inputFeatures = pattern.narrow(0, 0, 2 * 128 * 3000).view([2, 128, 3000])
  const featuresMask = vt.arange(3000).lt(1000).to('int64').expand([2, 3000])
  const audio = vt.full([2, 250], audioTokenIndex, { dtype: 'int64' })
  const text = ids(2, 64, 31000)
  const inputIds = vt.cat([text.narrow(1, 0, 16), audio, text.narrow(1, 16, 48)], 1)
  const labels = inputIds.maskedFill(inputIds.eq(audioTokenIndex), -100)
  return { model, inputs: { inputIds, inputFeatures, featuresMask, labels } }
}

class Block extends vt.Module {
  constructor(width, heads) {
    super()
    this.heads = heads
    this.norm_1 = new vt.LayerNorm(width)
    this.attention = new vt.Linear(width, 3 * width)
    this.projection = new vt.Linear(width, width)
    this.norm_2 = new vt.LayerNorm(width)
    this.mlp = new vt.Sequential(new vt.Linear(width, 4 * width), new vt.GELU(), new vt.Linear(4 * width, width))
  }

  forward(x) {
    const [batch, time, width] = x.shape
    const parts = this.attention.forward(this.norm_1.forward(x)).split(width, 2)
    const [q, k, v] = parts.map((part) => part.view([batch, time, this.heads, -1]).transpose(1, 2))
    const mixed = vt.functional.scaledDotProductAttention(q, k, v, { isCausal: true })
    const y = x.add(this.projection.forward(mixed.transpose(1, 2).reshape([batch, time, width])))
    return y.add(this.mlp.forward(this.norm_2.forward(y)))
  }
}

/** A character GPT, written by hand. */
class GPT extends vt.Module {
  constructor(tokens = 65, time = 256, width = 384, heads = 6, layers = 6) {
    super()
    this.tokens = new vt.Embedding(tokens, width)
    this.positions = new vt.Embedding(time, width)
    this.blocks = new vt.ModuleList(Array.from({ length: layers }, () => new Block(width, heads)))
    this.norm = new vt.LayerNorm(width)
    this.head = new vt.Linear(width, tokens, { bias: false })
  }

  forward({ inputIds }) {
    let x = this.tokens.forward(inputIds).add(this.positions.forward(vt.arange(inputIds.size(1))))
    for (const block of this.blocks) x = block.forward(x)
    const logits = this.head.forward(this.norm.forward(x))
    return { loss: vt.functional.crossEntropy(logits.view([-1, logits.size(-1)]), inputIds.view([-1])) }
  }
}

const gpt = () => ({ model: new GPT(), inputs: { inputIds: ids(8, 256, 65) } })

const seven = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
const cases = {
  spectra: [spectra],
  spectraLora: [spectra, ['query', 'value', 'q_proj', 'v_proj']],
  llama: [llama],
  llamaLora: [llama, ['q_proj', 'v_proj']],
  llamaLoraAll: [llama, seven],
  whisper: [whisper],
  whisperLora: [whisper, ['q_proj', 'v_proj']],
  qwen2AudioLora: [qwen2Audio, ['q_proj', 'v_proj']],
  gpt: [gpt],
}

let built
await serve(async ({ build, half, steps }) => {
  if (build) {
    const [make, targetModules] = cases[build]
    const { model, inputs } = make()
    if (half) {
      model.to('bfloat16')
      for (const [key, value] of Object.entries(inputs)) {
        if (value.dtype === 'float32') inputs[key] = value.to('bfloat16')
      }
    }
    if (targetModules) vt.getPeftModel(model, { r: 8, loraAlpha: 16, targetModules })
    fill(model)
    model.train()
    const parameters = [...model.parameters()].filter((parameter) => parameter.requiresGrad)
    const optimizer = new vt.AdamW(parameters, { lr: 1e-5 })
    vt.emptyCache()
    writeFileSync('/proc/self/clear_refs', '5')
    built = { model, inputs, parameters, optimizer, before: kibibytes('VmRSS') }
    return { parameters: parameters.length }
  }
  let loss
  const start = performance.now()
  for (let i = 0; i < steps; i += 1) {
    await vt.scope(async () => {
      const output = await built.model.forward(built.inputs)
      await output.loss.backward()
      await vt.clipGradNorm(built.parameters, 1)
      await built.optimizer.step()
      built.optimizer.zeroGrad()
      loss = output.loss.item()
    })
  }
  const milliseconds = (performance.now() - start) / steps
  return { milliseconds, loss, peak: (kibibytes('VmHWM') - built.before) * 1024 }
})
