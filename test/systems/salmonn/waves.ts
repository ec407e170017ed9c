import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import * as vt from '../../../lib/index.js'
import type * as salmonn from '../../../lib/systems/salmonn/index.js'

/** Writes a WAV file of constant value for each channel. */
export async function writeClip(path: string, samples: number, values: number[] = [0.5], rate = 16_000): Promise<void> {
  mkdirSync(dirname(path), { recursive: true })
  const planes = vt.stack(values.map((value) => vt.full([samples], value, { dtype: 'float32' })))
  await vt.writeWav(path, planes, { sampleRate: rate })
}

/** An entry of the data, for what is tested beside it. */
export const entry = (more: Partial<salmonn.SalmonnEntry> = {}): salmonn.SalmonnEntry => ({
  id: 'd1',
  task: 'asr',
  audio: ['a.wav'],
  target: 'words',
  question: '',
  emotions: undefined,
  dialog: 'd1',
  speaker: undefined,
  trailingGap: true,
  source: 'file.json, item 1',
  ...more,
})
