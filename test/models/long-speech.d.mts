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
