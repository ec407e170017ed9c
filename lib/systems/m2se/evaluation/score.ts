import { requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { taskOf } from '../data/prompt.js'
import { EMOTION_LABELS, SENTIMENT_LABELS } from '../published/wording.js'
import { type MosiMetrics, mosiMetrics } from './metrics.js'
import { type EmoVerseResult, readResults, readStrictLines } from './results.js'
import { type CauseScores, causeScores, type LabelScores, labelScores, readCauses, readScore } from './robust.js'
import { type StrictOptions, type StrictScores, strictScores } from './strict.js'

export const SCORED_TASKS = ['sentiment', 'emotion', 'causes', 'number'] as const
export type ScoredTask = (typeof SCORED_TASKS)[number]

export interface ScoreEmoVerseOptions extends StrictOptions {
  /** Default: what each line's question asks for. */
  task?: ScoredTask
  /**
   * 'robust' (default) reads what an answer means, counts what it could not read, and divides nothing by zero. 'strict' gives the
   * numbers of the published evaluation, and ends where that ends; it needs a `task`.
   */
  mode?: 'strict' | 'robust'
}

/** What simple rules reach on the same records, to be read beside what a model does. */
export type Baselines = Record<string, Record<string, number>>

export interface NumberScores extends MosiMetrics {
  /** Answers without a number, which count as 0. */
  unread: number
}

export interface RobustTaskScores {
  records: number
  scores: LabelScores | CauseScores | NumberScores
  baselines: Baselines
}

export interface EmoVerseScores {
  mode: 'strict' | 'robust'
  records: number
  /** Lines whose question names no task that is scored, such as those for reasons of emotions. */
  unscored: number
  strict?: StrictScores
  tasks: Partial<Record<ScoredTask, RobustTaskScores>>
}

/**
 * Scores a result file, as `inferEmoVerse` and ms-swift write it: JSON lines with `label` and `response`.
 *
 * ```ts
 * const { tasks } = await scoreEmoVerse('infer_result/20260101-120000.jsonl')
 * ```
 * @throws DataError for a line without label or response; in mode 'strict' with `kind`, the name of Python's exception, where the
 * published evaluation ends
 */
export async function scoreEmoVerse(file: string, options: ScoreEmoVerseOptions = {}): Promise<EmoVerseScores> {
  const where = 'scoreEmoVerse'
  requireString(where, 'file', file)
  requireOptions(where, options, ['task', 'mode', 'variant', 'labels', 'pictures'])
  const { task, mode = 'robust', variant, labels, pictures } = options
  requireOneOf(where, 'mode', mode, ['strict', 'robust'])
  if (task !== undefined) requireOneOf(where, 'task', task, SCORED_TASKS)
  if (variant !== undefined) requireOneOf(where, 'variant', variant, ['emoverse', 'other'])
  if (mode === 'robust') {
    for (const [name, value] of Object.entries({ variant, pictures })) {
      if (value !== undefined) throw new ConfigError(`${where}: ${name} is for mode 'strict'`, { argument: name })
    }
    return robustScores(await readResults(file), task, labels)
  }
  if (task === undefined || task === 'number') {
    throw new ConfigError(`${where}: mode 'strict' needs a task: sentiment, emotion or causes`, { argument: 'task' })
  }
  const { count, lines } = await readStrictLines(file)
  return { mode, records: count, unscored: 0, tasks: {}, strict: strictScores(task, lines, options) }
}

const TASKS: Readonly<Record<string, ScoredTask>> = { MSA: 'sentiment', MER: 'emotion', ECPE: 'causes' }

/** What a line is scored as; a sentiment that is a number is one. */
const scoredTask = ({ query, label }: EmoVerseResult): ScoredTask | undefined => {
  const task = TASKS[taskOf({ query })]
  return task === 'sentiment' && readScore(label) !== undefined ? 'number' : task
}

function robustScores(
  results: readonly EmoVerseResult[],
  task: ScoredTask | undefined,
  labels: readonly string[] | undefined,
): EmoVerseScores {
  const groups = new Map<ScoredTask, EmoVerseResult[]>()
  let unscored = 0
  for (const result of results) {
    const own = task ?? scoredTask(result)
    if (own === undefined) unscored += 1
    else groups.set(own, [...(groups.get(own) ?? []), result])
  }
  const tasks = [...groups].map(([name, group]) => [name, scoresOf(name, group, labels)])
  return { mode: 'robust', records: results.length, unscored, tasks: Object.fromEntries(tasks) }
}

function scoresOf(
  task: ScoredTask,
  results: readonly EmoVerseResult[],
  labels: readonly string[] | undefined,
): RobustTaskScores {
  const truth = results.map(({ label }) => label)
  const answers = results.map(({ response }) => response)
  const records = results.length
  if (task === 'causes') {
    const rules = (rule: (target: number) => number[]) =>
      results.map(({ query, label }) => {
        const target = targetOf(query, label)
        return target
          ? rule(target.number)
              .map((cause) => `${target.number}_${target.emotion},${cause}`)
              .join(';')
          : ''
      })
    const numbers = (said: readonly string[]) => {
      const { precision, recall, f1, weightedF1 } = causeScores(truth, said)
      return { precision, recall, f1, weightedF1 }
    }
    const baselines = {
      itself: numbers(rules((target) => [target])),
      'itself and previous': numbers(rules((target) => (target > 1 ? [target - 1, target] : [target]))),
    }
    return { records, scores: causeScores(truth, answers), baselines }
  }
  if (task === 'number') {
    const read = answers.map(readScore)
    const wanted = truth.map((label) => readScore(label) ?? 0)
    const middle = [...wanted].sort((a, b) => a - b)[Math.floor(wanted.length / 2)] as number
    const scores = {
      ...mosiMetrics(
        wanted,
        read.map((one) => one ?? 0),
      ),
      unread: read.filter((one) => one === undefined).length,
    }
    const { acc2HasZero, mae, acc7 } = mosiMetrics(
      wanted,
      wanted.map(() => middle),
    )
    return { records, scores, baselines: { median: { acc2HasZero, mae, acc7 } } }
  }
  const names = labels ?? labelsOf(task, truth)
  const unknown = truth.find((label) => !names.includes(label))
  if (unknown !== undefined) {
    throw new ConfigError(
      `The label ${JSON.stringify(unknown)} is none of ${names.join(', ')}: say which labels there are`,
      {
        argument: 'labels',
      },
    )
  }
  const counts = names.map((name) => truth.filter((label) => label === name).length)
  const majority = names[counts.indexOf(Math.max(...counts))] as string
  const { accuracy, weightedF1, macroF1 } = labelScores(
    truth,
    truth.map(() => majority),
    names,
  )
  return {
    records,
    scores: labelScores(truth, answers, names),
    baselines: { [`always ${majority}`]: { accuracy, weightedF1, macroF1 } },
  }
}

/** Those of the data that the labels are of. */
function labelsOf(task: ScoredTask, truth: readonly string[]): readonly string[] {
  if (task === 'sentiment') return SENTIMENT_LABELS
  return truth.includes('Happy.') ? EMOTION_LABELS.mosei : EMOTION_LABELS.meld
}

/** The target of a question about causes, which a label names too. */
function targetOf(query: string, label: string): { number: number; emotion: string } | undefined {
  const match =
    /^Target utterance:(\d+)_([a-z]+)\./m.exec(query) ?? /^(\d+)_([a-z]+),/.exec(readCauses(label).pairs[0] ?? '')
  return match ? { number: Number(match[1]), emotion: match[2] as string } : undefined
}
