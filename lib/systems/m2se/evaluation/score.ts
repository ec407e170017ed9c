import { defined, requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { taskOf } from '../data/prompt.js'
import { EMOTION_LABELS, SENTIMENT_LABELS } from '../published/wording.js'
import { type MosiMetrics, mosiMetrics } from './metrics.js'
import { type EmoVerseResult, readResults, readStrictLines } from './results.js'
import {
  type CauseScores,
  type ClassScores,
  causeScores,
  scoresOf as classScores,
  type LabelScores,
  labelScores,
  readCauses,
  readScore,
} from './robust.js'
import {
  type PythonFault,
  type ResultLine,
  responseFor,
  type StrictOptions,
  type StrictScores,
  type StrictTask,
  strictAnswers,
  strictCauseCounts,
  strictScores,
} from './strict.js'
import { causesBy, type LabelThresholds, labelBy, requireThresholds } from './thresholds.js'

export const SCORED_TASKS = ['sentiment', 'emotion', 'causes', 'number'] as const
export type ScoredTask = (typeof SCORED_TASKS)[number]

/** With thresholds, results that have probabilities are scored by the label, or the causes, that these name; of mode 'robust'. */
export interface ScoreEmoVerseOptions extends StrictOptions, LabelThresholds {
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

/** What the published evaluation comes to, by class; who is taken for whom, but of causes. */
export interface StrictTable extends Omit<StrictScores, 'recalls'> {
  positiveRecall?: number
  negativeRecall?: number
  classes: ClassScores[]
  confusion?: LabelScores['confusion']
}

export interface RobustTaskScores {
  records: number
  scores: LabelScores | CauseScores | NumberScores | StrictTable
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
  const known = ['task', 'mode', 'variant', 'labels', 'pictures', 'thresholds', 'fallback', 'causeThreshold']
  requireOptions(where, options, known)
  const { task, mode = 'robust', variant, labels, pictures, thresholds, fallback, causeThreshold } = options
  const naming = defined({ thresholds, fallback, causeThreshold })
  requireThresholds(where, naming)
  requireOneOf(where, 'mode', mode, ['strict', 'robust'])
  if (task !== undefined) requireOneOf(where, 'task', task, SCORED_TASKS)
  if (variant !== undefined) requireOneOf(where, 'variant', variant, ['emoverse', 'other'])
  if (mode === 'robust') {
    for (const [name, value] of Object.entries({ variant, pictures })) {
      if (value !== undefined) throw new ConfigError(`${where}: ${name} is for mode 'strict'`, { argument: name })
    }
    const results = await readResults(file)
    return robustScores(renamed(file, results, naming), task, labels)
  }
  for (const argument of Object.keys(naming)) {
    throw new ConfigError(`${where}: ${argument} is for mode 'robust'`, { argument })
  }
  if (task === undefined || task === 'number') {
    throw new ConfigError(`${where}: mode 'strict' needs a task: sentiment, emotion or causes`, { argument: 'task' })
  }
  const { count, lines } = await readStrictLines(file)
  const own: ResultLine[] = []
  // Line by line: where the published evaluation ends before a broken one, it has not read that.
  const strict = strictScores(task, keptIn(own, lines), options)
  return { mode, records: count, unscored: 0, tasks: { [task]: strictTask(task, own, strict, options) }, strict }
}

/** Answers as thresholds name them. @throws DataError where no result has probabilities that they are of */
function renamed(file: string, results: readonly EmoVerseResult[], naming: LabelThresholds): EmoVerseResult[] {
  let all = [...results]
  const named = (what: string, ofCauses: boolean, name: typeof labelBy) => {
    const isOne = ({ probabilities }: EmoVerseResult) =>
      probabilities !== undefined && areOfCauses(probabilities) === ofCauses
    if (!all.some(isOne)) {
      throw new DataError(
        `${file} has no probabilities${ofCauses ? ' of causes' : ''}, which ${what} needs: answer with byLabels`,
        { file },
      )
    }
    all = all.map((one) => (isOne(one) ? { ...one, response: name(one.probabilities ?? {}, naming) } : one))
  }
  if (naming.thresholds !== undefined) named('thresholds', false, labelBy)
  if (naming.causeThreshold !== undefined) named('causeThreshold', true, causesBy)
  return all
}

/** Whether these are of pairs of target and cause, and not of labels. */
const areOfCauses = (probabilities: Readonly<Record<string, number>>): boolean => {
  const names = Object.keys(probabilities)
  return names.length > 0 && names.every((name) => readCauses(name).pairs.length === 1)
}

function* keptIn(list: ResultLine[], lines: Iterable<ResultLine>): Generator<ResultLine> {
  for (const line of lines) {
    list.push(line)
    yield line
  }
}

/** Beside the numbers of the published evaluation what it makes of each class, and of simple rules in its own way. */
function strictTask(
  task: StrictTask,
  lines: readonly ResultLine[],
  strict: StrictScores,
  options: StrictOptions,
): RobustTaskScores {
  const { variant = 'emoverse' } = options
  const baselines: Baselines = {}
  const rule = (name: string, responseTo: (line: ResultLine) => string) => {
    try {
      baselines[name] = numbersOf(
        strictScores(
          task,
          lines.map((line) => ({ ...line, response: responseTo(line) })),
          options,
        ),
      )
    } catch (error) {
      const { kind } = error as { kind?: PythonFault }
      if (kind === undefined) throw error
      baselines[`${name} (ends with ${kind})`] = {}
    }
  }
  if (task === 'causes') {
    const said = ({ query, label }: ResultLine, causesOf: (target: number) => number[]) => {
      const target = targetOf(String(query ?? ''), String(label))
      const causes = target ? causesOf(target.number) : []
      return variant === 'other'
        ? causes.join(' ')
        : causes.map((cause) => `${target?.number}_${target?.emotion},${cause}`).join(';')
    }
    for (const [name, causesOf] of Object.entries(CAUSE_RULES)) rule(name, (line) => said(line, causesOf))
    const classes = strictCauseCounts(lines, variant).map(({ name, right, said: count, support }) => ({
      name,
      ...classScores(right, count, support),
    }))
    return { records: lines.length, scores: { ...numbersOf(strict), classes }, baselines }
  }
  const { truth, said, labels } = strictAnswers(task, lines, options)
  const majority = commonest(truth, labels)
  rule(`always ${majority}`, () => responseFor(majority, variant))
  const { classes, confusion } = labelScores(truth, said, labels)
  return { records: truth.length, scores: { ...numbersOf(strict), classes, confusion }, baselines }
}

/** Numbers by name alone. */
const numbersOf = ({ recalls, ...rest }: StrictScores): Record<string, number> =>
  defined({ ...rest, positiveRecall: recalls?.[0], negativeRecall: recalls?.[1] }) as Record<string, number>

/** Which utterances a rule names as causes of what is felt in one. */
const CAUSE_RULES: Readonly<Record<string, (target: number) => number[]>> = {
  itself: (target) => [target],
  'itself and previous': (target) => (target > 1 ? [target - 1, target] : [target]),
}

function commonest(truth: readonly string[], names: readonly string[]): string {
  const counts = names.map((name) => truth.filter((label) => label === name).length)
  return names[counts.indexOf(Math.max(...counts))] as string
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
    const baselines = Object.fromEntries(
      Object.entries(CAUSE_RULES).map(([name, rule]) => [name, numbers(rules(rule))]),
    )
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
  const majority = commonest(truth, names)
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
