import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { snakeCase } from '../../base/words.js'
import { type CTranslate2File, readCTranslate2 } from '../../files/ctranslate2/ctranslate2.js'
import type { GenerationConfig } from '../../generation/config.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { type ForeignCheckpoint, readConfig } from '../pretrained.js'
import type { Weights } from '../weights.js'
import type { WhisperConfig } from './config.js'

/**
 * Whisper in CTranslate2's format (https://github.com/OpenNMT/CTranslate2; folders of faster-whisper): a `model.bin` with fused projections of
 * queries, keys and values, and a config.json without the network's sizes.
 */

const FILE = 'model.bin'
const SPEC = 'WhisperSpec'

export const isCTranslate2 = (directory: string): boolean =>
  existsSync(join(directory, FILE)) &&
  !['model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json'].some(
    (name) => existsSync(join(directory, name)),
  )

export async function ctranslate2Checkpoint(directory: string): Promise<ForeignCheckpoint | undefined> {
  if (!isCTranslate2(directory)) return undefined
  const file = await readCTranslate2(join(directory, FILE))
  if (file.spec !== SPEC) {
    throw new CheckpointError(`${file.path}: expected a ${SPEC}, got a ${file.spec}`, {
      file: file.path,
      field: 'spec',
    })
  }
  return { config: await configOf(file), weights: () => weightsOf(file) }
}

function shapeOf(file: CTranslate2File, name: string): readonly number[] {
  const found = file.variables[file.aliases[name] ?? name]
  if (found !== undefined) return found.shape
  throw new CheckpointError(`${file.path}: expected the variable ${name}, got a file without it`, {
    file: file.path,
    tensor: name,
  })
}

/** Minimum vocabulary size of multilingual models. English-only vocabularies have one token less. */
const MULTILINGUAL = 51_865

async function configOf(file: CTranslate2File): Promise<WhisperConfig> {
  const layersOf = (side: string): number => {
    const numbers = Object.keys(file.variables).flatMap((name) => {
      const [, number] = new RegExp(`^${side}/layer_(\\d{1,6})/`).exec(name) ?? []
      return number === undefined ? [] : [Number(number)]
    })
    return numbers.reduce((most, one) => Math.max(most, one + 1), 0)
  }
  const size = (name: string, dim: number): number => shapeOf(file, name)[dim] ?? 0
  const vocabSize = size('decoder/embeddings/weight', 0)
  const isMultilingual = vocabSize >= MULTILINGUAL
  const last = isMultilingual ? 50_257 : 50_256
  // Smaller vocabularies are not published, and their special tokens are unknown.
  const special = vocabSize > last + 1 && {
    padTokenId: vocabSize > MULTILINGUAL ? 50_256 : last,
    bosTokenId: last,
    eosTokenId: last,
    decoderStartTokenId: last + 1,
  }
  const [encoderHeads, decoderHeads] = await numbersOf(file, ['encoder/num_heads', 'decoder/num_heads'])
  return {
    vocabSize,
    numMelBins: size('encoder/conv1/weight', 1),
    dModel: size('decoder/embeddings/weight', 1),
    encoderLayers: layersOf('encoder'),
    encoderAttentionHeads: encoderHeads as number,
    encoderFfnDim: size('encoder/layer_0/ffn/linear_0/weight', 0),
    decoderLayers: layersOf('decoder'),
    decoderAttentionHeads: decoderHeads as number,
    decoderFfnDim: size('decoder/layer_0/ffn/linear_0/weight', 0),
    maxSourcePositions: size('encoder/position_encodings/encodings', 0),
    maxTargetPositions: size('decoder/position_encodings/encodings', 0),
    ...(special || { padTokenId: 0, bosTokenId: 0, eosTokenId: 0, decoderStartTokenId: 0 }),
    tieWordEmbeddings: file.variables['decoder/projection/weight'] === undefined,
  }
}

