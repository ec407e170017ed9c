import { CheckpointError } from '../../base/errors.js'
import { loadTorch } from '../../files/torch/torch.js'
import { scope, type Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import type { LoadNetworkOptions } from '../pretrained.js'
import { type Factory, type Fillable, filled, renamed, tensorsOf } from '../weights.js'
import type { QFormerConfig } from './q-former.js'

/** SALMONN's windows of a third of a second: 17 frames of 20 ms from Whisper, without overlap. */
const salmonn: QFormerConfig = { window: 17, stride: 17 }

export const qFormerKeys: ConfigKeys = {
  defaults: (config) => ({
    hiddenSize: 768,
    numHiddenLayers: 2,
    numAttentionHeads: 12,
    intermediateSize: 3072,
    hiddenAct: 'gelu',
    hiddenDropoutProb: 0.1,
    attentionProbsDropoutProb: 0.1,
    layerNormEps: 1e-12,
    initializerRange: 0.02,
    encoderWidth: 2048,
    crossAttentionFreq: 1,
    queryLength: 1,
    window: 0,
    stride: config.window ?? 0,
  }),
  // Text inputs, which a Q-Former of frames does not have.
  only: { positionEmbeddingType: ['absolute'], useQformerTextInput: [false] },
  unused: ['vocabSize', 'typeVocabSize', 'maxPositionEmbeddings', 'classifierDropout'],
}

export const qFormerLayout = {
  keys: qFormerKeys,
  kind: 'q_former',
  forward: 'voxtorch::q_former_forward',
  sizes: { salmonn } as Record<string, QFormerConfig>,
  modelType: 'q_former',
  alike: ['blip_2_qformer', 'instructblip_qformer'],
  architecture: 'QFormer',
  prefix: 'speech_',
  // An integer buffer, the projection after the Q-Former, and text layers, which older files still have.
  ignored: [
    /(^|\.)position_ids$/,
    /^speech_llama_proj\./,
    /Qformer\.(cls\.|bert\.embeddings\.(word|position)_embeddings\.)/,
    /Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\./,
  ],
}

/** Load the Q-Former of a SALMONN checkpoint. Sizes come from its tensors; the windows are SALMONN's. */
export function loadSalmonnQFormer<M extends Fillable>(
  file: string,
  options: LoadNetworkOptions,
  build: (config: QFormerConfig, factory: Factory) => M,
): Promise<M> {
  return scope(async () => {
    const root: unknown = await loadTorch(file, { mmap: true, names: (name) => name.includes('speech_') })
    const state = renamed(qFormerLayout, tensorsOf(root))
    const sizes = { ...sizesOf(state, file), ...salmonn }
    const { network } = await filled(qFormerLayout, { state, file, mapped: true }, options, (factory) =>
      build(sizes, factory),
    )
    return network
  })
}

export function sizesOf(state: Map<string, Tensor>, file: string): QFormerConfig {
  const shape = (name: string, dims: number): number[] => {
    const found = state.get(name)?.shape
    if (found?.length === dims) return found
    const value = found ? `[${found}]` : 'none'
    throw new CheckpointError(
      `${file}: speech_${name}: expected a tensor of ${dims} dimensions of SALMONN's Q-Former, got ${value}. Load another file.`,
      { file, tensor: name },
    )
  }
  const layer = (i: number) => `Qformer.bert.encoder.layer.${i}.`
  const [, queryLength, hiddenSize] = shape('query_tokens', 3) as [number, number, number]
  const [intermediateSize] = shape(`${layer(0)}intermediate_query.dense.weight`, 2) as [number]
  const [, encoderWidth] = shape(`${layer(0)}crossattention.self.key.weight`, 2) as [number, number]
  let numHiddenLayers = 1
  while (state.has(`${layer(numHiddenLayers)}attention.self.query.weight`)) numHiddenLayers += 1
  let crossAttentionFreq = 1
  while (
    crossAttentionFreq < numHiddenLayers &&
    !state.has(`${layer(crossAttentionFreq)}crossattention.self.key.weight`)
  ) {
    crossAttentionFreq += 1
  }
  // A head has 64 dimensions, as in BERT.
  const numAttentionHeads = Math.max(1, Math.floor(hiddenSize / 64))
  return {
    hiddenSize,
    queryLength,
    intermediateSize,
    encoderWidth,
    numHiddenLayers,
    crossAttentionFreq,
    numAttentionHeads,
  }
}
