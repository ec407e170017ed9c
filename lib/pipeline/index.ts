import type { AudioClip } from '../audio/clip.js'
import { shown } from '../base/check.js'
import { ConfigError, DisposedError } from '../base/errors.js'
import { nearest } from '../base/words.js'
import type { AudioLMConversation } from '../models/audio-lm/processor.js'
import { SpectraClassifier } from '../systems/spectra/answer/classifier.js'
import type { Tensor } from '../tensor/index.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { type AudioTextOptions, type AudioTextOutput, answerAudio } from './audio-text.js'
import {
  type ClassificationOptions,
  type ClassificationOutput,
  classify,
  type EmotionInput,
  quantity,
  recognizeEmotion,
} from './classification.js'
import { extractFeatures, type FeatureExtractionInput, type FeatureExtractionOptions } from './feature-extraction.js'
import { each } from './inputs.js'
import { type Loaded, loaded, type NetworkOf, type PipelineOptions, type PipelineTask, TASKS } from './load.js'
import { camelOptions, type EitherCase } from './options.js'
import { recognize, type SpeechRecognitionOptions, type SpeechRecognitionOutput } from './speech-recognition.js'
import {
  type ChatGenerationOutput,
  generateTexts,
  type TextGenerationInput,
  type TextGenerationOptions,
  type TextGenerationOutput,
} from './text-generation.js'

export type {
  AudioClip,
  ChatGenerationOutput,
  ClassificationOptions,
  ClassificationOutput,
  EmotionInput,
  FeatureExtractionOptions,
  PipelineOptions,
  PipelineTask,
  SpeechRecognitionOptions,
  SpeechRecognitionOutput,
  TextGenerationOptions,
  TextGenerationOutput,
}

/** Properties of every pipeline. */
export interface PipelineParts<T extends PipelineTask> {
  readonly task: T
  readonly model: NetworkOf<T>
  /** Tokenizer of networks for text; null if the network needs none, or has its own. */
  readonly tokenizer: Tokenizer | null
  /** Free the network, unless the caller passed it to `pipeline`. */
  dispose(): void
  [Symbol.dispose](): void
}

// TypeScript explains a call that fits no overload by the last one, so the usual call is last.
export interface SpeechRecognitionPipeline extends PipelineParts<'automatic-speech-recognition'> {
  (audio: readonly AudioClip[], options?: EitherCase<SpeechRecognitionOptions>): Promise<SpeechRecognitionOutput[]>
  (audio: AudioClip, options?: EitherCase<SpeechRecognitionOptions>): Promise<SpeechRecognitionOutput>
}

export interface AudioClassificationPipeline extends PipelineParts<'audio-classification'> {
  (audio: readonly AudioClip[], options?: EitherCase<ClassificationOptions>): Promise<ClassificationOutput[][]>
  (audio: AudioClip, options?: EitherCase<ClassificationOptions>): Promise<ClassificationOutput[]>
}

export interface EmotionRecognitionPipeline extends PipelineParts<'emotion-recognition'> {
  (inputs: readonly EmotionInput[], options?: EitherCase<ClassificationOptions>): Promise<ClassificationOutput[][]>
  (input: EmotionInput, options?: EitherCase<ClassificationOptions>): Promise<ClassificationOutput[]>
}

export interface TextGenerationPipeline extends PipelineParts<'text-generation'> {
  (texts: readonly string[], options?: EitherCase<TextGenerationOptions>): Promise<TextGenerationOutput[][]>
  <M extends ChatMessage>(
    conversations: readonly (readonly M[])[],
    options?: EitherCase<TextGenerationOptions>,
  ): Promise<ChatGenerationOutput<M>[][]>
  <M extends ChatMessage>(
    messages: readonly M[],
    options?: EitherCase<TextGenerationOptions>,
  ): Promise<ChatGenerationOutput<M>[]>
  (text: string, options?: EitherCase<TextGenerationOptions>): Promise<TextGenerationOutput[]>
}

export interface FeatureExtractionPipeline extends PipelineParts<'feature-extraction'> {
  /** float [inputs, positions, hiddenSize], or with pooling [inputs, hiddenSize]. */
  (
    input: FeatureExtractionInput | readonly FeatureExtractionInput[],
    options?: EitherCase<FeatureExtractionOptions>,
  ): Promise<Tensor>
}

interface AudioTextPipeline extends PipelineParts<'audio-text-to-text'> {
  (conversations: readonly AudioLMConversation[], options?: EitherCase<AudioTextOptions>): Promise<AudioTextOutput[][]>
  (messages: AudioLMConversation, options?: EitherCase<AudioTextOptions>): Promise<AudioTextOutput[]>
}

export interface Pipelines {
  'automatic-speech-recognition': SpeechRecognitionPipeline
  'audio-classification': AudioClassificationPipeline
  'emotion-recognition': EmotionRecognitionPipeline
  'text-generation': TextGenerationPipeline
  'feature-extraction': FeatureExtractionPipeline
  'audio-text-to-text': AudioTextPipeline
}

/** Names of tasks in other programs. */
const TASK_ALIASES: Readonly<Record<string, PipelineTask>> = Object.assign(Object.create(null), {
  ...{ 'speech-to-text': 'automatic-speech-recognition', asr: 'automatic-speech-recognition' },
  ...{ 'speech-recognition': 'automatic-speech-recognition', transcription: 'automatic-speech-recognition' },
  ...{ chat: 'text-generation', conversational: 'text-generation', 'text2text-generation': 'text-generation' },
  ...{ embeddings: 'feature-extraction', 'sentence-similarity': 'feature-extraction' },
  ...{ 'audio-question-answering': 'audio-text-to-text', 'speech-language-model': 'audio-text-to-text' },
  ...{ 'speech-emotion-recognition': 'emotion-recognition', 'audio-tagging': 'audio-classification' },
})

