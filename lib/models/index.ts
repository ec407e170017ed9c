export type { AudioClip } from './beats/audio.js'
export { Beats, type BeatsInputs, type BeatsOutput } from './beats/beats.js'
export type { BeatsConfig } from './beats/config.js'
export type { LoadBeatsOptions } from './beats/files.js'
export type { SoundTag, TagOptions } from './beats/tags.js'
export type { NetworkConfig } from './config.js'
export {
  type DecoderLMClassifierConfig,
  type DecoderLMClassifierInputs,
  type DecoderLMClassifierOutput,
  DecoderLMForSequenceClassification,
} from './decoder/classification.js'
export type { DecoderLMConfig, RopeParameters } from './decoder/config.js'
export { DecoderLM, type DecoderLMInputs, type DecoderLMOutput } from './decoder/decoder-lm.js'
export type { CtcStretch, CtcTranscribeOptions, CtcTranscription } from './encoders/ctc-transcribe.js'
export {
  Roberta,
  type RobertaConfig,
  RobertaForMaskedLM,
  type RobertaInputs,
  type RobertaMaskedLMOutput,
  type RobertaOutput,
} from './encoders/roberta.js'
export {
  type RobertaClassifierConfig,
  type RobertaClassifierInputs,
  type RobertaClassifierOutput,
  RobertaForSequenceClassification,
  RobertaForTokenClassification,
} from './encoders/roberta-classification.js'
export {
  type SpeechClassificationOutput,
  type SpeechXVectorOutput,
  Wav2Vec2ForAudioFrameClassification,
  Wav2Vec2ForSequenceClassification,
  Wav2Vec2ForXVector,
  WavLMForAudioFrameClassification,
  WavLMForSequenceClassification,
  WavLMForXVector,
} from './encoders/speech-classification.js'
export { type LoadCTCOptions, type SpeechCTCOutput, Wav2Vec2ForCTC, WavLMForCTC } from './encoders/speech-ctc.js'
export type { SpeechEncoderConfig, SpeechEncoderInputs, SpeechEncoderOutput } from './encoders/speech-encoder.js'
export type { SpeechHeadConfig, SpeechLabelInputs } from './encoders/speech-head.js'
export { Wav2Vec2, type Wav2Vec2Config } from './encoders/wav2vec2.js'
export { WavLM, type WavLMConfig } from './encoders/wavlm.js'
export type { LabelConfig, ProblemType } from './labels.js'
export { loadPretrained, savePretrained } from './own-module.js'
export type { LoadNetworkOptions, SaveNetworkOptions } from './pretrained.js'
export {
  type LoadQFormerOptions,
  QFormer,
  type QFormerConfig,
  type QFormerInputs,
  type QFormerOutput,
} from './q-former/q-former.js'
export { checkSalmonnAdapter, type SalmonnPart, salmonnPart } from './salmonn/adapter.js'
export { SalmonnCache } from './salmonn/cache.js'
export { SALMONN_LEAST_SAMPLES, SALMONN_RATE, type SalmonnSound } from './salmonn/clips.js'
export { type SalmonnConfig, type SalmonnLoraConfig, salmonnWindowFrames } from './salmonn/config.js'
export type { LoadSalmonnOptions, SalmonnPartsFrom } from './salmonn/files.js'
export type { SalmonnAnswers, SalmonnGenerateOptions, SalmonnStep } from './salmonn/generate.js'
export { type SalmonnMemory, type SalmonnMemoryOptions, salmonnMemory } from './salmonn/memory.js'
export { SPEECH_MARKER } from './salmonn/prompt.js'
export {
  Salmonn,
  type SalmonnInputs,
  type SalmonnOptions,
  type SalmonnOutput,
  type SalmonnParts,
  type SalmonnQuestion,
} from './salmonn/salmonn.js'
export type { SpectraConfig, SpectraOptions } from './spectra/config.js'
export type { LoadSpectraOptions, SpectraEncoders, SpectraLoadReport } from './spectra/files.js'
export {
  Spectra,
  type SpectraClassificationInputs,
  type SpectraClassificationOutput,
  SpectraForPreTraining,
  SpectraForSequenceClassification,
  type SpectraInputs,
  type SpectraOutput,
  type SpectraPrediction,
  type SpectraPretrainingInputs,
  type SpectraPretrainingOutput,
} from './spectra/spectra.js'
export type { TokenTimestamp, WhisperAlignmentInputs, WhisperHead } from './whisper/alignment.js'
export type { WhisperConfig } from './whisper/config.js'
export type {
  WhisperEncoderInputs,
  WhisperEncoderOutput,
  WhisperGenerateInputs,
  WhisperInputs,
  WhisperOutput,
} from './whisper/inputs.js'
export type { TranscribeOptions, WhisperAudio, WhisperSegment, WhisperTranscription } from './whisper/options.js'
export { WHISPER_LANGUAGES, type WhisperTokens } from './whisper/tokens.js'
export { Whisper, WhisperEncoder } from './whisper/whisper.js'
export type { WhisperWord } from './whisper/words.js'
