import { requireObject, requireOneOf } from '../../base/check.js'
import type { QuantizationScheme } from '../../nn/quantized-weight.js'
import { type PackingOptions, packingOf } from '../../peft/quantize.js'

/** How the language model's layers are packed: a scheme alone, or with its options. Which layers is not to be chosen. */
export function salmonnPacking(
  where: string,
  given: QuantizationScheme | PackingOptions | undefined,
): Required<PackingOptions> | undefined {
  if (given === undefined) return undefined
  if (typeof given === 'string') {
    requireOneOf(where, 'quantize', given, ['int8', 'nf4'])
    return packingOf(where, { scheme: given })
  }
  requireObject(where, 'quantize', given)
  return packingOf(`${where}: quantize`, given)
}
