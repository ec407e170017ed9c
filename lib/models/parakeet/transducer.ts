import { requireNumber, requireOneOf } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { Embedding } from '../../nn/embedding.js'
import { Linear } from '../../nn/linear.js'
import { adaptersOf, Module } from '../../nn/module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { quantizationOf } from '../../nn/quantized-weight.js'
import { LSTM } from '../../nn/rnn.js'
import { ops, scope, type Tensor } from '../../tensor/index.js'
import { requireInVocabulary, requireLabels } from '../encoders/ctc-loss.js'
import {
  type ParakeetRNNTConfig,
  type ParakeetTDTConfig,
  requireTransducer,
  rnntKeys,
  rnntSizes,
  tdtKeys,
  tdtSizes,
} from './config.js'
import type { FastConformerInputs } from './encoder.js'
import { type ParakeetBeamOptions, type ParakeetHypothesis, ParakeetModel } from './head.js'

const REDUCTIONS = ['mean_volume', 'mean_batch', 'mean', 'sum', 'none'] as const

export interface ParakeetTransducerInputs extends FastConformerInputs {
  /** int64 [batch, length], padded at the end: with -100, the blank, or for TDT `padTokenId`. */
  labels?: Tensor | null
  /**
   * Reduction of the loss: `'mean_volume'`, the sum over all rows by the number of all labels; `'mean_batch'`, the mean of the rows;
   * `'mean'`, the mean of each row's loss by its number of labels; `'sum'` or `'none'`. Default 'mean_volume' for RNN-T, 'mean' for TDT.
   */
  reduction?: (typeof REDUCTIONS)[number]
  /** TDT only: subtracted from the log probability of each token (Xu et al. 2023, section 3.3). Default 0. */
  sigma?: number
  /**
   * Whether to return the logits for `labels`, which may need more memory than all else; the loss does not compute them at once. Default
   * false.
   */
  outputLogits?: boolean
}

export interface ParakeetTransducerOutput {
  /** float32 (float64 for float64): a scalar, [batch] with reduction 'none'; null without `labels`. */
  loss: Tensor | null
  /** [batch, frames, length + 1, vocabSize + number of durations]; null without `outputLogits`. */
  logits: Tensor | null
  /** [batch, frames, hiddenSize]; undefined values for frames of padding. */
  lastHiddenState: Tensor
  /** bool [batch, frames], true for valid frames; null without a mask. */
  attentionMask: Tensor | null
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

/** Prediction network: reads the tokens so far. */
class Predictor extends Module {
  readonly embedding: Embedding
  readonly lstm: LSTM
  readonly decoder_projector: Linear

  constructor({ vocabSize, decoderHiddenSize, numDecoderLayers }: ParakeetRNNTConfig, factory: MakeOptions) {
    super()
    const size = decoderHiddenSize as number
    const { device, dtype } = factory
    this.embedding = new Embedding(vocabSize as number, size, { device, dtype })
    this.lstm = new LSTM(size, size, { numLayers: numDecoderLayers, batchFirst: true, device, dtype })
    this.decoder_projector = new Linear(size, size, { device, dtype })
  }

  /** ids int64 [batch, length] to [batch, length, decoderHiddenSize] */
  override forward(ids: Tensor): Tensor {
    return this.decoder_projector.forward(this.lstm.forward(this.embedding.forward(ids)).output)
  }
}

/** Joint network: reads a frame of the encoder and a state of the prediction network. */
class Joint extends Module {
  readonly head: Linear

  constructor(size: number, outputs: number, factory: MakeOptions) {
    super()
    this.head = new Linear(size, outputs, { device: factory.device, dtype: factory.dtype })
  }
}

const transducerLoss = opAsync('voxtorch::transducer_loss')
const transducerGreedy = opAsync('voxtorch::transducer_greedy')
const transducerBeam = opAsync('voxtorch::transducer_beam')

abstract class Transducer extends ParakeetModel {
  declare readonly config: ParakeetTDTConfig
  readonly encoder_projector: Linear
  readonly decoder: Predictor
  readonly joint: Joint

