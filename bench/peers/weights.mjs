// Weights and inputs that both sides make alike, and the sizes of what they make.
import * as vt from 'voxtorch'

/** LLaMA of 110M parameters, as in decode.py. */
export const LLAMA = {
  vocabSize: 32000,
  hiddenSize: 768,
  intermediateSize: 2048,
  numHiddenLayers: 12,
  numAttentionHeads: 12,
  maxPositionEmbeddings: 1024,
  tieWordEmbeddings: true,
}

/** Published shapes of other families: Qwen3-0.6B and Gemma 3 270M. */
export const QWEN3 = {
  ...{ modelType: 'qwen3', vocabSize: 151936, hiddenSize: 1024, intermediateSize: 3072, numHiddenLayers: 28 },
  ...{ numAttentionHeads: 16, numKeyValueHeads: 8, headDim: 128, ropeTheta: 1_000_000, rmsNormEps: 1e-6 },
  ...{ maxPositionEmbeddings: 40960, tieWordEmbeddings: true },
}
const GEMMA3_LAYERS = 18
export const GEMMA3 = {
  ...{ modelType: 'gemma3_text', vocabSize: 262144, hiddenSize: 640, intermediateSize: 2048 },
  ...{ numHiddenLayers: GEMMA3_LAYERS, numAttentionHeads: 4, numKeyValueHeads: 1, headDim: 256 },
  ...{ queryPreAttnScalar: 256, slidingWindow: 512, ropeTheta: 1_000_000, rmsNormEps: 1e-6 },
  layerTypes: Array.from({ length: GEMMA3_LAYERS }, (_, i) => (i % 6 === 5 ? 'full_attention' : 'sliding_attention')),
  ...{ maxPositionEmbeddings: 32768, tieWordEmbeddings: true },
}

/** Numbers between -0.5 and 0.5. */
export const pattern = vt
  .arange(1009 * 1000, { dtype: 'int64' })
  .mul(7919)
  .remainder(1009)
  .float()
  .div(1009)
  .sub(0.5)

export function fill(model) {
  vt.noGrad(() =>
    vt.scope(() => {
      for (const [name, parameter] of model.namedParameters()) {
        if (parameter.dim() < 2) {
          if (name.endsWith('bias')) parameter.zero_()
          continue
        }
        const flat = parameter.view([-1])
        for (let i = 0; i < flat.numel(); i += pattern.numel()) {
          const n = Math.min(pattern.numel(), flat.numel() - i)
          flat.narrow(0, i, n).copy_(pattern.narrow(0, 0, n).mul(0.1))
        }
      }
    }),
  )
}

export const ids = (rows, columns, words) =>
  vt
    .arange(rows * columns, { dtype: 'int64' })
    .mul(31)
    .remainder(words)
    .view([rows, columns])
