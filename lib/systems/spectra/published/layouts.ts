import { requireOneOf, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { Tensor } from '../../../tensor/index.js'
import { type Forms, isArray, type Waveform } from './fields.js'

/**
 * The layout of a published file:
 *
 * | layout       | the file                 | a sample                                                            |
 * | ------------ | ------------------------ | ------------------------------------------------------------------- |
 * | `A`          | samples                  | audio, ids, label, [turn ids, [history audio]]                      |
 * | `A-readme`   | samples                  | audio, ids, label, history audio, [history ids]                     |
 * | `B`          | list of clips, samples   | clip number, ids, label, previous clip's number (-1: none), history ids |
 * | `B-turn-ids` | list of clips, samples   | clip number, ids, label, turn ids, previous clip's number (-1: none) |
 *
 * The published reader expects `A`; its README lists the fields in the order of `A-readme`.
 */
export type SpectraLayout = 'A' | 'A-readme' | 'B' | 'B-turn-ids'

export const SPECTRA_LAYOUTS: readonly SpectraLayout[] = ['A', 'A-readme', 'B', 'B-turn-ids']

/** The samples of a file, and for layout B the clips that they refer to. */
export interface RawFile {
  clips: readonly unknown[] | undefined
  samples: readonly (readonly unknown[])[]
}

/** Split a file into clips and samples. @throws DataError unless it is a list of samples or a pair of lists */
export function rawFile(root: unknown, file: string): RawFile {
  if (!Array.isArray(root)) throw fault(file, `expected a list, got ${shown(root)}`)
  const [first, second] = root as unknown[]
  // Two samples of layout A are also a pair of lists, but the second one starts with a waveform, not with a list of lists.
  const sample: unknown = root.length === 2 && Array.isArray(second) ? second[0] : undefined
  const isPair = Array.isArray(sample) && (Array.isArray(sample[1]) || isArray(sample[1]))
  if (isPair) return { clips: clipsOf(first, file), samples: samplesOf(second as unknown[], file) }
  return { clips: undefined, samples: samplesOf(root, file) }
}

function clipsOf(value: unknown, file: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  // numpy stores clips of equal length as one array.
  if (value instanceof Tensor && value.ndim === 2)
    return Array.from({ length: value.size(0) }, (_, i) => value.select(0, i))
  throw fault(file, `expected a list of waveforms as the first of its two lists, got ${shown(value)}`)
}

function samplesOf(list: readonly unknown[], file: string): readonly (readonly unknown[])[] {
  if (list.length === 0) throw fault(file, 'expected at least one sample, got none')
  const odd = list.findIndex((sample) => !Array.isArray(sample) || sample.length < 3 || sample.length > 5)
  if (odd >= 0) {
    throw fault(file, `sample ${odd}: expected a list of three to five fields, got ${shown(list[odd])}`, {
      sample: odd,
    })
  }
  const samples = list as readonly (readonly unknown[])[]
  const other = samples.findIndex((sample) => sample.length !== samples[0]!.length)
  if (other < 0) return samples
  throw fault(
    file,
    `expected the same number of fields in all samples, got ${samples[other]!.length} in sample ${other} and ${samples[0]!.length} in sample 0. Add history to all or none.`,
    { sample: other },
  )
}

/**
 * Return the layout of a file, from the fields of all its samples.
 * @param wanted overrides the detection; the file must be readable in this layout
 * @throws DataError if no layout matches, or several do
 */
export function layoutOf(
  { clips, samples }: RawFile,
  forms: readonly Forms[],
  file: string,
  wanted: SpectraLayout | 'auto' = 'auto',
): SpectraLayout {
  requireOneOf('SPECTRA data', 'layout', wanted, [...SPECTRA_LAYOUTS, 'auto'])
  const fields = samples[0]!.length
  const candidates = SPECTRA_LAYOUTS.filter((layout) => layout.startsWith('B') === (clips !== undefined))
  const fits = candidates.filter((layout) => forms.every((form) => RULES[layout](form, fields)))
  if (wanted !== 'auto') {
    if (candidates.includes(wanted)) return wanted
    const found = clips === undefined ? 'a list of samples' : 'a pair of lists'
    throw fault(file, `expected layout ${wanted}, got ${found}`, { layout: wanted })
  }
  if (fields === 3 && clips === undefined) return 'A'
  if (fits.length === 1) return fits[0]!
  if (fits.length > 1) {
    throw fault(
      file,
      `expected fields of one layout, got fields that match ${fits.join(' and ')}. Set the option layout.`,
      { layouts: fits },
    )
  }
  const best = candidates.map((layout) => forms.findIndex((form) => !RULES[layout](form, fields)))
  const where = candidates.map((layout, i) => `not ${layout} by sample ${best[i]}`).join(', ')
  throw fault(file, `expected fields of a known layout, got a mismatch with each: ${where}. Set the option layout.`, {
    layouts: candidates,
  })
}

/** Return whether a sample matches a layout. */
const RULES: Record<SpectraLayout, (form: Forms, fields: number) => boolean> = {
  A: ({ third, fourth }, fields) => fields === 3 || (third.turnIds && (fields === 4 || fourth.waveform)),
  // An empty list matches several contents: another sample has to decide.
  'A-readme': ({ third, fourth }, fields) =>
    fields === 3 || (third.waveform && !third.turnIds && (fields === 4 || fourth.ids)),
  B: ({ third, fourth }, fields) => fields === 5 && third.index && fourth.ids,
  'B-turn-ids': ({ third, fourth }, fields) => fields === 5 && third.turnIds && fourth.index,
}

/** A sample, independent of its layout. */
export interface PublishedSample {
  audio: Waveform
  inputIds: readonly number[]
  label: number
  turnIds?: readonly number[]
  /** Null without a previous turn. */
  historyAudio?: Waveform | null
}

/** Add history, which is the same in each layout: previous ids come before the current ones, without the `<s>` of the latter. */
export function withHistory(
  ids: readonly number[],
  historyIds: readonly number[],
  hasHistory: boolean,
): { inputIds: readonly number[]; turnIds: readonly number[] } {
  if (!hasHistory) return { inputIds: ids, turnIds: ids.map(() => 1) }
  return {
    inputIds: [...historyIds, ...ids.slice(1)],
    turnIds: [...historyIds.map(() => 0), ...ids.slice(1).map(() => 1)],
  }
}

export const fault = (file: string, what: string, fields: Record<string, unknown> = {}): DataError =>
  new DataError(`${file}: ${what}`, { file, ...fields })
