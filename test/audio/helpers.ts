import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The folder of real recordings that not everybody has; see VOXTORCH_DATA. */
const data = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url))

export const dataPath = (name: string): string => `${data}/${name}`
export const hasData = (name: string): boolean => existsSync(dataPath(name))

/** A tone at full length, or its first `seconds` and then silence. */
export function tone(
  hertz: number,
  amplitude: number,
  sampleRate: number,
  samples: number,
  seconds = Infinity,
): Float32Array {
  return Float32Array.from({ length: samples }, (_, i) =>
    i < seconds * sampleRate ? amplitude * Math.sin((2 * Math.PI * hertz * i) / sampleRate) : 0,
  )
}
