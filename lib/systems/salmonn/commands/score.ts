import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { JudgeSummary } from '../evaluation/judge.js'
import type { TrajectoryScores } from '../evaluation/metrics.js'

export const score = commandRule({
  name: 'score',
  summary: 'Score answers of any model about emotional trajectories.',
  details: `  voxtorch salmonn score --references test.json --predictions answers.jsonl

References are a file of the challenge (JSON Lines) or the output of 'salmonn convert' (JSON). A prediction has an 'id' and a
'prediction', the answer with its line of emotions, or 'turns' and 'summary' as 'salmonn trajectory' writes them. A dialog
without a prediction counts as an empty answer.

In the challenge a language model judges the answers: --judge-prompts writes its prompts, a line with 'id' and 'prompt' for each
answer; --judge-replies reads its replies, with 'id' and 'reply', and adds the scores.`,
  options: {
    references: { type: 'string', help: 'reference dialogs', placeholder: 'file' },
    predictions: { type: 'string', help: 'answers of the model', placeholder: 'file' },
    json: { type: 'string', help: 'file for the scores as JSON', placeholder: 'file' },
    judgePrompts: { type: 'string', help: 'file for the prompts of a judge', placeholder: 'file' },
    judgeReplies: { type: 'string', help: 'file with the replies of a judge', placeholder: 'file' },
    task: { type: ['task1', 'task2'], help: "task that defines the judge's criteria", default: 'task1' },
    onBadRecord: {
      type: ['stop', 'skip'],
      help: 'stop at an invalid line, or skip and count it',
      default: 'stop',
    },
    skipBad: { type: 'boolean', help: 'same as --on-bad-record skip', hidden: true },
  },
  async run({
    references,
    predictions,
    json,
    judgePrompts: promptsFile,
    judgeReplies,
    task = 'task1',
    skipBad,
    onBadRecord,
  }) {
    if (references === undefined || predictions === undefined) {
      throw new ConfigError(
        'salmonn score: expected --references and --predictions, got at most one of them. Pass both files.',
        { argument: 'references' },
      )
    }
    const { writeJson } = await import('../../../files/json/json.js')
    const { writeJsonl } = await import('../../../files/json/jsonl.js')
    const { judgeSummary } = await import('../evaluation/judge.js')
    const { judgePrompts, readJudgeReplies } = await import('../evaluation/judge-files.js')
    const { trajectoryScores } = await import('../evaluation/metrics.js')
    const { readTrajectoryDialogs } = await import('../answer/trajectory-dialogs.js')
    const { pairTrajectories, readTrajectoryPredictions } = await import('../evaluation/predictions.js')
    const onBadItem = skipBad ? 'skip' : (onBadRecord ?? 'stop')
    const { dialogs, ...badDialogs } = await readTrajectoryDialogs(references, { onBadItem })
    const { predictions: answers, ...badAnswers } = await readTrajectoryPredictions(predictions, { onBadItem })
    for (const { badItems, badItemErrors } of [badDialogs, badAnswers]) {
      if (badItems > 0) console.error(`${badItems} left out; the first: ${badItemErrors[0]?.message}`)
    }
    const { pairs, unanswered } = pairTrajectories(answers, dialogs)
    const scores = trajectoryScores(pairs)
    if (promptsFile !== undefined) await writeJsonl(promptsFile, judgePrompts(dialogs, pairs, { task }))
    const ids = pairs.map(({ id }) => id)
    const replies =
      judgeReplies === undefined ? undefined : (await readJudgeReplies(judgeReplies, ids)).map(({ reply }) => reply)
    const judge = replies && judgeSummary(replies, task)
    if (json !== undefined) await writeJson(json, { ...scores, unanswered, ...(judge && { judge }) })
    console.log(table(scores, unanswered.length))
    if (judge) console.log(marks(judge))
    return 0
  },
})

const shown = (value: number | null) => (value === null ? '-' : value.toFixed(4))

function table(scores: TrajectoryScores, unanswered: number): string {
  const rows: [string, string][] = [
    ['dialogs', `${scores.pairs}${unanswered > 0 ? ` (${unanswered} without an answer)` : ''}`],
    ['with emotions', shown(scores.parsed)],
    ['whole sequence correct', shown(scores.exactSequence)],
    ['turns correct', shown(scores.positionAccuracy)],
    ...scores.accuracyAt.map((value, i): [string, string] => [`  turn ${i + 1}`, shown(value)]),
    ['unweighted average recall', shown(scores.uar)],
    ['F1 of emotions, plain', shown(scores.macroF1)],
    ['F1 of emotions, weighted', shown(scores.weightedF1)],
    ['F1 of the set of emotions', shown(scores.labelSetF1)],
    ['ROUGE-L of the words', shown(scores.rougeL)],
  ]
  const lines = rows.map(([name, value]) => `${name.padEnd(28)}${value}`)
  if (scores.emotions.length > 0) lines.push('', 'emotion      precision   recall       F1    turns')
  for (const { emotion, precision, recall, f1, support } of scores.emotions) {
    const cells = [precision, recall, f1].map((value) => value.toFixed(4).padStart(9)).join('')
    lines.push(`${emotion.padEnd(13)}${cells}${String(support).padStart(9)}`)
  }
  return lines.join('\n')
}

const marks = ({ judged, excluded, means, overall }: JudgeSummary): string =>
  [
    `\njudged ${judged}, without JSON ${excluded}`,
    ...Object.entries(means).map(([name, value]) => `${name.padEnd(28)}${shown(value)}`),
    `${'overall'.padEnd(28)}${shown(overall)}`,
  ].join('\n')
