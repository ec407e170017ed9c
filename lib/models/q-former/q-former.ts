import { statSync } from 'node:fs'
import { argumentError, listOf, requireObject, requireOneOf, shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { Tensor } from '../../tensor/index.js'
import { keepOthers, partedConfig } from '../config-keys.js'
import { type NetworkConfig, networkClass } from '../network.js'
import { type LoadNetworkOptions, loadNetwork } from '../pretrained.js'
import type { Factory } from '../weights.js'
import { loadSalmonnQFormer, qFormerKeys, qFormerLayout } from './files.js'

/** BERT's keys, in camelCase, and those of a Q-Former. Defaults are SALMONN's, except for the windows. */
export interface QFormerConfig extends NetworkConfig {
  /** Default 768. */
  hiddenSize?: number
  /** Default 2. */
  numHiddenLayers?: number
  /** Default 12. */
  numAttentionHeads?: number
  /** Default 3072. */
  intermediateSize?: number
  /** Default 'gelu'. */
  hiddenAct?: string
  /** Default 0.1. */
  hiddenDropoutProb?: number
  /** Default 0.1. */
  attentionProbsDropoutProb?: number
  /** Default 1e-12. */
  layerNormEps?: number
  /** Default 0.02. */
  initializerRange?: number
  /** Size of the input frames. Default 2048. */
  encoderWidth?: number
  /** Interval of layers with cross-attention, from the first layer. Default 1. */
  crossAttentionFreq?: number
  /** Learned queries per window. Default 1. */
  queryLength?: number
  /** Frames per window; 0: one window for the whole sequence. Default 0. */
  window?: number
  /** Frames between the begins of two windows. Default `window`. */
  stride?: number
}

export interface QFormerInputs {
  /** Frames [batch, time, encoderWidth]; converted to the network's dtype. */
  encoderHiddenStates: Tensor
  /** Number of frames of each row without padding. Default: all. */
  lengths?: readonly number[]
  /** Queries [1 or batch, queries, hiddenSize] that replace the learned ones. */
  queryEmbeds?: Tensor | null
  /**
   * `'published'`: as SALMONN, windows over all frames, whatever `lengths` is, without the rest after the last complete window.
   * Default: the last window of a row may be incomplete.
   */
  compat?: 'published'
}

export interface QFormerOutput {
  /** [batch, tokens, hiddenSize]: the queries of each window, in order; zeros after a row's last window. */
  lastHiddenState: Tensor
  /** Number of tokens of each row. */
  lengths: number[]
}

export interface LoadQFormerOptions extends LoadNetworkOptions {
  /** Changes to the configuration: for a SALMONN checkpoint, which has none, the number of heads and the windows. */
  config?: QFormerConfig
}

const forward = opAsync(qFormerLayout.forward)

/**
 * A Q-Former (Li et al. 2023, https://arxiv.org/abs/2301.12597): learned queries that read frames by cross-attention. With `window`, as
 * in SALMONN (https://arxiv.org/abs/2310.13289), they read each window separately; all windows of a batch are computed in one call.
 * Runs in native code.
 *
 * Parameters are `query_tokens` and `Qformer.bert...`; in a SALMONN checkpoint both begin with `speech_`. Published size:
 * `'salmonn'`.
 */
export class QFormer extends networkClass<QFormer, QFormerConfig, QFormerInputs, QFormerOutput>(qFormerLayout) {
  /**
   * Load a directory that `save` wrote, or the Q-Former of a SALMONN checkpoint (`salmonn_v1.pth`).
   * @throws CheckpointError with missing, unexpected and mis-shaped names
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
      const network = build(known, factory)
      keepOthers(network, others)
      return network
    })
    return network
  }

  /**
   * Run the network on the executor.
   * @throws ShapeError for inputs whose shapes do not match, ConfigError for an unknown `compat`
   */
  override async forward(inputs: QFormerInputs): Promise<QFormerOutput> {
    requireObject('QFormer.forward', 'inputs', inputs)
    const { encoderHiddenStates, lengths, queryEmbeds = null, compat } = inputs
    if (compat !== undefined) requireOneOf('QFormer.forward', 'compat', compat, ['published'])
    if (!(encoderHiddenStates instanceof Tensor)) {
      throw argumentError('QFormer.forward', 'encoderHiddenStates', 'a tensor', encoderHiddenStates)
    }
    if (lengths !== undefined) listOf('QFormer.forward', 'lengths', lengths, 'numbers')
    const isPublished = compat === 'published'
    const settings = { queryEmbeds, dropRemainder: isPublished }
    const rowLengths = lengths ? [...lengths] : null
    const lastHiddenState = (await forward(
      withActiveAdapters(this),
      encoderHiddenStates,
      rowLengths,
      settings,
    )) as Tensor
    const queries = queryEmbeds ? queryEmbeds.size(1) : (this.config.queryLength as number)
    const time = encoderHiddenStates.size(1)
    const frames =
      rowLengths && !isPublished ? rowLengths : Array.from({ length: encoderHiddenStates.size(0) }, () => time)
    const counts = isPublished ? frames.map(() => lastHiddenState.size(1) / queries) : this.windowCounts(frames)
    return { lastHiddenState, lengths: counts.map((count) => count * queries) }
  }

  /** Return the number of windows for each number of frames; the last window may be incomplete. */
  windowCounts(frames: readonly number[]): number[] {
    const { window, stride } = this.config as Required<QFormerConfig>
    return listOf('QFormer.windowCounts', 'frames', frames, 'numbers').map((count) => {
      if (!Number.isInteger(count) || count < 1) {
        throw new ConfigError(
          `QFormer.windowCounts: frames: expected integers of at least 1, got ${shown(count)}. Leave empty clips out.`,
          {
            frames,
          },
        )
      }
      if (window === 0 || count <= window) return 1
      return 1 + Math.min(Math.ceil((count - window) / stride), Math.floor((count - 1) / stride))
    })
  }
}
