/** Synthesize sentences as audio files, once each. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as vt from 'voxtorch'

export interface Spoken {
  /** Name of the WAV file: a hash of the other fields, so a changed plan never reads an old file. */
  file: string
  text: string
  /** An espeak-ng voice and its variant. */
  voice: string
  /** espeak-ng's base pitch (0 to 99), speed (words a minute) and pitch range (0 to 99). */
  pitch: number
  speed: number
  range: number
}

export const RATE = 16_000

/** Add the name of its file to a clip's plan. */
export function spoken<T extends Omit<Spoken, 'file'>>(clip: T): T & { file: string } {
  return { file: `${createHash('sha256').update(JSON.stringify(clip)).digest('hex').slice(0, 20)}.wav`, ...clip }
}

/**
 * Speaks what is not in the folder yet, in two worker threads, at 16 kHz; `shape` makes what is kept of the samples `[n]`. A run that
 * was stopped goes on where it was.
 */
export async function speakClips(
  clips: readonly Spoken[],
  folder: string,
  shape: (samples: vt.Tensor) => vt.Tensor = (samples) => samples,
): Promise<void> {
  await mkdir(folder, { recursive: true })
  const missing = clips.filter((clip) => !existsSync(join(folder, clip.file)))
  if (missing.length === 0) return
  const speaker = new URL('./speak.js', import.meta.url)
  const loader = new vt.DataLoader<{ file: string; wav: Uint8Array }>(speaker, { workers: 2, workerData: missing })
  using bar = new vt.ProgressBar({ total: missing.length, label: 'speak', unit: 'clips' })
  for await (const [made] of loader) {
    await vt.scope(async () => {
      const { samples } = await vt.readAudio(made!.wav, { sampleRate: RATE })
      await vt.writeWav(join(folder, made!.file), shape(samples.flatten()), { sampleRate: RATE })
    })
    bar.tick()
  }
}
