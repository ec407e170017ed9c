import { existsSync, readdirSync, statSync } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, extname, join } from 'node:path'
import { SPEECH_RATE } from '../../audio/clip.js'
import { shown } from '../../base/arguments.js'
import { CheckpointError, ConfigError, VoxtorchError } from '../../base/errors.js'
import { readArchive } from '../../files/archive.js'
import { loadTorch } from '../../files/torch/torch.js'
import { readYaml } from '../../files/yaml/yaml.js'
import type { Tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/tokenizer.js'
import type { NetworkConfig } from '../network.js'
import type { ForeignCheckpoint } from '../pretrained.js'
import { tensorsOf } from '../weights.js'
import type { FastConformerConfig } from './encoder.js'
import type { ParakeetFeatureSettings } from './features.js'

/**
 * NeMo's archives: a tar, possibly gzipped, with model_config.yaml, model_weights.ckpt of torch.save, and the SentencePiece model of the
 * tokenizer. Only data is read; classes that the configuration names (`_target_`) are not loaded.
 */

type Kind = 'ctc' | 'rnnt' | 'tdt'
const CLASSES: Record<Kind, string> = { ctc: 'ParakeetForCTC', rnnt: 'ParakeetForRNNT', tdt: 'ParakeetForTDT' }

/** Parts of an archive in addition to configuration and weights. */
interface NemoExtras {
  tokenizer: Tokenizer | null
  features: Partial<ParakeetFeatureSettings>
}
/** The configuration carries them to the model. */
const EXTRAS = Symbol('nemo')

export const isNemo = (path: string): boolean => /\.nemo$/i.test(path)

/** Return what a configuration carries of its archive, once. */
export function takeExtras(config: object): NemoExtras | undefined {
  const extras = Reflect.get(config, EXTRAS) as NemoExtras | undefined
  Reflect.deleteProperty(config, EXTRAS)
  return extras
}

/** Return the archive at a path, or of a folder without config.json. */
function archiveAt(place: string): string | undefined {
  if (isNemo(place)) return place
  if (existsSync(join(place, 'config.json')) || !statSync(place, { throwIfNoEntry: false })?.isDirectory())
    return undefined
  const found = readdirSync(place).filter(isNemo)
  if (found.length < 2) return found[0] === undefined ? undefined : join(place, found[0])
  throw new CheckpointError(`${place}: expected one .nemo file, got ${found.length}. Pass the path of one.`, {
    file: place,
  })
}

/** Return the model type of a `.nemo` archive; undefined for a place without one. Reads no further than its configuration. */
export async function describedNemo(place: string): Promise<NetworkConfig | undefined> {
  const file = archiveAt(place)
  if (file === undefined) return undefined
  const folder = await mkdtemp(join(tmpdir(), 'voxtorch-nemo-'))
  try {
    const { config } = await unpacked(file, folder, true)
    return { modelType: `parakeet_${kindOf(config)}` }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Return the checkpoint of a `.nemo` archive for a class; undefined for a place without one. */
export async function nemoCheckpoint(place: string, kind: Kind): Promise<ForeignCheckpoint | undefined> {
  const file = archiveAt(place)
  if (file === undefined) return undefined
  const folder = await mkdtemp(join(tmpdir(), 'voxtorch-nemo-'))
  try {
    const { config, weights, tokenizer } = await unpacked(file, folder)
    const converted = convertedConfig(file, config, kind)
    const extras: NemoExtras = {
      tokenizer: tokenizer === undefined ? null : await Tokenizer.fromFile(tokenizer),
      features: converted.features,
    }
    return {
      config: { ...converted.config, [EXTRAS]: extras } as NetworkConfig,
      weights: async () => {
        try {
          // Pages of a mapped file stay after it is removed.
          const state = tensorsOf(await loadTorch(weights, { mmap: process.platform !== 'win32' }))
          return { tensors: renamedTensors(state, kind), file, mapped: true }
        } catch (cause) {
          throw named(file, WEIGHTS, weights, cause)
        } finally {
          await rm(folder, { recursive: true, force: true })
        }
      },
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
}

/** Return an error about an extracted file that names the archive. */
function named(file: string, entry: string, path: string, cause: unknown): unknown {
  if (!(cause instanceof VoxtorchError)) return cause
  return new CheckpointError(`${file}: ${cause.message.replaceAll(path, entry)}`, { file, entry, cause })
}

const CONFIG = 'model_config.yaml'
const WEIGHTS = 'model_weights.ckpt'
const MOST_FILES = 20
const MAX_CONFIG = 2 ** 22
const MAX_TOKENIZER = 2 ** 26
/** Far above any published model. */
const MAX_WEIGHTS = 2 ** 37

interface Unpacked {
  config: Node
  /** Path of the weights. */
  weights: string
  /** Path of the SentencePiece model, if there is one. */
  tokenizer: string | undefined
}

/** Write configuration, weights and SentencePiece models of an archive to a folder. @param alone only the configuration */
async function unpacked(file: string, folder: string, alone = false): Promise<Unpacked> {
  const paths = new Map<string, string>()
  for await (const entry of readArchive(file)) {
    const name = basename(entry.name)
    const isModel = name.endsWith('.model') && paths.size < MOST_FILES
    if (paths.has(name) || !(name === CONFIG || (!alone && (name === WEIGHTS || isModel)))) continue
    const most = name === CONFIG ? MAX_CONFIG : name === WEIGHTS ? MAX_WEIGHTS : MAX_TOKENIZER
    if (entry.size > most) {
      throw new CheckpointError(
        `${file}: ${name}: expected at most ${most} bytes, got ${entry.size}. Check the file.`,
        {
          file,
          entry: name,
        },
      )
    }
    // Names of the archive are not used as paths.
    const path = join(folder, `${paths.size}${extname(name)}`)
    paths.set(name, path)
    const handle = await open(path, 'wx')
    try {
      for await (const chunk of entry.stream()) await handle.write(chunk)
    } finally {
      await handle.close()
    }
    if (alone && name === CONFIG) break
  }
  for (const name of alone ? [CONFIG] : [CONFIG, WEIGHTS]) {
    if (paths.has(name)) continue
    throw new CheckpointError(`${file}: expected the entry ${name} of a NeMo archive, got none. Check the file.`, {
      file,
      missing: name,
    })
  }
  const config = paths.get(CONFIG) as string
  const root = await readYaml(config, { maxTokens: 2_000_000 }).catch((cause: unknown) => {
    throw named(file, CONFIG, config, cause)
  })
  const node = new Node(file, '', root)
  const wanted = node.at('tokenizer').value('model_path')
  const name = typeof wanted === 'string' ? wanted.slice(wanted.lastIndexOf(':') + 1) : ''
  const models = [...paths].filter(([one]) => one.endsWith('.model'))
  return {
    config: node,
    weights: paths.get(WEIGHTS) ?? '',
    tokenizer: new Map(models).get(name) ?? models[0]?.[1],
  }
}

/** A mapping of the configuration, with its path for errors. */
class Node {
  readonly #file: string
  readonly #path: string
  readonly #values: Readonly<Record<string, unknown>>

  constructor(file: string, path: string, values: unknown) {
    if (typeof values !== 'object' || values === null || Array.isArray(values)) {
      if (values !== undefined && values !== null) throw wrong(file, path, 'a mapping', values)
      values = {}
    }
    this.#file = file
    this.#path = path
    this.#values = values as Record<string, unknown>
  }

  has = (key: string): boolean => this.value(key) !== undefined

  /** Return a value; undefined for null and for a missing key. */
  value(key: string): unknown {
    return (Object.hasOwn(this.#values, key) ? this.#values[key] : undefined) ?? undefined
  }

  at(key: string): Node {
    return new Node(this.#file, this.#name(key), this.value(key))
  }

  integer(key: string, fallback: number): number {
    const value = this.value(key) ?? fallback
    return Number.isSafeInteger(value) ? (value as number) : this.#fail(key, 'an integer', value)
  }

  number(key: string, fallback: number): number {
    const value = this.value(key) ?? fallback
    return Number.isFinite(value) ? (value as number) : this.#fail(key, 'a number', value)
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.value(key) ?? fallback
    return typeof value === 'boolean' ? value : this.#fail(key, 'true or false', value)
  }

  text(key: string, fallback: string): string {
    const value = this.value(key) ?? fallback
    return typeof value === 'string' ? value : this.#fail(key, 'a text', value)
  }

  integers(key: string): number[] | undefined {
    const value = this.value(key)
    if (value === undefined) return undefined
    const isList = Array.isArray(value) && value.every((one) => Number.isSafeInteger(one))
    return isList ? (value as number[]) : this.#fail(key, 'a list of integers', value)
  }

  /** Check that a value, if there is one, is supported. */
  only(key: string, ...values: unknown[]): void {
    const value = this.value(key)
    if (value === undefined || values.includes(value)) return
    this.#fail(key, values.length === 0 ? 'null' : values.map((one) => JSON.stringify(one)).join(' or '), value)
  }

  #name = (key: string): string => (this.#path === '' ? key : `${this.#path}.${key}`)

  #fail(key: string, expected: string, value: unknown): never {
    throw wrong(this.#file, this.#name(key), expected, value)
  }
}

const wrong = (file: string, key: string, expected: string, value: unknown): ConfigError =>
  new ConfigError(
    `${file}: model_config.yaml: ${key}: expected ${expected}, got ${shown(value)}. Other values are not supported.`,
    { file, key, value },
  )

function convertedConfig(file: string, root: Node, kind: Kind) {
  const own = kindOf(root)
  const isHybrid = root.has('aux_ctc')
  if (kind !== own && !(isHybrid && kind === 'ctc')) {
    throw new CheckpointError(
      `${file}: expected a model for ${CLASSES[kind]}, got one of ${own.toUpperCase()}. Load it with ${CLASSES[own]}.`,
      {
        file,
        expected: kind,
        found: own,
      },
    )
  }
  const encoderConfig = encoderOf(root.at('encoder'))
  const config =
    kind === 'ctc' ? ctcOf(isHybrid ? root.at('aux_ctc').at('decoder') : root.at('decoder')) : transducerOf(root, kind)
  return {
    config: { ...config, modelType: `parakeet_${kind}`, encoderConfig } as NetworkConfig,
    features: featuresIn(root.at('preprocessor')),
  }
}

function kindOf(root: Node): Kind {
  if (!root.at('decoder').has('prednet')) return 'ctc'
  return root.at('loss').value('loss_name') === 'tdt' || root.at('joint').integer('num_extra_outputs', 0) > 0
    ? 'tdt'
    : 'rnnt'
}

function encoderOf(node: Node): FastConformerConfig {
  node.only('subsampling', 'dw_striding')
  node.only('causal_downsampling', false)
  node.only('att_context_style', 'regular')
  node.only('untie_biases', true)
  node.only('conv_norm_type', 'batch_norm')
  node.only('conv_context_size')
  node.only('reduction')
  node.only('feat_out', -1)
  const hiddenSize = node.integer('d_model', 512)
  const channels = node.integer('subsampling_conv_channels', -1)
  const dropout = node.number('dropout', 0.1)
  const bias = node.boolean('use_bias', true)
  const context = node.integers('att_context_size')
  const model = node.text('self_attention_model', 'rel_pos')
  node.only('self_attention_model', 'rel_pos', 'rel_pos_local_attn')
  return {
    hiddenSize,
    numHiddenLayers: node.integer('n_layers', 17),
    numAttentionHeads: node.integer('n_heads', 4),
    intermediateSize: Math.floor(hiddenSize * node.number('ff_expansion_factor', 4)),
    numMelBins: node.integer('feat_in', 80),
    convKernelSize: node.integer('conv_kernel_size', 31),
    subsamplingFactor: node.integer('subsampling_factor', 4),
    subsamplingConvChannels: channels === -1 ? hiddenSize : channels,
    attentionBias: bias,
    convolutionBias: bias,
    scaleInput: node.boolean('xscaling', true),
    dropout,
    activationDropout: dropout,
    dropoutPositions: node.number('dropout_emb', 0.1),
    attentionDropout: node.number('dropout_att', 0),
    layerdrop: node.number('stochastic_depth_drop_prob', 0),
    selfAttentionModel: model as 'rel_pos',
    attContextSize: (context ?? [-1, -1]) as [number, number],
  }
}

/** Return the number of tokens without the blank. */
function tokensOf(node: Node, fallback: unknown): number {
  const vocabulary = node.value('vocabulary') ?? fallback
  const count = node.integer('num_classes', -1)
  return count > 0 ? count : Array.isArray(vocabulary) ? vocabulary.length : count
}

function ctcOf(decoder: Node): NetworkConfig {
  const count = tokensOf(decoder, undefined)
  return { vocabSize: count + 1, padTokenId: count, ctcLossReduction: 'mean', ctcZeroInfinity: true }
}

function transducerOf(root: Node, kind: Kind): NetworkConfig {
  const decoder = root.at('decoder')
  const joint = root.at('joint')
  const network = joint.at('jointnet')
  decoder.only('blank_as_pad', true)
  decoder.only('normalization_mode')
  const hidden = decoder.at('prednet').integer('pred_hidden', 640)
  // transformers' layout has one size for both.
  network.only('joint_hidden', hidden)
  const labels = root.value('labels')
  const count = tokensOf(joint, labels)
  const pad = Array.isArray(labels) ? labels.indexOf('<pad>') : -1
  const durations =
    root.at('decoding').integers('durations') ??
    root.at('model_defaults').integers('tdt_durations') ??
    root.at('loss').at('tdt_kwargs').integers('durations')
  return {
    vocabSize: count + 1,
    blankTokenId: count,
    padTokenId: pad >= 0 ? pad : count,
    decoderHiddenSize: hidden,
    numDecoderLayers: decoder.at('prednet').integer('pred_rnn_layers', 2),
    hiddenAct: network.text('activation', 'relu'),
    maxSymbolsPerStep: root.at('decoding').at('greedy').integer('max_symbols', 10),
    ...(kind === 'tdt' && { durations: durations ?? [0, 1, 2, 3, 4] }),
  }
}

function featuresIn(node: Node): Partial<ParakeetFeatureSettings> {
  node.only('normalize', 'per_feature')
  node.only('window', 'hann')
  node.only('log', true)
  node.only('frame_splicing', 1)
  node.only('mag_power', 2)
  node.only('lowfreq', 0)
  node.only('highfreq')
  const samplingRate = node.integer('sample_rate', SPEECH_RATE)
  return {
    samplingRate,
    winLength: Math.floor(node.number('window_size', 0.02) * samplingRate + 1e-6),
    hopLength: Math.floor(node.number('window_stride', 0.01) * samplingRate + 1e-6),
    nFft: node.integer('n_fft', 512),
    preemphasis: node.number('preemph', 0.97),
  }
}

/** Names of NeMo and those of transformers, in the order in which they are replaced. */
const NAMES: readonly [RegExp, string][] = [
  [/^encoder\.pre_encode\.conv\./, 'encoder.subsampling.layers.'],
  [/^encoder\.pre_encode\.out\./, 'encoder.subsampling.linear.'],
  [/\.conv\.batch_norm\./, '.conv.norm.'],
  [/\.self_attn\.linear_([qkv])\./, '.self_attn.$1_proj.'],
  [/\.self_attn\.linear_out\./, '.self_attn.o_proj.'],
  [/\.self_attn\.linear_pos\./, '.self_attn.relative_k_proj.'],
  [/\.self_attn\.pos_bias_([uv])$/, '.self_attn.bias_$1'],
  [/^decoder\.prediction\.embed\./, 'decoder.embedding.'],
  [/^decoder\.prediction\.dec_rnn\.lstm\./, 'decoder.lstm.'],
  [/^joint\.enc\./, 'encoder_projector.'],
  [/^joint\.pred\./, 'decoder.decoder_projector.'],
  [/^joint\.joint_net\.2\./, 'joint.head.'],
  [/^(?:ctc_)?decoder\.decoder_layers\.0\./, 'ctc_head.'],
]
/** Filters of the features, and positions, which are computed. */
const COMPUTED = /^(preprocessor\.featurizer\.|encoder\.pos_enc\.)/

/** Return the tensors under transformers' names. Of a model with two decoders, those of the other one are left out. */
function renamedTensors(state: Record<string, Tensor>, kind: Kind): Record<string, Tensor> {
  const isHybrid = Object.keys(state).some((name) => name.startsWith('ctc_decoder.'))
  const others = kind === 'ctc' ? /^(decoder|joint)\./ : /^ctc_decoder\./
  const kept = Object.entries(state).filter(([name]) => !COMPUTED.test(name) && !(isHybrid && others.test(name)))
  return Object.fromEntries(
    kept.map(([name, tensor]) => [NAMES.reduce((text, [from, to]) => text.replace(from, to), name), tensor]),
  )
}
