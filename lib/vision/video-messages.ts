import type { VideoFacts, VideoLimits } from './video-decoder.js'

// Messages to and from the worker thread of a video. `control` is shared with the caller: the number of replies that the thread
// may still send, which bounds how much is decoded ahead, and a flag that stops it.

/** Indices in `control`, an Int32Array. */
export const LEFT = 0
export const STOPPED = 1

export interface VideoWork {
  control: SharedArrayBuffer
  open?: { path: string; limits: VideoLimits }
  /** Ascending frame indices. */
  frames?: readonly number[]
  /** Read audio from `start` to before `end`, in seconds; null: to the end. */
  audio?: { start: number; end: number | null }
}

/** Request to the worker thread. `close` has no reply. */
export type VideoRequest = VideoWork | { close: true }

export interface AudioBlock {
  channelData: Float32Array[]
  sampleRate: number
}

export type VideoReply =
  | { facts: VideoFacts }
  | { place: number; pixels: Uint8Array }
  | AudioBlock
  /** Sign of life. */
  | { alive: true }
  | { done: true }
  /** `missing`: node-av is not installed; `fault`: the error is caused by the file; `reason`: see `VideoFault`. */
  | { error: string; missing: boolean; fault: boolean; reason?: string | undefined }
