import { CheckpointError } from '../../../base/errors.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'

/** Fingerprint of a language model: its size, two settings, and sums of weights that are never quantized. */
export interface SalmonnBase {
  hiddenSize: number
  numHiddenLayers: number
  rmsNormEps: number
  maxPositionEmbeddings: number
  sums: Record<string, number>
}

/** Relative tolerance of sums: above the rounding of bfloat16 and float16, below the difference between models. */
const NEAR = 2e-3
const ROWS = 16

export function fingerprint(llm: DecoderLM): SalmonnBase {
  const { hiddenSize = 4096, numHiddenLayers = 32, rmsNormEps = 1e-6, maxPositionEmbeddings = 2048 } = llm.config
  const state = llm.stateDict()
  const sums: Record<string, number> = {}
  for (const name of ['model.embed_tokens', 'model.layers.0.input_layernorm', 'model.norm']) {
    const weight = state[`${name}.weight`]
    if (weight) sums[name] = sumOf(weight)
  }
  return { hiddenSize, numHiddenLayers, rmsNormEps, maxPositionEmbeddings, sums }
}

const sumOf = (weight: Tensor): number =>
  noGrad(() =>
    scope(() => {
      const rows = weight.ndim === 2 ? weight.narrow(0, 0, Math.min(ROWS, weight.size(0))) : weight
      return Number(rows.to({ dtype: 'float64' }).abs().sum().item())
    }),
  )

/**
 * Compare the language model with the one that an adapter was trained with.
 * @throws CheckpointError if they differ
 */
export function checkBase(found: SalmonnBase, wanted: SalmonnBase, file: string): void {
  for (const key of ['hiddenSize', 'numHiddenLayers'] as const) {
    if (found[key] !== wanted[key]) throw other(file, `with ${key} ${wanted[key]}, got ${found[key]}`)
  }
  for (const [name, sum] of Object.entries(wanted.sums)) {
    const own = found.sums[name]
    if (own === undefined || Math.abs(own - sum) <= NEAR * Math.abs(sum)) continue
    throw other(file, `whose weights ${name} have the absolute sum ${sum.toFixed(3)}, got ${own.toFixed(3)}`)
  }
}

/** Language models that the authors trained with, by size, and other models of the same shape. */
const published: Record<string, { needs: string; settings: [number, number]; other: string }> = {
  '4096x32': { needs: 'lmsys/vicuna-7b-v1.5', settings: [1e-5, 4096], other: 'v1.1 or LLaMA 1' },
  '5120x40': { needs: 'lmsys/vicuna-13b-v1.1', settings: [1e-6, 2048], other: 'v1.5 or LLaMA 2' },
}

/**
 * Check the language model of a published adapter, whose file does not identify it. The two versions of Vicuna differ in `rms_norm_eps` and
 * `max_position_embeddings`. If both values differ, it is the wrong model, whose answers would be empty.
 * @throws CheckpointError naming the version that the adapter needs
 */
export function checkVicuna(found: SalmonnBase, file: string): void {
  const rule = published[`${found.hiddenSize}x${found.numHiddenLayers}`]
  if (!rule) return
  const { rmsNormEps, maxPositionEmbeddings } = found
  const [eps, positions] = rule.settings
  if (rmsNormEps === eps || maxPositionEmbeddings === positions) return
  throw other(file, `${rule.needs}, got ${rule.other} (rms_norm_eps ${rmsNormEps}, ${maxPositionEmbeddings} positions)`)
}

const other = (file: string, what: string): CheckpointError =>
  new CheckpointError(
    `${file}: expected the adapter's own language model ${what}. Set allowOtherBase to load it anyway.`,
    {
      file,
    },
  )
