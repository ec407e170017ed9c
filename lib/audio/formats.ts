// The types that readers show to the outside, without what they read with.

/** An audio file, or the bytes of one. */
export type AudioInput = string | Uint8Array | ArrayBuffer

/** The containers that are read. */
export type AudioFormat = 'wav' | 'flac' | 'mp3' | 'vorbis' | 'opus' | 'm4a' | 'aac'
