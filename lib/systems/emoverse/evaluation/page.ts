import { counted, page, table } from '../../../kit/figure.js'
import type { EmoVerseScores, RobustTaskScores, ScoredTask } from './score.js'

const NAMES: Readonly<Record<ScoredTask, string>> = {
  sentiment: 'Sentiment',
  emotion: 'Emotion',
  causes: 'Causes of emotions',
  number: 'Sentiment as a number',
}

const formatted = (value: unknown): string =>
  typeof value === 'number'
    ? Number.isInteger(value)
      ? String(value)
      : value.toFixed(4)
    : value === null
      ? '–'
      : String(value)

/** Render the scores of a result file as a self-contained HTML page: each task with its baselines, scores by class and a confusion matrix. */
export function emoverseScoresPage(scores: EmoVerseScores, title = 'EmoVerse'): string {
  const { records, unscored, mode, tasks } = scores
  const parts = Object.entries(tasks).flatMap(([task, one]) => taskParts(NAMES[task as ScoredTask], one))
  const rest = unscored > 0 ? `, ${unscored} of them of tasks without scores` : ''
  return page({
    title,
    lead: `${counted(records, 'result')}${rest}; ${mode}`,
    parts,
    style: 'h2{margin:32px 0 8px}td{text-align:right}',
  })
}

function taskParts(name: string, { records, scores, baselines }: RobustTaskScores): string[] {
  const plain = Object.entries(scores).filter(([, value]) => typeof value === 'number' || value === null)
  const rules = Object.entries(baselines)
  const rows = plain.map(([metric, value]) => ({
    cells: [
      metric,
      formatted(value),
      ...rules.map(([, own]) => (own[metric] === undefined ? '' : formatted(own[metric]))),
    ],
  }))
  const parts = [
    `<h2>${name}</h2>`,
    table([counted(records, 'result'), 'the model', ...rules.map(([rule]) => rule)], rows),
  ]
  if ('classes' in scores) {
    const head = ['', 'precision', 'recall', 'F1', 'true', 'predicted']
    const classes = scores.classes.map((one) => ({
      cells: [one.name, ...[one.precision, one.recall, one.f1, one.support, one.said].map(formatted)],
    }))
    parts.push(table(head, classes))
  }
  if ('confusion' in scores && scores.confusion) {
    const { columns, rows: counts } = scores.confusion
    const cells = counts.map((row, i) => ({ cells: [columns[i] as string, ...row.map(String)] }))
    parts.push(table(['true / predicted', ...columns], cells))
  }
  return parts
}
