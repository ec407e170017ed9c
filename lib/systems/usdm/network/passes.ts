import { DataError } from '../../../base/errors.js'
import { withoutEnd } from '../../../base/words.js'
import type { ContinuousBatching } from '../../../generation/batching.js'
import type { FinishReason } from '../../../generation/session.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { type Generator, tensor } from '../../../tensor/index.js'
import { type UsdmPromptInput, type UsdmTurn, usdmPrompt } from '../data/prompt.js'
import { CORRESPOND, USDM_MAX_LENGTH, type UsdmTokenizer } from '../data/text.js'
import type { UsdmCache } from './cache.js'

/** How tokens are drawn, in all three passes. */
export interface UsdmSampling {
  /** 0 takes the likeliest token each time. Default 0. */
  temperature?: number
  /** The fewest tokens that hold so much probability. Default 1: all. */
  topP?: number
  /** Only so many of the likeliest tokens. Default 0: all. */
  topK?: number
}

/** Why a pass ended: with its own token, or at its limit. */
export type UsdmFinish = 'stop' | 'length'

/** What the passes of a reply have in common. */
export interface Writing {
  llm: DecoderLM
  tokenizer: UsdmTokenizer
  cache: UsdmCache
  sampling: UsdmSampling
  strict: boolean
  /** Most tokens of a text, and most units. */
  maxTextTokens: number | undefined
  maxUnits: number | undefined
  generator?: Generator | undefined
  batching?: ContinuousBatching | undefined
  signal?: AbortSignal | undefined
}

interface Rule {
  stops: number[]
  banned?: number[]
  allowed?: number[]
  most: number | undefined
}

interface Text<T extends 'transcript' | 'text'> {
  type: T
  /** All of it so far. */
  text: string
}
interface TextEnd {
  text: string
  finish: UsdmFinish
}

/** The first pass: what was said, as text. Neither units nor tokens of control come, and a line break ends it. */
export async function* transcribed(
  writing: Writing,
  input: UsdmPromptInput,
): AsyncGenerator<Text<'transcript'>, TextEnd> {
  const { tokenizer, strict, maxTextTokens } = writing
  const { ids } = tokenizer
  const rule = {
    stops: [...lineBreaks(tokenizer), ...(strict ? [ids.eos] : [])],
    banned: spoken(tokenizer, [ids.continue, ids.correspond, ids.pad]),
    most: maxTextTokens,
  }
  const read = (found: readonly number[]) => transcriptOf(textBehind(writing, ids.correspond, found))
  return yield* texts('transcript', written(writing, usdmPrompt(tokenizer, input), rule), read)
}

/** The second pass: the reply as text, which `<|correspond|>` ends. */
export async function* replied(writing: Writing, input: UsdmPromptInput): AsyncGenerator<Text<'text'>, TextEnd> {
  const { tokenizer, strict, maxTextTokens } = writing
  const { ids } = tokenizer
  const rule = {
    stops: [ids.correspond, ...(strict ? [ids.eos] : [])],
    banned: spoken(tokenizer, [ids.pad, ...(strict ? [ids.continue, ...lineBreaks(tokenizer)] : [])]),
    most: maxTextTokens,
  }
  const read = (found: readonly number[]) => replyOf(textBehind(writing, ids.newline, found))
  return yield* texts('text', written(writing, usdmPrompt(tokenizer, input), rule), read)
}

/** The third pass: the reply's units, one after the other, to the end of speech. */
export async function* pronounced(writing: Writing, input: UsdmPromptInput): AsyncGenerator<number, UsdmFinish> {
  const { tokenizer, strict, maxUnits } = writing
  const { ids } = tokenizer
  const rule = {
    stops: [ids.endOfSpeech],
    allowed: spoken(tokenizer, [ids.endOfSpeech, ...(strict ? [] : [ids.pad])]),
    most: maxUnits,
  }
  const pass = written(writing, usdmPrompt(tokenizer, input), rule)
  try {
    for (;;) {
      const { value, done } = await pass.next()
      if (done) return value
      if (tokenizer.isUnit(value)) yield value - ids.firstUnit
    }
  } finally {
    await pass.return('stop')
  }
}

async function* texts<T extends 'transcript' | 'text'>(
  type: T,
  pass: AsyncGenerator<number, UsdmFinish>,
  read: (found: readonly number[]) => string,
): AsyncGenerator<Text<T>, TextEnd> {
  const found: number[] = []
  let text = ''
  try {
    for (;;) {
      const { value, done } = await pass.next()
      if (done) return { text, finish: value }
      found.push(value)
      text = read(found)
      // The rest of a character may still come.
      yield { type, text: withoutEnd(text, /\ufffd/) }
    }
  } finally {
    await pass.return('stop')
  }
}

