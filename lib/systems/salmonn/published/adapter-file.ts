import { argumentError, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'

type Shape = readonly number[]

export interface SalmonnAdapterSizes {
  /** Hidden size of the language model: 5120 with 40 `layers`, or 4096 with 32. */
  hiddenSize: number
  layers: number
  /** Rank of LoRA. Default 8. */
  loraRank?: number
  qformer?: { hiddenSize?: number; intermediateSize?: number; layers?: number; queries?: number }
  /** Widths of Whisper's encoder (default 1280) and of BEATs (`beatsSize`, default 768). */
  whisperSize?: number
  beatsSize?: number
}

/** Return names and shapes of all trained tensors, as in `salmonn_v1.pth`. */
export function salmonnAdapterTensors(sizes: SalmonnAdapterSizes): Map<string, Shape> {
  requireForm('salmonnAdapterTensors', 'sizes', sizes, { 'qformer?': 'object' })
  const { hiddenSize: wide, layers, loraRank: rank = 8, whisperSize = 1280, beatsSize = 768 } = sizes
  const { hiddenSize: q = 768, intermediateSize: ffn = 3072, layers: blocks = 2, queries = 1 } = sizes.qformer ?? {}
  for (const [name, value] of Object.entries({ wide, layers, rank, whisperSize, beatsSize, q, ffn, blocks, queries })) {
    requireWhole('salmonnAdapterTensors', name, value, 1)
  }
  for (const [name, value] of Object.entries({ layers, 'qformer.layers': blocks })) {
    if (value > 10_000) throw argumentError('salmonnAdapterTensors', name, 'at most 10000', value)
  }
  const tensors = new Map<string, Shape>()
  const linear = (name: string, out: number, input: number) => {
    tensors.set(`${name}.weight`, [out, input])
    tensors.set(`${name}.bias`, [out])
  }
  const norm = (name: string, size: number) => {
    tensors.set(`${name}.weight`, [size])
    tensors.set(`${name}.bias`, [size])
  }
  tensors.set('speech_query_tokens', [1, queries, q])
  norm('ln_speech', whisperSize)
  norm('ln_audio', beatsSize)
  norm('speech_Qformer.bert.embeddings.LayerNorm', q)
  for (let i = 0; i < blocks; i += 1) {
    const layer = `speech_Qformer.bert.encoder.layer.${i}`
    for (const kind of ['attention', 'crossattention']) {
      const keyWidth = kind === 'attention' ? q : whisperSize + beatsSize
      linear(`${layer}.${kind}.self.query`, q, q)
      linear(`${layer}.${kind}.self.key`, q, keyWidth)
      linear(`${layer}.${kind}.self.value`, q, keyWidth)
      linear(`${layer}.${kind}.output.dense`, q, q)
      norm(`${layer}.${kind}.output.LayerNorm`, q)
    }
    linear(`${layer}.intermediate_query.dense`, ffn, q)
    linear(`${layer}.output_query.dense`, q, ffn)
    norm(`${layer}.output_query.LayerNorm`, q)
  }
  linear('speech_llama_proj', wide, q)
  for (let i = 0; i < layers; i += 1) {
    for (const name of ['q_proj', 'v_proj']) {
      const base = `llama_model.base_model.model.model.layers.${i}.self_attn.${name}`
      tensors.set(`${base}.lora_A.default.weight`, [rank, wide])
      tensors.set(`${base}.lora_B.default.weight`, [wide, rank])
    }
  }
  return tensors
}

/**
 * Return the names that the original writes: all names of a state dictionary except frozen parameters. Buffers stay, as do the duplicate names
 * of a frozen tensor, because only its first name is that of a parameter.
 *
 * @param parameters whether each parameter trains, under its first name
 */
export function publishedCheckpointNames(
  stateDict: Iterable<string>,
  parameters: ReadonlyMap<string, boolean>,
): string[] {
  requireForm('publishedCheckpointNames', 'stateDict', stateDict, 'iterable')
  requireForm('publishedCheckpointNames', 'parameters', parameters, Map)
  return [...stateDict].filter((name) => parameters.get(name) !== false)
}

/** Return the names that voxtorch writes: only trained parameters. */
export function trainedNames(parameters: ReadonlyMap<string, boolean>): string[] {
  requireForm('trainedNames', 'parameters', parameters, Map)
  return [...parameters].flatMap(([name, trains]) => (trains ? [name] : []))
}
