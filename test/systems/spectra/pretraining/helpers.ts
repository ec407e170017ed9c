import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'

/** The folder of real data that not everybody has. */
const data = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../../shared/data', import.meta.url))
export const hasData = (name: string): boolean => existsSync(join(data, name))
export const dataPath = (name: string): string => join(data, name)

/** A folder that is gone after the file's tests. */
export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-spectra-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A sine of `seconds` at 16 kHz; each pitch is another clip. */
export const sine = (seconds: number, pitch = 220): Float32Array =>
  Float32Array.from(
    { length: Math.round(seconds * 16000) },
    (_, i) => 0.5 * Math.sin((2 * Math.PI * pitch * i) / 16000),
  )

export async function writeClip(path: string, samples: Float32Array, sampleRate = 16000): Promise<void> {
  await vt.scope(() => vt.writeWav(path, vt.tensor(samples), { sampleRate }))
}

/** One token for each letter, 10 for "a". */
export const letters: (word: string) => readonly number[] = (word) =>
  [...word].filter((c) => c >= 'a' && c <= 'z').map((c) => c.charCodeAt(0) - 87)

/** WavLM's seven convolutions. */
export function frames7(samples: number): number {
  const strides = [5, 2, 2, 2, 2, 2, 2]
  return [10, 3, 3, 3, 3, 2, 2].reduce(
    (n, kernel, i) => Math.max(0, Math.trunc((n - kernel) / (strides[i] as number)) + 1),
    samples,
  )
}

/** An entry of `tokens` ids with one word for each, a tenth of a second long. */
export function entry(number: number, previous: number, tokens = 3, samples = 16000): spectra.SpectraEntry {
  const inputIds = [0, ...Array.from({ length: tokens }, (_, i) => 100 + 10 * number + i), 2]
  const words = Array.from({ length: tokens }, (_, i) => {
    return [`w${i}`, i + 1, i + 2, 1600 * i, 1600 * (i + 1)] as const
  })
  return { audio: String(number), samples, inputIds, words, previous }
}

/** Chains of so many turns each; audio is a constant that tells the entry. */
export function chains(...lengths: number[]): {
  entries: spectra.SpectraEntry[]
  source: spectra.SpectraPretrainingSource
} {
  const entries = lengths.flatMap((length, chain) => {
    const start = lengths.slice(0, chain).reduce((sum, value) => sum + value, 0)
    return Array.from({ length }, (_, i) => entry(start + i, i === 0 ? -1 : start + i - 1))
  })
  return {
    entries,
    source: spectra.spectraPretrainingSource(entries, ({ audio, samples }) =>
      new Float32Array(samples as number).fill(Number(audio) / 1000),
    ),
  }
}
