export * from './aliases.js'
export { AudioLM } from './audio-lm/audio-lm.js'
export type { AudioLMConfig } from './audio-lm/config.js'
export { Beats } from './beats/beats.js'
export type { BeatsConfig } from './beats/config.js'

export type { AudioTag } from './beats/tags.js'
export { BigVGAN } from './bigvgan/bigvgan.js'
export { BIGVGAN_MEL, type BigVGANConfig } from './bigvgan/config.js'

export { Clip, type ClipInputs, type ClipOutput, ClipTextModel, ClipVisionModel } from './clip/clip.js'
export type { ClipConfig } from './clip/config.js'
export { clipImageOptions } from './clip/image-processor.js'
export { ClipTokenizer } from './clip/tokenizer.js'
export { DecoderLMForSequenceClassification } from './decoder/classification.js'
export type { DecoderLMConfig } from './decoder/config.js'
export { DecoderLM, type DecoderLMInputs, type DecoderLMOutput } from './decoder/decoder-lm.js'

export { saveGgufAdapter } from './decoder/save-gguf.js'
export { Emotion2Vec } from './emotion2vec/emotion2vec.js'
export { Bert, type BertConfig } from './encoders/bert.js'
export type { CtcTranscribeOptions, CtcTranscription } from './encoders/ctc-transcribe.js'
export { Data2VecAudio, type Data2VecAudioConfig } from './encoders/data2vec-audio.js'
export { embedSentences } from './encoders/embed-sentences.js'
export { Hubert, type HubertConfig } from './encoders/hubert.js'
export {
  Roberta,
  type RobertaConfig,
  RobertaForMaskedLM,
  type RobertaInputs,
  type RobertaOutput,
} from './encoders/roberta.js'
export { RobertaForSequenceClassification, RobertaForTokenClassification } from './encoders/roberta-classification.js'
export {
  Data2VecAudioForSequenceClassification,
  HubertForSequenceClassification,
  Wav2Vec2BertForSequenceClassification,
  Wav2Vec2ConformerForSequenceClassification,
  Wav2Vec2ForAudioFrameClassification,
  Wav2Vec2ForSequenceClassification,
  Wav2Vec2ForXVector,
  WavLMForAudioFrameClassification,
  WavLMForSequenceClassification,
  WavLMForXVector,
} from './encoders/speech-classification.js'
export {
  Data2VecAudioForCTC,
  HubertForCTC,
  Wav2Vec2BertForCTC,
  Wav2Vec2ConformerForCTC,
  Wav2Vec2ForCTC,
  WavLMForCTC,
} from './encoders/speech-ctc.js'
export type {
  SpeechEncoder,
  SpeechEncoderConfig,
  SpeechEncoderInputs,
  SpeechEncoderOutput,
  SpeechFeatureInputs,
} from './encoders/speech-encoder.js'

export { Wav2Vec2, type Wav2Vec2Config } from './encoders/wav2vec2.js'
export { Wav2Vec2Bert, type Wav2Vec2BertConfig } from './encoders/wav2vec2-bert.js'
export { Wav2Vec2Conformer, type Wav2Vec2ConformerConfig } from './encoders/wav2vec2-conformer.js'
export { WavLM, type WavLMConfig } from './encoders/wavlm.js'
export type { InternVLConfig } from './internvl/config.js'

export { InternViT } from './internvl/intern-vit.js'
export { InternVL, type InternVLGenerateInputs, type InternVLInputs } from './internvl/internvl.js'
export {
  type InternVLConversation,
  type InternVLPromptOptions,
  internVLPrompt,
  internVLTemplate,
} from './internvl/prompt.js'

export { languageBindAudio } from './languagebind/audio.js'
export type { LanguageBindConfig, LanguageBindModality } from './languagebind/config.js'
export { ContrastiveModel, type ContrastiveOptions, contrastiveLoss } from './languagebind/contrastive.js'
export type { LoadLanguageBindOptions } from './languagebind/files.js'
export type { LanguageBindInputs } from './languagebind/inputs.js'
export { LanguageBind, type LanguageBindEmbeddings, type ZeroShotOptions } from './languagebind/languagebind.js'
export { resizePositions } from './languagebind/positions.js'

export { Mimi } from './mimi/mimi.js'
export { Moonshine } from './moonshine/moonshine.js'
export { loadPretrained, savePretrained } from './own-module.js'
export type { ParakeetTDTConfig } from './parakeet/config.js'
export { ParakeetForCTC } from './parakeet/ctc.js'
export {
  type FastConformerConfig,
  FastConformerEncoder,
  type FastConformerInputs,
  type FastConformerOutput,
} from './parakeet/encoder.js'
export { ParakeetForRNNT, ParakeetForTDT } from './parakeet/transducer.js'
export type { LoadNetworkOptions, SaveNetworkOptions } from './pretrained.js'
export { QFormer, type QFormerConfig } from './q-former/q-former.js'
export { type ScoreLabelsOptions, scoreLabels } from './score-labels.js'
export { siglipImageOptions } from './siglip/image-processor.js'
export { SiglipVisionModel } from './siglip/siglip.js'
export { SileroVad, type SileroVadConfig } from './silero-vad.js'
export { smolVLMImages } from './smolvlm/images.js'
export { SmolVLM } from './smolvlm/smolvlm.js'
export type { UnitVoiceboxConfig } from './unit-voicebox/config.js'
export type { UnitVoiceboxGenerateInputs } from './unit-voicebox/sampling.js'
export { UnitVoicebox } from './unit-voicebox/unit-voicebox.js'
export { UnitEncoder } from './units/encoder.js'
export { loadUnitEncoder } from './units/files.js'
export { fitUnits } from './units/fit.js'
export { fitKMeans, KMeans } from './units/kmeans.js'
export { UnitExtractor } from './units/unit-extractor.js'
export { extractUnits, readUnits, UnitFolder } from './units/unit-folder.js'
export type { AlignTextOptions } from './whisper/align-text.js'

export type { WhisperConfig } from './whisper/config.js'

export type { WhisperEncoderInputs, WhisperGenerateInputs, WhisperInputs, WhisperOutput } from './whisper/inputs.js'
export type { TranscribeOptions, WhisperAudio, WhisperSegment, WhisperTranscription } from './whisper/options.js'
export { WHISPER_LANGUAGES } from './whisper/tokens.js'
export { Whisper, WhisperEncoder } from './whisper/whisper.js'
export type { WhisperWord } from './whisper/words.js'