/** New tokens behind a prompt, the stop included; what of it the cache has is not read again. */
async function* written(writing: Writing, prompt: number[], rule: Rule): AsyncGenerator<number, UsdmFinish> {
  const { llm, tokenizer, cache, sampling, signal, generator, batching } = writing
  const room = Math.min(roomOf(llm, tokenizer) - prompt.length, rule.most ?? Number.POSITIVE_INFINITY)
  if (room < 1) {
    throw new DataError(
      `Usdm: the conversation has ${prompt.length} tokens, and ${roomOf(llm, tokenizer)} is what there is room for: nothing can be added`,
      { tokens: prompt.length, most: roomOf(llm, tokenizer) },
    )
  }
  const { temperature = 0, topP = 1, topK = 0 } = sampling
  const same = await cache.matching(prompt)
  const inputIds = tensor([prompt.slice(same)], { dtype: 'int64', device: llm.parameters()[0]?.device ?? 'cpu' })
  const added: number[] = []
  try {
    const steps = llm.stream(
      { inputIds, cache: cache.kv },
      {
        maxNewTokens: room,
        eosTokenId: rule.stops,
        ...(rule.banned && { suppressTokens: rule.banned }),
        ...(rule.allowed && { allowedTokens: rule.allowed }),
        ...(temperature > 0 ? { doSample: true, temperature, topP, topK } : { doSample: false }),
      },
      { ...(signal && { signal }), ...(generator && { generator }), ...(batching && { batching }) },
    )
    let finish: FinishReason = null
    for await (const { tokens, finishReasons } of steps) {
      added.push(tokens[0] as number)
      finish = finishReasons[0] as FinishReason
      yield tokens[0] as number
    }
    return finish === 'length' ? 'length' : 'stop'
  } finally {
    inputIds.dispose()
    // The last token is known, but was never read.
    await cache.keep([...prompt, ...added.slice(0, -1)])
  }
}

/** How many units a question may have behind a history, so that there is room for an answer. @throws as usdmPrompt */
export function mostUnits(llm: DecoderLM, tokenizer: UsdmTokenizer, history: readonly UsdmTurn[]): number {
  const around = usdmPrompt(tokenizer, { units: [0], history }).length - 1
  return Math.max(0, roomOf(llm, tokenizer) - around - 1)
}

/** Most tokens of a conversation. */
const roomOf = ({ config }: DecoderLM, tokenizer: UsdmTokenizer): number =>
  Math.min(tokenizer.modelMaxLength, config.maxPositionEmbeddings ?? USDM_MAX_LENGTH)

/** All units, and some tokens beside them. */
const spoken = ({ ids, units }: UsdmTokenizer, others: number[]): number[] => [
  ...others,
  ...Array.from({ length: units }, (_, unit) => ids.firstUnit + unit),
]

const breaks = new WeakMap<UsdmTokenizer, number[]>()

/** Tokens that break the line: one, but of a tokenizer that may join it with its neighbours all that hold one. */
function lineBreaks(tokenizer: UsdmTokenizer): number[] {
  const { ids, joinsPieces, vocabSize } = tokenizer
  if (joinsPieces) return [ids.newline]
  let found = breaks.get(tokenizer)
  if (!found) {
    found = Array.from({ length: vocabSize }, (_, id) => id).filter(
      (id) => tokenizer.tokenizer.idToToken(id) !== undefined && tokenizer.decode([id]).includes('\n'),
    )
    breaks.set(tokenizer, found)
  }
  return found
}

/** The text of ids as it stands behind another token: a leading space is not taken for the beginning of a text. */
function textBehind({ tokenizer, strict }: Writing, before: number, ids: readonly number[]): string {
  // There it ends the pass, and nobody reads it as published.
  const said = strict ? ids.filter((id) => id !== tokenizer.ids.eos) : ids
  return tokenizer.decode([before, ...said]).slice(tokenizer.decode([before]).length)
}

/** Takes one of something away from both ends. */
function stripped(text: string, what: string): string {
  const from = text.startsWith(what) ? text.slice(what.length) : text
  return from.endsWith(what) ? from.slice(0, -what.length) : from
}

/** What of the first pass's text is the transcript. */
export function transcriptOf(text: string): string {
  const at = text.lastIndexOf(CORRESPOND)
  return stripped(stripped(at < 0 ? text : text.slice(at + CORRESPOND.length), '\n'), ' ')
}

/** What of the second pass's text is the reply. */
export const replyOf = (text: string): string =>
  stripped(stripped(stripped(text.slice(text.lastIndexOf('\n') + 1), '\n'), ' '), CORRESPOND)
