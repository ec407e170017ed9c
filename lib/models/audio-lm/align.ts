import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { argumentError, defined } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { type ChangesOf, SIGNAL, settings } from '../../base/settings.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import type { AudioLM } from './audio-lm.js'
import { familyOf } from './config.js'
import { prepareTexts } from './processor.js'

const SETTINGS = settings({
  /** Language of the text: a code such as `en`, or an English name. Default: not stated. */
  language: { type: 'string' },
  /** Cancels the computation. */
  signal: { type: SIGNAL },
})

/** Options of `AudioLM.align`. @interface */
export type AudioLMAlignOptions = ChangesOf<typeof SETTINGS.table>

/** A word with its times in seconds from the start of the clip. */
export interface AlignedWord {
  text: string
  start: number
  end: number
}

/** Most characters of a text: several times those of the longest clip. */
const MOST_CHARACTERS = 100_000

/** Languages of the published aligner, by code. */
const LANGUAGES: Readonly<Record<string, string>> = {
  ...{ zh: 'Chinese', yue: 'Cantonese', en: 'English', fr: 'French', de: 'German', it: 'Italian', pt: 'Portuguese' },
  ...{ ru: 'Russian', es: 'Spanish', ja: 'Japanese', ko: 'Korean' },
}
/** Languages whose words the original finds with a dictionary. */
const WITH_DICTIONARY = ['Japanese', 'Korean']

