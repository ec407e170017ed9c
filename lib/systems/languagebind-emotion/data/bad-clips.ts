import { existsSync } from 'node:fs'
import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import type { EmotionTower } from '../network/towers.js'

/** Why a clip could not be read, for counting. */
export type BadClipReason = 'no such file' | 'no sound' | 'no video' | 'not decodable'

/**
 * Clips that towers cannot read. With 'skip' the utterance lacks that modality, and they are counted by reason; with 'stop' the
 * first one is an error. A package that is missing is an error in any case: without it no clip could be read.
 */
export class BadClips {
  readonly #bad: BadRecords
  /** Utterances and modalities that are counted already: a tower that trains reads its clips in each epoch. */
  readonly #known = new Set<string>()

  constructor(policy: OnBadRecord) {
    this.#bad = new BadRecords(policy)
  }

  get count(): number {
    return this.#bad.count
  }

  /** How many of each reason. */
  get reasons(): Readonly<Record<string, number>> {
    return this.#bad.reasons
  }

  /** Of the first hundred. */
  get errors(): readonly DataError[] {
    return this.#bad.errors
  }

  /** What is to be said of them; '' where there are none. */
  get note(): string {
    return badClipsNote(this.reasons, this.errors[0]?.message)
  }

  /** A tower that reads what can be read. */
  reading<Tower extends EmotionTower>(tower: Tower): EmotionTower {
    if (this.#bad.policy === 'stop') return tower
    const forgiving =
      <T>(read: (dialog: EmotionDialog, place: number) => Promise<T | undefined>) =>
      async (dialog: EmotionDialog, place: number): Promise<T | undefined> => {
        try {
          return await read(dialog, place)
        } catch (error) {
          this.#add(tower, dialog, place, error)
          return undefined
        }
      }
    return {
      ...{ modality: tower.modality, network: tower.network },
      get size() {
        return tower.size
      },
      get steps() {
        return tower.steps
      },
      get recipe() {
        return tower.recipe
      },
      get reference() {
        return tower.reference
      },
      source: forgiving((dialog, place) => tower.source(dialog, place)),
      read: forgiving((dialog, place) => tower.read(dialog, place)),
      encode: (inputs) => tower.encode(inputs),
      ...(tower.save && { save: (folder, saved) => (tower.save as NonNullable<Tower['save']>)(folder, saved) }),
    }
  }

  #add(tower: EmotionTower, dialog: EmotionDialog, place: number, error: unknown): void {
    if (!(error instanceof DataError) || (error as { missing?: unknown }).missing !== undefined) throw error
    const key = `${dialog.source}\0${place}\0${tower.modality}`
    if (this.#known.has(key)) return
    this.#known.add(key)
    const { message, fields } = clipFault(tower, dialog, place, error)
    this.#bad.note(reasonOf(error), message, fields)
  }
}

/** What a tower reads of an utterance. @throws DataError that names the utterance too, for a clip that cannot be read */
export async function readUtterance<Input>(
  tower: EmotionTower<Input>,
  dialog: EmotionDialog,
  place: number,
): Promise<Input | undefined> {
  try {
    return await tower.read(dialog, place)
  } catch (error) {
    if (!(error instanceof DataError)) throw error
    const { message, fields } = clipFault(tower, dialog, place, error)
    throw new DataError(message, fields)
  }
}

function clipFault(tower: Pick<EmotionTower, 'modality'>, dialog: EmotionDialog, place: number, cause: DataError) {
  const { file, missing } = cause as { file?: string; missing?: string }
  const fields = { modality: tower.modality, reason: reasonOf(cause), ...(file !== undefined && { file }), cause }
  const message = `${dialog.source}, utterance ${dialog.utterances[place]?.id}: its ${tower.modality}: ${cause.message}`
  return { message, fields: { ...fields, ...(missing !== undefined && { missing }) } }
}

function reasonOf(error: DataError): BadClipReason {
  const { file, reason } = error as { file?: string; reason?: string }
  if (file !== undefined && !existsSync(file)) return 'no such file'
  if (reason === 'no video' || reason === 'no sound') return reason
  return 'not decodable'
}

/** Counts by reason as a sentence; '' where there are none. */
export function badClipsNote(reasons: Readonly<Record<string, number>>, first?: string): string {
  const named = Object.entries(reasons)
  if (named.length === 0) return ''
  const count = named.reduce((sum, [, one]) => sum + one, 0)
  const what = count === 1 ? '1 clip could not be read and counts' : `${count} clips could not be read and count`
  const each = named.map(([reason, one]) => `${reason}: ${one}`).join(', ')
  return `${what} as missing (${each})${first === undefined ? '' : `, the first: ${first}`}`
}