async function numbersOf(file: CTranslate2File, names: string[]): Promise<number[]> {
  for (const name of names) {
    if (shapeOf(file, name).length === 0) continue
    throw new CheckpointError(`${file.path}: ${name}: expected a single number, got [${shapeOf(file, name)}]`, {
      file: file.path,
      tensor: name,
    })
  }
  return scope(async () => {
    const read = await file.load({ names })
    return names.map((name) => Number((read[name] as Tensor).to('float32').item()))
  })
}

/** Variables of a layer with transformers' names; several names for a fused variable. */
const PARTS: Readonly<Record<'encoder' | 'decoder', Readonly<Record<string, readonly string[]>>>> = {
  encoder: {
    'self_attention/layer_norm': ['self_attn_layer_norm'],
    'self_attention/linear_0': ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'],
    'self_attention/linear_1': ['self_attn.out_proj'],
    'ffn/layer_norm': ['final_layer_norm'],
    'ffn/linear_0': ['fc1'],
    'ffn/linear_1': ['fc2'],
  },
  decoder: {
    'self_attention/layer_norm': ['self_attn_layer_norm'],
    'self_attention/linear_0': ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'],
    'self_attention/linear_1': ['self_attn.out_proj'],
    'attention/layer_norm': ['encoder_attn_layer_norm'],
    'attention/linear_0': ['encoder_attn.q_proj'],
    'attention/linear_1': ['encoder_attn.k_proj', 'encoder_attn.v_proj'],
    'attention/linear_2': ['encoder_attn.out_proj'],
    'ffn/layer_norm': ['final_layer_norm'],
    'ffn/linear_0': ['fc1'],
    'ffn/linear_1': ['fc2'],
  },
}

const TOP: Readonly<Record<string, string>> = {
  'encoder/position_encodings/encodings': 'model.encoder.embed_positions.weight',
  'decoder/position_encodings/encodings': 'model.decoder.embed_positions.weight',
  'decoder/embeddings/weight': 'model.decoder.embed_tokens.weight',
  'decoder/projection/weight': 'proj_out.weight',
}

const KINDS: Readonly<Record<string, string>> = { weight: 'weight', bias: 'bias', gamma: 'weight', beta: 'bias' }

/** Return transformers' names of a variable's parts. An unknown name is returned unchanged, so that it is reported. */
function namesOf(variable: string): readonly string[] {
  if (Object.hasOwn(TOP, variable)) return [TOP[variable] as string]
  const [, side, place, kind] = /^(encoder|decoder)\/(.+)\/(weight|bias|gamma|beta)$/.exec(variable) ?? []
  if (side === undefined || place === undefined) return [variable]
  const end = KINDS[kind as string]
  const [, layer, part] = /^layer_(\d+)\/(.+)$/.exec(place) ?? []
  if (part === undefined) {
    return /^(?:conv[12]|layer_norm)$/.test(place) ? [`model.${side}.${place}.${end}`] : [variable]
  }
  const parts = PARTS[side as 'encoder' | 'decoder']
  if (!Object.hasOwn(parts, part)) return [variable]
  return (parts[part] as readonly string[]).map((name) => `model.${side}.layers.${layer}.${name}.${end}`)
}

async function weightsOf(file: CTranslate2File): Promise<Weights> {
  // Single numbers are settings of the decoder. Fused and quantized variables are converted to new tensors.
  const names = Object.entries(file.variables).flatMap(([name, { shape }]) => (shape.length === 0 ? [] : [name]))
  const loaded = await file.load({ names, mmap: true })
  const tensors: Record<string, Tensor> = {}
  for (const name of names) {
    if (name.endsWith('_scale')) continue
    const value = await plain(file, name, loaded)
    const parts = namesOf(name)
    const rows = (value.shape[0] ?? 0) / parts.length
    if (!Number.isInteger(rows)) {
      throw new CheckpointError(
        `${file.path}: ${name}: expected a multiple of ${parts.length} rows, got ${value.shape[0]}`,
        { file: file.path, tensor: name },
      )
    }
    for (const [i, part] of parts.entries()) {
      const own = parts.length === 1 ? value : value.narrow(0, i * rows, rows).clone()
      // Whisper's keys have no bias; in the fused variable it is zero.
      if (/\.k_proj\.bias$/.test(part)) await requireZeros(file, name, own)
      else tensors[part] = own
    }
    if (parts.length > 1) value.dispose()
  }
  return { tensors, file: file.path, mapped: true }
}

