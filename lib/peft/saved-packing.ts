import { CheckpointError, ConfigError } from '../base/errors.js'
import type { Module } from '../nn/module.js'
import { blockFacts, isBlocks, type PackedScheme, quantizationOf } from '../nn/quantized-weight.js'
import { type DType, scope, type Tensor } from '../tensor/index.js'
import { pack, weightOf } from './packed-layer.js'

/** Layer whose weight in a file is quantized. */
export interface PackedLayer {
  path: string
  scheme: PackedScheme
  /** Block size of 'nf4'. */
  blockSize?: number
}

/**
 * Quantize layers of a network like a file's, before its values are loaded: with the file's own tensors, or copies of them.
 * @throws CheckpointError if their size does not match the layer's shape
 * @throws ConfigError for blocks on another device than the CPU
 */
export function packAsSaved(
  network: Module,
  layers: readonly PackedLayer[],
  { state, file, copies }: { state: Map<string, Tensor>; file: string; copies: boolean },
): void {
  const modules = new Map(network.namedModules())
  for (const { path, scheme, blockSize = 64 } of layers) {
    const layer = modules.get(path)
    const codes = state.get(`${path}.weight`)
    // Names that do not match are reported together with all others.
    if (!layer || !codes) continue
    const weight = weightOf(layer)
    const shape = weight.shape as [number, number]
    const [out, width] = shape
    const bytes = isBlocks(scheme) ? (width / blockFacts(scheme).block) * blockFacts(scheme).bytes : width
    const wanted = scheme === 'nf4' ? [Math.ceil((out * width) / 2), 1] : [out, bytes]
    const dtype: DType = scheme === 'int8' ? 'int8' : 'uint8'
    if (codes.dtype !== dtype || codes.shape.join() !== wanted.join()) {
      const found = `${codes.dtype} [${codes.shape.join(', ')}]`
      throw new CheckpointError(
        `${file}: expected '${path}.weight' in ${scheme} to be ${dtype} [${wanted.join(', ')}], got ${found}`,
        { file, tensor: `${path}.weight` },
      )
    }
    const part = (name: string) => state.get(`${path}.weight_${name}`)
    const [absmax, nestedAbsmax, offset] = [part('absmax'), part('nested_absmax'), part('nested_offset')]
    if (!isBlocks(scheme) && !absmax) {
      throw new CheckpointError(
        `${file}: expected '${path}.weight_absmax' with '${path}.weight' in ${scheme}, got none`,
        {
          file,
          tensor: `${path}.weight_absmax`,
        },
      )
    }
    const { dtype: before, device } = weight
    if (isBlocks(scheme) && !device.startsWith('cpu')) {
      throw new ConfigError(
        `expected '${path}' on the CPU, since ${scheme} is supported there only. Load with { quantize: false }`,
        {
          path,
          device,
        },
      )
    }
    const toDevice = (tensor: Tensor) =>
      scope(() => (tensor.device === device ? tensor.clone() : tensor.to({ device })))
    weight.requiresGrad = false
    if (copies || codes.device !== device) scope(() => weight.setData(toDevice(codes)))
    else weight.setData(codes)
    pack(layer, {
      scheme,
      codes: weight,
      shape,
      dtype: before,
      blockSize,
      absmax: absmax && toDevice(absmax),
      nested: nestedAbsmax && offset ? { absmax: toDevice(nestedAbsmax), offset: toDevice(offset) } : undefined,
    })
  }
}

/** Return the quantized layers of a network, for `packAsSaved`. */
export const packedLayers = (network: Module): PackedLayer[] =>
  network.namedModules().flatMap(([path, layer]) => {
    const packed = quantizationOf(layer)
    if (!packed) return []
    const { scheme, blockSize } = packed
    return [scheme === 'nf4' ? { path, scheme, blockSize } : { path, scheme }]
  })
