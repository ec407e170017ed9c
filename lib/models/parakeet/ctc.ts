import { Conv1d } from '../../nn/conv.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { ctcLossOf, requireCtcReduction } from '../encoders/ctc-loss.js'
import { ctcKeys, ctcSizes, type ParakeetCTCConfig } from './config.js'
import type { FastConformerInputs } from './encoder.js'
import { type ParakeetHypothesis, ParakeetModel } from './head.js'

export interface ParakeetCTCInputs extends FastConformerInputs {
  /** int64 [batch, length]; -100 and `padTokenId` are padding. */
  labels?: Tensor | null
}

export interface ParakeetCTCOutput {
  /** Loss reduced by `ctcLossReduction`, float32 (float64 for float64); null without `labels`. */
  loss: Tensor | null
  /** [batch, frames, vocabSize]; undefined values for frames of padding. */
  logits: Tensor
  /** bool [batch, frames], true for valid frames; null without a mask. */
  attentionMask: Tensor | null
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

/**
 * Parakeet for speech recognition by connectionist temporal classification (Graves et al. 2006): transformers' ParakeetForCTC.
 *
 * ```ts
 * const model = await ParakeetForCTC.fromPretrained('nvidia/parakeet-ctc-0.6b')
 * const { text } = await model.transcribe('speech.wav')
 * ```
 */
export class ParakeetForCTC extends ParakeetModel {
  static override readonly kind = 'ctc'
  static override readonly sizes = ctcSizes
  static override readonly keys = ctcKeys
  declare readonly config: ParakeetCTCConfig
  readonly ctc_head: Conv1d

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: ParakeetCTCConfig, options: MakeOptions = {}) {
    super(config, options)
    requireCtcReduction(this.config.ctcLossReduction)
    const { device, dtype } = options
    this.ctc_head = new Conv1d(this.encoder.config.hiddenSize as number, this.config.vocabSize as number, 1, {
      device,
      dtype,
    })
    this.begin(options)
  }

  /**
   * Compute the logits, and with `labels` the CTC loss. The encoder runs on the executor.
   * @throws ConfigError for a label outside the vocabulary
   */
  override forward(inputs: ParakeetCTCInputs): Promise<ParakeetCTCOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { lastHiddenState, ...others } = await this.encoder.forward(rest)
      const logits = this.#logits(lastHiddenState)
      const lengths = others.attentionMask?.sum([-1]) ?? null
      const { ctcLossReduction = 'mean', ctcZeroInfinity = true, padTokenId = 1024 } = this.config
      const loss = labels
        ? ctcLossOf(logits, labels, lengths, {
            blank: padTokenId,
            reduction: ctcLossReduction,
            zeroInfinity: ctcZeroInfinity,
          })
        : null
      return { loss, logits, ...others }
    })
  }

  #logits(states: Tensor): Tensor {
    return this.ctc_head.forward(states.transpose(1, 2)).transpose(1, 2)
  }

  /** @internal */
  override async decodeStates(states: Tensor, lengths: Tensor): Promise<ParakeetHypothesis[]> {
    const rows = this.#logits(states).argmax(-1).toArray() as (number | bigint)[][]
    const counts = lengths.toArray() as (number | bigint)[]
    return rows.map((row, i) => mergedRuns(row.slice(0, Number(counts[i])).map(Number), this.config.padTokenId ?? 1024))
  }
}

/** Merge runs of equal predictions, and drop blanks. */
function mergedRuns(frames: readonly number[], blank: number): ParakeetHypothesis {
  const found: ParakeetHypothesis = { tokens: [], starts: [], durations: [] }
  for (const [frame, token] of frames.entries()) {
    if (token === blank) continue
    if (token === frames[frame - 1]) found.durations[found.durations.length - 1]! += 1
    else {
      found.tokens.push(token)
      found.starts.push(frame)
      found.durations.push(1)
    }
  }
  return found
}
