import { defined, listOf, requireObject } from '../../../base/check.js'
import { type ChangesOf, functionOf, objectOf, READONLY_STRINGS, settings } from '../../../base/settings.js'
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

const TRAJECTORY_SETTINGS = settings({
  /** Dataset options as in training: gaps, joined or separate clips, prompts. */
  data: { type: objectOf<SalmonnDatasetOptions>(), default: {} },
  /** Changes to `SALMONN_GENERATION`. */
  generation: { type: objectOf<GenerationConfig>(), default: {} },
  /**
   * When to predict each turn separately: 'missing' if the answer about the dialog has no line with an emotion for each turn, as with a
   * model that was not trained to write it; 'always'; or 'never'.
   */
  perTurn: { type: ['missing', 'always', 'never'], default: 'missing' },
  /** Emotions to search for in answers about single turns, before those of the challenge. */
  labels: { type: READONLY_STRINGS, default: [] },
  /** Called before the model answers: about the whole dialog, or about this many single turns. */
  onQuestion: { type: functionOf<(about: 'dialog' | 'turns', count: number) => void>() },
})

/** @interface */
export type PredictTrajectoryOptions = ChangesOf<typeof TRAJECTORY_SETTINGS.table>

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
  const { data, generation, perTurn, labels, onQuestion } = TRAJECTORY_SETTINGS.read(where, options)
  requireObject(where, 'dialog.entry', dialog.entry)
  const { id, entry } = dialog
  const turns = listOf(where, 'dialog.turns', dialog.turns, 'turns')
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
