import type { VideoFacts, VideoLimits } from './video-decoder.js'

// Messages to and from the worker thread of a video, and what it shares with its caller (`workerData`, an Int32Array).

/** Number of replies that the thread may still send, which bounds how much is decoded ahead. */
export const LEFT = 0
/** Not 0: the thread stops its work. */
export const STOPPED = 1
/** Number of requests that the thread has not finished. */
export const PENDING = 2

export interface VideoWork {
  open?: { path: string; limits: VideoLimits }
  /** Ascending frame indices. */
  frames?: readonly number[]
  /** Read audio from `start` to before `end`, in seconds; null: to the end. */
  audio?: { start: number; end: number | null }
}

/** Request to the worker thread. `close` closes the video and `exit` ends the thread; both have no reply. */
export type VideoRequest = VideoWork | { close: true } | { exit: true }

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
