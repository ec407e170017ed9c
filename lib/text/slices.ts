import { setImmediate } from 'node:timers/promises'
import type { Pipeline } from './pipeline.js'

/** Characters that are encoded before the number of tokens is looked at: a few milliseconds. */
const SLICE = 16_384
/** Tokens by which a slice on its own may have more than its part of the text. */
const SLACK = 64

export interface SlicesOptions {
  /** Tokens after which reading ends. */
  most: number
  signal?: AbortSignal
}

/**
 * Encode a text while other work may run, and no further than `most` tokens. Where the pipeline cuts words apart whatever
 * stands around them, slices end between two words, and the ids are those of the whole text; else the text is encoded whole,
 * after its slices have shown that it is not much longer than `most`.
 * @returns undefined where the text has more tokens
 */
export async function encodeInSlices(
  pipeline: Pipeline,
  text: string,
  { most, signal }: SlicesOptions,
): Promise<number[] | undefined> {
  if (leastTokens(pipeline, text) > most) return undefined
  const isBoundary = pipeline.boundaries()
  const ids: number[] = []
  for (let from = 0; from < text.length; ) {
    const to = isBoundary ? nextBoundary(text, from + SLICE, isBoundary) : text.length
    const slice = text.slice(from, to)
    if (
      slice.length > 2 * SLICE &&
      (await surelyHasMore(pipeline, slice, { most: most - ids.length, ...(signal && { signal }) }))
    ) {
      return undefined
    }
    for (const id of (await pipeline.runUnhurried(slice, signal)).inputIds) ids.push(id)
    if (ids.length > most) return undefined
    from = to
    if (from < text.length) await pause(signal)
  }
  return ids
}

/** Whether a text has certainly more tokens than `most`, found out in slices between which other work may run. */
export async function surelyHasMore(
  pipeline: Pipeline,
  text: string,
  { most, signal }: SlicesOptions,
): Promise<boolean> {
  if (leastTokens(pipeline, text) > most) return true
  let least = 0
  for (let from = 0; from < text.length; from += SLICE) {
    const { length } = await pipeline.runUnhurried(text.slice(from, from + SLICE), signal)
    least += Math.max(0, length - SLACK)
    if (least > most) return true
    await pause(signal)
  }
  return false
}

/** No token stands for more bytes than the longest; 0 where tokens can stand for more than they spell. */
const leastTokens = (pipeline: Pipeline, text: string): number =>
  Math.ceil(Buffer.byteLength(text) / (pipeline.longestToken() ?? Number.POSITIVE_INFINITY))

async function pause(signal: AbortSignal | undefined): Promise<void> {
  await setImmediate()
  signal?.throwIfAborted()
}

/** The end of a word behind which another kind of character stands. */
const WORD_END = /\p{L}(?=[^\p{L}\p{M}\p{N}\p{Pc}'’])/gu

function nextBoundary(text: string, from: number, isBoundary: (after: string) => boolean): number {
  if (from >= text.length) return text.length
  WORD_END.lastIndex = from
  for (let found = WORD_END.exec(text); found !== null; found = WORD_END.exec(text)) {
    const at = found.index + found[0].length
    if (isBoundary(text[at] as string)) return at
  }
  return text.length
}
