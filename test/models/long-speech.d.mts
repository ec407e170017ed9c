export interface LongSpeech {
  samples: Float32Array
  clips: { name: string; level: number; start: number; end: number }[]
}
export function longSpeech(
  folder: string,
  seconds: number,
  readClip: (file: string) => Promise<Float32Array>,
  seed?: number,
): Promise<LongSpeech>
export function wordsOf(text: string): string[]
export interface Differences {
  inserted: number
  deleted: number
  changed: number
  longestInserted: number
  longestDeleted: number
}
export function differences(reference: readonly string[], words: readonly string[]): Differences
export interface Transcript {
  segments: readonly { start: number; end: number; text: string; avgLogprob: number }[]
  skipped: readonly { start: number; end: number }[]
}
export interface Places {
  skipped: number
  border: number
  elsewhere: { inserted: number; deleted: number; changed: number }
}
export function placesOfDifferences(plain: Transcript, other: Transcript): Places
export function untoldClips(
  clips: LongSpeech['clips'],
  texts: Readonly<Record<string, string>>,
  transcript: Transcript,
): LongSpeech['clips']
