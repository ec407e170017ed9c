import { statSync } from 'node:fs'
import { listOf, misuse, requireObject, requireOneOf } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { Tensor } from '../../tensor/index.js'
import { keepOthers, partedConfig } from '../config-keys.js'
import { type NetworkConfig, networkClass } from '../network.js'
import { type LoadNetworkOptions, loadNetwork } from '../pretrained.js'
import type { Factory } from '../weights.js'
import { loadSalmonnQFormer, qFormerKeys, qFormerLayout } from './files.js'

/** BERT's keys in camelCase and what a Q-Former adds; what is left out has the value in brackets, SALMONN's. */
export interface QFormerConfig extends NetworkConfig {
  /** [768] */
  hiddenSize?: number
  /** [2] */
  numHiddenLayers?: number
  /** [12] */
  numAttentionHeads?: number
  /** [3072] */
  intermediateSize?: number
  /** ['gelu'] */
  hiddenAct?: string
  /** [0.1] */
  hiddenDropoutProb?: number
  /** [0.1] */
  attentionProbsDropoutProb?: number
  /** [1e-12] */
  layerNormEps?: number
  /** [0.02] */
  initializerRange?: number
  /** Size of the frames that are read [2048]. */
  encoderWidth?: number
  /** Every how many layers there is a cross-attention, beginning with the first [1]. */
  crossAttentionFreq?: number
  /** Learned queries of a window [1]. */
  queryLength?: number
  /** Frames of a window; 0: the whole sequence is one [0]. */
  window?: number
  /** Frames from one window's beginning to the next one's [window]. */
  stride?: number
}

export interface QFormerInputs {
  /** Frames [batch, time, encoderWidth]; converted to the network's dtype. */
  encoderHiddenStates: Tensor
  /** How many frames of each row are real, the rest being padding. Default: all. */
  lengths?: readonly number[]
  /** Queries [1 or batch, queries, hiddenSize] in place of the learned ones. */
  queryEmbeds?: Tensor | null
  /**
   * `'published'`: as SALMONN, windows of all frames whatever `lengths` says, and what the last whole window leaves over
   * is dropped. Default: a last window that reaches beyond a row's end reads what there is.
   */
  compat?: 'published'
}

export interface QFormerOutput {
  /** [batch, tokens, hiddenSize]: the queries of each window, window after window; zeros after a row's last window. */
  lastHiddenState: Tensor
  /** Tokens of each row. */
  lengths: number[]
}

export interface LoadQFormerOptions extends LoadNetworkOptions {
  /** For a SALMONN checkpoint, which has no configuration: what its shapes do not tell, the heads and the windows. */
  config?: QFormerConfig
}

const forward = opAsync(qFormerLayout.forward)

/**
 * A Q-Former (Li et al. 2023, https://arxiv.org/abs/2301.12597): learned queries that read frames by cross-attention. With
 * `window`, as SALMONN has it (https://arxiv.org/abs/2310.13289), they read each window by itself, all windows of a batch
 * in one call. Runs in native code.
 *
 * Parameters are `query_tokens` and `Qformer.bert...`; in a SALMONN checkpoint both begin with `speech_`. Published size:
 * `'salmonn'`.
 */
export class QFormer extends networkClass<QFormer, QFormerConfig, QFormerInputs, QFormerOutput>(qFormerLayout) {
  /**
   * A directory that `save` wrote, or a SALMONN checkpoint (`salmonn_v1.pth`), of which this is a part.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static override async fromPretrained(from: string, options: LoadQFormerOptions = {}): Promise<QFormer> {
    const { config, ...rest } = options
    if (config !== undefined) requireObject('QFormer.fromPretrained', 'config', config)
    const build = (found: QFormerConfig, factory: Factory) => new this({ ...found, ...config }, factory)
    if (typeof from === 'string' && statSync(from, { throwIfNoEntry: false })?.isFile()) {
      return loadSalmonnQFormer(from, rest, build)
    }
    const { network } = await loadNetwork(qFormerLayout, from, rest, (read, factory) => {
      const { known, others } = partedConfig(from, qFormerKeys, read)
      const made = build(known, factory)
      keepOthers(made, others)
      return made
    })
    return network
  }

  /**
   * Runs on the executor.
   * @throws ShapeError for arguments that do not fit, ConfigError for an unknown `compat`
   */
  override async forward(inputs: QFormerInputs): Promise<QFormerOutput> {
    requireObject('QFormer.forward', 'inputs', inputs)
    const { encoderHiddenStates, lengths, queryEmbeds = null, compat } = inputs
    if (compat !== undefined) requireOneOf('QFormer.forward', 'compat', compat, ['published'])
    if (!(encoderHiddenStates instanceof Tensor)) {
      throw misuse('QFormer.forward', 'encoderHiddenStates', 'a tensor', encoderHiddenStates)
    }
    if (lengths !== undefined) listOf('QFormer.forward', 'lengths', lengths, 'numbers')
    const isPublished = compat === 'published'
    const settings = { queryEmbeds, dropRemainder: isPublished }
    const given = lengths ? [...lengths] : null
    const lastHiddenState = (await forward(withActiveAdapters(this), encoderHiddenStates, given, settings)) as Tensor
    const queries = queryEmbeds ? queryEmbeds.size(1) : (this.config.queryLength as number)
    const time = encoderHiddenStates.size(1)
    const frames = given && !isPublished ? given : Array.from({ length: encoderHiddenStates.size(0) }, () => time)
    const counts = isPublished ? frames.map(() => lastHiddenState.size(1) / queries) : this.windowCounts(frames)
    return { lastHiddenState, lengths: counts.map((count) => count * queries) }
  }

  /** Windows that read so many frames, the last of which may be partial. */
  windowCounts(frames: readonly number[]): number[] {
    const { window, stride } = this.config as Required<QFormerConfig>
    return listOf('QFormer.windowCounts', 'frames', frames, 'numbers').map((count) => {
      if (!Number.isInteger(count) || count < 1) {
        throw new ConfigError(`QFormer.windowCounts: frames must be whole numbers of at least 1, not ${count}`, {
          frames,
        })
      }
      if (window === 0 || count <= window) return 1
      return 1 + Math.min(Math.ceil((count - window) / stride), Math.floor((count - 1) / stride))
    })
  }
}
