import { requireNumber, requireOptions, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import type { Module } from '../../nn/module.js'
import { outputLayerOf } from '../../nn/output-layer.js'
import { isOptimized } from '../../nn/parameter.js'
import { quantizationOf } from '../../nn/quantized-weight.js'
import { peftModelOf } from '../../peft/model.js'
import { empty, noGrad, scope, type Tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import type { DecoderLM } from './decoder-lm.js'

export interface ResizeTokenEmbeddingsOptions {
  /** Standard deviation of the new rows. Default: the configuration's `initializerRange`, or 0.02 without one. */
  std?: number
  /** Random seed of the new rows; later draws are not affected. Default: draws from the default generator. */
  seed?: number | bigint
}

const WHERE = 'resizeTokenEmbeddings'

/** See `DecoderLM.resizeTokenEmbeddings`. */
export function resizeTokenEmbeddings(model: DecoderLM, count: number, options: ResizeTokenEmbeddingsOptions): void {
  requireWhole(WHERE, 'count', count, 1)
  requireOptions(WHERE, options, ['std', 'seed'])
  const { std = model.config.initializerRange ?? 0.02, seed } = options
  requireNumber(WHERE, 'std', std, { least: 0, below: Number.POSITIVE_INFINITY })
  const { padTokenId } = model.config
  if (typeof padTokenId === 'number' && padTokenId >= count) {
    throw new ConfigError(`${WHERE}: count: expected more than padTokenId, ${padTokenId}, got ${count}`, {
      padTokenId,
      count,
    })
  }
  const peft = peftModelOf(model)
  if (peft && peft.adapterNames.length > 0) {
    const names = peft.adapterNames.join(', ')
    throw new ConfigError(
      `${WHERE}: expected a model without adapters, got ${names}. Resize it first, then attach adapters.`,
      { names },
    )
  }
  const tables = tablesOf(model)
  for (const { path, layer } of tables) requireValues(path, layer)
  // All are created before any is replaced, so that a failure leaves the model unchanged.
  scope(() => {
    const grown = noGrad(() =>
      withSeed(seed, () => tables.map(({ weight }) => resized(weight, count, std)), tables[0]?.weight.device ?? 'cpu'),
    )
    const stale = tables.filter(({ weight }) => weight.size(0) !== count && isOptimized(weight))
    for (const [i, { weight }] of tables.entries()) {
      weight.setData(grown[i] as Tensor)
      weight.grad = null
    }
    if (stale.length > 0) warn(stale.map(({ path }) => path))
  })
  model.config.vocabSize = count
}

interface Table {
  path: string
  layer: Module
  weight: Tensor
}

function tablesOf(model: DecoderLM): Table[] {
  const output = outputLayerOf(model)
  if (!output) throw new ConfigError(`${WHERE}: expected a model with embeddings, got one without`)
  return (output.tied ? [output.embeddings] : [output.embeddings, output.head]).map((path) => {
    const layer = model.get<Module>(path)
    return { path, layer, weight: Reflect.get(layer, 'weight') as Tensor }
  })
}

function requireValues(path: string, layer: Module): void {
  const packing = quantizationOf(layer)
  if (!packing) return
  throw new ConfigError(
    `${WHERE}: '${path}': expected weights without quantization, got ${packing.scheme}. Load the model with quantize: false, or call dequantizeLayer() first.`,
    { path, scheme: packing.scheme },
  )
}

/** Resize [rows, dim] to [count, dim]: existing rows are copied, new ones are drawn. */
function resized(weight: Tensor, count: number, std: number): Tensor {
  const [rows, dim] = weight.shape as [number, number]
  const result = empty([count, dim], { dtype: weight.dtype, device: weight.device })
  const kept = Math.min(rows, count)
  result.narrow(0, 0, kept).copy_(weight.narrow(0, 0, kept))
  if (count > kept) result.narrow(0, kept, count - kept).normal_(0, std)
  return result
}

function warn(paths: string[]): void {
  process.emitWarning(
    `${WHERE}: the state of an existing optimizer for ${paths.join(' and ')} has the old size. Create a new optimizer.`,
    'OptimizerWarning',
  )
}
