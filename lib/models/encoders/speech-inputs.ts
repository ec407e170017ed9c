import { SPEECH_RATE } from '../../audio/clip.js'
import { seamlessFeatures } from '../../audio/features.js'
import { normalizeWav2Vec2 } from '../../audio/normalize.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { SEAMLESS_STRIDE, seamlessKeys, WAVEFORM_KEYS } from '../feature-extractor.js'
import {
  readsFeatures,
  type SpeechEncoderConfig,
  type SpeechEncoderInputs,
  type SpeechFeatureInputs,
} from './speech-encoder.js'

const bandsOf = (config: SpeechEncoderConfig): number => (config.featureProjectionInputDim as number) / SEAMLESS_STRIDE

/**
 * Compute a network's input from samples [n] at 16 kHz, a batch of one clip.
 * @param normalizes whether waveforms are normalized to mean 0 and variance 1
 */
export async function speechInputsOf(
  config: SpeechEncoderConfig,
  samples: Tensor,
  normalizes: boolean,
): Promise<SpeechEncoderInputs | SpeechFeatureInputs> {
  if (!readsFeatures(config)) {
    return { inputValues: (normalizes ? await normalizeWav2Vec2(samples) : samples).unsqueeze(0) }
  }
  return { inputFeatures: (await seamlessFeatures(samples, { nMels: bandsOf(config) })).unsqueeze(0) }
}

/** Return the number of samples between two inputs of a network. */
export const samplesPerInput = (config: SpeechEncoderConfig): number =>
  readsFeatures(config) ? SEAMLESS_STRIDE * 160 : 1

/** Return the number of inputs, samples or feature vectors, that a number of samples gives. */
export function inputLengthOf(config: SpeechEncoderConfig, samples: number): number {
  if (!readsFeatures(config)) return samples
  return samples < 400 ? 0 : Math.floor((Math.floor((samples - 400) / 160) + 1) / SEAMLESS_STRIDE)
}

/** Return the keys of the preprocessor_config.json of a network. */
export const preprocessorKeysOf = (config: SpeechEncoderConfig): ConfigKeys =>
  readsFeatures(config) ? seamlessKeys(bandsOf(config)) : WAVEFORM_KEYS

/** Return preprocessor_config.json of a network. */
export const preprocessorOf = (config: SpeechEncoderConfig, normalizes: boolean): object =>
  readsFeatures(config)
    ? {
        feature_extractor_type: 'SeamlessM4TFeatureExtractor',
        feature_size: bandsOf(config),
        num_mel_bins: bandsOf(config),
        padding_side: 'right',
        padding_value: 0,
        return_attention_mask: true,
        sampling_rate: SPEECH_RATE,
        stride: SEAMLESS_STRIDE,
      }
    : {
        do_normalize: normalizes,
        feature_extractor_type: 'Wav2Vec2FeatureExtractor',
        feature_size: 1,
        padding_side: 'right',
        padding_value: 0,
        return_attention_mask: config.featExtractNorm !== 'group',
        sampling_rate: SPEECH_RATE,
      }