/**
 * Create a function that runs a network with all its pre- and postprocessing. Names, options and outputs are those of transformers.js
 * (https://huggingface.co/docs/transformers.js). Options can be spelled `maxNewTokens` or `max_new_tokens`.
 *
 * ```ts
 * using transcriber = await pipeline('automatic-speech-recognition', 'openai/whisper-base')
 * const { text, chunks } = await transcriber('talk.mp3', { return_timestamps: true })
 * ```
 *
 * | Task | Networks | Takes | Gives |
 * | --- | --- | --- | --- |
 * | `automatic-speech-recognition` | Whisper; wav2vec 2.0, its relatives and WavLM with CTC | audio | `{ text, chunks? }` |
 * | `audio-classification` | wav2vec 2.0, its relatives and WavLM for classification, BEATs | audio | `[{ label, score }]` |
 * | `emotion-recognition` | a fine-tuned SPECTRA; wav2vec 2.0, its relatives, WavLM and RoBERTa for classification | a turn, audio, text | `[{ label, score }]` |
 * | `text-generation` | LLaMA, Mistral, Qwen2 | a text or messages | `[{ generated_text }]` |
 * | `feature-extraction` | BERT, RoBERTa; wav2vec 2.0, its relatives, WavLM, Whisper's encoder, BEATs | text; audio | a tensor |
 * | `audio-text-to-text` | models of `AudioLM` | messages with audio | `[{ generated_text }]` |
 *
 * The relatives of wav2vec 2.0 are HuBERT, data2vec, Wav2Vec2Conformer and w2v-BERT 2.0. A list of inputs gives a list of answers. The network is in evaluation mode and records no gradients.
 * @param model a folder, a repository of the Hugging Face hub, or a loaded network, which is set to evaluation mode
 * @throws ConfigError for an unknown task, naming the nearest; for a network of another task, naming its architecture;
 *   and for invalid options. CheckpointError, DataError, HubError as `fromPretrained`
 */
export async function pipeline<T extends PipelineTask>(
  task: T,
  model: string | NetworkOf<T>,
  options: PipelineOptions = {},
): Promise<Pipelines[T]> {
  if (!TASKS.includes(task)) {
    const near = typeof task === 'string' ? (TASK_ALIASES[task] ?? nearest(task, TASKS)) : undefined
    const list = TASKS.map((one) => `'${one}'`).join(', ')
    const hint = near === undefined ? '' : `; did you mean '${near}'?`
    throw new ConfigError(`pipeline: expected one of the tasks ${list}, got ${shown(task)}${hint}`, { task })
  }
  const where = `pipeline('${task}')`
  const parts = await loaded(where, task, model, options)
  const network: { dispose(): void } = parts.model
  let disposed = false
  const dispose = () => {
    disposed = parts.owned
    if (parts.owned) network.dispose()
  }
  if (network instanceof SpectraClassifier && network.task.kind !== 'classification') {
    dispose()
    throw quantity(where)
  }
  const call = async (input: never, given: object = {}) => {
    if (disposed) throw new DisposedError(`${where}: expected a pipeline in use, got a disposed one. Create another.`)
    return answers(where, task, parts as Loaded<never>, input, camelOptions(where, given))
  }
  return Object.assign(call, {
    task,
    model: parts.model,
    tokenizer: parts.tokenizer,
    dispose,
    [Symbol.dispose]: dispose,
  }) as unknown as Pipelines[T]
}

function answers(
  where: string,
  task: PipelineTask,
  parts: Loaded<never>,
  input: never,
  options: object,
): Promise<unknown> {
  switch (task) {
    case 'automatic-speech-recognition':
      return each<AudioClip, SpeechRecognitionOutput>(input, (one) => recognize(where, parts.model, one, options))
    case 'audio-classification':
      return each<AudioClip, ClassificationOutput[]>(input, (one) => classify(where, parts, one, options))
    case 'emotion-recognition':
      return each<EmotionInput, ClassificationOutput[]>(input, (one) => recognizeEmotion(where, parts, one, options))
    case 'feature-extraction':
      return extractFeatures(where, parts, Array.isArray(input) ? input : [input], options)
    case 'audio-text-to-text':
      return answered(parts, input, options)
    default:
      return generated(where, parts, input, options)
  }
}

async function generated(
  where: string,
  { model, tokenizer }: Loaded<NetworkOf<'text-generation'>>,
  input: TextGenerationInput | readonly TextGenerationInput[],
  options: TextGenerationOptions,
) {
  // A list of messages is one conversation.
  const [first] = Array.isArray(input) ? input : []
  const isMany = Array.isArray(input) && (input.length === 0 || typeof first === 'string' || Array.isArray(first))
  const prompts = (isMany ? input : [input]) as readonly TextGenerationInput[]
  const texts = await generateTexts(where, model, tokenizer as Tokenizer, prompts, options)
  return isMany ? texts : texts[0]
}

async function answered(
  { model }: Loaded<NetworkOf<'audio-text-to-text'>>,
  input: AudioLMConversation | readonly AudioLMConversation[],
  options: AudioTextOptions,
) {
  const isMany = Array.isArray(input) && (input.length === 0 || Array.isArray(input[0]))
  const conversations = (isMany ? input : [input]) as readonly AudioLMConversation[]
  const answers = await answerAudio(model, conversations, options)
  return isMany ? answers : answers[0]
}