  constructor(config: ParakeetRNNTConfig, options: MakeOptions = {}) {
    super(config, options)
    requireTransducer(new.target.name, this.config)
    const { decoderHiddenSize, vocabSize } = this.config as Required<ParakeetRNNTConfig>
    const { device, dtype } = options
    this.encoder_projector = new Linear(this.encoder.config.hiddenSize as number, decoderHiddenSize, { device, dtype })
    this.decoder = new Predictor(this.config, options)
    this.joint = new Joint(decoderHiddenSize, vocabSize + this.#durations.length, options)
    this.begin(options)
  }

  /** Durations that the network predicts; [] for RNN-T. */
  get #durations(): number[] {
    return this.config.durations ?? []
  }

  protected override initial(name: string, values: Tensor): void {
    const bound = 1 / Math.sqrt(this.config.decoderHiddenSize as number)
    if (name.startsWith('decoder.lstm.')) values.uniform_(-bound, bound)
    else super.initial(name, values)
  }

  /**
   * Run the encoder, and with `labels` compute the loss, on the executor: the sum over all alignments of RNN-T (Graves 2012,
   * https://arxiv.org/abs/1211.3711) or TDT (Xu et al. 2023, https://arxiv.org/abs/2304.06795).
   *
   * The loss and its gradients are exact. The logits of all frames and labels never exist at once: in addition to its inputs the loss keeps
   * (2 + number of durations) · 8 bytes for each frame and label of one row, on CUDA 24 + 4 · number of durations bytes of all rows, and a
   * block of logits of about 32 MiB (128 MiB on CUDA), which backward computes again. Rows without any alignment have an infinite loss and no gradient.
   * @throws ConfigError for a label outside the vocabulary, or one after padding
   */
  override forward(inputs: ParakeetTransducerInputs): Promise<ParakeetTransducerOutput> {
    return scope(async () => {
      const { labels = null, reduction, sigma = 0, outputLogits = false, ...rest } = inputs
      const where = `${this.constructor.name}.forward`
      if (reduction !== undefined) requireOneOf(where, 'reduction', reduction, REDUCTIONS)
      requireNumber(where, 'sigma', sigma)
      if (sigma !== 0 && this.#durations.length === 0)
        throw new ConfigError(`${where}: sigma: expected none for RNN-T, got ${sigma}. Leave it out.`, { sigma })
      if (outputLogits && labels === null)
        throw new ConfigError(`${where}: outputLogits: expected labels with it, got none. Pass labels.`)
      const encoded = await this.encoder.forward(rest)
      const output = { loss: null, logits: null, ...encoded }
      if (labels === null) return output
      const { targets, lengths } = this.#targets(labels, encoded.lastHiddenState.size(0))
      const frames = this.encoder_projector.forward(encoded.lastHiddenState)
      const tokens = this.decoder.forward(targets.constantPadNd([1, 0], this.config.blankTokenId as number))
      const loss = await this.#loss(frames, tokens, targets, lengths, encoded.attentionMask, { reduction, sigma })
      return { ...output, loss, logits: outputLogits ? this.#logits(frames, tokens) : null }
    })
  }

  async #loss(
    frames: Tensor,
    tokens: Tensor,
    targets: Tensor,
    lengths: Tensor,
    mask: Tensor | null,
    { reduction = this.#durations.length > 0 ? 'mean' : 'mean_volume', sigma = 0 }: Partial<ParakeetTransducerInputs>,
  ): Promise<Tensor> {
    this.#requirePlain(this.joint.head, 'joint.head')
    const [batch, time] = frames.shape as [number, number]
    const valid = mask ? mask.sum([-1]) : frames.newFull([batch], time, { dtype: 'int64' })
    const { weight, bias } = this.joint.head
    const losses = (await transducerLoss(frames, tokens, weight, bias, targets, valid, lengths, {
      blank: this.config.blankTokenId,
      durations: this.#durations,
      sigma,
      activation: this.config.hiddenAct,
    })) as Tensor
    const counts = lengths.to({ dtype: losses.dtype, device: losses.device })
    switch (reduction) {
      case 'none':
        return losses
      case 'sum':
        return losses.sum()
      case 'mean_batch':
        return losses.mean()
      case 'mean':
        return losses.div(counts).mean()
      default:
        return losses.sum().div(counts.sum())
    }
  }

  /** Return the labels with blanks as padding, and the number of each row's labels, int64 [batch]. */
  #targets(labels: Tensor, batch: number): { targets: Tensor; lengths: Tensor } {
    requireLabels(labels, batch)
    const { vocabSize, blankTokenId, padTokenId } = this.config as Required<ParakeetTDTConfig>
    const ids = labels.to('int64')
    let real = ids.ne(-100).logicalAnd(ids.ne(blankTokenId))
    // As in transformers, where RNN-T's labels are padded with the blank.
    if (this.#durations.length > 0) real = real.logicalAnd(ids.ne(padTokenId))
    requireInVocabulary(ids, real, vocabSize)
    const [length] = ids.shape.slice(1) as [number]
    if (
      length > 1 &&
      real
        .narrow(1, 1, length - 1)
        .logicalAnd(real.narrow(1, 0, length - 1).logicalNot())
        .any()
        .item()
    ) {
      throw new ConfigError('labels: expected padding only at the end of a row, got labels after it. Move it.', {})
    }
    return { targets: ids.maskedFill(real.logicalNot(), blankTokenId), lengths: real.sum([-1]) }
  }

  #logits(frames: Tensor, tokens: Tensor): Tensor {
    const joined = frames.unsqueeze(2).add(tokens.unsqueeze(1))
    return this.joint.head.forward(ops[this.config.hiddenAct as 'relu' | 'tanh' | 'sigmoid'](joined))
  }

  /** The operators read the weights themselves. */
  #requirePlain(layer: Linear, name: string): void {
    if (adaptersOf(layer) === undefined && quantizationOf(layer) === undefined) return
    throw new ConfigError(
      `${this.constructor.name}: ${name}: expected a layer without adapters and quantization. Choose layers of the encoder only.`,
      { layer: name },
    )
  }

