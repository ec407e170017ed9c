import {
  argumentError,
  defined,
  listOf,
  requireFunction,
  requireObject,
  requireOneOf,
  requireOptions,
} from '../../../base/check.js'
import type { GenerationConfig } from '../../../generation/config.js'
import type { Module } from '../../../nn/index.js'
import { SalmonnDataset, type SalmonnDatasetOptions } from '../data/dataset.js'
import { parseEmotionSuffix } from '../data/emotion-suffix.js'
import type { SalmonnEntry } from '../data/entry.js'
import { emotionIn } from '../evaluation/emotion-words.js'
import { scoreSalmonn } from '../evaluation/evaluate.js'
import { Salmonn } from '../network/network.js'
import { SALMONN_TEST_PROMPTS } from '../published/prompts.js'
import type { TrajectoryDialog } from './trajectory-dialogs.js'
import type { EmotionalTrajectory } from './trajectory-report.js'

export interface PredictTrajectoryOptions {
  /** Dataset options as in training: gaps, joined or separate clips, prompts. */
  data?: SalmonnDatasetOptions
  /** Changes to `SALMONN_GENERATION`. */
  generation?: GenerationConfig
  /**
   * When to predict each turn separately: 'missing' (default) if the answer about the dialog has no line with an emotion for each turn, as
   * with a model that was not trained to write it; 'always'; or 'never'.
   */
  perTurn?: 'missing' | 'always' | 'never'
  /** Emotions to search for in answers about single turns, before those of the challenge. */
  labels?: readonly string[]
  /** Called before the model answers: about the whole dialog, or about this many single turns. */
  onQuestion?: (about: 'dialog' | 'turns', count: number) => void
}

/**
 * Predict the emotions of a dialog. One question is about the whole dialog, whose answer should end with a line of emotions; otherwise the
 * model answers one question per turn. `emotionsFrom` tells which. With `perTurn: 'never'` turns without an emotion are 'unknown'.
 *
 * @throws DataError naming an audio file that cannot be read; ConfigError for a model without `generate`
 */
export async function predictTrajectory(
  model: Module,
  dialog: TrajectoryDialog,
  options: PredictTrajectoryOptions = {},
): Promise<EmotionalTrajectory> {
  const where = 'predictTrajectory'
  requireObject(where, 'dialog', dialog)
  requireOptions(where, options, ['data', 'generation', 'perTurn', 'labels', 'onQuestion'])
  requireObject(where, 'dialog.entry', dialog.entry)
  const { id, entry } = dialog
  const turns = listOf(where, 'dialog.turns', dialog.turns, 'turns')
  const { data = {}, generation = {}, perTurn = 'missing', labels = [], onQuestion } = options
  requireOneOf(where, 'perTurn', perTurn, ['missing', 'always', 'never'])
  if (!Array.isArray(labels)) throw argumentError(where, 'labels', 'a list of emotions', labels)
  if (onQuestion !== undefined) requireFunction(where, 'onQuestion', onQuestion)
  const ask = async (entries: SalmonnEntry[]) => {
    const template = model instanceof Salmonn ? model.config.template : undefined
    const own = { prompts: SALMONN_TEST_PROMPTS, ...(template && { template }) }
    const dataset = new SalmonnDataset(entries, { ...own, ...data, drawPrompts: false })
    const { answers } = await scoreSalmonn(model, dataset, { generation })
    return answers.map(({ prediction }) => prediction)
  }
  onQuestion?.('dialog', 1)
  const [answer = ''] = await ask([entry])
  const { text, emotions } = parseEmotionSuffix(answer)
  const isWhole = emotions?.length === turns.length
  const asksTurns = perTurn === 'always' || (perTurn === 'missing' && !isWhole)
  if (asksTurns) onQuestion?.('turns', entry.audio.length)
  const predictions = asksTurns
    ? (await ask(entry.audio.map((audio, i) => turnEntry(entry, audio, i)))).map((said) => emotionIn(said, labels))
    : turns.map((_, i) => emotions?.[i] ?? 'unknown')
  return {
    id,
    turns: turns.map(({ speaker, text: words, reference }, i) => ({
      speaker,
      emotion: predictions[i] as string,
      ...defined({ reference }),
      ...(words && { text: words }),
    })),
    ...(text.trim() !== '' && { summary: text.trim() }),
    emotionsFrom: asksTurns ? 'turns' : 'dialog',
  }
}

const turnEntry = (entry: SalmonnEntry, audio: string, index: number): SalmonnEntry => ({
  ...entry,
  id: `${entry.id}, turn ${index + 1}`,
  task: 'emotion_recognition',
  audio: [audio],
  target: '',
  question: '',
  emotions: undefined,
  trailingGap: false,
})
