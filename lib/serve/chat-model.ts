/** A piece of a message. */
export type ChatPart =
  | { type: 'text'; text: string }
  /** `samples`: 16 kHz, mono, full scale is 1. */
  | { type: 'audio'; samples: Float32Array; seconds: number }

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
  /** Why the answer ended, where its tokens do not tell. */
  finishReason?: 'stop' | 'length'
}

/**
 * What `serve` serves: a model that continues a conversation of texts and sounds. One that throws ConfigError, DataError or
 * ShapeError for what it was asked lets the client know the sentence; other errors stay in the server's log.
 */
export interface ChatModel {
  /** As in `/v1/models` and a request's `model`. */
  readonly name: string
  /** What messages may hold, for `/v1/models` and the page. Default text and audio. */
  readonly inputModalities?: readonly ('text' | 'audio')[]
  /** What answers may be, for `/v1/models` and the page. Default text. */
  readonly outputModalities?: readonly ('text' | 'audio')[]
  /** Of the sound that it gives, in Hz; needed where there is some. */
  readonly audioRate?: number
  /** Answers that it writes at once: what `maxConcurrent` is where the server's options do not say. Default 2. */
  readonly concurrent?: number
  /** Further numbers for `/metrics`, each under `voxtorch_` and its name. */
  metrics?(): Readonly<Record<string, number>>
  /** Answers the last message. Leaving the loop, or `options.signal`, ends the generation. */
  stream(messages: ChatTurn[], options: ChatAnswerOptions): AsyncIterable<ChatDelta>
}

/** Loads what `voxtorch serve NAME --model DIRECTORY` serves. */
export type ChatModelLoader = (directory: string, options: { device?: string; dtype?: string }) => Promise<ChatModel>
