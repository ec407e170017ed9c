import { crc32 } from 'node:zlib'
import { writeAtomically } from '../../base/atomic.js'
import { argumentError, requireOptions, requireString, shown } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { withoutEnd } from '../../base/words.js'
import { jsonFor } from '../../files/json/json.js'
import { type WrittenEntry, zipDirectory, zipHead } from '../../files/zip/writer.js'
import { strip } from '../../train/metrics/values.js'
import type { EmotionDialog } from './dialog.js'
import { conversationsOf, type EcfConversation, type EcfSubtask, ecfConversations, requireSubtask } from './ecf.js'
import { cleanSpan, spanPosition } from './span.js'

const NEUTRAL = 'neutral'
/** Emotions in the order of the official scorer; the first one has no causes. */
const SCORED: readonly string[] = [NEUTRAL, 'anger', 'disgust', 'fear', 'joy', 'sadness', 'surprise']
const EPSILON = 1e-8

/** Metrics of subtask 1, on spans. In `weighted…` each emotion counts by its number of true pairs; the others pool all pairs. */
export interface EcfSpanScores {
  weightedStrictPrecision: number
  weightedStrictRecall: number
  /** Metric of the ranking of teams. */
  weightedStrictF1: number
  weightedProportionalPrecision: number
  weightedProportionalRecall: number
  weightedProportionalF1: number
  strictPrecision: number
  strictRecall: number
  strictF1: number
  proportionalPrecision: number
  proportionalRecall: number
  proportionalF1: number
}

/** Metrics of subtask 2, on utterances. */
export interface EcfPairScores {
  precisionPair: number
  recallPair: number
  f1Pair: number
  weightedPrecision: number
  weightedRecall: number
  /** Metric of the ranking of teams. */
  weightedF1: number
}

/** A file, or the conversations of one. */
export type EcfSource = string | readonly EcfConversation[]

export interface ScoreEcfOptions<T extends EcfSubtask = EcfSubtask> {
  subtask: T
  /** True pairs; for subtask 1 spans are text. */
  gold: EcfSource
  /** Predicted pairs; for subtask 1 spans are numbers. Conversations that are not in the gold data are ignored. */
  predictions: EcfSource
}

/**
 * Compute the metrics of SemEval-2024 Task 3, with the numbers of its official scorer: repeated pairs count once, and emotions that
 * never occur count as 0. Without true pairs, weighted scores are NaN.
 *
 * @throws DataError where the official scorer fails: for a missing or repeated conversation, an unknown emotion, a malformed pair,
 * or a predicted span with letters
 */
export async function scoreEcf<T extends EcfSubtask>(
  options: ScoreEcfOptions<T>,
): Promise<T extends 1 ? EcfSpanScores : T extends 2 ? EcfPairScores : never> {
  const where = 'scoreEcf'
  requireOptions(where, options, ['subtask', 'gold', 'predictions'])
  const { subtask, gold, predictions } = options
  requireSubtask(where, subtask)
  const truth = byNumber(await listOf(where, 'gold', gold), nameOf('gold', gold))
  const predicted = byNumber(await listOf(where, 'predictions', predictions), nameOf('predictions', predictions))
  const parts = [...truth].map(([id, conversation]) => {
    const answer = predicted.get(id)
    const place = `${nameOf('predictions', predictions)}, conversation ${id}`
    if (answer === undefined)
      throw new DataError(
        `${place}: expected a prediction for each gold conversation, got none. Add the conversation.`,
        {
          conversation: Number(id),
        },
      )
    return { id, conversation, answer, place, goldPlace: `${nameOf('gold', gold)}, conversation ${id}` }
  })
  const truePairs = parts.flatMap(({ id, conversation, goldPlace }) => {
    const texts = conversation.conversation?.map?.(({ text }) => text) ?? []
    return once(pairsOf(conversation, goldPlace).map((pair) => parsed(pair, id, subtask, goldPlace, texts)))
  })
  const predictedPairs = parts.flatMap(({ id, answer, place }) =>
    once(pairsOf(answer, place).map((pair) => parsed(pair, id, subtask, place))),
  )
  return (subtask === 1 ? spanScores(truePairs, predictedPairs) : pairScores(truePairs, predictedPairs)) as never
}

/**
 * Compute the metrics of subtask 2 for dialogs and predictions in the same order, with any emotion names: the official files allow
 * seven, without `_`. As in the official scorer, 'neutral' has no causes and is ignored.
 * @throws DataError for a cause with an emotion that is not in `emotions`
 */
