import { DataError } from '../../../base/errors.js'
import type { ChangesOf } from '../../../base/settings.js'
import { withoutEnd } from '../../../base/words.js'
import type { ContinuousBatching } from '../../../generation/batching.js'
import { mapped } from '../../../generation/generators.js'
import type { FinishReason } from '../../../generation/session.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { type Generator, tensor } from '../../../tensor/index.js'
import type { SAMPLING_SETTINGS } from '../configuration/settings.js'
import { type UsdmPromptInput, type UsdmTurn, usdmPrompt } from '../data/prompt.js'
import { CORRESPOND, USDM_MAX_LENGTH, type UsdmTokenizer } from '../data/text.js'
import type { UsdmCache } from './cache.js'

/** Sampling of tokens, in all three passes. @interface */
export type UsdmSampling = ChangesOf<typeof SAMPLING_SETTINGS.table>

/** Why a pass ended: at its end token, or at its limit. */
export type UsdmFinish = 'stop' | 'length'

/** Settings that the passes of a reply share. */
export interface Writing {
  llm: DecoderLM
  tokenizer: UsdmTokenizer
  cache: UsdmCache
  sampling: UsdmSampling
  strict: boolean
  /** Maximum tokens of a text, and maximum units. */
  maxTextTokens: number | undefined
  maxUnits: number | undefined
  generator?: Generator | undefined
  batching?: ContinuousBatching | undefined
  signal?: AbortSignal | undefined
}

interface TokenRule {
  stops: number[]
  banned?: number[]
  allowed?: number[]
  most: number | undefined
}

interface Text<T extends 'transcript' | 'text'> {
  type: T
  /** The whole text so far. */
  text: string
}
interface TextEnd {
  text: string
  finish: UsdmFinish
}

/** Run the first pass: transcribe the question. Units and control tokens are suppressed, and a line break ends it. */
export async function* transcribed(
  writing: Writing,
  input: UsdmPromptInput,
): AsyncGenerator<Text<'transcript'>, TextEnd> {
  const { tokenizer, strict, maxTextTokens } = writing
  const { ids } = tokenizer
  const rule = {
    stops: [...lineBreaks(tokenizer), ...(strict ? [ids.eos] : [])],
    banned: unitIdsAnd(tokenizer, [ids.continue, ids.correspond, ids.pad]),
    most: maxTextTokens,
  }
  const read = (found: readonly number[]) => transcriptOf(textAfter(writing, ids.correspond, found))
  return yield* texts('transcript', written(writing, usdmPrompt(tokenizer, input), rule), read)
}

/** Run the second pass: generate the reply's text, which `<|correspond|>` ends. */
export async function* replied(writing: Writing, input: UsdmPromptInput): AsyncGenerator<Text<'text'>, TextEnd> {
  const { tokenizer, strict, maxTextTokens } = writing
  const { ids } = tokenizer
  const rule = {
    stops: [ids.correspond, ...(strict ? [ids.eos] : [])],
    banned: unitIdsAnd(tokenizer, [ids.pad, ...(strict ? [ids.continue, ...lineBreaks(tokenizer)] : [])]),
    most: maxTextTokens,
  }
  const read = (found: readonly number[]) => replyOf(textAfter(writing, ids.newline, found))
  return yield* texts('text', written(writing, usdmPrompt(tokenizer, input), rule), read)
}

/** Run the third pass: generate the reply's units, until the end of speech. */
export async function* pronounced(writing: Writing, input: UsdmPromptInput): AsyncGenerator<number, UsdmFinish> {
  const { tokenizer, strict, maxUnits } = writing
  const { ids } = tokenizer
  const rule = {
    stops: [ids.endOfSpeech],
    allowed: unitIdsAnd(tokenizer, [ids.endOfSpeech, ...(strict ? [] : [ids.pad])]),
    most: maxUnits,
  }
  const pass = written(writing, usdmPrompt(tokenizer, input), rule)
  return yield* mapped(pass, (id) => (tokenizer.isUnit(id) ? id - ids.firstUnit : undefined))
}

async function* texts<T extends 'transcript' | 'text'>(
  type: T,
  pass: AsyncGenerator<number, UsdmFinish>,
  read: (found: readonly number[]) => string,
): AsyncGenerator<Text<T>, TextEnd> {
  const found: number[] = []
  let text = ''
  const finish = yield* mapped(pass, (id) => {
    found.push(id)
    text = read(found)
    // The last character may be incomplete.
    return { type, text: withoutEnd(text, /\ufffd/) }
  })
  return { text, finish }
}

/** Generate tokens after a prompt, the end token included. Cached tokens of the prompt are not encoded again. */
async function* written(writing: Writing, prompt: number[], rule: TokenRule): AsyncGenerator<number, UsdmFinish> {
  const { llm, tokenizer, cache, sampling, signal, generator, batching } = writing
  const room = Math.min(contextLength(llm, tokenizer) - prompt.length, rule.most ?? Number.POSITIVE_INFINITY)
  if (room < 1) {
    throw new DataError(
      `Usdm: expected a conversation of fewer than ${contextLength(llm, tokenizer)} tokens, got ${prompt.length}. Leave out early turns.`,
      { tokens: prompt.length, most: contextLength(llm, tokenizer) },
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
    // The last token was generated, but not fed to the model.
    await cache.keep([...prompt, ...added.slice(0, -1)])
  }
}

/** Return the maximum number of units of a question after a history, so that one token of reply fits. @throws as usdmPrompt */
export function mostUnits(llm: DecoderLM, tokenizer: UsdmTokenizer, history: readonly UsdmTurn[]): number {
  const around = usdmPrompt(tokenizer, { units: [0], history }).length - 1
  return Math.max(0, contextLength(llm, tokenizer) - around - 1)
}

/** Return the maximum number of tokens of a conversation. */
const contextLength = ({ config }: DecoderLM, tokenizer: UsdmTokenizer): number =>
  Math.min(tokenizer.modelMaxLength, config.maxPositionEmbeddings ?? USDM_MAX_LENGTH)

/** Return the ids of all units, and further ids. */
const unitIdsAnd = ({ ids, units }: UsdmTokenizer, others: number[]): number[] => [
  ...others,
  ...Array.from({ length: units }, (_, unit) => ids.firstUnit + unit),
]

const breaks = new WeakMap<UsdmTokenizer, number[]>()

/** Return the tokens that contain a line break: one, unless the tokenizer may merge it with its neighbors. */
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

/** Decode ids that follow another token, so that a leading space is kept. */
function textAfter({ tokenizer, strict }: Writing, before: number, ids: readonly number[]): string {
  // Strict: EOS ends the pass and is not part of the text. As published, it is decoded.
  const textIds = strict ? ids.filter((id) => id !== tokenizer.ids.eos) : ids
  return tokenizer.decode([before, ...textIds]).slice(tokenizer.decode([before]).length)
}

/** Return a text without `what` at its start and at its end. */
function stripped(text: string, what: string): string {
  const from = text.startsWith(what) ? text.slice(what.length) : text
  return from.endsWith(what) ? from.slice(0, -what.length) : from
}

/** Return the transcript in the text of the first pass. */
export function transcriptOf(text: string): string {
  const at = text.lastIndexOf(CORRESPOND)
  return stripped(stripped(at < 0 ? text : text.slice(at + CORRESPOND.length), '\n'), ' ')
}

/** Return the reply in the text of the second pass. */
export const replyOf = (text: string): string =>
  stripped(stripped(stripped(text.slice(text.lastIndexOf('\n') + 1), '\n'), ' '), CORRESPOND)
