import { functional, LayerNorm, Module, ModuleList, Parameter, TransformerEncoderLayer } from '../../../nn/index.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { arange, ops, scope, type Tensor, zeros } from '../../../tensor/index.js'
import type { EmotionContextConfig } from './config.js'

/**
 * The utterances of dialogs see each other: transformer layers whose attention has, for each head, a learned bias for how
 * far one utterance is behind another, and one for whether both are of one speaker. With all biases 0, as they begin, it is
 * a plain transformer without positions.
 */
export class DialogContext extends Module {
  layers: ModuleList<TransformerEncoderLayer>
  norm: LayerNorm
  /** [2 maxDistance + 1, heads] */
  distance: Parameter
  /** [2, heads]: of another speaker, of the same; null where speakers do not matter. */
  speaker: Parameter | null
  readonly #config: Required<EmotionContextConfig>

  constructor(size: number, config: Required<EmotionContextConfig>, dropout: number, factory: FactoryOptions = {}) {
    super()
    this.#config = config
    const { layers, heads, maxDistance, speakers } = config
    this.layers = new ModuleList(
      Array.from(
        { length: layers },
        () =>
          new TransformerEncoderLayer(size, heads, {
            ...{ dimFeedforward: 4 * size, dropout, activation: 'gelu', batchFirst: true, normFirst: true },
            ...factory,
          }),
      ),
    )
    this.norm = new LayerNorm([size], factory)
    this.distance = new Parameter(zeros([2 * maxDistance + 1, heads], factory))
    this.speaker = speakers ? new Parameter(zeros([2, heads], factory)) : null
  }

  /**
   * @param states [dialogs, utterances, size]
   * @param mask bool [dialogs, utterances], true where there is an utterance
   * @param speakers int64 [dialogs, utterances]
   * @returns [dialogs, utterances, size]; at padding whatever comes out
   */
  override forward(states: Tensor, mask: Tensor, speakers: Tensor): Tensor {
    return scope(() => {
      const bias = this.#bias(states, mask, speakers)
      let x = states
      for (const layer of this.layers) x = layer.forward(x, { mask: bias })
      return this.norm.forward(x)
    })
  }

  /** What is added to attention: [dialogs · heads, utterances, utterances] */
  #bias(states: Tensor, mask: Tensor, speakers: Tensor): Tensor {
    const { maxDistance, heads, causal } = this.#config
    const [dialogs, time] = states.shape as [number, number]
    const places = arange(time, { dtype: 'int64', device: states.device })
    const away = places.unsqueeze(0).sub(places.unsqueeze(1)) // [time, time]
    const row = away.clamp(-maxDistance, maxDistance).add(maxDistance).reshape([-1])
    let bias = functional.embedding(row, this.distance).reshape([1, time, time, heads])
    if (this.speaker) {
      const same = speakers.unsqueeze(2).eq(speakers.unsqueeze(1)).to({ dtype: 'int64' }) // [dialogs, time, time]
      bias = bias.add(functional.embedding(same, this.speaker)) // [dialogs, time, time, heads]
    }
    let hidden = mask.logicalNot().reshape([dialogs, 1, time])
    if (causal) hidden = hidden.logicalOr(away.gt(0).unsqueeze(0))
    // What sees nothing at all would come out as NaN: each sees itself.
    hidden = hidden.logicalAnd(away.ne(0).unsqueeze(0))
    const dtype = bias.dtype
    return ops
      .maskedFill(bias.expand([dialogs, time, time, heads]), hidden.unsqueeze(-1), Number.NEGATIVE_INFINITY)
      .permute([0, 3, 1, 2])
      .reshape([dialogs * heads, time, time])
      .to({ dtype })
  }
}
