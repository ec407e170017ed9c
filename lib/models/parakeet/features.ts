import { join } from 'node:path'
import { SPEECH_RATE, stackSamples } from '../../audio/clip.js'
import { type NemoLogMel, nemoLogMel } from '../../audio/features.js'
import { writeJson } from '../../files/json/json.js'
import { type Tensor, tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { readFeatureExtractor } from '../feature-extractor.js'

/** Settings of transformers' ParakeetFeatureExtractor. */
export interface ParakeetFeatureSettings {
  featureSize: number
  samplingRate: number
  hopLength: number
  nFft: number
  winLength: number
  preemphasis: number | null
}

/** Return the settings of the published models, for a number of mel bands. */
export const usualFeatures = (featureSize: number): ParakeetFeatureSettings => ({
  featureSize,
  samplingRate: SPEECH_RATE,
  hopLength: 160,
  nFft: 512,
  winLength: 400,
  preemphasis: 0.97,
})

const keysFor = (bands: number): ConfigKeys => ({
  defaults: { ...usualFeatures(bands) },
  nullable: ['preemphasis'],
  only: { featureSize: [bands], paddingValue: [0] },
  unused: ['featureExtractorType', 'processorClass', 'paddingSide', 'returnAttentionMask'],
})

/** Read preprocessor_config.json, or its part of processor_config.json. */
export async function readFeatures(directory: string, bands: number): Promise<ParakeetFeatureSettings> {
  return (await readFeatureExtractor(directory, keysFor(bands))) as unknown as ParakeetFeatureSettings
}

/** Write preprocessor_config.json for transformers. */
export async function writeFeatures(directory: string, settings: ParakeetFeatureSettings): Promise<void> {
  const { featureSize, samplingRate, hopLength, nFft, winLength, preemphasis } = settings
  await writeJson(
    join(directory, 'preprocessor_config.json'),
    {
      feature_extractor_type: 'ParakeetFeatureExtractor',
      feature_size: featureSize,
      hop_length: hopLength,
      n_fft: nFft,
      padding_side: 'right',
      padding_value: 0,
      preemphasis,
      processor_class: 'ParakeetProcessor',
      return_attention_mask: true,
      sampling_rate: samplingRate,
      win_length: winLength,
    },
    { indent: 2 },
  )
}

/** Compute the features of clips [n] of any lengths, padded to one batch. */
export async function featuresOf(clips: readonly Tensor[], settings: ParakeetFeatureSettings): Promise<NemoLogMel> {
  const { featureSize, samplingRate, preemphasis, hopLength, nFft, winLength } = settings
  const lengths = clips.map((clip) => clip.size(0))
  return nemoLogMel(stackSamples(clips, Math.max(0, ...lengths)), {
    lengths: tensor(lengths.map(BigInt)),
    nMels: featureSize,
    sampleRate: samplingRate,
    preemphasis: preemphasis ?? 0,
    ...{ hopLength, nFft, winLength },
  })
}
