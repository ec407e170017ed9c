import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import type { Tensor } from '../../tensor/index.js'

const project = opAsync('voxtorch::internvl_project')
const shuffle = opAsync('voxtorch::internvl_pixel_shuffle')

/** Projector (mlp1): layer norm, linear, GELU and linear, [tiles, tokens, inputSize] -> [tiles, tokens, hiddenSize]. */
export class InternVLProjector extends NativeModule {
  constructor(inputSize: number, hiddenSize: number, options: MakeOptions) {
    super(makeNative('internvl_projector', { inputSize, hiddenSize }, options))
  }

  override forward(features: Tensor): Promise<Tensor> {
    return project(withActiveAdapters(this), features) as Promise<Tensor>
  }
}

/**
 * Join `factor` x `factor` neighboring patches to tokens: states [tiles, 1 + down * across, dim], whose first is the class token, become
 * [tiles, tokens, factor² * dim]. `swapped`: column by column.
 */
export function pixelShuffle(
  states: Tensor,
  [down, across]: readonly [number, number],
  factor: number,
  swapped: boolean,
): Promise<Tensor> {
  return shuffle(states, down, across, factor, { swapped }) as Promise<Tensor>
}
