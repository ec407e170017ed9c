import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { argumentError, shown } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { toSnake } from '../../../base/words.js'
import { writeJson } from '../../../files/json/json.js'
import { saveSafetensors } from '../../../files/safetensors/safetensors.js'
import { weightFiles } from '../../../files/safetensors/sharded.js'
import { resolveModel } from '../../../hub/index.js'
import { partedConfig } from '../../../models/config-keys.js'
import { speechEncoderHeads, speechEncoderName } from '../../../models/encoders/speech-encoder.js'
import type { NetworkConfig } from '../../../models/network.js'
import {
  type LoadNetworkOptions,
  type NetworkKind,
  parted,
  readConfig,
  requireModelType,
} from '../../../models/pretrained.js'
import { type FillOptions, filled, readWeights, renamed } from '../../../models/weights.js'
import type { NativeModule } from '../../../nn/native-module.js'
import type { NetworkOptions } from '../../../nn/parameter.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import {
  type CompleteSpectraConfig,
  encoderKeys,
  optionsIn,
  type SpectraConfig,
  type SpectraOptions,
  spectraConfig,
} from './config.js'

/** Two pre-trained encoders: folders or Hub repositories of a RoBERTa and a WavLM in transformers' layout. */
export interface SpectraEncoders {
  text: string
  audio: string
}

export interface LoadSpectraOptions extends LoadNetworkOptions {
  /** Options that override those in the files. */
  config?: SpectraOptions
  /** Suppress the warning about missing heads, which get random values, because they will be trained. Default false. */
  freshHeads?: boolean
}

/** Properties of a loaded checkpoint. */
export interface SpectraLoadReport {
  /** Prefix of the names: `''`, `'model.'`, `'module.'` or `'module.model.'`. */
  prefix: string
  /** Number of convolutions of the audio encoder in the file. */
  convLayers: number
  /** Rows of the token type table in the file; a single row is duplicated. */
  typeRows: number
  fusedLayers: number
  /** Whether fusion layers are numbered in the file. */
  fusedIndexed: boolean
  /** Heads in the file, whether or not this network has them. */
  heads: string[]
  /** Number of tensors in the file. */
  tensors: number
  /** Names missing in the file, which get random values. */
  fresh: string[]
  /** Names in the file that this network does not have. */
  ignored: string[]
}

/** A network class and the names of its heads. */
export interface SpectraKind {
  kind: string
  architecture: string
  heads: string[]
}

type Build<M> = (config: CompleteSpectraConfig, factory: NetworkOptions & { initialize: boolean }) => M
interface Source {
  config: SpectraConfig
  /** Tensors under the network's names, without heads of other networks. */
  state: Map<string, Tensor>
  file: string
  mapped: boolean
  report: SpectraLoadReport
  /** Names that may be missing. */
  fresh: RegExp[]
}

const TYPES = 'text_encoder.embeddings.token_type_embeddings.weight'
const HEAD = /^(mlm_head|mam_head|selection_head|start_prediction_head|end_prediction_head|head)\./
const TRACKING = /^(class|token|refer)_[a-z]+-/ // class_hotel-area.weight
const UNUSED = /(^|\.)(position_ids|token_type_ids|masked_spec_embed)$/
const CONVOLUTION = /^audio_encoder\.feature_extractor\.conv_layers\.(\d+)\.conv\.weight$/

export async function loadSpectra<M extends NativeModule>(
  kind: SpectraKind,
  from: string | SpectraEncoders,
  options: LoadSpectraOptions,
  build: Build<M>,
): Promise<{ network: M; report: SpectraLoadReport }> {
  const { config: overrides = {}, freshHeads = false, ...load } = options
  if (typeof freshHeads !== 'boolean') throw argumentError('fromPretrained', 'freshHeads', 'a boolean', freshHeads)
  const { hub, ...fill } = parted(load)
  const pair = encodersOf(from)
  const folders = pair
    ? { text: await resolveModel(pair.text, hub), audio: await resolveModel(pair.audio, hub) }
    : await resolveModel(from as string, hub)
  return scope(async () => {
    const source = typeof folders === 'string' ? await published(folders, fill) : await encoders(folders, fill)
    const { state, report } = source
    const heads = kind.heads.map((head) => `${head}.`)
    for (const name of [...state.keys()]) {
      const isOtherHead = TRACKING.test(name) || (HEAD.test(name) && !heads.some((head) => name.startsWith(head)))
      if (!isOtherHead) continue
      state.delete(name)
      report.ignored.push(name)
    }
    const config = spectraConfig({ ...source.config, ...labelsIn(kind, state), ...overrides })
    growTypes(state, config)
    for (const head of ['mlm_head', 'mam_head']) tieBias(state, head, source.file)
    const layout: NetworkKind = {
      kind: kind.kind,
      modelType: 'spectra',
      architecture: kind.architecture,
      prefix: '',
      ignored: [],
      fresh: [...source.fresh, ...kind.heads.map((head) => new RegExp(`^${head}\\.`))],
    }
    const { network, fresh } = await filled(layout, source, fill, (factory) => build(config, factory))
    report.fresh = fresh
    // Plain encoders never have heads.
    if (!pair && !freshHeads) warnOfHeads(kind, source.file, fresh)
    return { network, report }
  })
}

