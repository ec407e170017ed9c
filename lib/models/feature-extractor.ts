import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { SPEECH_RATE } from '../audio/clip.js'
import { requireObject } from '../base/check.js'
import { toCamel } from '../base/words.js'
import { readJson } from '../files/json/json.js'
import { type ConfigKeys, completedConfig, partedConfig } from './config-keys.js'
import type { NetworkConfig } from './network.js'

/** Keys that name the class, and default padding options of its calls. */
const DESCRIBES = ['featureExtractorType', 'processorClass', 'paddingSide', 'returnAttentionMask']

/** Keys of transformers' Wav2Vec2FeatureExtractor. */
export const WAVEFORM_KEYS: ConfigKeys = {
  defaults: { doNormalize: true },
  only: { featureSize: [1], samplingRate: [SPEECH_RATE], paddingValue: [0] },
  unused: DESCRIBES,
}

/** Number of steps of 10 ms in a feature vector of transformers' SeamlessM4TFeatureExtractor. */
export const SEAMLESS_STRIDE = 2

/** Return the keys of transformers' SeamlessM4TFeatureExtractor, for a number of mel bands. */
export const seamlessKeys = (bands: number): ConfigKeys => ({
  defaults: {},
  only: { featureSize: [bands], numMelBins: [bands], samplingRate: [SPEECH_RATE], stride: [SEAMLESS_STRIDE] },
  // Padding is masked.
  unused: [...DESCRIBES, 'paddingValue'],
})

/** Return the keys of transformers' WhisperFeatureExtractor, for a number of mel bands and of 10 ms steps per window. */
export const spectrogramKeys = (bands: number, steps: number): ConfigKeys => ({
  defaults: {},
  only: {
    featureSize: [bands],
    samplingRate: [SPEECH_RATE],
    nFft: [400],
    hopLength: [160],
    chunkLength: [steps / 100],
    nSamples: [steps * 160],
    nbMaxFrames: [steps],
    paddingValue: [0],
    dither: [0],
  },
  // The filters follow from the bands; transformers normalizes only if the call requests it.
  unused: [...DESCRIBES, 'melFilters', 'doNormalize'],
})

/** Return preprocessor_config.json of transformers' WhisperFeatureExtractor, for a number of mel bands and of 10 ms steps per window. */
export const whisperExtractor = (bands: number, steps: number): NetworkConfig => ({
  feature_extractor_type: 'WhisperFeatureExtractor',
  feature_size: bands,
  sampling_rate: SPEECH_RATE,
  n_fft: 400,
  hop_length: 160,
  chunk_length: steps / 100,
  n_samples: steps * 160,
  nb_max_frames: steps,
  padding_side: 'right',
  padding_value: 0,
  return_attention_mask: false,
})

/**
 * Return the feature extractor's settings of a folder, with all keys: those of preprocessor_config.json, or of the part of
 * processor_config.json that transformers 5 writes instead. Unknown keys are reported once by name.
 * @throws ConfigError with file and key, for features that this library does not compute
 */
export async function readFeatureExtractor(directory: string, keys: ConfigKeys): Promise<NetworkConfig> {
  const found = await settingsIn(directory)
  if (found === undefined) return completedConfig(directory, keys, {})
  const { file, settings } = found
  return completedConfig(file, keys, partedConfig(file, keys, toCamel(settings)).known)
}

/** Return what transformers wrote of a preprocessor, and where; `part` is its name in processor_config.json. */
export async function settingsIn(
  directory: string,
  part: 'feature_extractor' | 'image_processor' = 'feature_extractor',
): Promise<{ file: string; settings: object } | undefined> {
  const own = join(directory, 'preprocessor_config.json')
  if (existsSync(own)) {
    const settings = await readJson(own)
    requireObject(own, 'the preprocessor', settings)
    return { file: own, settings: settings as object }
  }
  const file = join(directory, 'processor_config.json')
  if (!existsSync(file)) return undefined
  const processor = await readJson(file)
  requireObject(file, 'the processor', processor)
  const settings = (processor as Record<string, unknown>)[part]
  if (settings === undefined || settings === null) return undefined
  requireObject(file, part, settings)
  return { file, settings: settings as object }
}
