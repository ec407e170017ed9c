export { type Channels, mixChannels } from './channels.js'
export {
  type AudioClip,
  clipSeconds,
  type FitOptions,
  type LongAudio,
  type ReadClipOptions,
  readClip,
  SPEECH_RATE,
} from './clip.js'
export {
  type KaldiFbankOptions,
  kaldiFbank,
  type LogMelSpectrogramOptions,
  logMelSpectrogram,
  type MelFilterBankOptions,
  type MelSpectrogramOptions,
  melFilterBank,
  melSpectrogram,
  type SpectrogramOptions,
  spectrogram,
  type WindowName,
} from './features.js'
export {
  type GriffinLimOptions,
  griffinLim,
  type InverseMelOptions,
  inverseMelSpectrogram,
} from './griffin-lim.js'
export { type NormalizeOptions, normalizeWav2Vec2, type PadAudioOptions, padAudio } from './normalize.js'
export type { WavSampleFormat } from './pcm.js'

export { type Audio, type ReadAudioOptions, readAudio } from './read.js'
export { type ResampleOptions, type ResampleQuality, Resampler, resample } from './resample.js'
export {
  type EnergyVadOptions,
  energyVad,
  type Segment,
  type SplitOptions,
  splitOnSilence,
  type VoiceActivity,
} from './silence.js'
export type { AudioFormat, AudioInput } from './sniff.js'
export { type AudioChunk, type ReadAudioStreamOptions, readAudioStream } from './stream.js'
export { type WriteWavOptions, writeWav } from './write.js'