function warnOfHeads({ architecture, heads }: SpectraKind, file: string, fresh: readonly string[]): void {
  const names = fresh.filter((name) => heads.some((head) => name.startsWith(`${head}.`)))
  if (names.length === 0) return
  process.emitWarning(
    `${file}: ${names.length} tensors of the heads of ${architecture} are missing and have random values. Train them ` +
      `(freshHeads: true suppresses this warning): ${names.join(', ')}`,
    'SpectraWarning',
  )
}

function encodersOf(from: string | SpectraEncoders): SpectraEncoders | undefined {
  if (typeof from === 'string') return undefined
  if (typeof from?.text === 'string' && typeof from.audio === 'string') return from
  throw new ConfigError(
    `Spectra.fromPretrained: expected a folder, a repository, or { text, audio } of two encoders, got ${shown(from)}`,
  )
}

/** Read text_config.json, audio_config.json and weights; config.json has the options of a network saved by `save`. */
async function published(folder: string, options: FillOptions): Promise<Source> {
  const own = existsSync(join(folder, 'config.json')) ? await readConfig(folder) : {}
  // Checked first, so that the error for a folder of another network names that network.
  requireModelType(folder, own, { modelType: 'spectra', architecture: 'Spectra' })
  const [textConfig, audioConfig] = [
    await readConfig(folder, 'text_config.json'),
    await readConfig(folder, 'audio_config.json'),
  ]
  const { tensors, file, mapped } = await readWeights(folder, options)
  const report = emptyReport(Object.keys(tensors).length)
  const state = new Map<string, Tensor>()
  const prefixes = new Set<string>()
  for (const [full, tensor] of Object.entries(tensors)) {
    const prefix = /^(module\.)?(model\.)?/.exec(full)?.[0] ?? ''
    const name = networkName(full.slice(prefix.length))
    if (!HEAD.test(name) && !TRACKING.test(name)) prefixes.add(prefix)
    if (UNUSED.test(name)) report.ignored.push(full)
    else if (state.has(name))
      throw new CheckpointError(`${file}: expected ${name} once, got it again as ${full}`, { file, name })
    else state.set(name, tensor)
    report.fusedIndexed ||= /^(module\.)?(model\.)?fused_encoder\.\d+\./.test(full)
  }
  if (prefixes.size > 1) {
    const list = [...prefixes].map((prefix) => `'${prefix}'`).join(' and ')
    throw new CheckpointError(`${file}: expected one prefix of all names, got ${list}`, { file })
  }
  report.prefix = [...prefixes][0] ?? ''
  describe(report, state)
  const config: SpectraConfig = {
    textConfig: partedConfig(join(folder, 'text_config.json'), encoderKeys.textConfig, textConfig).known,
    audioConfig: partedConfig(join(folder, 'audio_config.json'), encoderKeys.audioConfig, audioConfig).known,
    ...optionsIn(own as SpectraConfig),
  }
  if (!('numFusedLayers' in textConfig || 'numFusionLayers' in textConfig)) config.numFusedLayers ??= report.fusedLayers
  return { config, state, file, mapped, report, fresh: [/\.conv_layers\.7\./, /^audio_encoder\.audio_(cls|sep)$/] }
}

/** Return the network's name for a published one: fusion layers are numbered, and weight norm has its current names. */
function networkName(name: string): string {
  if (name.startsWith('audio_encoder.')) return `audio_encoder.${speechEncoderName(name.slice(14))}`
  return name.replace(/^fused_encoder\.(?!\d)/, 'fused_encoder.0.')
}

async function encoders(from: SpectraEncoders, options: FillOptions): Promise<Source> {
  const [textConfig, audioConfig] = [await readConfig(from.text), await readConfig(from.audio)]
  requireModelType(from.text, textConfig, { modelType: 'roberta', architecture: "Spectra's text encoder" })
  requireModelType(from.audio, audioConfig, { modelType: 'wavlm', architecture: "Spectra's audio encoder" })
  const text = await readWeights(from.text, options)
  const audio = await readWeights(from.audio, options)
  const report = emptyReport(Object.keys(text.tensors).length + Object.keys(audio.tensors).length)
  const state = new Map<string, Tensor>()
  const part = { kind: 'spectra', modelType: '', architecture: '' }
  const ofText: NetworkKind = { ...part, prefix: 'roberta.', ignored: [/^(lm_head|classifier)\./, UNUSED] }
  const ofAudio: NetworkKind = {
    ...part,
    prefix: 'wavlm.',
    ignored: [...speechEncoderHeads, UNUSED],
    rename: speechEncoderName,
  }
  for (const [name, tensor] of renamed(ofText, text.tensors)) state.set(`text_encoder.${name}`, tensor)
  for (const [name, tensor] of renamed(ofAudio, audio.tensors)) state.set(`audio_encoder.${name}`, tensor)
  describe(report, state)
  const ownParts = [
    /^text_encoder\.pooler\./,
    /^audio_encoder\.audio_(cls|sep)$/,
    /^(token_type_embeddings|fused_encoder)\./,
  ]
  return {
    config: {
      textConfig: partedConfig(from.text, encoderKeys.textConfig, textConfig).known,
      audioConfig: partedConfig(from.audio, encoderKeys.audioConfig, audioConfig).known,
    },
    state,
    file: `${text.file} with ${audio.file}`,
    mapped: text.mapped || audio.mapped,
    report,
    fresh: ownParts,
  }
}