export function scoreCauses(
  truth: readonly EmotionDialog[],
  found: readonly EmotionDialog[],
  emotions: readonly string[],
): EcfPairScores {
  const pairs = (dialogs: readonly EmotionDialog[]) =>
    dialogs.flatMap(({ causes = [], source }, dialog) =>
      once(
        causes.map(({ effect, cause, emotion: name }): Pair => {
          const emotion = emotions.indexOf(name)
          if (emotion >= 0) return { key: `${dialog} ${effect} ${cause}`, emotion, span: [0, 0] }
          throw new DataError(
            `${source}: emotion of a cause: expected one of ${emotions.join(', ')}, got ${JSON.stringify(name)}. Correct it.`,
            {
              emotion: name,
            },
          )
        }),
      ),
    )
  return pairScores(pairs(truth), pairs(found), emotions)
}

/** Tell whether the official files allow these emotions. */
export const areOfficial = (emotions: readonly string[]): boolean => emotions.every((name) => SCORED.includes(name))

/** Return the lines of the official scorer's `scores.txt`. */
export function ecfScoreLines(scores: EcfSpanScores | EcfPairScores): string[] {
  return Object.entries(scores).map(([name, value]) => {
    const words = name.replace(/([A-Z])/g, '_$1').split('_')
    const key = words.map((word) =>
      word === 'Proportional' || word === 'proportional' ? 'Proportional' : word.toLowerCase(),
    )
    return `${key.join('_')}:${value}`
  })
}

const nameOf = (argument: string, source: EcfSource): string => (typeof source === 'string' ? source : argument)

async function listOf(where: string, argument: string, source: EcfSource): Promise<readonly unknown[]> {
  if (typeof source === 'string') return conversationsOf(source)
  if (Array.isArray(source)) return source
  throw argumentError(where, argument, 'a file or a list of conversations', source)
}

function byNumber(list: readonly unknown[], file: string): Map<bigint, EcfConversation> {
  const found = new Map<bigint, EcfConversation>()
  for (const [place, value] of list.entries()) {
    const conversation = value as EcfConversation | null
    const id = pythonInt(conversation?.conversation_ID)
    if (id === undefined) {
      throw new DataError(
        `${file}, entry ${place + 1}: conversation_ID: expected an integer, got ${shown(conversation?.conversation_ID)}. Correct it.`,
        { place },
      )
    }
    if (found.has(id))
      throw new DataError(`${file}: expected one conversation with ID ${id}, got two. Remove one of them.`, {
        conversation: Number(id),
      })
    found.set(id, conversation as EcfConversation)
  }
  return found
}

function pairsOf(conversation: EcfConversation, place: string): readonly unknown[] {
  const pairs = conversation['emotion-cause_pairs'] as unknown
  if (Array.isArray(pairs)) return pairs
  // The official scorer accepts any empty Python iterable.
  if (pairs === '' || (typeof pairs === 'object' && pairs !== null && Object.keys(pairs).length === 0)) return []
  throw new DataError(`${place}: emotion-cause_pairs: expected a list, got ${shown(pairs)}. Correct it.`, {})
}

interface Pair {
  /** IDs of the conversation and of both utterances. */
  key: string
  emotion: number
  span: readonly [number, number]
}

const LONGEST_INT = 4300

/**
 * Convert a JSON value as Python's `int()` does: digits of any script, with single underscores between them and whitespace around
 * them; numbers without their fraction; true as 1. Return undefined where `int()` raises.
 */
function pythonInt(value: unknown): bigint | undefined {
  if (typeof value === 'boolean') return value ? 1n : 0n
  if (typeof value === 'number') return Number.isFinite(value) ? BigInt(Math.trunc(value)) : undefined
  if (typeof value !== 'string') return undefined
  // In ASCII text, `int()` strips only C's whitespace, which does not include U+001C to U+001F.
  const isAscii = Buffer.byteLength(value) === value.length
  const text = isAscii ? withoutEnd(value.replace(/^[\t-\r ]+/, ''), /[\t-\r ]/) : strip(value)
  if (text.length > 2 * LONGEST_INT || !/^[+-]?\p{Nd}+(?:_\p{Nd}+)*$/u.test(text)) return undefined
  const digits = Array.from(text.replace(/[+_-]/g, ''), digitValue)
  if (digits.length > LONGEST_INT) return undefined
  const size = BigInt(digits.join(''))
  return text.startsWith('-') ? -size : size
}

/** Return the value of a decimal digit: in Unicode, the ten digits of each script are consecutive, starting with 0. */
function digitValue(digit: string): number {
  let zero = digit.codePointAt(0) as number
  const code = zero
  while (/^\p{Nd}$/u.test(String.fromCodePoint(zero - 1))) zero -= 1
  return (code - zero) % 10
}