/** Dequantize int8 weights: CTranslate2 multiplied each row with a scale. */
async function plain(file: CTranslate2File, name: string, loaded: Record<string, Tensor>): Promise<Tensor> {
  const value = loaded[name] as Tensor
  if (/^b?float/.test(value.dtype)) return value
  const scale = loaded[`${name}_scale`]
  const [rows = 0, ...rest] = value.shape
  const fits = scale !== undefined && (scale.numel() === 1 || (scale.ndim === 1 && scale.shape[0] === rows))
  if (!fits || (value.dtype !== 'int8' && value.dtype !== 'int16')) {
    throw new CheckpointError(
      `${file.path}: ${name}: expected a scale for each of its ${rows} rows of ${value.dtype}, got none`,
      { file: file.path, tensor: name },
    )
  }
  return scope(() =>
    value.to('float32').div(scale.to('float32').reshape(scale.numel() === 1 ? [] : [rows, ...rest.map(() => 1)])),
  )
}

async function requireZeros(file: CTranslate2File, name: string, bias: Tensor): Promise<void> {
  if (Number(bias.abs().max().item()) === 0) return
  throw new CheckpointError(`${file.path}: ${name}: expected a bias of zeros for the keys, got other values`, {
    file: file.path,
    tensor: name,
  })
}

/** Keys of config.json that are used here, by `readHeads` and by `readTokens`. */
const READ = ['suppressIds', 'suppressIdsBegin', 'alignmentHeads', 'langIds']
/** CTranslate2's default limit of the first timestamp: one second. */
const FIRST_SECOND = 50

/**
 * Return the generation settings of a folder's config.json; an empty object for other folders. Unused keys are reported by
 * `process.emitWarning`.
 */
export async function ctranslate2Generation(directory: string): Promise<GenerationConfig> {
  if (!isCTranslate2(directory)) return {}
  const generation: GenerationConfig = { maxInitialTimestampIndex: FIRST_SECOND }
  const file = join(directory, 'config.json')
  if (!existsSync(file)) return generation
  const said = await readConfig(directory)
  const ids = (key: string, value: unknown): number[] | undefined => {
    if (value === undefined || value === null) return undefined
    if (Array.isArray(value) && value.every((id) => Number.isInteger(id))) return value.filter((id) => id >= 0)
    throw new ConfigError(`${file}: ${key}: expected a list of token ids, got ${shown(value)}`, { file, field: key })
  }
  const suppressTokens = ids('suppress_ids', said.suppressIds)
  const beginSuppressTokens = ids('suppress_ids_begin', said.suppressIdsBegin)
  const unread = Object.keys(said).filter((key) => !READ.includes(key) && !DESCRIPTIONS.has(key))
  if (unread.length > 0) {
    process.emitWarning(
      `${file}: these keys are not used by Whisper: ${unread.map(snakeCase).join(', ')}`,
      'WhisperWarning',
    )
  }
  return {
    ...generation,
    ...(suppressTokens && { suppressTokens }),
    ...(beginSuppressTokens && { beginSuppressTokens }),
  }
}

/** Keys that converters write for other networks, without effect on Whisper. */
const DESCRIPTIONS: ReadonlySet<string> = new Set(['bosToken', 'eosToken', 'unkToken', 'addSourceBos', 'addSourceEos'])
