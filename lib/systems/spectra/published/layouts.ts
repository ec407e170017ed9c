import { requireOneOf } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { Tensor } from '../../../tensor/index.js'
import { type Forms, isArray, type Waveform } from './fields.js'

/**
 * How a file of the published data lists its samples:
 *
 * | layout       | the file                 | a sample                                                            |
 * | ------------ | ------------------------ | ------------------------------------------------------------------- |
 * | `A`          | samples                  | audio, ids, label, [turn ids, [history audio]]                      |
 * | `A-readme`   | samples                  | audio, ids, label, history audio, [history ids]                     |
 * | `B`          | list of clips, samples   | clip number, ids, label, previous clip's number (-1: none), history ids |
 * | `B-turn-ids` | list of clips, samples   | clip number, ids, label, turn ids, previous clip's number (-1: none) |
 *
 * `A` is what the published reader expects, `A-readme` the order in which its README lists the fields.
 */
export type SpectraLayout = 'A' | 'A-readme' | 'B' | 'B-turn-ids'

export const SPECTRA_LAYOUTS: readonly SpectraLayout[] = ['A', 'A-readme', 'B', 'B-turn-ids']

/** A file's samples, and the clips that those of layout B refer to. */
export interface RawFile {
  clips: readonly unknown[] | undefined
  samples: readonly (readonly unknown[])[]
}

/** Splits a file into clips and samples. @throws DataError when it is neither a list of samples nor a pair of lists */
export function rawFile(root: unknown, file: string): RawFile {
  if (!Array.isArray(root)) throw fault(file, 'it holds no list')
  const [first, second] = root as unknown[]
  // Two samples of layout A are two lists as well, but the second begins with a waveform, not with a list that has lists.
  const sample: unknown = root.length === 2 && Array.isArray(second) ? second[0] : undefined
  const isPair = Array.isArray(sample) && (Array.isArray(sample[1]) || isArray(sample[1]))
  if (isPair) return { clips: clipsOf(first, file), samples: samplesOf(second as unknown[], file) }
  return { clips: undefined, samples: samplesOf(root, file) }
}

function clipsOf(value: unknown, file: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  // numpy makes one array of clips that are equally long.
  if (value instanceof Tensor && value.ndim === 2)
    return Array.from({ length: value.size(0) }, (_, i) => value.select(0, i))
  throw fault(file, 'the first of its two lists is no list of clips: give clips as a list of waveforms')
}

function samplesOf(list: readonly unknown[], file: string): readonly (readonly unknown[])[] {
  if (list.length === 0) throw fault(file, 'it holds no samples')
  const odd = list.findIndex((sample) => !Array.isArray(sample) || sample.length < 3 || sample.length > 5)
  if (odd >= 0) throw fault(file, `sample ${odd} is no list of three to five fields`, { sample: odd })
  const samples = list as readonly (readonly unknown[])[]
  const other = samples.findIndex((sample) => sample.length !== samples[0]!.length)
  if (other < 0) return samples
  throw fault(
    file,
    `sample ${other} has ${samples[other]!.length} fields and sample 0 has ${samples[0]!.length}: history must be in all or none`,
    { sample: other },
  )
}

/**
 * Which layout a file has, from the forms of all its samples' fields.
 * @param wanted overrides what is found; the file must then be readable so
 * @throws DataError when no layout fits, or several do
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
    throw fault(file, `it is ${found}, which is not layout ${wanted}`, { layout: wanted })
  }
  if (fields === 3 && clips === undefined) return 'A'
  if (fits.length === 1) return fits[0]!
  if (fits.length > 1) {
    throw fault(
      file,
      `its fields fit the layouts ${fits.join(' and ')} alike: say which it is with the option layout`,
      {
        layouts: fits,
      },
    )
  }
  const best = candidates.map((layout) => forms.findIndex((form) => !RULES[layout](form, fields)))
  const where = candidates.map((layout, i) => `not ${layout} by sample ${best[i]}`).join(', ')
  throw fault(file, `no layout fits its fields (${where}): say which it is with the option layout`, {
    layouts: candidates,
  })
}

/** Whether a sample may be of a layout. */
const RULES: Record<SpectraLayout, (form: Forms, fields: number) => boolean> = {
  A: ({ third, fourth }, fields) => fields === 3 || (third.turnIds && (fields === 4 || fourth.waveform)),
  // An empty list says nothing about what it would hold: some other sample has to.
  'A-readme': ({ third, fourth }, fields) =>
    fields === 3 || (third.waveform && !third.turnIds && (fields === 4 || fourth.ids)),
  B: ({ third, fourth }, fields) => fields === 5 && third.index && fourth.ids,
  'B-turn-ids': ({ third, fourth }, fields) => fields === 5 && third.turnIds && fourth.index,
}

/** A sample in one form, whatever its layout. */
export interface PublishedSample {
  audio: Waveform
  inputIds: readonly number[]
  label: number
  turnIds?: readonly number[]
  /** Null where there is no earlier turn. */
  historyAudio?: Waveform | null
}

/** What history means in each layout: earlier ids go in front of the current ones, without the latter's `<s>`. */
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
