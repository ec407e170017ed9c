import { shown } from '../base/arguments.js'
import { requireNumber } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { cat, ops, scope, type Tensor } from '../tensor/index.js'
import { badIndices, layerOptions, otherRank, requireSizes, requireTensors } from './check.js'
import { ModuleList, Sequential } from './containers.js'
import { Linear } from './linear.js'
import { Module } from './module.js'
import type { FactoryOptions } from './parameter.js'

export interface AdaptiveLogSoftmaxOptions extends FactoryOptions {
  /** Factor by which each cluster's inner size is smaller than that of the one before. Default: 4. */
  divValue?: number
  /** Whether the head has a bias. Default: false. */
  headBias?: boolean
}

/**
 * Softmax over many classes, sorted by decreasing frequency (Grave et al. 2017, https://arxiv.org/abs/1609.04309): the head has the
 * most frequent `cutoffs[0]` classes and one output for each cluster of the others, whose inner sizes shrink by `divValue`.
 */
export class AdaptiveLogSoftmaxWithLoss extends Module {
  readonly inFeatures: number
  readonly nClasses: number
  /** Ends of the shortlist and of each cluster. */
  readonly cutoffs: number[]
  readonly divValue: number
  head: Linear
  tail: ModuleList<Sequential>

  constructor(
    inFeatures: number,
    nClasses: number,
    cutoffs: readonly number[],
    options: AdaptiveLogSoftmaxOptions = {},
  ) {
    super()
    const layer = 'AdaptiveLogSoftmaxWithLoss'
    const { divValue = 4, headBias = false, ...factory } = layerOptions(layer, options, 'divValue', 'headBias')
    requireSizes(layer, { inFeatures, nClasses })
    requireNumber(layer, 'divValue', divValue)
    const rises = (cutoff: number, i: number) =>
      Number.isSafeInteger(cutoff) && cutoff > (i === 0 ? 0 : (cutoffs[i - 1] as number)) && cutoff < nClasses
    if (!Array.isArray(cutoffs) || cutoffs.length === 0 || !cutoffs.every(rises)) {
      throw new ConfigError(
        `${layer}: expected cutoffs to be rising integers from 1 to ${nClasses - 1}, got ${shown(cutoffs)}`,
        { cutoffs },
      )
    }
    this.inFeatures = inFeatures
    this.nClasses = nClasses
    this.cutoffs = [...cutoffs, nClasses]
    this.divValue = divValue
    this.head = new Linear(inFeatures, this.#shortlist + cutoffs.length, { bias: headBias, ...factory })
    this.tail = new ModuleList()
    for (const [i, start] of cutoffs.entries()) {
      const inner = Math.floor(inFeatures / divValue ** (i + 1))
      const size = (this.cutoffs[i + 1] as number) - start
      this.tail.push(
        new Sequential(
          new Linear(inFeatures, inner, { bias: false, ...factory }),
          new Linear(inner, size, { bias: false, ...factory }),
        ),
      )
    }
  }

  get #shortlist(): number {
    return this.cutoffs[0] as number
  }

  /** Initialize all weights again. */
  resetParameters(): void {
    for (const layer of this.modules()) if (layer instanceof Linear) layer.resetParameters()
  }

  /**
   * Return the log probability of each target, and the loss, the negative mean of them.
   * @param input [batch, inFeatures] or [inFeatures]
   * @param target int64 classes [batch] or []
   * @throws IndexError for a target that is not a class
   */
  override forward(input: Tensor, target: Tensor): { output: Tensor; loss: Tensor } {
    const layer = this.constructor.name
    const wrong = otherRank(layer, input, [1, 2], '[batch, features] or [features]')
    if (wrong) throw wrong
    requireTensors(layer, target)
    if (target.ndim !== input.ndim - 1 || (target.ndim === 1 && target.size(0) !== input.size(0))) {
      throw new ShapeError(
        `${layer}: expected one target for each of the inputs [${input.shape}], got [${target.shape}]`,
        {
          shape: target.shape,
        },
      )
    }
    const bad = badIndices(layer, target, this.nClasses)
    if (bad) throw bad
    return scope(() => {
      const single = input.ndim === 1
      const rows = single ? input.unsqueeze(0) : input
      const labels = single ? target.unsqueeze(0) : target
      const head = this.head.forward(rows).logSoftmax(1)
      const short = this.#shortlist
      // Every row has a head's class: its own, or that of its cluster.
      let classes = labels
      for (let i = 0; i < this.tail.length; i++) {
        classes = classes.where(labels.lt(this.cutoffs[i] as number), short + i)
      }
      let output = head.gather(1, classes.unsqueeze(1)).squeeze(1)
      for (const [i, part] of [...this.tail].entries()) {
        const start = this.cutoffs[i] as number
        const inside = labels.ge(start).logicalAnd(labels.lt(this.cutoffs[i + 1] as number))
        const places = inside.nonzero().squeeze(1)
        if (places.numel() === 0) continue
        const logs = part.forward(rows.indexSelect(0, places)).logSoftmax(1)
        const own = labels.indexSelect(0, places).sub(start)
        output = output.indexAdd(0, places, logs.gather(1, own.unsqueeze(1)).squeeze(1))
      }
      return { output: single ? output.squeeze(0) : output, loss: output.mean().neg() }
    })
  }

  /** Return the log probabilities of all classes, [batch, nClasses], of inputs [batch, inFeatures]. */
  logProb(input: Tensor): Tensor {
    const wrong = otherRank(this.constructor.name, input, [2], '[batch, features]')
    if (wrong) throw wrong
    return scope(() => this.#allLogs(input, this.head.forward(input)))
  }

  #allLogs(input: Tensor, scores: Tensor): Tensor {
    const head = scores.logSoftmax(1)
    const short = this.#shortlist
    const parts = [...this.tail].map((part, i) =>
      part
        .forward(input)
        .logSoftmax(1)
        .add(head.narrow(1, short + i, 1)),
    )
    return cat([head.narrow(1, 0, short), ...parts], 1)
  }

  /**
   * Return the most likely class of each input, int64 [batch]. Clusters are computed only for the inputs whose most likely head's
   * class they are.
   */
  predict(input: Tensor): Tensor {
    const wrong = otherRank(this.constructor.name, input, [2], '[batch, features]')
    if (wrong) throw wrong
    return scope(() => {
      const scores = this.head.forward(input)
      const best = ops.argmax(scores, 1)
      const short = this.#shortlist
      const outside = best.ge(short)
      if (!outside.any().item()) return best
      const all = this.#allLogs(input, scores).argmax(1)
      return all.where(outside, best)
    })
  }
}
