import * as vt from 'voxtorch'
import { SpectraForSequenceClassification } from 'voxtorch/spectra'
import { serve } from './serve.mjs'
import { fill, ids, pattern } from './weights.mjs'

const SECOND = 16_000

/** The base size without dropout, which would be another on each side. */
const config = (options) => ({
  textConfig: {
    vocabSize: 50265,
    maxPositionEmbeddings: 514,
    typeVocabSize: 2,
    layerNormEps: 1e-5,
    hiddenDropoutProb: 0,
    attentionProbsDropoutProb: 0,
  },
  audioConfig: { hiddenDropout: 0, attentionDropout: 0, activationDropout: 0, featProjDropout: 0, layerdrop: 0 },
  numLabels: 6,
  ...options,
})

/** Texts of so many tokens with clips of so many seconds, padded to the longest. */
function batch(tokens, seconds) {
  const [rows, time] = [tokens.length, Math.max(...tokens)]
  const samples = seconds.map((length) => Math.round(length * SECOND))
  const width = Math.max(...samples)
  const attentionMask = vt.tensor(tokens.map((length) => Array.from({ length: time }, (_, i) => i < length)))
  const words = ids(rows, time, 50000).add(5)
  return {
    inputIds: words.mul(attentionMask).add(attentionMask.logicalNot()), // 1 is padding
    attentionMask,
    inputValues: vt
      .cat([pattern, pattern])
      .narrow(0, 0, rows * width)
      .view([rows, width]),
    audioLengths: vt.tensor(samples, { dtype: 'int64' }),
    labels: vt.tensor(tokens.map((_, i) => i % 6)),
  }
}

// The lengths of an emotion corpus, as a batch that was drawn without regard to length has them.
const mix = [
  [60, 44, 33, 26, 21, 16, 11, 6],
  [10, 7.4, 5.8, 4.6, 3.7, 2.9, 2.1, 1.5],
]
const cases = {
  even: { inputs: () => batch([64, 64], [10, 10]), options: { plain: {} } },
  mix: { inputs: () => batch(...mix), options: { free: {}, padded: { paddingFree: false } } },
}

function made(options) {
  const model = SpectraForSequenceClassification.fromConfig(config(options))
  fill(model)
  const parameters = [...model.parameters()].filter((parameter) => parameter.requiresGrad)
  return { model, parameters }
}

let built

const forward = ({ model }) => vt.noGrad(() => vt.scope(async () => (await model.forward(built.inputs)).loss.item()))

function step(one) {
  one.optimizer ??= new vt.AdamW(one.parameters, { lr: 1e-5 })
  return vt.scope(async () => {
    const { loss } = await one.model.forward(built.inputs)
    await loss.backward()
    await vt.clipGradNorm(one.parameters, 1)
    await one.optimizer.step()
    one.optimizer.zeroGrad()
    return loss.item()
  })
}

await serve(async ({ build, network, work, steps }) => {
  if (build) {
    const { inputs, options } = cases[build]
    built = { inputs: inputs(), networks: {} }
    for (const [name, one] of Object.entries(options)) built.networks[name] = made(one)
    return {}
  }
  const one = built.networks[network]
  const run = { forward, step }[work]
  let loss
  one.model.train(work === 'step')
  const start = performance.now()
  for (let i = 0; i < steps; i += 1) loss = await run(one)
  return { milliseconds: (performance.now() - start) / steps, loss }
})
