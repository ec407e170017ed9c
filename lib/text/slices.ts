import { setImmediate } from 'node:timers/promises'
import type { Pipeline } from './pipeline.js'

/** Characters to encode before the number of tokens is checked: a few milliseconds. */
const SLICE = 16_384
/** Tokens by which a separate slice may exceed its part of the whole text. */
const SLACK = 64

export interface SlicesOptions {
  /** Number of tokens after which encoding ends. */
  most: number
  signal?: AbortSignal
}

/**
 * Encode a text up to `most` tokens, without blocking the event loop. If the pipeline splits words independently of their
 * context, slices end at word ends, and the ids equal those of the whole text. Else the whole text is encoded after its slices
 * have shown that it is not much longer than `most`.
 * @returns undefined if the text has more tokens
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

/** Return whether a text certainly has more tokens than `most`, by encoding slices between which the event loop runs. */
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

/** Return a lower bound on the number of tokens: bytes divided by those of the longest token, or 0 if that is unknown. */
const leastTokens = (pipeline: Pipeline, text: string): number =>
  Math.ceil(Buffer.byteLength(text) / (pipeline.longestToken() ?? Number.POSITIVE_INFINITY))

async function pause(signal: AbortSignal | undefined): Promise<void> {
  await setImmediate()
  signal?.throwIfAborted()
}

/** A word end: a letter before a character other than letter, mark or digit. */
const WORD_END = /\p{L}(?=[^\p{L}\p{M}\p{N}\p{Pc}'’])/gu

function nextBoundary(text: string, from: number, isBoundary: (after: string) => boolean): number {
  if (from >= text.length) return text.length
  WORD_END.lastIndex = from
  for (let match = WORD_END.exec(text); match !== null; match = WORD_END.exec(text)) {
    const at = match.index + match[0].length
    if (isBoundary(text[at] as string)) return at
  }
  return text.length
}
