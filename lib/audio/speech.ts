// Apart from clip.ts: command lines need these and must not load libtorch for them.

/** What speech networks read, in Hz. */
export const SPEECH_RATE = 16_000

/** What can become of audio that is longer than a network hears at once. */
export const LONG_AUDIO = ['windows', 'cut', 'error'] as const

/** `'windows'`: it is heard in parts; `'cut'`: its beginning only, and that is told; `'error'`: a DataError. */
export type LongAudio = (typeof LONG_AUDIO)[number]
