export { type AudioClip, clipSeconds, type ReadClipOptions, readClip } from './clip.js'
export {
  type KaldiFbankOptions,
  kaldiFbank,
  type LogMelSpectrogramOptions,
  logMelSpectrogram,
  type MelSpectrogramOptions,
  melFilterBank,
  melSpectrogram,
  type NemoLogMel,
  type NemoLogMelOptions,
  nemoLogMel,
  type SeamlessFeaturesOptions,
  type SpectrogramOptions,
  seamlessFeatures,
  spectrogram,
} from './features.js'
export { griffinLim, inverseMelSpectrogram } from './griffin-lim.js'
export { normalizeWav2Vec2, padAudio } from './normalize.js'

export { type Audio, type ReadAudioOptions, readAudio } from './read.js'
export { type ResampleOptions, type ResampleQuality, Resampler, resample } from './resample.js'
export { energyVad, splitOnSilence } from './silence.js'
export type { AudioInput } from './sniff.js'
export { type AudioChunk, type ReadAudioStreamOptions, readAudioStream } from './stream.js'
export { type WriteWavOptions, writeWav } from './write.js'
