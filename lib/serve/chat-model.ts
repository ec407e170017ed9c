import type { ResampleQuality } from '../audio/resample.js'
import type { RawImage, Video } from '../vision/index.js'

/** A part of a message. */
export type ChatPart =
  | { type: 'text'; text: string }
  /** `samples`: 16 kHz, mono, from -1 to 1. */
  | { type: 'audio'; samples: Float32Array; seconds: number }
  /** RGB bytes. */
  | { type: 'image'; image: RawImage }
  /** Decoded frames of a video, or a video file that stays open until the answer ends. */
  | { type: 'video'; frames: readonly RawImage[] | Video }

/** Kind of content that a message may hold. */
export type ChatModality = 'text' | 'audio' | 'image' | 'video'

/** One message of the conversation. */
export interface ChatTurn {
  role: 'system' | 'user' | 'assistant'
  content: ChatPart[]
  /** For an assistant's turn, instead of content: the `audioId` of an earlier spoken answer. */
  audioId?: string
}

/** Options of a spoken answer, for models with audio output. */
export interface ChatSpeech {
  /** Reference clip of the speaker whose voice is used: mono, from -1 to 1. Default: the model's default voice. */
  voice?: { samples: Float32Array; sampleRate: number }
  /** Steps of the ODE solver that generates the audio. Default: the model's default. */
  steps?: number
}

/** Generation options of an answer. Omitted options take the model's defaults. */
export interface ChatAnswerOptions {
  /** Maximum number of tokens of the answer. */
  maxNewTokens: number
  /** Sampling temperature; 0 selects the most likely token (greedy decoding). */
  temperature?: number
  topP?: number
  topK?: number
  numBeams?: number
  seed?: number
  /** Options of the spoken answer. Set only if the request asks for audio output. */
  speech?: ChatSpeech
  /** Id of one of the model's `tasks`. The model applies its prompt for the task to the last message. */
  task?: string
  /** Candidate answers to score: the model returns their probabilities as `labelScores`. */
  labels?: readonly string[]
  /** Whether to return `views`: the image tiles and video frames of the last message that the model encodes. */
  views?: boolean
  /** Stop sequences. The server cuts the answer before the first one; a model may use them to stop early. */
  stop?: string[]
  /** Aborted when the client disconnects or a time limit passes: the model must stop within a token. */
  signal: AbortSignal
}

/** The next piece of a streamed answer. */
export interface ChatDelta {
  text: string
  /** Number of tokens in this piece, including tokens without text such as the end-of-sequence token. */
  tokens: number
  /** Number of prompt tokens, including audio. The API's `prompt_tokens` is 0 if no piece sets it. */
  promptTokens?: number
  /** Number of prompt tokens that were already in the prefix cache: the API's `cached_tokens`. */
  cachedTokens?: number
  /** The next characters of the transcript of the last message's audio. */
  heard?: string
  /** The next samples of the spoken answer: mono at the model's `audioRate`, from -1 to 1. */
  audio?: Float32Array
  /** An id by which later messages can refer to this spoken answer. */
  audioId?: string
  /** The last message after the task's prompt was applied. Later requests send it as that turn's text. */
  asked?: string
  /** Probability of each requested label; they sum to 1. */
  labelScores?: Readonly<Record<string, number>>
  /** Tiles and frames that the model encodes, one entry per image or video of the last message. */
  views?: readonly ChatView[]
  /** Reason for the end of the answer, if it does not follow from the number of tokens. */
  finishReason?: 'stop' | 'length'
}

/** The pixels of one image or video that a model encodes. */
export interface ChatView {
  kind: 'image' | 'video'
  /** RGB bytes [tiles, side, side, 3]: the tiles of an image (several are followed by a thumbnail), or frames of a video. */
  pixels: Uint8Array
  tiles: number
  side: number
  /** Layout of an image's tiles; null for a video. */
  grid: readonly [columns: number, rows: number] | null
  /** Indices of a video's frames; null for an image. */
  frames: readonly number[] | null
}

/** A task that a model was instruction-tuned for, as `/v1/models` and a button of the page show it. */
export interface ChatTask {
  id: string
  /** Label of the button: one or two words. */
  title: string
  /** One sentence on the input and output of the task. */
  hint: string
}

/**
 * A model for `serve`: it answers conversations of text, audio, images and videos. The client receives the messages of its
 * ConfigError, DataError, ShapeError and DTypeError; other errors are only written to the server's log.
 */
export interface ChatModel {
  /** Name of the model in `/v1/models` and in a request's `model`. */
  readonly name: string
  /** Input modalities, for `/v1/models` and the page. Default text and audio. */
  readonly inputModalities?: readonly ChatModality[]
  /** Output modalities, for `/v1/models` and the page. Default text. */
  readonly outputModalities?: readonly ('text' | 'audio')[]
  /** Tasks that a request may select with `task`. Default none. */
  readonly tasks?: readonly ChatTask[]
  /** Optional outputs that the model supports: `labelScores`, `views`. Default neither. */
  readonly extras?: readonly ('label_scores' | 'views')[]
  /** Number of frames that the model encodes per video; they count toward `maxPixels`. Default 8. */
  readonly videoFrames?: number
  /** Resampling method for clips whose rate is not 16 kHz. Default 'sinc'. */
  readonly clipQuality?: ResampleQuality
  /** Sample rate of spoken answers, in Hz. Required with audio output. */
  readonly audioRate?: number
  /** Number of answers that the model generates at once: the default of `maxConcurrent`. Default 2. */
  readonly concurrent?: number
  /** Return further gauges for `/metrics`; each name gets the prefix `voxtorch_`. */
  metrics?(): Readonly<Record<string, number>>
  /** Generate the answer to the last message. Leaving the loop, or `options.signal`, ends the generation. */
  stream(messages: ChatTurn[], options: ChatAnswerOptions): AsyncIterable<ChatDelta>
}

/** Load the model of `voxtorch serve NAME --model DIRECTORY`. In addition to device and dtype it may take options of its own. */
export type ChatModelLoader = (
  directory: string,
  options: { device?: string; dtype?: string; [own: string]: unknown },
) => Promise<ChatModel>
