// The types that readers show to the outside, without what they read with.

/** An audio file, or the bytes of one. */
export type AudioInput = string | Uint8Array | ArrayBuffer

/** The containers that are read. RF64 and BW64 count as `'wav'`, AIFF-C as `'aiff'`. */
export type AudioFormat = 'wav' | 'w64' | 'aiff' | 'au' | 'caf' | CodedFormat

/** Those that need a decoder. */
export type CodedFormat = 'flac' | 'mp3' | 'vorbis' | 'opus' | 'm4a' | 'aac'
