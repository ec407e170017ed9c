import type { DecoderLMConfig } from '../../lib/index.js'

const WINDOW = { slidingWindow: 5 }

/** Options of a tiny network of each family in which everything that distinguishes the family counts. */
export const FAMILIES = {
  qwen3: { attentionBias: true, useSlidingWindow: true, maxWindowLayers: 1, ...WINDOW },
  olmo2: { attentionBias: true },
  smollm3: { noRopeLayerInterval: 2, attentionBias: true, mlpBias: true, useSlidingWindow: true, ...WINDOW },
  granite: {
    attentionBias: true,
    mlpBias: true,
    embeddingMultiplier: 3,
    residualMultiplier: 0.4,
    attentionMultiplier: 0.1,
    logitsScaling: 2.5,
  },
  gemma2: {
    attentionBias: true,
    queryPreAttnScalar: 5,
    attnLogitSoftcapping: 1.5,
    finalLogitSoftcapping: 4,
    ...WINDOW,
  },
  gemma3_text: {
    attentionBias: true,
    queryPreAttnScalar: 5,
    slidingWindowPattern: 2,
    ropeLocalBaseFreq: 50,
    ropeScaling: { ropeType: 'linear', factor: 2 },
    ...WINDOW,
  },
  ministral: { layerTypes: ['full_attention', 'sliding_attention'], ...WINDOW },
  ministral3: {
    ropeParameters: {
      ropeType: 'yarn',
      ropeTheta: 100,
      factor: 4,
      originalMaxPositionEmbeddings: 16,
      llama4ScalingBeta: 0.4,
    },
    ...WINDOW,
  },
  mixtral: { numLocalExperts: 5, numExpertsPerTok: 2, ...WINDOW },
  qwen3_moe: {
    attentionBias: true,
    numExperts: 6,
    numExpertsPerTok: 3,
    moeIntermediateSize: 20,
    normTopkProb: true,
    mlpOnlyLayers: [0],
    useSlidingWindow: true,
    ...WINDOW,
  },
} satisfies Record<string, DecoderLMConfig>
