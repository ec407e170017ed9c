import { ConfigError, ShapeError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { type FactoryOptions, functional, Linear } from '../../../nn/index.js'
import { adaptersOf, Module } from '../../../nn/module.js'
import { quantizationOf } from '../../../nn/quantized-weight.js'
import { cat, scope, stack, type Tensor } from '../../../tensor/index.js'
import { checkDstConfig, type DstConfig } from './config.js'
import { HEADS_SETTINGS } from './recipe.js'

/** Labels of each slot in each turn, int64 [batch, slots]; see {@link DstFeatures}. */
export interface DstLabels {
  classIds: Tensor
  startPositions: Tensor
  endPositions: Tensor
  referIds: Tensor
}

export interface DstLogits {
  /** [batch, slots, classes] */
  classLogits: Tensor
  /** [batch, slots, positions]: start of the value; -∞ for padding. */
  startLogits: Tensor
  /** [batch, slots, positions] */
  endLogits: Tensor
  /** [batch, slots, slots + 1]: the referenced slot, from 1; 0 for none. */
  referLogits: Tensor
}

export interface DstHeadsOutput extends DstLogits {
  /** With labels: the sum over turns and slots. */
  loss?: Tensor
  /** With labels: [batch, slots]. */
  slotLosses?: Tensor
}

const OPTIONS = settings({
  config: { type: unchecked<DstConfig>(), required: true },
  /** Features of the encoder's states. */
  hiddenSize: { type: 'integer', min: 1, default: 768 },
  ...HEADS_SETTINGS.table,
  /**
   * `'published'` includes padding in the softmax over positions, so that logits and loss depend on the amount of padding, as in the
   * original.
   */
  compat: { type: ['published'] },
  device: { type: unchecked<NonNullable<FactoryOptions['device']>>() },
  dtype: { type: unchecked<NonNullable<FactoryOptions['dtype']>>() },
})

/** @interface */
export type DstHeadsOptions = ChangesOf<typeof OPTIONS.table>

/**
 * TripPy's heads (https://arxiv.org/abs/2005.02877) on SPECTRA's fused states: for each slot a class and a reference from the first
 * position, and the start and end of the value. Parameters have the published names `class_<slot>`, `token_<slot>` and `refer_<slot>`. The
 * heads of one kind for all slots are computed as one matrix product.
 */
export class DstHeads extends Module {
  readonly hiddenSize: number
  readonly #config: DstConfig
  readonly #options: { dropout: number; headsDropout: number; classLossRatio: number; masked: boolean }

  constructor(options: DstHeadsOptions) {
    super()
    const read = OPTIONS.read('DstHeads', options)
    const { config, hiddenSize, dropout, headsDropout, classLossRatio, compat, device, dtype } = read
    this.#config = checkDstConfig(config)
    this.#options = { dropout, headsDropout, classLossRatio, masked: compat === undefined }
    this.hiddenSize = hiddenSize
    for (const slot of config.slots) {
      for (const [kind, size] of Object.entries(this.#sizes()))
        Reflect.set(this, `${kind}_${slot}`, new Linear(hiddenSize, size, { device, dtype }))
    }
  }

  /**
   * @param states fused states of text and speech [batch, positions, hidden]
   * @param mask bool [batch, positions], false for padding
   * @throws ShapeError for states, mask or labels of other shapes
   */
  override forward(states: Tensor, mask: Tensor, labels?: DstLabels): DstHeadsOutput {
    this.#check(states, mask, labels)
    return scope(() => {
      const { dropout, headsDropout, masked } = this.#options
      const pooled = functional.dropout(states.select(1, 0), dropout, this) // [batch, hidden]
      const all = functional.dropout(states, dropout, this) // [batch, positions, hidden]
      const logits = (kind: HeadKind, input: Tensor) => functional.dropout(this.#apply(kind, input), headsDropout, this)
      const tokens = logits('token', all).permute([0, 2, 3, 1]) // [batch, slots, 2, positions]
      const maskedPositions = (part: number) => {
        const positions = tokens.select(2, part)
        return masked ? positions.maskedFill(mask.unsqueeze(1).logicalNot(), Number.NEGATIVE_INFINITY) : positions
      }
      const output: DstLogits = {
        classLogits: logits('class', pooled),
        startLogits: maskedPositions(0),
        endLogits: maskedPositions(1),
        referLogits: logits('refer', pooled),
      }
      if (labels === undefined) return output
      const slotLosses = this.#losses(output, labels)
      return { loss: slotLosses.sum(), slotLosses, ...output }
    })
  }

  #sizes(): Record<HeadKind, number> {
    const { classTypes, slots } = this.#config
    return { class: classTypes.length, token: 2, refer: slots.length + 1 }
  }

  /** Apply all slots' heads of a kind: [..., hidden] to [..., slots, size]. */
  #apply(kind: HeadKind, input: Tensor): Tensor {
    const heads = this.#config.slots.map((slot) => Reflect.get(this, `${kind}_${slot}`) as Linear)
    // A head with an adapter, quantized weights or a hook must be called itself.
    const needsModules = heads.some(
      (head) => adaptersOf(head) || quantizationOf(head) || Object.hasOwn(head, 'forward'),
    )
    if (needsModules)
      return stack(
        heads.map((head) => head.forward(input)),
        -2,
      )
    const weight = cat(heads.map((head) => head.weight))
    const bias = cat(heads.map((head) => head.bias as Tensor))
    return functional.linear(input, weight, bias).unflatten(-1, [heads.length, this.#sizes()[kind]])
  }

  /** Return the losses [batch, slots]. */
  #losses({ classLogits, startLogits, endLogits, referLogits }: DstLogits, labels: DstLabels): Tensor {
    const { classLossRatio: ratio } = this.#options
    const { classTypes } = this.#config
    const positions = startLogits.size(-1)
    const losses = (logits: Tensor, targets: Tensor, ignoreIndex = -100) =>
      functional
        .crossEntropy(logits.reshape([-1, logits.size(-1)]), targets.reshape([-1]), { ignoreIndex, reduction: 'none' })
        .reshape(targets.shape)
    const place = (logits: Tensor, targets: Tensor) => losses(logits, targets.clamp(0, positions), positions)

    const classes = losses(classLogits, labels.classIds)
    const spans = place(startLogits, labels.startPositions)
      .add(place(endLogits, labels.endPositions))
      .div(2)
      .mul(labels.startPositions.gt(0))
    const refers = classTypes.indexOf('refer')
    if (refers < 0) return classes.mul(ratio).add(spans.mul(1 - ratio))
    const references = losses(referLogits, labels.referIds).mul(labels.classIds.eq(refers))
    return classes.mul(ratio).add(spans.add(references).mul((1 - ratio) / 2))
  }

  #check(states: Tensor, mask: Tensor, labels: DstLabels | undefined): void {
    const { slots } = this.#config
    const [batch, positions, hidden] = states.shape
    if (states.ndim !== 3 || hidden !== this.hiddenSize || positions === 0) {
      throw new ShapeError(`DstHeads: states: expected [batch, positions, ${this.hiddenSize}], got [${states.shape}]`, {
        shape: states.shape,
      })
    }
    if (mask.shape.join() !== [batch, positions].join() || mask.dtype !== 'bool') {
      throw new ShapeError(
        `DstHeads: mask: expected bool [${batch}, ${positions}], got ${mask.dtype} [${mask.shape}]`,
        { shape: mask.shape },
      )
    }
    for (const name of ['classIds', 'startPositions', 'endPositions', 'referIds'] as const) {
      const shape = labels?.[name]?.shape
      if (labels === undefined || shape?.join() === [batch, slots.length].join()) continue
      if (shape === undefined) throw new ConfigError(`DstHeads: labels: expected ${name}, got none`, { name })
      throw new ShapeError(`DstHeads: ${name}: expected [${batch}, ${slots.length}], got [${shape}]`, { name, shape })
    }
  }
}

type HeadKind = 'class' | 'token' | 'refer'