function parsed(pair: unknown, id: bigint, subtask: EcfSubtask, place: string, texts?: readonly string[]): Pair {
  const fail = (expected: string) =>
    new DataError(`${place}: emotion-cause_pairs: expected ${expected}, got ${JSON.stringify(pair)}. Correct it.`, {
      pair,
    })
  if (!Array.isArray(pair) || (subtask === 1 ? pair.length !== 2 : pair.length < 2)) throw fail('a list of two strings')
  const [effectText, causeText] = pair as [unknown, unknown]
  if (typeof effectText !== 'string') throw fail('a list of two strings')
  const [first, name, ...rest] = effectText.split('_')
  const emotion = SCORED.indexOf(name ?? '')
  if (rest.length > 0 || name === undefined || emotion < 0)
    throw fail(`an emotion of ${SCORED.join(', ')} after the utterance number`)
  const number = (value: unknown) => {
    const found = pythonInt(value)
    if (found === undefined) throw fail('numbers of utterances and words')
    return found
  }
  /** Convert the number of an utterance, such as `3` or `U3`. */
  const numbered = (text: string | undefined) => number((text ?? '').replaceAll('U', ''))
  const effect = numbered(first)
  if (subtask === 2) return { key: `${id} ${effect} ${number(causeText)}`, emotion, span: [0, 0] }
  if (typeof causeText !== 'string') throw fail('a list of two strings')
  if (texts === undefined && /\p{L}/u.test(causeText)) {
    throw fail('a span of word numbers, such as 1_0_4')
  }
  const parts = causeText.split('_')
  if (parts.length !== (texts === undefined ? 3 : 2))
    throw fail(
      texts === undefined ? 'a span of word numbers, such as 1_0_4' : 'a cause with a span, such as 1_the words',
    )
  const cause = numbered(parts[0])
  if (texts === undefined)
    return { key: `${id} ${effect} ${cause}`, emotion, span: [Number(number(parts[1])), Number(number(parts[2]))] }
  const text = texts.at(Number(cause) - 1)
  if (typeof text !== 'string') throw fail('utterances of the conversation')
  return { key: `${id} ${effect} ${cause}`, emotion, span: spanPosition(cleanSpan(parts[1] as string), text) }
}

const nameOfPair = ({ key, emotion, span }: Pair): string => `${key} ${emotion} ${span[0]} ${span[1]}`
const once = (pairs: readonly Pair[]): Pair[] => [...new Map(pairs.map((pair) => [nameOfPair(pair), pair])).values()]

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

/** Average the correct, predicted and true counts of each emotion, weighted by the true counts, and over all. */
function averaged(
  right: readonly number[],
  predicted: readonly number[],
  truth: readonly number[],
  weights: readonly number[],
) {
  const f1 = (p: number, r: number) => (2 * p * r) / (p + r + EPSILON)
  const precision = right.map((count, i) => count / ((predicted[i] as number) + EPSILON))
  const recall = right.map((count, i) => count / ((truth[i] as number) + EPSILON))
  const all = sum(weights)
  const weigh = (values: readonly number[]) => sum(values.map((value, i) => value * ((weights[i] as number) / all)))
  const [p, r] = [sum(right) / (sum(predicted) + EPSILON), sum(right) / (sum(truth) + EPSILON)]
  return {
    weighted: [
      weigh(precision),
      weigh(recall),
      weigh(precision.map((value, i) => f1(value, recall[i] as number))),
    ] as const,
    micro: [p, r, f1(p, r)] as const,
  }
}

/** Count the pairs that match exactly. Neutral is ignored, because it has no causes. */
function exact(truth: readonly Pair[], predicted: readonly Pair[], emotions: readonly string[]) {
  const known = new Set(truth.map(nameOfPair))
  const felt = emotions.flatMap((name, emotion) => (name === NEUTRAL ? [] : [emotion]))
  const count = (pairs: readonly Pair[]) =>
    felt.map((emotion) => pairs.filter((pair) => pair.emotion === emotion).length)
  const total = count(truth)
  return averaged(count(predicted.filter((pair) => known.has(nameOfPair(pair)))), count(predicted), total, total)
}

function pairScores(truth: readonly Pair[], predicted: readonly Pair[], emotions = SCORED): EcfPairScores {
  const { weighted, micro } = exact(truth, predicted, emotions)
  const [precisionPair, recallPair, f1Pair] = micro
  const [weightedPrecision, weightedRecall, weightedF1] = weighted
  return { precisionPair, recallPair, f1Pair, weightedPrecision, weightedRecall, weightedF1 }
}

