import { counted, page, table } from '../../../kit/picture.js'
import type { EmoVerseScores, RobustTaskScores, ScoredTask } from './score.js'

const NAMES: Readonly<Record<ScoredTask, string>> = {
  sentiment: 'Sentiment',
  emotion: 'Emotion',
  causes: 'Causes of emotions',
  number: 'Sentiment as a number',
}

const shown = (value: unknown): string =>
  typeof value === 'number'
    ? Number.isInteger(value)
      ? String(value)
      : value.toFixed(4)
    : value === null
      ? '–'
      : String(value)

/** What a result file came to, as a page that needs no network: each task beside simple rules, by class, and who is taken for whom. */
export function emoverseScoresPage(scores: EmoVerseScores, title = 'EmoVerse'): string {
  const { records, unscored, mode, tasks } = scores
  const parts = Object.entries(tasks).flatMap(([task, one]) => taskParts(NAMES[task as ScoredTask], one))
  const rest = unscored > 0 ? `, ${unscored} of them of tasks that are not scored` : ''
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
    cells: [metric, shown(value), ...rules.map(([, own]) => (own[metric] === undefined ? '' : shown(own[metric])))],
  }))
  const parts = [
    `<h2>${name}</h2>`,
    table([counted(records, 'result'), 'the model', ...rules.map(([rule]) => rule)], rows),
  ]
  if ('classes' in scores) {
    const head = ['', 'precision', 'recall', 'F1', 'true', 'said']
    const classes = scores.classes.map((one) => ({
      cells: [one.name, ...[one.precision, one.recall, one.f1, one.support, one.said].map(shown)],
    }))
    parts.push(table(head, classes))
  }
  if ('confusion' in scores && scores.confusion) {
    const { columns, rows: counts } = scores.confusion
    const cells = counts.map((row, i) => ({ cells: [columns[i] as string, ...row.map(String)] }))
    parts.push(table(['true, taken for', ...columns], cells))
  }
  return parts
}
