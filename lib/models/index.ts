export * from './aliases.js'
export { Beats, type BeatsInputs, type BeatsOutput } from './beats/beats.js'
export type { BeatsConfig } from './beats/config.js'
export type { LoadBeatsOptions } from './beats/files.js'
export type { AudioTag, TagOptions } from './beats/tags.js'
export { BigVGAN, type BigVGANInputs, type BigVGANOutput } from './bigvgan/bigvgan.js'
export { BIGVGAN_MEL, type BigVGANConfig } from './bigvgan/config.js'
export type { LoadBigVGANOptions } from './bigvgan/files.js'
export type { VocoderStreamOptions } from './bigvgan/stream.js'
export {
  Clip,
  type ClipInputs,
  type ClipOutput,
  type ClipTextInputs,
  ClipTextModel,
  type ClipTextOutput,
  type ClipVisionInputs,
  ClipVisionModel,
  type ClipVisionOutput,
} from './clip/clip.js'
export type { ClipConfig, ClipTextConfig, ClipVisionConfig } from './clip/config.js'
export { clipImageOptions } from './clip/image-processor.js'
export { type ClipEncodeOptions, ClipTokenizer, type ClipTokens } from './clip/tokenizer.js'
export {
  type DecoderLMClassifierConfig,
  type DecoderLMClassifierInputs,
  type DecoderLMClassifierOutput,
  DecoderLMForSequenceClassification,
} from './decoder/classification.js'
export type { DecoderLMConfig, RopeParameters } from './decoder/config.js'
export { DecoderLM, type DecoderLMInputs, type DecoderLMOutput } from './decoder/decoder-lm.js'
export type { ResizeTokenEmbeddingsOptions } from './decoder/resize.js'
export { type SaveDecoderGgufOptions, type SaveGgufAdapterOptions, saveGgufAdapter } from './decoder/save-gguf.js'
export { Bert, type BertConfig } from './encoders/bert.js'
export type { CtcStretch, CtcTranscribeOptions, CtcTranscription } from './encoders/ctc-transcribe.js'
export { type EmbedSentencesOptions, embedSentences } from './encoders/embed-sentences.js'
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
export type {
  SpeechEncoder,
  SpeechEncoderConfig,
  SpeechEncoderInputs,
  SpeechEncoderOutput,
} from './encoders/speech-encoder.js'
export type { SpeechHeadConfig, SpeechLabelInputs } from './encoders/speech-head.js'
export { Wav2Vec2, type Wav2Vec2Config } from './encoders/wav2vec2.js'
export { WavLM, type WavLMConfig } from './encoders/wavlm.js'
export type { InternViTConfig, InternVLConfig } from './internvl/config.js'
export type { SaveInternVLOptions } from './internvl/files.js'
export { InternViT, type InternViTInputs, type InternViTOutput } from './internvl/intern-vit.js'
export {
  InternVL,
  type InternVLGenerateInputs,
  type InternVLImages,
  type InternVLInputs,
  type InternVLOutput,
} from './internvl/internvl.js'
export {
  INTERNVL_SYSTEM,
  type InternVLConversation,
  type InternVLPrompt,
  type InternVLPromptOptions,
  type InternVLTemplate,
  internVLPrompt,
  internVLTemplate,
} from './internvl/prompt.js'
export type { LabelConfig, ProblemType } from './labels.js'
export {
  type LanguageBindAudioInput,
  type LanguageBindAudioOptions,
  languageBindAudio,
} from './languagebind/audio.js'
export {
  type LanguageBindConfig,
  type LanguageBindEncoderConfig,
  type LanguageBindModality,
  type LanguageBindVisionConfig,
  languageBindSizes,
} from './languagebind/config.js'
export {
  type ContrastiveInputs,
  type ContrastiveLossOptions,
  ContrastiveModel,
  type ContrastiveOptions,
  type ContrastiveOutput,
  contrastiveLoss,
} from './languagebind/contrastive.js'
export type { LanguageBindFrom, LoadLanguageBindOptions } from './languagebind/files.js'
export type {
  LanguageBindClip,
  LanguageBindInputs,
  LanguageBindRawInputs,
  LanguageBindTokens,
} from './languagebind/inputs.js'
export {
  type EmbedOptions,
  LanguageBind,
  type LanguageBindEmbeddings,
  type ScaleOptions,
  type ZeroShotLabel,
  type ZeroShotOptions,
} from './languagebind/languagebind.js'
export { type PatchGrid, resizePositions } from './languagebind/positions.js'
export type {
  HeadNetwork,
  HeadStatics,
  Network,
  NetworkConfig,
  NetworkConstructor,
  NetworkStatics,
  SavableNetwork,
} from './network.js'
export { loadPretrained, savePretrained } from './own-module.js'
export type { LoadNetworkOptions, SaveNetworkOptions } from './pretrained.js'
export {
  type LoadQFormerOptions,
  QFormer,
  type QFormerConfig,
  type QFormerInputs,
  type QFormerOutput,
} from './q-former/q-former.js'
export { type LabelScores, type ScoreLabelsInputs, type ScoreLabelsOptions, scoreLabels } from './score-labels.js'
export { SileroVad, type SileroVadConfig, type SpeechSegmentOptions } from './silero-vad.js'
export type { UnitVoiceboxConfig } from './unit-voicebox/config.js'
export type { UnitVoiceboxGenerateInputs } from './unit-voicebox/sampling.js'
export {
  UnitVoicebox,
  type UnitVoiceboxInputs,
  type UnitVoiceboxLossInputs,
  type UnitVoiceboxOutput,
} from './unit-voicebox/unit-voicebox.js'
export { UnitEncoder, type UnitNetwork } from './units/encoder.js'
export { type LoadUnitEncoderOptions, loadUnitEncoder } from './units/files.js'
export { type FitUnitsOptions, fitUnits } from './units/fit.js'
export { type FitKMeansOptions, fitKMeans, KMeans } from './units/kmeans.js'
export {
  type AudioFramesInWindows,
  type ExtractOptions,
  UnitExtractor,
  type UnitExtractorSource,
} from './units/unit-extractor.js'
export {
  type ExtractedUnits,
  type ExtractUnitsOptions,
  extractUnits,
  type NamedClip,
  type ReadUnitsOptions,
  readUnits,
  UnitFolder,
} from './units/unit-folder.js'
export type { AlignTextOptions } from './whisper/align-text.js'
export type { TokenTimestamp, WhisperAlignmentInputs, WhisperHead } from './whisper/alignment.js'
export type { WhisperConfig } from './whisper/config.js'
export type { TranscribeDefaults } from './whisper/generation-files.js'
export type {
  WhisperEncoderInputs,
  WhisperEncoderOutput,
  WhisperGenerateInputs,
  WhisperInputs,
  WhisperOutput,
} from './whisper/inputs.js'
export type {
  TranscribeOptions,
  WhisperAudio,
  WhisperSegment,
  WhisperSkipped,
  WhisperTranscription,
} from './whisper/options.js'
export { WHISPER_LANGUAGES, type WhisperTokens } from './whisper/tokens.js'
export { Whisper, WhisperEncoder } from './whisper/whisper.js'
export type { WhisperWord } from './whisper/words.js'
