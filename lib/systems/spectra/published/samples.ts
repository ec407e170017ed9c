import { shown } from '../../../base/check.js'
import { labelNumber } from '../../../kit/task.js'
import type { Tensor } from '../../../tensor/index.js'
import type { SpectraSample } from '../data/sample.js'
import type { SpectraTask } from '../evaluation/task.js'
import { formsOf, integersOf, oneNumber, type Waveform, waveformOf } from './fields.js'
import {
  fault,
  layoutOf,
  type PublishedSample,
  type RawFile,
  rawFile,
  type SpectraLayout,
  withHistory,
} from './layouts.js'

/** The samples of a file, and its layout. */
export interface PublishedFile {
  layout: SpectraLayout
  samples: SpectraSample[]
}

/**
 * Convert the contents of a pickle to samples. Waveforms are the tensors of the pickle; samples of layout B share the tensors of their
 * clips.
 *
 * @throws DataError naming the file and the sample
 */
export async function publishedSamples(
  root: unknown,
  file: string,
  task: SpectraTask,
  wanted: SpectraLayout | 'auto' = 'auto',
): Promise<PublishedFile> {
  const raw = rawFile(root, file)
  const ids = await Promise.all(raw.samples.map((sample, i) => idsOf(sample[1], `${file}: sample ${i}`)))
  const forms = raw.samples.map((sample, i) => formsOf(sample, ids[i]!))
  const layout = layoutOf(raw, forms, file, wanted)
  const reader = new Reader(raw, file, layout)
  const samples: SpectraSample[] = []
  for (const [i, fields] of raw.samples.entries()) {
    const where = `${file}: sample ${i}`
    const read = await reader.read(fields, ids[i]!, where)
    checkLabel(read.label, task, where)
    samples.push({ ...read, source: where })
  }
  return { layout, samples }
}

class Reader {
  readonly #clips: (Waveform | null)[]

  constructor(
    { clips = [] }: RawFile,
    readonly file: string,
    readonly layout: SpectraLayout,
  ) {
    this.#clips = clips.map((clip, i) => {
      const waveform = waveformOf(clip)
      if (waveform === undefined) {
        throw fault(file, `clip ${i}: expected a floating point waveform, got ${shown(clip)}`, { clip: i })
      }
      return waveform
    })
  }

  async read(fields: readonly unknown[], ids: readonly number[], where: string): Promise<PublishedSample> {
    const label = await oneNumber(fields[2])
    if (label === undefined || !Number.isFinite(label)) {
      throw fault(where, `label: expected a finite number, got ${shown(fields[2])}`)
    }
    const [first, , , third, fourth] = fields
    switch (this.layout) {
      case 'A': {
        const plain = { audio: this.#speech(first, where), inputIds: ids, label }
        if (fields.length === 3) return plain
        const turns = await turnIds(third, ids, where)
        if (fields.length === 4) return { ...plain, turnIds: turns }
        return { ...plain, turnIds: turns, historyAudio: this.#history(fourth, where) }
      }
      case 'A-readme': {
        const plain = { audio: this.#speech(first, where), label }
        if (fields.length === 3) return { ...plain, inputIds: ids }
        const historyAudio = this.#history(third, where)
        if (fields.length === 4) return { ...plain, inputIds: ids, historyAudio }
        const historyIds = fourth === null ? [] : await idsOf(fourth, where, 'history ids')
        return { ...plain, ...withHistory(ids, historyIds, historyIds.length > 0), historyAudio }
      }
      case 'B': {
        const previous = await this.#index(third, where, -1)
        const historyIds = fourth === null ? [] : await idsOf(fourth, where, 'history ids')
        return {
          audio: await this.#clip(first, where),
          label,
          ...withHistory(ids, historyIds, previous >= 0),
          historyAudio: previous < 0 ? null : this.#clips[previous]!,
        }
      }
      case 'B-turn-ids': {
        const previous = await this.#index(fourth, where, -1)
        return {
          audio: await this.#clip(first, where),
          inputIds: ids,
          label,
          turnIds: await turnIds(third, ids, where),
          historyAudio: previous < 0 ? null : this.#clips[previous]!,
        }
      }
    }
  }

  async #clip(value: unknown, where: string): Promise<Waveform> {
    const clip = this.#clips[await this.#index(value, where, 0)]!
    if (clip === null) throw fault(where, 'expected audio, got an empty clip')
    return clip
  }

  async #index(value: unknown, where: string, least: number): Promise<number> {
    const index = await oneNumber(value)
    if (index !== undefined && Number.isInteger(index) && index >= least && index < this.#clips.length) return index
    throw fault(where, `expected a clip index below ${this.#clips.length}, got ${String(index)}`, { index })
  }

  #speech(value: unknown, where: string): Waveform {
    const waveform = waveformOf(value)
    if (waveform === undefined) throw fault(where, `audio: expected floating point [samples], got ${shapeOf(value)}`)
    if (waveform === null) throw fault(where, 'audio: expected samples, got none')
    return waveform
  }

  #history(value: unknown, where: string): Waveform | null {
    const waveform = waveformOf(value)
    if (waveform === undefined) {
      throw fault(where, `history audio: expected floating point [samples], got ${shapeOf(value)}`)
    }
    return waveform
  }
}

const shapeOf = (value: unknown): string =>
  typeof (value as Tensor | null)?.dtype === 'string'
    ? `${(value as Tensor).dtype} [${(value as Tensor).shape}]`
    : shown(value)

async function idsOf(value: unknown, where: string, what = 'token ids'): Promise<readonly number[]> {
  const ids = await integersOf(value)
  if (ids === undefined) throw fault(where, `${what}: expected a list of integers of at least 0, got ${shown(value)}`)
  if (ids.length === 0 && what === 'token ids') throw fault(where, 'token ids: expected at least one, got none')
  return ids
}

async function turnIds(value: unknown, ids: readonly number[], where: string): Promise<readonly number[]> {
  const turns = await integersOf(value)
  if (turns?.length === ids.length && turns.every((turn) => turn <= 1)) return turns
  throw fault(where, `turn ids: expected ${ids.length} values 0 or 1, one per token, got ${shown(value)}`)
}

function checkLabel(label: number, task: SpectraTask, where: string): void {
  try {
    labelNumber(label, task)
  } catch (error) {
    throw fault(where, (error as Error).message, { label })
  }
}
