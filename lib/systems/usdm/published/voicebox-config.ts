import { requireString, shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { toCamel, withArticle } from '../../../base/words.js'
import { readJson } from '../../../files/json/json.js'
import { BIGVGAN_MEL } from '../../../models/bigvgan/config.js'
import { MEL, type UnitVoiceboxConfig } from '../../../models/unit-voicebox/config.js'
import { unitFrames } from '../data/frames.js'
import type { VoiceboxRecipe } from '../voicebox/recipe.js'

/** Settings of a configuration of the original's Voicebox training. */
export interface PublishedVoiceboxConfig {
  model: UnitVoiceboxConfig
  recipe: Partial<VoiceboxRecipe>
  /** Its file lists. */
  train?: string
  valid?: string
}

type Section = Record<string, unknown>

/** Values that vocoders and published weights fix. */
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

/** Keys without effect here: settings of file lists, of data readers, and of audio samples during training. */
const UNREAD = new Set(['test_filelist_path', 'test_size', 'num_workers', 'reverse_step', 'save_every'])

/**
 * Read a configuration: the original's for training, with the sections `data`, `model` and `train`, or a network's config.json.
 * @throws ConfigError naming an unknown key, or a spectrogram setting that differs from the vocoder's
 */
export async function readVoiceboxConfig(file: string): Promise<PublishedVoiceboxConfig> {
  requireString('readVoiceboxConfig', 'file', file)
  const root = await readJson(file)
  const fail = (key: string, expected: string, value: unknown): ConfigError =>
    new ConfigError(`${file}: ${key}: expected ${expected}, got ${shown(value)}`, { file, key })
  const section = (value: unknown, key: string): Section => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Section
    throw fail(key, 'an object', value)
  }
  const whole = section(root, 'the configuration')
  if (!('model' in whole) && !('train' in whole)) return { model: toCamel(whole) as UnitVoiceboxConfig, recipe: {} }
  for (const key of Object.keys(whole))
    if (!/^(data|model|train)$/.test(key)) throw fail(key, 'the sections data, model and train', key)
  const [data, model, train] = ['data', 'model', 'train'].map((key) => section(whole[key] ?? {}, key)) as [
    Section,
    Section,
    Section,
  ]
  const found: PublishedVoiceboxConfig = { model: toCamel(model) as UnitVoiceboxConfig, recipe: {} }
  for (const [key, value] of Object.entries(data)) {
    if (key === 'train_filelist_path' || key === 'valid_filelist_path') {
      if (typeof value !== 'string') throw fail(`data.${key}`, 'a path', value)
      found[key === 'train_filelist_path' ? 'train' : 'valid'] = value
    } else if (key === 'n_tokens') found.model.nTokens = value as number
    else if (key === 'n_feats') found.model.nFeats = value as number
    else if (Object.hasOwn(FIXED, key)) {
      if (value !== FIXED[key]) throw fail(`data.${key}`, `${FIXED[key]}`, value)
    } else if (!UNREAD.has(key)) throw fail(`data.${key}`, 'a known key', key)
  }
  for (const [key, value] of Object.entries(train)) {
    if (UNREAD.has(key)) continue
    const read = RECIPE[key]
    if (!read) throw fail(`train.${key}`, 'a known key', key)
    const type = key === 'fp16_run' ? 'boolean' : 'number'
    if (typeof value !== type) throw fail(`train.${key}`, withArticle(type), value)
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
  // The original trains only on CUDA, so true is the default.
  fp16_run: (on) => (on ? {} : { precision: 'float32' }),
}
