import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_LABEL_OPTIONS, numbersOf } from '../configuration/arguments.js'
import type { EmoVerseScores } from '../evaluation/score.js'

export const score = commandRule({
  name: 'score',
  summary: 'Scores a result file of EmoVerse or of any model: as the published evaluation, or robustly.',
  details: `  voxtorch emoverse score results/20260101-120000.jsonl --html scores.html
  voxtorch emoverse score results.jsonl --mode strict --task causes

robust reads what an answer means, counts what it could not read, and puts simple rules beside: always the commonest label, the target itself
as its cause, itself and the utterance before. strict gives the numbers of the published compute_result.py, and ends where that ends.`,
  files: 'FILE.jsonl',
  options: {
    task: {
      kind: ['sentiment', 'emotion', 'causes', 'number', 'MSA', 'MER', 'ECPE'],
      help: 'what the file holds',
      preset: 'what each question asks for',
    },
    mode: { kind: ['robust', 'strict'], help: 'how answers are read', preset: 'robust' },
    variant: {
      kind: ['emoverse', 'other'],
      help: 'of strict: the functions for other models look for words',
      preset: 'emoverse',
    },
    labels: { kind: 'list', help: 'the labels that there are, or of --variant other the words', value: 'Joy.,Fear.,…' },
    pictures: {
      kind: 'text',
      help: 'of strict: an instruction file; only lines with one of its pictures count',
      value: 'file',
    },
    ...EMOVERSE_LABEL_OPTIONS,
    json: { kind: 'text', help: 'writes the scores as JSON', value: 'file' },
    html: { kind: 'text', help: 'writes a page', value: 'file' },
  },
  async run({ task, mode, variant, labels, pictures, thresholds, fallback, causeThreshold, json, html }, [file, more]) {
    if (file === undefined || more !== undefined)
      throw new ConfigError('Say which result file to score', { argument: 'files' })
    const { scoreEmoVerse } = await import('../evaluation/score.js')
    const { readSwiftDataset } = await import('../data/dataset.js')
    const first: string[] = []
    if (pictures !== undefined) {
      for await (const { images } of await readSwiftDataset(pictures, { requireResponse: false, markers: false })) {
        if (images?.[0] !== undefined) first.push(images[0])
      }
    }
    const names = { MSA: 'sentiment', MER: 'emotion', ECPE: 'causes' } as const
    const plain = task === 'MSA' || task === 'MER' || task === 'ECPE' ? names[task] : task
    const options = defined({
      task: plain,
      mode,
      variant,
      labels,
      fallback,
      causeThreshold,
      thresholds: thresholds && numbersOf('--thresholds', thresholds),
      pictures: pictures === undefined ? undefined : first,
    })
    const scores = await scoreEmoVerse(file, options)
    const { writeAtomically } = await import('../../../base/atomic.js')
    const { DataError } = await import('../../../base/errors.js')
    if (json !== undefined) await (await import('../../../files/json/json.js')).writeJson(json, scores)
    if (html !== undefined) {
      const { emoverseScoresPage } = await import('../evaluation/page.js')
      await writeAtomically(html, DataError, (write) => write(Buffer.from(emoverseScoresPage(scores, file))))
    }
    console.log(told(scores))
    return 0
  },
})

const shown = (value: number | null) =>
  value === null ? '–' : Number.isInteger(value) ? String(value) : value.toFixed(4)

function told({ records, unscored, mode, tasks }: EmoVerseScores): string {
  const how = mode === 'strict' ? ', as the published evaluation scores them' : ''
  const lines = [`${records} results${unscored > 0 ? `, ${unscored} not scored` : ''}${how}`]
  for (const [task, { records: count, scores, baselines }] of Object.entries(tasks)) {
    lines.push(`${task}, ${count} results${' '.repeat(4)}${Object.keys(baselines).join(' | ')}`)
    for (const [name, value] of Object.entries(scores)) {
      if (typeof value !== 'number' && value !== null) continue
      const rules = Object.values(baselines).map((own) => (own[name] === undefined ? '' : shown(own[name])))
      lines.push(`  ${name.padEnd(14)}${shown(value).padEnd(10)}${rules.join(' | ')}`)
    }
  }
  return lines.join('\n')
}