function spanScores(truth: readonly Pair[], predicted: readonly Pair[]): EcfSpanScores {
  const strict = exact(truth, predicted, SCORED)
  const proportional = proportionally(truth, predicted)
  return {
    weightedStrictPrecision: strict.weighted[0],
    weightedStrictRecall: strict.weighted[1],
    weightedStrictF1: strict.weighted[2],
    weightedProportionalPrecision: proportional.weighted[0],
    weightedProportionalRecall: proportional.weighted[1],
    weightedProportionalF1: proportional.weighted[2],
    strictPrecision: strict.micro[0],
    strictRecall: strict.micro[1],
    strictF1: strict.micro[2],
    proportionalPrecision: proportional.micro[0],
    proportionalRecall: proportional.micro[1],
    proportionalF1: proportional.micro[2],
  }
}

/** Match each predicted span with the true one of the same utterances and emotion that it covers by the largest fraction. */
function proportionally(truth: readonly Pair[], predicted: readonly Pair[]) {
  const byKey = grouped(truth)
  const zeros = () => SCORED.map(() => 0)
  const [right, words, trueWords, weights] = [zeros(), zeros(), zeros(), zeros()]
  const matched = new Set<Pair>()
  const add = (counts: number[], emotion: number, value: number) => {
    counts[emotion] = (counts[emotion] as number) + value
  }
  const lengthOf = ({ span }: Pair) => span[1] - span[0]
  for (const pair of predicted) {
    add(words, pair.emotion, lengthOf(pair))
    let best: { pair: Pair; overlap: number; share: number } | undefined
    for (const candidate of byKey.get(pair.key) ?? []) {
      if (candidate.emotion !== pair.emotion) continue
      if (pair.span[1] <= candidate.span[0] || pair.span[0] >= candidate.span[1]) continue
      const overlap = Math.min(pair.span[1], candidate.span[1]) - Math.max(pair.span[0], candidate.span[0])
      const share = overlap / lengthOf(candidate)
      const better = share > (best?.share ?? 0) || (share > 0 && share === best?.share && overlap > best.overlap)
      if (better) best = { pair: candidate, overlap, share }
    }
    if (best === undefined || best.overlap <= 0) continue
    add(right, pair.emotion, best.overlap)
    // A true span counts once for each prediction that matches it, as in the official scorer.
    add(trueWords, pair.emotion, lengthOf(best.pair))
    matched.add(best.pair)
  }
  for (const pair of truth) {
    add(weights, pair.emotion, 1)
    if (!matched.has(pair)) add(trueWords, pair.emotion, lengthOf(pair))
  }
  const ofEmotions = (counts: readonly number[]) => counts.slice(1)
  return averaged(ofEmotions(right), ofEmotions(words), ofEmotions(trueWords), ofEmotions(weights))
}

function grouped(pairs: readonly Pair[]): Map<string, Pair[]> {
  const found = new Map<string, Pair[]>()
  for (const pair of pairs) found.set(pair.key, [...(found.get(pair.key) ?? []), pair])
  return found
}

/**
 * Write predictions as a submission of the competition: a zip with `Subtask_1_pred.json`, `Subtask_2_pred.json`, or both. The same
 * dialogs give the same bytes.
 * @throws ConfigError without dialogs; DataError as {@link ecfConversations}
 */
export async function writeEcfSubmission(
  path: string,
  predictions: { subtask1?: readonly EmotionDialog[]; subtask2?: readonly EmotionDialog[] },
): Promise<void> {
  const where = 'writeEcfSubmission'
  requireString(where, 'path', path)
  requireOptions(where, predictions, ['subtask1', 'subtask2'])
  const { subtask1, subtask2 } = predictions
  if (subtask1 === undefined && subtask2 === undefined) {
    throw new ConfigError(
      `${where}: predictions: expected dialogs of subtask1, subtask2 or both, got neither. Pass at least one list.`,
      { argument: 'predictions' },
    )
  }
  const entries: (WrittenEntry & { bytes: Buffer; head: Uint8Array })[] = []
  let offset = 0
  for (const [i, dialogs] of [subtask1, subtask2].entries()) {
    if (dialogs === undefined) continue
    const subtask = (i + 1) as EcfSubtask
    const bytes = Buffer.from(`${jsonFor(path, ecfConversations(dialogs, { subtask }), 4)}\n`)
    const entry = { name: `Subtask_${subtask}_pred.json`, size: bytes.length, crc: crc32(bytes), offset }
    const head = zipHead(entry)
    entries.push({ ...entry, bytes, head })
    offset += head.length + bytes.length
  }
  await writeAtomically(path, DataError, async (write) => {
    for (const { head, bytes } of entries) {
      await write(head)
      await write(bytes)
    }
    await write(zipDirectory(entries, offset))
  })
}