const IDEOGRAPHS: readonly (readonly [number, number])[] = [
  ...([[0x3400, 0x4dbf], [0x4e00, 0x9fff], [0xf900, 0xfaff]] as const), // biome-ignore format: ranges
  ...([[0x20000, 0x2a6df], [0x2a700, 0x2ceaf], [0x2f800, 0x2fa1f]] as const), // biome-ignore format: ranges
]
const isIdeograph = (character: string): boolean => {
  const code = character.codePointAt(0) as number
  return IDEOGRAPHS.some(([first, last]) => code >= first && code <= last)
}
const isKept = (character: string): boolean => /^[\p{L}\p{N}']$/u.test(character)

/** Return the letters, digits and apostrophes of a text, which the model reads. */
const keptOf = (text: string): string => [...text].filter(isKept).join('')

/** Split a text into words without punctuation, and ideographs. */
export function alignedWords(text: string): string[] {
  const words: string[] = []
  for (const part of text.split(/\s/u)) {
    let word = ''
    const finish = () => {
      if (word !== '') words.push(word)
      word = ''
    }
    for (const character of part) {
      if (isIdeograph(character)) {
        finish()
        words.push(character)
      } else if (isKept(character)) word += character
    }
    finish()
  }
  return words
}

/**
 * Return the times with those out of order replaced: outside of the longest non-decreasing subsequence, one or two in a row get the nearer
 * neighbor, and more are interpolated. As Qwen3-ASR's code does, in n log n steps.
 */
export function orderedTimes(times: readonly number[]): number[] {
  const isKeptAt = longestOrdered(times)
  const result = [...times]
  for (let from = 0; from < times.length; from++) {
    if (isKeptAt[from]) continue
    let to = from
    while (to < times.length && !isKeptAt[to]) to++
    const [before, after] = [times[from - 1] === undefined ? undefined : result[from - 1], times[to]]
    const count = to - from
    for (let i = from; i < to; i++) {
      if (before === undefined || after === undefined) result[i] = (before ?? after) as number
      else if (count > 2) result[i] = before + ((after - before) / (count + 1)) * (i - from + 1)
      else result[i] = i - from + 1 <= to - i ? before : after
    }
    from = to
  }
  return result.map(Math.trunc)
}

/** Tell which values are in the longest non-decreasing subsequence; of several, each value follows the earliest. */
function longestOrdered(values: readonly number[]): boolean[] {
  const ranks = new Map([...new Set(values)].sort((a, b) => a - b).map((value, i) => [value, i + 1]))
  // A Fenwick tree: for values up to a rank, the earliest end of their longest subsequence.
  const best = new Int32Array(ranks.size + 1).fill(-1)
  const lengths = new Int32Array(values.length)
  const parents = new Int32Array(values.length).fill(-1)
  const isBetter = (one: number, other: number) =>
    other < 0 || lengths[one]! > lengths[other]! || (lengths[one] === lengths[other] && one < other)
  let last = -1
  for (const [i, value] of values.entries()) {
    const rank = ranks.get(value) as number
    let parent = -1
    for (let at = rank; at > 0; at -= at & -at) if (best[at]! >= 0 && isBetter(best[at]!, parent)) parent = best[at]!
    parents[i] = parent
    lengths[i] = parent < 0 ? 1 : lengths[parent]! + 1
    for (let at = rank; at <= ranks.size; at += at & -at) if (isBetter(i, best[at]!)) best[at] = i
    if (last < 0 || lengths[i]! > lengths[last]!) last = i
  }
  const isIn = values.map(() => false)
  for (let at = last; at >= 0; at = parents[at]!) isIn[at] = true
  return isIn
}

/** Find the times of a text's words in a clip. */
export async function alignClip(
  model: AudioLM,
  clip: AudioClip,
  text: string | readonly string[],
  options: AudioLMAlignOptions,
): Promise<AlignedWord[]> {
  const where = 'AudioLM.align'
  const { language, signal } = SETTINGS.read(where, options)
  const { config, tokenizer, audioToken, score } = model
  const { aligner } = familyOf(config)
  if (score === null || aligner === undefined) {
    throw new ConfigError(
      `${where}: expected a forced aligner such as Qwen/Qwen3-ForcedAligner-0.6B, got ${config.modelType} without one.`,
      {},
    )
  }
  if (tokenizer === null) {
    throw new ConfigError(`${where}: expected a model with a tokenizer, got none. Set model.tokenizer.`, {})
  }
  const words = wordsOf(where, text, languageIn(where, language))
  if (words.length === 0) return []
  const [markId, step] = [config[aligner.tokenKey] as number, config[aligner.stepKey] as number]
  const mark = tokenizer.idToToken(markId)
  if (mark === undefined) {
    throw new ConfigError(
      `${where}: expected a tokenizer with the token ${markId} (${aligner.tokenKey}), got none.`,
      {},
    )
  }
  return noGrad(() =>
    scope(async () => {
      const { samples } = await openClip({ where, argument: 'audio' }, clip, defined({ signal }))
      const most = (step * score.outFeatures) / 1000
      if (samples.size(0) > most * SPEECH_RATE) {
        throw new DataError(
          `${where}: audio: expected at most ${most} s, which the model has times for, got ${(samples.size(0) / SPEECH_RATE).toFixed(1)} s. Align it in pieces.`,
          { seconds: samples.size(0) / SPEECH_RATE },
        )
      }
      const rendered = aligner.text(
        audioToken,
        mark,
        words.map(({ read }) => read),
      )
      const parts = { config, tokenizer, audioToken }
      const inputs = await prepareTexts(parts, [{ text: rendered, clips: [samples] }], defined({ signal }))
      const isMark = inputs.inputIds.eq(markId)
      const count = Number((await isMark.sum().data())[0])
      const { maxPositionEmbeddings: positions = Number.POSITIVE_INFINITY } = model.language_model.config
      if (count !== 2 * words.length || inputs.inputIds.size(1) > positions) {
        throw new DataError(
          `${where}: text: expected ${2 * words.length} times ${mark} within ${positions} tokens, got ${count} in ${inputs.inputIds.size(1)}. Align a shorter text, without ${mark}.`,
          { marks: count },
        )
      }
      const { logits } = await model.forward(inputs)
      const bins = (logits as Tensor).argmax(-1).to({ device: 'cpu' }).maskedSelect(isMark)
      const times = orderedTimes(
        Array.from((await bins.data()) as Iterable<number | bigint>, (bin) => Number(bin) * step),
      )
      return words.map(({ word }, i) => ({
        text: word,
        start: (times[2 * i] as number) / 1000,
        end: (times[2 * i + 1] as number) / 1000,
      }))
    }),
  )
}

function languageIn(where: string, language: string | undefined): string | undefined {
  if (language === undefined) return undefined
  const asked = language.toLowerCase()
  const found = Object.entries(LANGUAGES).find(([code, name]) => asked === code || asked === name.toLowerCase())
  if (found !== undefined) return found[1]
  throw argumentError(where, 'language', `one of ${Object.keys(LANGUAGES).join(', ')}`, language)
}

/** Return the words of a text, as given and as the model reads them. */
function wordsOf(where: string, text: string | readonly string[], language: string | undefined) {
  if (typeof text === 'string') {
    if (text.length > MOST_CHARACTERS) {
      throw argumentError(where, 'text', `at most ${MOST_CHARACTERS} characters`, text.length)
    }
    if (language !== undefined && WITH_DICTIONARY.includes(language)) {
      throw new ConfigError(
        `${where}: text: expected a list of words for ${language}, whose words a dictionary tells apart, got a text. Split it.`,
        { language },
      )
    }
    return alignedWords(text).map((word) => ({ word, read: word }))
  }
  if (!Array.isArray(text)) throw argumentError(where, 'text', 'a text or a list of words', text)
  let characters = 0
  return text.map((word: unknown, i) => {
    if (typeof word !== 'string') throw argumentError(where, `text[${i}]`, 'a word', word)
    characters += word.length
    if (characters > MOST_CHARACTERS) {
      throw argumentError(where, 'text', `at most ${MOST_CHARACTERS} characters`, characters)
    }
    const read = keptOf(word)
    if (read === '') throw argumentError(where, `text[${i}]`, 'a word with letters or digits', word)
    return { word, read }
  })
}
