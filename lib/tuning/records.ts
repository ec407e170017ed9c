import { setImmediate as macrotask } from 'node:timers/promises'
import { argumentError, isList, shown } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { checkedBy } from '../base/settings.js'
import { loadDataset } from '../datasets/load-dataset.js'
import { StreamingDataset } from '../datasets/streaming-dataset.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Records: a list, the source of `loadDataset` (a file, a folder or a dataset of the Hub), or an open dataset. */
export type Records<R> = readonly R[] | string | StreamingDataset

/** Type of a setting with records. */
export const RECORDS = <R>() =>
  checkedBy<Records<R>>((where, name, value) => {
    if (typeof value === 'string' || Array.isArray(value) || value instanceof StreamingDataset) return
    throw argumentError(where, name, 'a list of records, a file, a folder or a StreamingDataset', value)
  })

/** A record with its place. */
export interface LocatedRecord {
  record: Record<string, unknown>
  /** Place for messages, such as `pairs.jsonl, line 3`. */
  place: string
  /** Fields of an error about the record. */
  fields: Record<string, unknown>
  /** Count the record under a reason, or throw, as `onBadRecord` states. */
  refuse(reason: string, message: string): void
  /** Folder that paths of media are relative to; undefined for records in memory. */
  root?: string
}

/** Yield records that are objects. Others, and those that cannot be read, go to `bad`. @param name name of the argument */
export async function* recordsOf(
  records: Records<unknown>,
  bad: BadRecords,
  name: string,
): AsyncGenerator<LocatedRecord> {
  for await (const { value, place, fields, root } of located(records, bad, name)) {
    const refuse = (reason: string, message: string) => bad.note(reason, `${place}: ${message}`, fields)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      refuse('invalid record', `expected an object, got ${shown(value)}.`)
      continue
    }
    yield { record: value as Record<string, unknown>, place, fields, refuse, ...(root !== undefined && { root }) }
  }
}

interface Located {
  value: unknown
  place: string
  fields: Record<string, unknown>
  root?: string
}

async function* located(records: Records<unknown>, bad: BadRecords, name: string): AsyncGenerator<Located> {
  if (isList(records)) {
    for (const [i, value] of records.entries()) {
      if (i % 64 === 63) await macrotask()
      yield { value, place: `${name}[${i}]`, fields: { record: i } }
    }
    return
  }
  const dataset = typeof records === 'string' ? await loadDataset(records) : (records as StreamingDataset)
  for await (const { record, error, file, root, place } of dataset.located()) {
    const fields = { file, ...place }
    const where = Object.entries(place).map(([key, value]) => `, ${key} ${String(value)}`)
    if (error !== undefined) bad.note('unreadable record', error.message, fields)
    else yield { value: record, place: `${file}${where.join('')}`, fields, root }
  }
}

/** Return the error for data without a usable record. @param where name of the function @param what what each record is */
export const noRecords = (where: string, what: string, name: string, bad: BadRecords): DataError =>
  new DataError(
    `${where}: expected at least one ${what} in ${name}, got none${bad.count > 0 ? `; ${bad.count} were left out` : ''}.`,
    { reasons: bad.reasons },
  )

export const isMessage = (message: unknown): boolean =>
  typeof message === 'object' && message !== null && typeof (message as ChatMessage).role === 'string'

/** Whether a value is a list of at least one message. */
export const isConversation = (value: unknown): value is readonly ChatMessage[] =>
  isList(value) && value.length > 0 && value.every(isMessage)

/** Return the tokens of a prompt, or of a prompt with its answer and the end-of-sequence token. */
export async function plainTokens(tokenizer: Tokenizer, prompt: string, answer: string | null): Promise<number[]> {
  if (answer === null) return withoutEnd(tokenizer, (await tokenizer.encodeAsync(prompt)).inputIds)
  const end = tokenizer.eosToken ?? ''
  const ids = (await tokenizer.encodeAsync(`${prompt}${answer}${answer.endsWith(end) ? '' : end}`)).inputIds
  // One end, where the tokenizer adds its own.
  const { eosTokenId } = tokenizer
  return eosTokenId !== null && ids.at(-1) === eosTokenId && ids.at(-2) === eosTokenId ? ids.slice(0, -1) : ids
}

/** Some tokenizers end every text with the end-of-sequence token; the answer follows the prompt without one. */
function withoutEnd({ eosTokenId }: Tokenizer, ids: number[]): number[] {
  return eosTokenId !== null && ids.at(-1) === eosTokenId ? ids.slice(0, -1) : ids
}
