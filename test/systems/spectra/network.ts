import type { SpectraConfig } from '../../../lib/systems/spectra/index.js'

/** A SPECTRA with all its parts, so small that a step takes milliseconds: a frame every 320 samples, width 32. */
export function smallSpectra(vocabSize: number, more: Partial<SpectraConfig> = {}): SpectraConfig {
  const shape = { hiddenSize: 32, numAttentionHeads: 2, intermediateSize: 64, numHiddenLayers: 1 }
  const calm = { attentionDropout: 0, hiddenDropout: 0, layerdrop: 0, featProjDropout: 0 }
  return {
    textConfig: {
      ...shape,
      ...{ vocabSize, maxPositionEmbeddings: 130, typeVocabSize: 2, padTokenId: 1, layerNormEps: 1e-5 },
      ...{ hiddenDropoutProb: 0, attentionProbsDropoutProb: 0 },
    },
    audioConfig: {
      ...{ ...shape, ...calm },
      ...{ convDim: [16, 16, 16], convKernel: [10, 8, 4], convStride: [10, 8, 4], convBias: true },
      ...{ featExtractNorm: 'layer', numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 2 },
    },
    maxTextLength: 128,
    ...more,
  }
}
