import { type Module, ops, type Parameter, type Tensor } from '../../lib/index.js'
import { quantizationOf } from '../../lib/nn/quantized-weight.js'
import { valuesOf } from '../../lib/peft/packed-layer.js'
import { integerInputs } from '../kernels/integer-inputs.js'

/** Gives `copy`, a network of the same sizes in any dtype, the parameters of `model`: of packed layers what their codes stand for. */
export function unpack(model: Module, copy: Module): void {
  const state: Record<string, Tensor> = { ...model.stateDict() }
  for (const [path, layer] of model.namedModules()) {
    const packed = quantizationOf(layer)
    if (packed) state[`${path}.weight`] = valuesOf(packed, 'float64')
  }
  // A head that is tied to the embeddings is one of its own in a copy that ties none.
  const of = (name: string) =>
    (state[name] ?? (name === 'lm_head.weight' && state['model.embed_tokens.weight'])) as Tensor
  copy.loadStateDict(Object.fromEntries(Object.keys(copy.stateDict()).map((name) => [name, of(name)])))
}

/** From now on the inputs of these Linear layers become integers, as those of packed layers do in a step of a token. */
export function withIntegerInputs(network: Module, paths: readonly string[]): void {
  for (const path of paths) {
    network.get(path).registerForwardHook((layer, [input]) => {
      const { weight, bias } = layer as Module & { weight: Parameter; bias: Parameter | null }
      return ops.linear(integerInputs(input as Tensor).to({ dtype: weight.dtype }), weight, bias ?? null)
    })
  }
}
