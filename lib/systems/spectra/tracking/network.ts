import { misuse } from '../../../base/check.js'
import { loadPretrained, savePretrained } from '../../../models/own-module.js'
import { Module } from '../../../nn/module.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import type { DstConfig } from './config.js'
import { DstHeads, type DstHeadsOptions, type DstHeadsOutput, type DstLabels } from './heads.js'

/** What the encoder reads: one text and two clips for each turn, the user's and the system's. */
export interface DstEncoderInputs {
  /** int64 [batch, tokens] */
  inputIds: Tensor
  /** bool [batch, tokens] */
  attentionMask: Tensor
  /** int64 [batch, tokens]: 0 for the user's segment, 1 after it. */
  tokenTypeIds: Tensor
  /** float32 [2 batch, samples]: for each turn the user's clip and the system's. */
  inputValues: Tensor
  /** int64 [2 batch]: samples of each clip; 0 where there is no speech. */
  audioLengths: Tensor
  audiosPerText: 2
}

/** A network that fuses text and speech, such as `Spectra`. */
export type DstEncoder = Module & {
  /** States [batch, tokens + frames, hidden] and their mask, bool [batch, tokens + frames]; text stands first. */
  forward(inputs: DstEncoderInputs): DstFusedStates | Promise<DstFusedStates>
}

export interface DstFusedStates {
  lastHiddenState: Tensor
  attentionMask: Tensor
}

export type DstInputs = DstEncoderInputs & Partial<DstLabels>

/**
 * SPECTRA with the heads of dialog state tracking: `model.<encoder>`, `class_<slot>`, `token_<slot>` and `refer_<slot>` in
 * the state dictionary, as the published trainer saves them.
 */
export class SpectraForDst<E extends DstEncoder = DstEncoder> extends Module {
  readonly model: E
  readonly #heads: DstHeads
  readonly #options: DstHeadsOptions

  constructor(encoder: E, options: DstHeadsOptions) {
    super()
    if (!(encoder instanceof Module)) throw misuse('SpectraForDst', 'encoder', 'a Module', encoder)
    this.model = encoder
    this.#heads = new DstHeads(options)
    this.#options = options
  }

  /**
   * What `save` wrote, in evaluation mode. `build` makes the encoder of its configuration, such as `Spectra.fromConfig`.
   * @throws CheckpointError, ConfigError
   */
  static load<E extends DstEncoder>(
    directory: string,
    build: (config: object) => E,
    factory: FactoryOptions = {},
  ): Promise<SpectraForDst<E>> {
    return loadPretrained(
      directory,
      ({ encoder, heads }: SavedConfig) => new SpectraForDst(build(encoder), { ...heads, ...factory }),
    )
  }

  get config(): DstConfig {
    return this.#options.config
  }

  /** Writes config.json, with the encoder's configuration in it, and model.safetensors. */
  save(directory: string): Promise<void> {
    const { device: _device, dtype: _dtype, ...heads } = this.#options
    const { config: encoder = {} } = this.model as { config?: object }
    return savePretrained(directory, this, { encoder, heads } satisfies SavedConfig)
  }

  /** With all four labels there is a `loss`, the sum over turns and slots. */
  override async forward(inputs: DstInputs): Promise<DstHeadsOutput> {
    const { classIds, startPositions, endPositions, referIds, ...encoderInputs } = inputs
    return scope(async () => {
      const { lastHiddenState, attentionMask } = await this.model.forward(encoderInputs)
      const labels = classIds &&
        startPositions &&
        endPositions &&
        referIds && { classIds, startPositions, endPositions, referIds }
      this.#heads.training = this.training
      return this.#heads.forward(lastHiddenState, attentionMask, labels || undefined)
    })
  }

  /** The heads stand beside the encoder, without a name of their own. */
  protected override members(): Iterable<[string, unknown]> {
    return [['model', this.model], ...this.#heads.namedChildren()]
  }
}

interface SavedConfig {
  encoder: object
  heads: Omit<DstHeadsOptions, 'device' | 'dtype'>
}
