import type { VideoFacts, VideoLimits } from './video-decoder.js'

// What a video's thread is asked for and answers. `control` is shared with the one who asks: how many replies he still takes,
// and whether he has had enough. What is decoded ahead is bounded by that.

/** Places in `control`, which is of int32. */
export const LEFT = 0
export const STOPPED = 1

export interface VideoWork {
  control: SharedArrayBuffer
  open?: { path: string; limits: VideoLimits }
  /** Numbers of frames, which ascend. */
  frames?: readonly number[]
  /** Its sound from one second to before another; null: to its end. */
  sound?: { start: number; end: number | null }
}

/** What is closed is not answered: who asked does not listen any more. */
export type VideoRequest = VideoWork | { close: true }

export interface SoundBlock {
  channelData: Float32Array[]
  sampleRate: number
}

export type VideoReply =
  | { facts: VideoFacts }
  | { place: number; pixels: Uint8Array }
  | SoundBlock
  /** Something is being done. */
  | { alive: true }
  | { done: true }
  /** `missing`: there is no node-av; `fault`: the file is to blame, and not us; `reason`: see `VideoFault`. */
  | { error: string; missing: boolean; fault: boolean; reason?: string | undefined }