const emptyReport = (tensors: number): SpectraLoadReport => ({
  prefix: '',
  convLayers: 0,
  typeRows: 0,
  fusedLayers: 0,
  fusedIndexed: false,
  heads: [],
  tensors,
  fresh: [],
  ignored: [],
})

function describe(report: SpectraLoadReport, state: Map<string, Tensor>): void {
  const names = [...state.keys()]
  report.convLayers = names.filter((name) => CONVOLUTION.test(name)).length
  report.typeRows = state.get(TYPES)?.shape[0] ?? 0
  report.fusedLayers = new Set(names.map((name) => /^fused_encoder\.(\d+)\./.exec(name)?.[1]).filter(Boolean)).size
  const heads = names.map((name) => HEAD.exec(name)?.[1] ?? (TRACKING.test(name) ? 'tracking' : undefined))
  report.heads = [...new Set(heads.filter((head) => head !== undefined))]
}

function labelsIn(kind: SpectraKind, state: Map<string, Tensor>): SpectraOptions {
  const rows = kind.heads.includes('head') ? state.get('head.2.weight')?.shape[0] : undefined
  return rows === undefined ? {} : { numLabels: rows }
}

/** Grow the token type table to the two types of SPECTRA by repeating a single row. More rows in the file override the config. */
function growTypes(state: Map<string, Tensor>, config: SpectraConfig): void {
  const table = state.get(TYPES)
  const rows = table?.shape[0] ?? 2
  config.textConfig = {
    ...config.textConfig,
    typeVocabSize: Math.max(2, rows, config.textConfig.typeVocabSize as number),
  }
  if (table && rows === 1) state.set(TYPES, table.expand([config.textConfig.typeVocabSize as number, -1]).contiguous())
}

/** Tie a head's bias to that of its decoder; files contain one of the names or both. */
function tieBias(state: Map<string, Tensor>, head: string, file: string): void {
  const [own, inner] = [`${head}.bias`, `${head}.decoder.bias`]
  const [a, b] = [state.get(own), state.get(inner)]
  if (a && b && !a.equal(b)) {
    throw new CheckpointError(
      `${file}: expected equal values of the tied tensors ${own} and ${inner}, got different ones`,
      { file, tensor: own },
    )
  }
  const either = a ?? b
  if (!either) return
  state.set(own, either)
  state.set(inner, either)
}

/** Write the published layout: text_config.json, audio_config.json, model.safetensors; and config.json with the options. */
export async function saveSpectra(
  kind: SpectraKind,
  directory: string,
  module: NativeModule,
  config: CompleteSpectraConfig,
): Promise<void> {
  const text: NetworkConfig = {
    ...config.textConfig,
    maxLength: config.maxTextLength,
    numFusedLayers: config.numFusedLayers,
  }
  const audio: NetworkConfig = {
    ...config.audioConfig,
    maxLength: config.maxAudioLength,
    hasAudioCls: config.hasAudioCls,
  }
  if (config.multiTurn !== undefined) audio.multiTurn = config.multiTurn
  const own = { architectures: [kind.architecture], modelType: 'spectra', ...optionsIn(config) }
  const save = async (folder: string) => {
    await scope(async () => {
      // A safetensors file must not contain shared tensors.
      const state = Object.entries(module.stateDict()).map(([name, tensor]): [string, Tensor] => [
        name,
        /^(mlm|mam)_head\.bias$/.test(name) ? tensor.detach().clone() : tensor,
      ])
      await saveSafetensors(join(folder, 'model.safetensors'), Object.fromEntries(state), { format: 'pt' })
    })
    await writeJson(join(folder, 'text_config.json'), toSnake({ ...text, modelType: 'roberta' }), { indent: 2 })
    await writeJson(join(folder, 'audio_config.json'), toSnake({ ...audio, modelType: 'wavlm' }), { indent: 2 })
    await writeJson(join(folder, 'config.json'), toSnake(own), { indent: 2 })
  }
  await writeFolderAtomically(directory, CheckpointError, save, weightFiles)
}
