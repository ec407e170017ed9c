import { defined, misuse, requireOneOf, requireOptions, requireSignal, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import { readCauses } from '../evaluation/robust.js'
import { causesBy, labelBy, requireThresholds } from '../evaluation/thresholds.js'
import { EmoVerse } from '../network/network.js'
import {
  ECPE_WORDING,
  type EcpeLine,
  type EcpeWording,
  ecpeQuestion,
  labelsAllowed,
  questionOf,
  wordsSaid,
} from '../published/wording.js'

export interface FindCausesOptions {
  /** 'predicted' (default): the model says what is felt in each utterance. 'given': the data does, as in the published questions. */
  emotions?: 'predicted' | 'given'
  /** Utterances that can be causes: all of the dialog (default), or those before the target, as in the published questions. */
  candidates?: 'all' | 'before'
  /** The texts around a conversation. Default: our own. */
  wording?: Readonly<EcpeWording>
  /** The film of an utterance, by its place from 0, for a model that sees. Default: the words alone. */
  film?: (dialog: EmotionDialog, place: number) => string | undefined
  /** Holds answers to pairs of the target and utterances of the dialog: all of them can be read then. Default false. */
  constrained?: boolean
  /**
   * Nothing is written: causes are those whose likelihood (`EmoVerse.scoreCauses`) is at least this, and of each utterance the
   * likeliest in any case. Default: answers are written.
   */
  causeThreshold?: number
  /** Tokens of an answer. Default 64. */
  maxNewTokens?: number
  /** Questions that are answered at a time. Default 8. */
  batchSize?: number
  signal?: AbortSignal
}

const OPTIONS = [
  ...(['emotions', 'candidates', 'wording', 'film', 'constrained', 'causeThreshold', 'maxNewTokens'] as const),
  ...(['batchSize', 'signal'] as const),
]

/** Of answers that are written. */
const WRITING = ['constrained', 'maxNewTokens', 'batchSize'] as const

/** Dialogs with what a model found in them. */
export interface FoundCauses {
  /** As they were given, with the emotions and the causes that were found. */
  dialogs: EmotionDialog[]
  /** Parts of answers that were no pair, and pairs of another target or of an utterance that the dialog has not: none of them counts. */
  unread: number
  outside: number
}

/**
 * Emotions and their causes from nothing but dialogs, which the published questions do not ask for, since they show the true
 * emotions: first what is felt in each utterance, by the likelihood of its labels, then the causes of each that is not neutral.
 *
 * ```ts
 * const { dialogs } = await findCauses(model, (await readEcf('Subtask_2_test.json')).dialogs)
 * const predictions = ecfConversations(dialogs, { subtask: 2 })
 * console.log(await scoreEcf({ subtask: 2, gold: 'Subtask_2_test.json', predictions }))
 * ```
 * @throws ConfigError for options; else as `EmoVerse.generate`
 */
export async function findCauses(
  model: EmoVerse,
  dialogs: readonly EmotionDialog[],
  options: FindCausesOptions = {},
): Promise<FoundCauses> {
  const where = 'findCauses'
  if (!(model instanceof EmoVerse)) throw misuse(where, 'model', 'an EmoVerse', model)
  if (!Array.isArray(dialogs)) throw misuse(where, 'dialogs', 'a list of dialogs', dialogs)
  requireOptions(where, options, OPTIONS)
  const { emotions = 'predicted', candidates = 'all', wording = ECPE_WORDING, film } = options
  const { constrained = false, causeThreshold, maxNewTokens = 64, batchSize = 8, signal } = options
  requireOneOf(where, 'emotions', emotions, ['predicted', 'given'])
  requireOneOf(where, 'candidates', candidates, ['all', 'before'])
  requireForm(where, 'wording', wording, { statement: 'string', answer: 'string', cue: 'string' })
  if (film !== undefined && typeof film !== 'function') throw misuse(where, 'film', 'a function', film)
  requireThresholds(where, defined({ causeThreshold }))
  for (const argument of causeThreshold === undefined ? [] : WRITING) {
    if (options[argument] === undefined || options[argument] === false) continue
    throw new ConfigError(`${where}: ${argument} is of answers that are written, which causeThreshold has none of`, {
      argument,
    })
  }
  requireWhole(where, 'maxNewTokens', maxNewTokens, 1)
  requireWhole(where, 'batchSize', batchSize, 1)
  requireSignal(where, signal)
  const mediaOf = (dialog: EmotionDialog, place: number): Pick<EmoVerseQuestion, 'videos'> => {
    const path = film?.(dialog, place)
    return path === undefined ? {} : { videos: [path] }
  }
  const found: FoundCauses = { dialogs: [], unread: 0, outside: 0 }
  for (const dialog of dialogs as readonly EmotionDialog[]) {
    const lines: EcpeLine[] = []
    for (const [place, utterance] of dialog.utterances.entries()) {
      const { id: number, speaker, text } = utterance
      const query = `${wordsSaid(text, 'meld')}${questionOf('MER', 'meld')}`
      const emotion =
        emotions === 'given'
          ? (utterance.emotion ?? 'neutral')
          : await feltIn(model, { query, ...mediaOf(dialog, place) }, defined({ signal }))
      lines.push({ number, emotion, speaker, text })
    }
    const targets = [...lines.entries()].filter(([, { emotion }]) => emotion !== 'neutral')
    const questions = targets.map(([place, line]): EmoVerseQuestion => {
      const known = candidates === 'all' ? lines : lines.slice(0, place)
      return { query: ecpeQuestion(lines, line, known, wording), ...mediaOf(dialog, place) }
    })
    const answers =
      causeThreshold === undefined
        ? await model.generate(questions, { constrained, maxNewTokens, batchSize, ...defined({ signal }) })
        : await likeliest(model, questions, causeThreshold, defined({ signal }))
    const causes: EmotionCause[] = []
    for (const [i, [effect, { number, emotion }]] of targets.entries()) {
      const { pairs, unread } = readCauses(answers[i]?.text ?? '')
      found.unread += unread
      for (const pair of pairs) {
        // The emotion is that of the question: an answer that names another one has read it wrong.
        const [, target, cause] = /^(\d+)_[a-z]+,(\d+)$/.exec(pair) ?? []
        const place = lines.findIndex((line) => line.number === Number(cause))
        if (Number(target) !== number || place < 0) found.outside += 1
        else if (!causes.some((one) => one.effect === effect && one.cause === place)) {
          causes.push({ effect, cause: place, emotion })
        }
      }
    }
    const utterances = dialog.utterances.map((one, place) => ({ ...one, emotion: lines[place]?.emotion as string }))
    found.dialogs.push({ ...dialog, utterances, causes })
  }
  return found
}

/** Causes that are likely enough, one question after another: what they begin with alike is read once. */
async function likeliest(
  model: EmoVerse,
  questions: readonly EmoVerseQuestion[],
  causeThreshold: number,
  options: { signal?: AbortSignal },
): Promise<{ text: string }[]> {
  const answers: { text: string }[] = []
  for (const question of questions) {
    answers.push({ text: causesBy(await model.scoreCauses(question, options), { causeThreshold }) })
  }
  return answers
}

/** The likeliest emotion, by the data's word. */
async function feltIn(model: EmoVerse, question: EmoVerseQuestion, options: { signal?: AbortSignal }): Promise<string> {
  const shares = await model.scoreLabels(question, labelsAllowed(question.query) as readonly string[], options)
  return labelBy(shares).slice(0, -1).toLowerCase()
}
