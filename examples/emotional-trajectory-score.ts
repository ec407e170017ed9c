/**
 * Scores answers about emotional trajectories, of any model:
 *
 * `npx tsx examples/emotional-trajectory-score.ts --references test.json --predictions answers.jsonl`
 *
 * References are a file of the challenge (JSON Lines) or what the convert step made of it (JSON). A prediction has an `id`, and a
 * `prediction`, the answer with its line of emotions, or `turns` and `summary` as emotional-trajectory.ts writes them. A dialog
 * without a prediction counts as answered with nothing.
 *
 * The challenge has a language model judge the answers. `--judge-prompts FILE` writes what it is to be asked, a line with `id`
 * and `prompt` for each answer; `--judge-replies FILE` reads its `id` and `reply`, and adds the marks. `--task task2` judges
 * by the criteria of the second task. `--skip-bad` counts lines that cannot be used, where else the first one ends it.
 */
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'

const text = { type: 'string' } as const
const { values: given } = parseArgs({
  options: {
    references: text,
    predictions: text,
    json: text,
    'judge-prompts': text,
    'judge-replies': text,
    task: { type: 'string', default: 'task1' },
    'skip-bad': { type: 'boolean', default: false },
  },
})
const { references, predictions } = given
if (references === undefined || predictions === undefined)
  throw new Error('say --references FILE and --predictions FILE')
const task = given.task as vt.JudgeTask
const onBadItem = given['skip-bad'] ? 'skip' : 'stop'

const { dialogs, ...badDialogs } = await vt.readTrajectoryDialogs(references, { onBadItem })
const { predictions: said, ...badAnswers } = await vt.readTrajectoryPredictions(predictions, { onBadItem })
for (const { badItems, badItemErrors } of [badDialogs, badAnswers]) {
  if (badItems > 0) console.error(`${badItems} left out; the first: ${badItemErrors[0]?.message}`)
}
const { pairs, unanswered } = vt.pairTrajectories(said, dialogs)
const scores = vt.trajectoryScores(pairs)

if (given['judge-prompts'] !== undefined) {
  await vt.writeJsonl(given['judge-prompts'], vt.judgePrompts(dialogs, pairs, { task }))
}
const ids = pairs.map(({ id }) => id)
const file = given['judge-replies']
const replies = file === undefined ? undefined : (await vt.readJudgeReplies(file, ids)).map(({ reply }) => reply)
const judge = replies && vt.judgeSummary(replies, task)
if (given.json !== undefined) await vt.writeJson(given.json, { ...scores, unanswered, ...(judge && { judge }) })

const shown = (value: number | null) => (value === null ? '-' : value.toFixed(4))
const rows: [string, string][] = [
  ['dialogs', `${scores.pairs}${unanswered.length > 0 ? ` (${unanswered.length} without an answer)` : ''}`],
  ['with emotions', shown(scores.parsed)],
  ['whole sequence right', shown(scores.exactSequence)],
  ['turns right', shown(scores.positionAccuracy)],
  ...scores.accuracyAt.map((value, i): [string, string] => [`  turn ${i + 1}`, shown(value)]),
  ['unweighted average recall', shown(scores.uar)],
  ['F1 of emotions, plain', shown(scores.macroF1)],
  ['F1 of emotions, weighted', shown(scores.weightedF1)],
  ['F1 of the set of emotions', shown(scores.labelSetF1)],
  ['ROUGE-L of the words', shown(scores.rougeL)],
]
for (const [name, value] of rows) console.log(`${name.padEnd(28)}${value}`)
if (scores.emotions.length > 0) console.log('\nemotion      precision   recall       F1    turns')
for (const { emotion, precision, recall, f1, support } of scores.emotions) {
  const cells = [precision, recall, f1].map((value) => value.toFixed(4).padStart(9)).join('')
  console.log(`${emotion.padEnd(13)}${cells}${String(support).padStart(9)}`)
}
if (judge) {
  console.log(`\njudged ${judge.judged}, without JSON ${judge.excluded}`)
  for (const [name, value] of Object.entries(judge.means)) console.log(`${name.padEnd(28)}${shown(value)}`)
  console.log(`${'overall'.padEnd(28)}${shown(judge.overall)}`)
}
