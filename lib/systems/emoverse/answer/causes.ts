import { argumentError, defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, checkedBy, functionOf, SIGNAL } from '../../../base/settings.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import { CAUSE_SETTINGS } from '../configuration/settings.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import { readCauses } from '../evaluation/robust.js'
import { requireThresholds, selectCauses, selectLabel } from '../evaluation/thresholds.js'
import { EmoVerse } from '../network/network.js'
import {
  allowedLabels,
  ECPE_WORDING,
  type EcpeLine,
  type EcpeWording,
  ecpeQuestion,
  questionOf,
  utterancePrompt,
} from '../published/wording.js'

const SETTINGS = CAUSE_SETTINGS.extend({
  /** Prompt texts around the conversation. Default: {@link ECPE_WORDING}. */
  wording: {
    type: checkedBy<Readonly<EcpeWording>>((where, name, value) =>
      requireForm(where, name, value, { statement: 'string', answer: 'string', cue: 'string' }),
    ),
    default: ECPE_WORDING,
  },
  /** Path of an utterance's video, by its index from 0, for a model with a vision encoder. Default: text only. */
  videoOf: { type: functionOf<(dialog: EmotionDialog, place: number) => string | undefined>() },
  signal: { type: SIGNAL },
})

/** Options of `findCauses`. @interface */
export type FindCausesOptions = ChangesOf<typeof SETTINGS.table>

/** Options that need generated answers. */
const WRITING = ['constrained', 'maxNewTokens', 'batchSize'] as const

/** Dialogs with predicted emotions and causes. */
export interface FoundCauses {
  /** Input dialogs with the emotions and causes that were found. */
  dialogs: EmotionDialog[]
  /** Parts of answers that did not parse as a pair. They are ignored. */
  unread: number
  /** Pairs with another target, or with an utterance that is not in the dialog. They are ignored. */
  outside: number
}

/**
 * Find emotions and their causes in dialogs without labels. The published questions need the true emotions; this function predicts them:
 * first the emotion of each utterance from label probabilities, then the causes of each utterance that is not neutral.
 *
 * ```ts
 * const { dialogs } = await findCauses(model, (await readEcf('Subtask_2_test.json')).dialogs)
 * const predictions = ecfConversations(dialogs, { subtask: 2 })
 * console.log(await scoreEcf({ subtask: 2, gold: 'Subtask_2_test.json', predictions }))
 * ```
 * @throws ConfigError for invalid options; otherwise as `EmoVerse.generate`
 */
export async function findCauses(
  model: EmoVerse,
  dialogs: readonly EmotionDialog[],
  options: FindCausesOptions = {},
): Promise<FoundCauses> {
  const where = 'findCauses'
  if (!(model instanceof EmoVerse)) throw argumentError(where, 'model', 'an EmoVerse', model)
  if (!Array.isArray(dialogs)) throw argumentError(where, 'dialogs', 'a list of dialogs', dialogs)
  const values = SETTINGS.read(where, options)
  const { emotions, candidates, wording, videoOf, causeThreshold, signal } = values
  const { constrained = false, maxNewTokens = 64, batchSize = 8 } = values
  requireThresholds(where, defined({ causeThreshold }))
  for (const argument of causeThreshold === undefined ? [] : WRITING) {
    if (values[argument] === undefined || values[argument] === false) continue
    const what = `expected none with causeThreshold, which generates no answers, got ${values[argument]}`
    throw new ConfigError(`${where}.${argument}: ${what}. Leave one of them out.`, { argument })
  }
  const mediaOf = (dialog: EmotionDialog, place: number): Pick<EmoVerseQuestion, 'videos'> => {
    const path = videoOf?.(dialog, place)
    return path === undefined ? {} : { videos: [path] }
  }
  const found: FoundCauses = { dialogs: [], unread: 0, outside: 0 }
  for (const dialog of dialogs as readonly EmotionDialog[]) {
    const lines: EcpeLine[] = []
    for (const [place, utterance] of dialog.utterances.entries()) {
      const { id: number, speaker, text } = utterance
      const query = `${utterancePrompt(text, 'meld')}${questionOf('MER', 'meld')}`
      const emotion =
        emotions === 'given'
          ? (utterance.emotion ?? 'neutral')
          : await predictEmotion(model, { query, ...mediaOf(dialog, place) }, defined({ signal }))
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
        : await mostLikelyCauses(model, questions, causeThreshold, defined({ signal }))
    const causes: EmotionCause[] = []
    for (const [i, [effect, { number, emotion }]] of targets.entries()) {
      const { pairs, unread } = readCauses(answers[i]?.text ?? '')
      found.unread += unread
      for (const pair of pairs) {
        // The emotion comes from the question; an answer that names another one is wrong about it.
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

/** Return likely causes, one question after another, so that the prompt prefix that they have in common is encoded once. */
async function mostLikelyCauses(
  model: EmoVerse,
  questions: readonly EmoVerseQuestion[],
  causeThreshold: number,
  options: { signal?: AbortSignal },
): Promise<{ text: string }[]> {
  const answers: { text: string }[] = []
  for (const question of questions) {
    answers.push({ text: selectCauses(await model.scoreCauses(question, options), { causeThreshold }) })
  }
  return answers
}

/** Predict the emotion of an utterance, as the data spells it. */
async function predictEmotion(
  model: EmoVerse,
  question: EmoVerseQuestion,
  options: { signal?: AbortSignal },
): Promise<string> {
  const probabilities = await model.scoreLabels(question, allowedLabels(question.query) as readonly string[], options)
  return selectLabel(probabilities).slice(0, -1).toLowerCase()
}
