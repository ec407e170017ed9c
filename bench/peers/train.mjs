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

const seven = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
const cases = {
  spectra: [spectra],
  spectraLora: [spectra, ['query', 'value', 'q_proj', 'v_proj']],
  llama: [llama],
  llamaLora: [llama, ['q_proj', 'v_proj']],
  llamaLoraAll: [llama, seven],
}

let built
await serve(async ({ build, steps }) => {
  if (build) {
    const [make, targetModules] = cases[build]
    const { model, inputs } = make()
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
