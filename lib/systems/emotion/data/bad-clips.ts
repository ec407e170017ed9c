import { existsSync } from 'node:fs'
import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import type { EmotionEncoder } from '../network/encoders.js'

/** Reason why a clip could not be read. */
export type BadClipReason = 'no such file' | 'no sound' | 'no video' | 'not decodable' // language: values of `badClips` in results.json

/**
 * Record of clips that encoders cannot read. With 'skip' the utterance lacks the modality, and clips are counted by reason. With
 * 'stop' the first such clip is an error. A missing optional package is always an error, because no clip could be read.
 */
export class BadClips {
  readonly #bad: BadRecords
  /** Utterances and modalities that are counted already: an encoder that trains reads its clips in each epoch. */
  readonly #known = new Set<string>()

  constructor(policy: OnBadRecord) {
    this.#bad = new BadRecords(policy)
  }

  get count(): number {
    return this.#bad.count
  }

  /** Number of clips by reason. */
  get reasons(): Readonly<Record<string, number>> {
    return this.#bad.reasons
  }

  /** Errors of the first hundred clips. */
  get errors(): readonly DataError[] {
    return this.#bad.errors
  }

  /** A sentence about the clips; '' if there are none. */
  get note(): string {
    return badClipsNote(this.reasons, this.errors[0]?.message)
  }

  /** Wrap an encoder so that it skips and counts clips that it cannot read. With 'stop' return the encoder itself. */
  reading<Encoder extends EmotionEncoder>(encoder: Encoder): EmotionEncoder {
    if (this.#bad.policy === 'stop') return encoder
    const tolerant =
      <T>(read: (dialog: EmotionDialog, place: number) => Promise<T | undefined>) =>
      async (dialog: EmotionDialog, place: number): Promise<T | undefined> => {
        try {
          return await read(dialog, place)
        } catch (error) {
          this.#add(encoder, dialog, place, error)
          return undefined
        }
      }
    return {
      ...{ modality: encoder.modality, network: encoder.network },
      get size() {
        return encoder.size
      },
      get steps() {
        return encoder.steps
      },
      get recipe() {
        return encoder.recipe
      },
      get reference() {
        return encoder.reference
      },
      source: tolerant((dialog, place) => encoder.source(dialog, place)),
      read: tolerant((dialog, place) => encoder.read(dialog, place)),
      encode: (inputs) => encoder.encode(inputs),
      ...(encoder.save && { save: (folder, saved) => (encoder.save as NonNullable<Encoder['save']>)(folder, saved) }),
    }
  }

  #add(encoder: EmotionEncoder, dialog: EmotionDialog, place: number, error: unknown): void {
    if (!(error instanceof DataError) || (error as { missing?: unknown }).missing !== undefined) throw error
    const key = `${dialog.source}\0${place}\0${encoder.modality}`
    if (this.#known.has(key)) return
    this.#known.add(key)
    const { message, fields } = clipFault(encoder, dialog, place, error)
    this.#bad.note(reasonOf(error), message, fields)
  }
}

/** Read the input of an utterance. @throws DataError that also names the utterance, for a clip that cannot be read */
export async function readUtterance<Input>(
  encoder: EmotionEncoder<Input>,
  dialog: EmotionDialog,
  place: number,
): Promise<Input | undefined> {
  try {
    return await encoder.read(dialog, place)
  } catch (error) {
    if (!(error instanceof DataError)) throw error
    const { message, fields } = clipFault(encoder, dialog, place, error)
    throw new DataError(message, fields)
  }
}

function clipFault(encoder: Pick<EmotionEncoder, 'modality'>, dialog: EmotionDialog, place: number, cause: DataError) {
  const { file, missing } = cause as { file?: string; missing?: string }
  const fields = { modality: encoder.modality, reason: reasonOf(cause), ...(file !== undefined && { file }), cause }
  const message = `${dialog.source}, utterance ${dialog.utterances[place]?.id}, ${encoder.modality}: ${cause.message}`
  return { message, fields: { ...fields, ...(missing !== undefined && { missing }) } }
}

function reasonOf(error: DataError): BadClipReason {
  const { file, reason } = error as { file?: string; reason?: string }
  if (file !== undefined && !existsSync(file)) return 'no such file'
  if (reason === 'no video' || reason === 'no sound') return reason // language: values of `badClips` in results.json
  return 'not decodable'
}

/** Return a sentence with the counts by reason; '' if there are none. */
export function badClipsNote(reasons: Readonly<Record<string, number>>, first?: string): string {
  const named = Object.entries(reasons)
  if (named.length === 0) return ''
  const count = named.reduce((sum, [, one]) => sum + one, 0)
  const what =
    count === 1
      ? '1 clip could not be read and counts as missing'
      : `${count} clips could not be read and count as missing`
  const each = named.map(([reason, one]) => `${reason}: ${one}`).join(', ')
  return `${what} (${each})${first === undefined ? '' : `, first error: ${first}`}`
}
