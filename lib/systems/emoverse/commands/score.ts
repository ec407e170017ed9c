import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_LABEL_OPTIONS, numbersOf } from '../configuration/arguments.js'
import type { EmoVerseScores } from '../evaluation/score.js'

export const score = commandRule({
  name: 'score',
  summary: 'Score a result file of EmoVerse or any model, robustly or as the published evaluation does.',
  details: `  voxtorch emoverse score results/20260101-120000.jsonl --html scores.html
  voxtorch emoverse score results.jsonl --mode strict --task causes

--mode robust parses answers, counts those that it cannot parse, and adds baselines: always the most frequent label, the target as its
own cause, and the target and the previous utterance. --mode strict gives the numbers of the published compute_result.py, and fails
where that script fails.`,
  files: 'FILE.jsonl',
  options: {
    task: {
      type: ['sentiment', 'emotion', 'causes', 'number', 'MSA', 'MER', 'ECPE'],
      help: 'task of the file',
      default: 'by each question',
    },
    mode: { type: ['robust', 'strict'], help: 'how answers are parsed', default: 'robust' },
    variant: {
      type: ['emoverse', 'other'],
      help: "for strict: 'other' uses the published functions for other models, which search for label words",
      default: 'emoverse',
    },
    labels: {
      type: 'list',
      help: 'the labels, or with --variant other the words to search for',
      placeholder: 'Joy.,Fear.,…',
    },
    countedImages: {
      type: 'string',
      help: 'for strict: an instruction file; only lines with one of its images count',
      placeholder: 'file',
    },
    ...EMOVERSE_LABEL_OPTIONS,
    json: { type: 'string', help: 'file for the scores as JSON', placeholder: 'file' },
    html: { type: 'string', help: 'file for the scores as an HTML page', placeholder: 'file' },
  },
  async run(
    { task, mode, variant, labels, countedImages, thresholds, fallback, causeThreshold, json, html },
    [file, more],
  ) {
    if (file === undefined || more !== undefined)
      throw new ConfigError('emoverse score: expected one result file, got none or several. Pass FILE.jsonl.', {
        argument: 'files',
      })
    const { scoreEmoVerse } = await import('../evaluation/score.js')
    const { readSwiftDataset } = await import('../data/dataset.js')
    const first: string[] = []
    if (countedImages !== undefined) {
      for await (const { images } of await readSwiftDataset(countedImages, {
        requireResponse: false,
        markers: false,
      })) {
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
      countedImages: countedImages === undefined ? undefined : first,
    })
    const scores = await scoreEmoVerse(file, options)
    const { writeAtomically } = await import('../../../base/atomic.js')
    const { DataError } = await import('../../../base/errors.js')
    if (json !== undefined) await (await import('../../../files/json/json.js')).writeJson(json, scores)
    if (html !== undefined) {
      const { emoverseScoresPage } = await import('../evaluation/page.js')
      await writeAtomically(html, DataError, (write) => write(Buffer.from(emoverseScoresPage(scores, file))))
    }
    console.log(reportText(scores))
    return 0
  },
})

const formatted = (value: number | null) =>
  value === null ? '–' : Number.isInteger(value) ? String(value) : value.toFixed(4)

function reportText({ records, unscored, mode, tasks }: EmoVerseScores): string {
  const how = mode === 'strict' ? ', scored as in the published evaluation' : ''
  const lines = [`${records} results${unscored > 0 ? `, ${unscored} not scored` : ''}${how}`]
  for (const [task, { records: count, scores, baselines }] of Object.entries(tasks)) {
    lines.push(`${task}, ${count} results${' '.repeat(4)}${Object.keys(baselines).join(' | ')}`)
    for (const [name, value] of Object.entries(scores)) {
      if (typeof value !== 'number' && value !== null) continue
      const rules = Object.values(baselines).map((own) => (own[name] === undefined ? '' : formatted(own[name])))
      lines.push(`  ${name.padEnd(14)}${formatted(value).padEnd(10)}${rules.join(' | ')}`)
    }
  }
  return lines.join('\n')
}
