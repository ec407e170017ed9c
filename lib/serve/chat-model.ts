import type { ResampleQuality } from '../audio/resample.js'
import type { RawImage, Video } from '../vision/index.js'

/** A piece of a message. */
export type ChatPart =
  | { type: 'text'; text: string }
  /** `samples`: 16 kHz, mono, full scale is 1. */
  | { type: 'audio'; samples: Float32Array; seconds: number }
  /** RGB. */
  | { type: 'image'; image: RawImage }
  /** The frames of a film, or a film that is open as long as the answer takes. */
  | { type: 'video'; frames: readonly RawImage[] | Video }

/** What messages may hold. */
export type ChatModality = 'text' | 'audio' | 'image' | 'video'

/** What one side said in one turn. */
export interface ChatTurn {
  role: 'system' | 'user' | 'assistant'
  content: ChatPart[]
  /** Of an assistant's turn, in place of its content: the `audioId` of the answer that it was. */
  audioId?: string
}

/** How an answer is spoken, for models that speak. */
export interface ChatSpeech {
  /** A clip whose voice it is spoken in: mono, full scale is 1. Default: the model's own. */
  voice?: { samples: Float32Array; sampleRate: number }
  /** Steps of the solver that makes sound. Default: the model's own. */
  steps?: number
}

/** How an answer is made. What is left out is the model's own default. */
export interface ChatAnswerOptions {
  /** Most tokens of the answer. */
  maxNewTokens: number
  /** 0 takes the likeliest token each time. */
  temperature?: number
  topP?: number
  topK?: number
  numBeams?: number
  seed?: number
  /** Set where the answer is to be heard too. */
  speech?: ChatSpeech
  /** A task of the model's that is asked, by its id: what the last message says is what it is about. */
  task?: string
  /** Answers whose probabilities are wanted too. */
  labels?: readonly string[]
  /** Whether it is wanted too what of the last message's pictures and films the model looks at. */
  views?: boolean
  /** Texts that end the answer. The server cuts the answer there in any case; a model may stop sooner for it. */
  stop?: string[]
  /** Aborted when nobody waits for the answer any more: the model stops within a token. */
  signal: AbortSignal
}

/** The next piece of an answer. */
export interface ChatDelta {
  text: string
  /** How many tokens this piece took, those without text of their own (the end of the answer) included. */
  tokens: number
  /** How many tokens the model was asked with, sounds included. The API's `prompt_tokens` are 0 where no piece tells. */
  promptTokens?: number
  /** How many of those had been read before, for this conversation or another: the API's `cached_tokens`. */
  cachedTokens?: number
  /** What was heard in the last message, its next letters. */
  heard?: string
  /** The answer as sound, its next samples: mono at the model's `audioRate`, from -1 to 1. */
  audio?: Float32Array
  /** A name under which later messages may mean this answer. */
  audioId?: string
  /** The last message as the model was asked it, where a task has words of its own: what later requests repeat. */
  asked?: string
  /** How likely each of the wanted labels is, of 1 together. */
  labelScores?: Readonly<Record<string, number>>
  /** What the model looks at of the last message's pictures and films, in their order. */
  views?: readonly ChatView[]
  /** Why the answer ended, where its tokens do not tell. */
  finishReason?: 'stop' | 'length'
}

/** A picture or a film as a model looks at it. */
export interface ChatView {
  kind: 'image' | 'video'
  /** RGB bytes [tiles, side, side, 3]: the tiles of a picture, a smaller one of all of it last where there are several; the frames of a film. */
  pixels: Uint8Array
  tiles: number
  side: number
  /** Of a picture's tiles. */
  grid: readonly [columns: number, rows: number] | null
  /** The numbers of a film's frames. */
  frames: readonly number[] | null
}

/** What a model was taught to be asked, for `/v1/models` and a button of the page. */
export interface ChatTask {
  id: string
  /** A word or two. */
  title: string
  /** What it wants and gives, in a sentence. */
  hint: string
}

/**
 * What `serve` serves: a model that continues a conversation of texts, sounds, pictures and films. One that throws ConfigError, DataError or
 * ShapeError for what it was asked lets the client know the sentence; other errors stay in the server's log.
 */
export interface ChatModel {
  /** As in `/v1/models` and a request's `model`. */
  readonly name: string
  /** What messages may hold, for `/v1/models` and the page. Default text and audio. */
  readonly inputModalities?: readonly ChatModality[]
  /** What answers may be, for `/v1/models` and the page. Default text. */
  readonly outputModalities?: readonly ('text' | 'audio')[]
  /** What a request may ask for with `task`. Default nothing. */
  readonly tasks?: readonly ChatTask[]
  /** Whether it gives `labelScores`, and `views`, to those who want them. Default neither. */
  readonly extras?: readonly ('label_scores' | 'views')[]
  /** Frames that it looks at of a film, which count for the limit of pixels. Default 8. */
  readonly videoFrames?: number
  /** How clips of another rate are resampled to the 16 kHz of `ChatPart`. Default 'sinc'. */
  readonly clipQuality?: ResampleQuality
  /** Of the sound that it gives, in Hz; needed where there is some. */
  readonly audioRate?: number
  /** Answers that it writes at once: what `maxConcurrent` is where the server's options do not say. Default 2. */
  readonly concurrent?: number
  /** Further numbers for `/metrics`, each under `voxtorch_` and its name. */
  metrics?(): Readonly<Record<string, number>>
  /** Answers the last message. Leaving the loop, or `options.signal`, ends the generation. */
  stream(messages: ChatTurn[], options: ChatAnswerOptions): AsyncIterable<ChatDelta>
}

/** Loads what `voxtorch serve NAME --model DIRECTORY` serves; beside device and dtype it may have options of its own. */
export type ChatModelLoader = (
  directory: string,
  options: { device?: string; dtype?: string; [own: string]: unknown },
) => Promise<ChatModel>
