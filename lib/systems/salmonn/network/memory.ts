import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { blockFacts, isBlocks, type QuantizationScheme } from '../../../nn/quantized-weight.js'
import type { PackingOptions } from '../../../peft/quantize.js'
import { salmonnPart } from './adapter.js'
import { type SalmonnConfig, salmonnPacking } from './config.js'
import { Salmonn } from './network.js'

const BYTES = { float32: 4, bfloat16: 2, float16: 2 } as const
const DTYPES = Object.keys(BYTES) as (keyof typeof BYTES)[]

const MEMORY_SETTINGS = settings({
  /** Dtype of the language model. */
  dtype: { type: DTYPES, default: 'bfloat16' },
  /** Dtype of encoders, Q-Former and projection. */
  encoderDtype: { type: DTYPES, default: 'float32' },
  /** Quantization of the language model's layers, as in `Salmonn.fromPretrained`. Default: none. */
  quantize: { type: unchecked<QuantizationScheme | PackingOptions>() },
  /** Rows in a batch, where each beam is a row. */
  batch: { type: 'integer', default: 1 },
  /** Tokens per row, audio and answer included. */
  length: { type: 'integer', default: 0 },
  /** Whether the Q-Former, the projection and LoRA train, with AdamW. */
  training: { type: 'boolean', default: false },
})

/** @interface */
export type SalmonnMemoryOptions = ChangesOf<typeof MEMORY_SETTINGS.table>

/** Memory in bytes, by part. */
export interface SalmonnMemory {
  /** Whisper's encoder; its decoder is not loaded. */
  whisper: number
  beats: number
  /** Q-Former with its queries and both norms. */
  qformer: number
  projection: number
  lora: number
  llm: number
  /** Keys and values of `batch` rows of `length` tokens. */
  kvCache: number
  /** Gradients of the trained parts. */
  gradients: number
  /** AdamW's two moments, float32. */
  optimizer: number
  /** Sum of all parts, without activations, which are small in inference but large in training. */
  total: number
}

const TRAINED = ['qformer', 'projection', 'lora'] as const

/** Return the size of a quantized weight in bytes. */
function packedBytes(
  count: number,
  rows: number,
  { scheme, doubleQuant, blockSize }: Required<PackingOptions>,
): number {
  if (isBlocks(scheme)) return (count / blockFacts(scheme).block) * blockFacts(scheme).bytes
  if (scheme === 'int8') return count + 4 * rows
  const blocks = Math.ceil(count / blockSize)
  // Scales are float32; with double quantization 8-bit, with one float32 scale per 256 and their mean.
  return Math.ceil(count / 2) + (doubleQuant ? blocks + 4 * Math.ceil(blocks / 256) + 4 : 4 * blocks)
}

/**
 * Compute the memory of a SALMONN from its shapes, without weights. The language model of `'13b'` has 26 GB in bfloat16, so a GPU with
 * 24 GB needs `quantize`. `releaseEncoders()` frees the memory of `whisper` and `beats`.
 *
 * @throws ConfigError for unknown or invalid options
 */
export function salmonnMemory(config: SalmonnConfig | string, options: SalmonnMemoryOptions = {}): SalmonnMemory {
  const where = 'salmonnMemory'
  const { dtype, encoderDtype, quantize, batch, length, training } = MEMORY_SETTINGS.read(where, options)
  const packing = salmonnPacking(where, quantize)
  const bytes = { whisper: 0, beats: 0, qformer: 0, projection: 0, lora: 0, llm: 0 }
  const counts = { ...bytes }
  const model = new Salmonn(config, { device: 'meta' })
  try {
    for (const [name, parameter] of model.namedParameters()) {
      const part = salmonnPart(name)
      if (!part) continue
      const [rows = 1, columns] = parameter.shape
      const isLayer = /\.model\.layers\./.test(name) && columns !== undefined
      counts[part] += parameter.numel()
      if (part === 'llm' && packing && isLayer) bytes.llm += packedBytes(rows * columns, rows, packing)
      // LoRA's matrices are float32 whatever the dtype of the weight.
      else bytes[part] += parameter.numel() * (part === 'lora' ? 4 : BYTES[part === 'llm' ? dtype : encoderDtype])
    }
    const { llm } = model.config
    const { hiddenSize = 4096, numHiddenLayers = 32, numAttentionHeads = 32 } = llm
    const { numKeyValueHeads = numAttentionHeads, headDim = hiddenSize / numAttentionHeads } = llm
    const kvCache = 2 * batch * length * numHiddenLayers * numKeyValueHeads * headDim * BYTES[dtype]
    const sum = (values: number[]) => values.reduce((a, b) => a + b, 0)
    const gradients = training ? sum(TRAINED.map((part) => bytes[part])) : 0
    const optimizer = training ? 2 * 4 * sum(TRAINED.map((part) => counts[part])) : 0
    return {
      ...bytes,
      kvCache,
      gradients,
      optimizer,
      total: sum(Object.values(bytes)) + kvCache + gradients + optimizer,
    }
  } finally {
    model.dispose()
  }
}
