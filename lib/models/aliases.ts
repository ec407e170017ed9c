// transformers' names for the networks that have other names here.
export { Clip as CLIPModel, ClipTextModel as CLIPTextModel, ClipVisionModel as CLIPVisionModel } from './clip/clip.js'
export { DecoderLM as AutoModelForCausalLM } from './decoder/decoder-lm.js'
export { Bert as BertModel } from './encoders/bert.js'
export { Data2VecAudio as Data2VecAudioModel } from './encoders/data2vec-audio.js'
export { Hubert as HubertModel } from './encoders/hubert.js'
export { Roberta as RobertaModel } from './encoders/roberta.js'
export { Wav2Vec2 as Wav2Vec2Model } from './encoders/wav2vec2.js'
export { Wav2Vec2Bert as Wav2Vec2BertModel } from './encoders/wav2vec2-bert.js'
export { Wav2Vec2Conformer as Wav2Vec2ConformerModel } from './encoders/wav2vec2-conformer.js'
export { WavLM as WavLMModel } from './encoders/wavlm.js'
export { Mimi as MimiModel } from './mimi/mimi.js'
export { Moonshine as MoonshineForConditionalGeneration } from './moonshine/moonshine.js'
export { FastConformerEncoder as ParakeetEncoder } from './parakeet/encoder.js'
export {
  SmolVLM as Idefics3ForConditionalGeneration,
  SmolVLM as SmolVLMForConditionalGeneration,
} from './smolvlm/smolvlm.js'
export { Whisper as WhisperForConditionalGeneration } from './whisper/whisper.js'