  /** @internal */
  override async decodeStates(
    states: Tensor,
    lengths: Tensor,
    { numBeams, lengthPenalty }: Required<ParakeetBeamOptions>,
  ): Promise<ParakeetHypothesis[]> {
    const { embedding, lstm, decoder_projector: projector } = this.decoder
    const { head } = this.joint
    this.#requirePlain(head, 'joint.head')
    this.#requirePlain(projector, 'decoder.decoder_projector')
    const search = numBeams > 1 ? transducerBeam : transducerGreedy
    const { tokens, frames, durations, counts, scores } = (await search(
      this.encoder_projector.forward(states),
      lengths,
      embedding.weight,
      lstm.namedParameters().map(([, parameter]) => parameter),
      projector.weight,
      projector.bias,
      head.weight,
      head.bias,
      {
        blank: this.config.blankTokenId,
        durations: this.#durations,
        maxSymbols: this.config.maxSymbolsPerStep,
        activation: this.config.hiddenAct,
        ...(numBeams > 1 && { beams: numBeams, lengthPenalty }),
      },
    )) as Record<'tokens' | 'frames' | 'durations' | 'counts', number[]> & { scores?: number[] }
    let end = 0
    return counts.map((count, row) => {
      const begin = end
      end += count
      const part = (list: number[]) => list.slice(begin, end).map(Number)
      const found = { tokens: part(tokens), starts: part(frames), durations: part(durations) }
      return scores ? { ...found, score: scores[row] as number } : found
    })
  }

  protected override generationConfig(): object {
    const { blankTokenId, padTokenId, vocabSize } = this.config as Required<ParakeetTDTConfig>
    const durations = this.#durations.map((_, i) => vocabSize + i)
    return {
      _from_model_config: false,
      decoder_start_token_id: blankTokenId,
      pad_token_id: padTokenId,
      ...(durations.length > 0 && { suppress_tokens: durations }),
    }
  }
}

/**
 * Parakeet with a recurrent neural network transducer (RNN-T, Graves 2012, https://arxiv.org/abs/1211.3711): transformers'
 * ParakeetForRNNT. Decoding is greedy or by beam search, in batches.
 */
export class ParakeetForRNNT extends Transducer {
  static override readonly kind = 'rnnt'
  static override readonly sizes = rnntSizes
  static override readonly keys = rnntKeys
}

/**
 * Parakeet with a token-and-duration transducer (TDT, Xu et al. 2023, https://arxiv.org/abs/2304.06795), which also predicts how many
 * frames each token lasts and skips them: transformers' ParakeetForTDT. Decoding is greedy or by beam search, in batches.
 *
 * ```ts
 * const model = await ParakeetForTDT.fromPretrained('nvidia/parakeet-tdt-0.6b-v3')
 * const { text, words } = await model.transcribe('speech.wav', { timestamps: 'word' })
 * ```
 */
export class ParakeetForTDT extends Transducer {
  static override readonly kind = 'tdt'
  static override readonly sizes = tdtSizes
  static override readonly keys = tdtKeys
}
