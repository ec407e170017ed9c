import { requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { toCamel } from '../../../base/words.js'
import { readJson } from '../../../files/json/json.js'
import { BIGVGAN_MEL } from '../../../models/bigvgan/config.js'
import { MEL, type UnitVoiceboxConfig } from '../../../models/unit-voicebox/config.js'
import { unitFrames } from '../data/frames.js'
import type { VoiceboxRecipe } from '../voicebox/recipe.js'

/** What a configuration of the original's Voicebox training says. */
export interface PublishedVoiceboxConfig {
  model: UnitVoiceboxConfig
  recipe: Partial<VoiceboxRecipe>
  /** Its file lists. */
  train?: string
  valid?: string
}

type Section = Record<string, unknown>

/** What cannot be otherwise here, since vocoders and published weights know nothing else. */
const FIXED: Section = {
  token_sr: 50,
  n_fft: BIGVGAN_MEL.nFft,
  win_length: BIGVGAN_MEL.nFft,
  hop_length: BIGVGAN_MEL.hopLength,
  sampling_rate: BIGVGAN_MEL.sampleRate,
  mel_fmin: 0,
  mel_fmax: BIGVGAN_MEL.fMax,
  mean: MEL.mean,
  std: MEL.std,
}

/** Of the file lists, of readers and of what it lets hear while it trains: without effect here. */
const UNREAD = new Set(['test_filelist_path', 'test_size', 'num_workers', 'reverse_step', 'save_every'])

/**
 * Reads a configuration: the original's for training, with the sections `data`, `model` and `train`, or a network's config.json.
 * @throws ConfigError naming a key that is not known, and a spectrogram that vocoders would not understand
 */
export async function readVoiceboxConfig(file: string): Promise<PublishedVoiceboxConfig> {
  requireString('readVoiceboxConfig', 'file', file)
  const root = await readJson(file)
  const fail = (key: string, what: string): ConfigError => new ConfigError(`${file}: ${key} ${what}`, { file, key })
  const section = (value: unknown, key: string): Section => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Section
    throw fail(key, 'must be an object')
  }
  const whole = section(root, 'the configuration')
  if (!('model' in whole) && !('train' in whole)) return { model: toCamel(whole) as UnitVoiceboxConfig, recipe: {} }
  for (const key of Object.keys(whole)) if (!/^(data|model|train)$/.test(key)) throw fail(key, 'is no section of it')
  const [data, model, train] = ['data', 'model', 'train'].map((key) => section(whole[key] ?? {}, key)) as [Section, Section, Section] // biome-ignore format: one line
  const found: PublishedVoiceboxConfig = { model: toCamel(model) as UnitVoiceboxConfig, recipe: {} }
  for (const [key, value] of Object.entries(data)) {
    if (key === 'train_filelist_path' || key === 'valid_filelist_path') {
      if (typeof value !== 'string') throw fail(`data.${key}`, 'must be a path')
      found[key === 'train_filelist_path' ? 'train' : 'valid'] = value
    } else if (key === 'n_tokens') found.model.nTokens = value as number
    else if (key === 'n_feats') found.model.nFeats = value as number
    else if (Object.hasOwn(FIXED, key)) {
      if (value !== FIXED[key]) throw fail(`data.${key}`, `must be ${FIXED[key]}, not ${JSON.stringify(value)}`)
    } else if (!UNREAD.has(key)) throw fail(`data.${key}`, 'is not known')
  }
  for (const [key, value] of Object.entries(train)) {
    if (UNREAD.has(key)) continue
    const read = RECIPE[key]
    if (!read) throw fail(`train.${key}`, 'is not known')
    if (typeof value !== (key === 'fp16_run' ? 'boolean' : 'number')) throw fail(`train.${key}`, `is ${JSON.stringify(value)}`) // biome-ignore format: one line
    Object.assign(found.recipe, read(value as number))
  }
  return found
}

const RECIPE: Record<string, (value: number) => Partial<VoiceboxRecipe>> = {
  n_epochs: (epochs) => ({ epochs }),
  batch_size: (batchSize) => ({ batchSize }),
  val_batch_size: (evalBatchSize) => ({ evalBatchSize }),
  learning_rate: (learningRate) => ({ learningRate }),
  seed: (seed) => ({ seed }),
  p_uncond: (dropShare) => ({ dropShare }),
  p_drop: (share) => ({ contextShare: 1 - share }),
  r_min: (leastMasked) => ({ leastMasked }),
  r_max: (mostMasked) => ({ mostMasked }),
  out_size_second: (seconds) => ({ windowFrames: unitFrames(50 * seconds) }),
  // It trains on CUDA alone.
  fp16_run: (on) => (on ? {} : { precision: 'float32' }),
}
