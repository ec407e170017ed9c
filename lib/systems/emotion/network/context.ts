import { functional, LayerNorm, Module, ModuleList, Parameter, TransformerEncoderLayer } from '../../../nn/index.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { arange, ops, scope, type Tensor, zeros } from '../../../tensor/index.js'
import type { EmotionContextConfig } from './config.js'

/**
 * Transformer layers over the utterances of dialogs. For each head, attention has a learned bias for the distance between two
 * utterances, and one for whether they have the same speaker. All biases start at 0: a plain transformer without positions.
 */
export class DialogContext extends Module {
  layers: ModuleList<TransformerEncoderLayer>
  norm: LayerNorm
  /** [2 maxDistance + 1, heads] */
  distance: Parameter
  /** [2, heads]: bias for different speakers, and for the same one; null without speakers. */
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
   * @returns [dialogs, utterances, size]; values at padding are undefined
   */
  override forward(states: Tensor, mask: Tensor, speakers: Tensor): Tensor {
    return scope(() => {
      const bias = this.#bias(states, mask, speakers)
      let x = states
      for (const layer of this.layers) x = layer.forward(x, { mask: bias })
      return this.norm.forward(x)
    })
  }

  /** Return the attention bias: [dialogs · heads, utterances, utterances]. */
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
    // A row that is masked completely would become NaN, so each utterance attends to itself.
    hidden = hidden.logicalAnd(away.ne(0).unsqueeze(0))
    const dtype = bias.dtype
    return ops
      .maskedFill(bias.expand([dialogs, time, time, heads]), hidden.unsqueeze(-1), Number.NEGATIVE_INFINITY)
      .permute([0, 3, 1, 2])
      .reshape([dialogs * heads, time, time])
      .to({ dtype })
  }
}
