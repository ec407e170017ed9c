import type { Module } from '../../nn/module.js'
import type { NativeModule } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import type { DecoderLMConfig } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'

/** An audio encoder: features [windows, ...] become states [windows, frames, width]. */
export interface AudioEncoder extends NativeModule {
  /** Freeze parameters that are constants, such as sinusoidal positions. */
  freezeConstants?(): void
  /** @param lengths number of feature steps of each window that are audio, from its start; null for all of every window */
  forward(features: Tensor, lengths: readonly number[] | null): Promise<Tensor>
}

/** A connector: states of the encoder [windows, frames, width] become embeddings [windows, tokens, hiddenSize]. */
export interface AudioConnector extends Module {
  forward(states: Tensor): Promise<Tensor>
}

/** Feature extraction of a family. */
export interface AudioFeatureSettings {
  /** Keys that the folder's feature extractor may have, with the values that are computed. */
  keys: ConfigKeys
  /** preprocessor_config.json, for saving. */
  saved: NetworkConfig
  /** Dimension of `features` that counts steps. Default 2, the last. */
  stepDim?: 1 | 2
  /** Cut samples [n] at 16 kHz into windows, and compute their features [windows, ...] with the number of steps that are audio. */
  compute(samples: Tensor): Promise<{ features: Tensor; lengths: number[] }>
  /** Most samples of a clip, which transformers cuts there. Default: any number. */
  mostSamples?: number
}

/** A request for the transcript of one clip, in terms of the chat template. */
export interface TranscriptionRequest {
  /** Messages with one clip, as an audio part or as the audio token in a text. */
  messages: readonly { role: string; content: string | readonly (string | { type: 'audio' })[] }[]
  /** Text after the rendered messages, with which the answer begins. */
  answerStart?: string
}

/** Transcription settings of a family. */
export interface AudioTranscription {
  /** Longest piece of a recording in seconds, by default. */
  seconds: number
  /** Instruction in the request; null for a family whose request has none. */
  prompt: string | null
  /** Languages that a request may name, by code; `'codes'` for any two-letter code; null for none. */
  languages: Readonly<Record<string, string>> | 'codes' | null
  request(settings: { prompt: string; language: string | null; audioToken: string }): TranscriptionRequest
  /** Return the transcript in an answer, and the language that it names. Default: the answer is the transcript. */
  parse?(answer: string): { text: string; language: string | null }
}

/** Settings of a forced aligner, which classifies the times of words at marker tokens. */
export interface AudioAligner {
  /** Keys of the configuration: number of classes, id of the marker token, and milliseconds of a class. */
  countKey: string
  tokenKey: string
  stepKey: string
  /** Key of the configuration for a bias of the classifier. */
  biasKey: string
  /** Name in `architectures`. */
  architecture: string
  /** Return the text of a clip and the words in it, with two markers after each. */
  text(audioToken: string, mark: string, words: readonly string[]): string
}

/** A part whose configuration and weights may be in a folder of its own. */
export interface AudioPartSource {
  /** Key of the part's configuration. */
  part: string
  /** The part's name in errors. */
  name: string
  /** Return the network's name of a tensor in that folder; undefined for one that the network does not have. */
  nameOf(name: string): string | undefined
}

/** A family of speech language models: an entry of the table in `families.ts`. */
export interface AudioFamily {
  /** Name in `architectures` of a saved config.json. */
  architecture: string
  /** Name of its processor in transformers. */
  processor: string
  /** Keys of config.json, with those of its parts. */
  keys: ConfigKeys
  /** Other names of keys, which the original accepts: at the top, and in parts by the part's key. */
  aliases?: Readonly<Record<string, string | Readonly<Record<string, string>>>>
  /** `model_type` of parts of config.json, written when saved. */
  partTypes: Readonly<Record<string, string>>
  /**
   * The audio token: its text, and the key of its id. `isAdded` if tokenizers do not have it: it is added to them, and the language model
   * never reads it.
   */
  token: { text: string; key: string; isAdded?: boolean }
  /** Parts in other folders, by the key of config.json with the folder or repository. */
  sources?: Readonly<Record<string, AudioPartSource>>
  /** Configuration of the language model. Default: `textConfig`. */
  text?(config: NetworkConfig): DecoderLMConfig
  /** Whether embeddings and output layer of the language model are one. Default: they are not, whatever its configuration says. */
  isTied?(config: NetworkConfig): boolean
  encoder(config: NetworkConfig, options: MakeOptions): AudioEncoder
  connector(config: NetworkConfig, hiddenSize: number, options: MakeOptions): AudioConnector
  /** Number of tokens of a window of which so many feature steps are audio. */
  tokens(steps: number, config: NetworkConfig): number
  /** Whether tokens of a window depend on the padding to the longest of a call. Default false. */
  readsPadding?: boolean
  /** Whether every window is audio from start to end, so that there is no mask of features. Default false. */
  wholeWindows?: boolean
  /**
   * Whether names in files are those of transformers 5, `model.language_model.` and `lm_head.`. Default: the older ones, which
   * transformers 5 converts.
   */
  hasModelPrefix?: boolean
  /**
   * Whether the modules of the original's class have the names of the network. Default: those of transformers 5, `model.audio_tower` and
   * others.
   */
  hasOwnModuleNames?: boolean
  /** Prefixes of names in files, in place of `audio_tower.` and `multi_modal_projector.`. */
  prefixes?: { encoder?: string; connector?: string }
  /** Features of clips, for `AudioLM.features`. */
  features(config: NetworkConfig): AudioFeatureSettings
  /** Settings of its forced aligner. */
  aligner?: AudioAligner
  /** Return config.json of a folder in another published layout in the family's own. */
  layout?(config: NetworkConfig): NetworkConfig
  /** Return the network's name of a tensor in such a folder; undefined for a name of the family's own layout. */
  layoutName?(name: string, config: NetworkConfig): string | undefined
  /** Return why a folder cannot be read, as `KEY: expected …, got …`, from its config.json in any layout; undefined for one that can. */
  unreadable?(config: NetworkConfig): string | undefined
  /** Its request for a transcript. */
  transcription: AudioTranscription
  /** Whether the chat template takes messages as texts with audio tokens, and not as lists of parts. Default false. */
  hasTextMessages?: boolean
  /** Chat template of folders without one. */
  chatTemplate?: string
  /** Configurations by names of published sizes. */
  sizes: Readonly<Record<string, NetworkConfig>>
}
