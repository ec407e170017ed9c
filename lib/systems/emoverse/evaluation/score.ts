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
import { type LabelThresholds, requireThresholds, selectCauses, selectLabel } from './thresholds.js'

export const SCORED_TASKS = ['sentiment', 'emotion', 'causes', 'number'] as const
export type ScoredTask = (typeof SCORED_TASKS)[number]

/** Options of {@link scoreEmoVerse}. With thresholds (mode 'robust'), the probabilities of a result decide its labels or causes. */
export interface ScoreEmoVerseOptions extends StrictOptions, LabelThresholds {
  /** Task of all lines. Default: by each line's question. */
  task?: ScoredTask
  /**
   * 'robust' (default) parses the meaning of answers, counts those that it cannot parse, and handles empty classes. 'strict' gives the
   * numbers of the published evaluation, and fails where it fails; it needs a `task`.
   */
  mode?: 'strict' | 'robust'
}

/** Scores of simple baselines on the same records, by name and metric. */
export type Baselines = Record<string, Record<string, number>>

export interface NumberScores extends MosiMetrics {
  /** Number of answers without a number, which count as 0. */
  unread: number
}

/** Results of the published evaluation, with scores by class and, except for causes, a confusion matrix. */
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
  /** Number of lines whose task has no scores, such as emotion reason inference. */
  unscored: number
  strict?: StrictScores
  tasks: Partial<Record<ScoredTask, RobustTaskScores>>
}

/**
 * Score a result file, as `inferEmoVerse` and ms-swift write it: JSON lines with `label` and `response`.
 *
 * ```ts
 * const { tasks } = await scoreEmoVerse('infer_result/20260101-120000.jsonl')
 * ```
 * @throws DataError for a line without label or response; in mode 'strict' with `kind`, the name of Python's exception, where the published
 * evaluation fails
 */
export async function scoreEmoVerse(file: string, options: ScoreEmoVerseOptions = {}): Promise<EmoVerseScores> {
  const where = 'scoreEmoVerse'
  requireString(where, 'file', file)
  const known = ['task', 'mode', 'variant', 'labels', 'countedImages', 'thresholds', 'fallback', 'causeThreshold']
  requireOptions(where, options, known)
  const { task, mode = 'robust', variant, labels, countedImages, thresholds, fallback, causeThreshold } = options
  const naming = defined({ thresholds, fallback, causeThreshold })
  requireThresholds(where, naming)
  requireOneOf(where, 'mode', mode, ['strict', 'robust'])
  if (task !== undefined) requireOneOf(where, 'task', task, SCORED_TASKS)
  if (variant !== undefined) requireOneOf(where, 'variant', variant, ['emoverse', 'other'])
  if (mode === 'robust') {
    for (const [name, value] of Object.entries({ variant, countedImages })) {
      if (value !== undefined)
        throw new ConfigError(
          `${where}.${name}: expected mode 'strict', got 'robust'. Set mode, or leave ${name} out.`,
          { argument: name },
        )
    }
    const results = await readResults(file)
    return robustScores(withThresholds(file, results, naming), task, labels)
  }
  for (const argument of Object.keys(naming)) {
    throw new ConfigError(
      `${where}.${argument}: expected mode 'robust', got 'strict'. Set mode, or leave ${argument} out.`,
      { argument },
    )
  }
  if (task === undefined || task === 'number') {
    throw new ConfigError(
      `${where}.task: expected sentiment, emotion or causes in mode 'strict', got ${task ?? 'none'}.`,
      { argument: 'task' },
    )
  }
  const { count, lines } = await readStrictLines(file)
  const own: ResultLine[] = []
  // Read lazily: the published evaluation can fail before it reaches a broken line.
  const strict = strictScores(task, collectLines(own, lines), options)
  return { mode, records: count, unscored: 0, tasks: { [task]: strictTask(task, own, strict, options) }, strict }
}

/** Replace answers by those that thresholds select. @throws DataError if no result has the probabilities that these need */
function withThresholds(file: string, results: readonly EmoVerseResult[], naming: LabelThresholds): EmoVerseResult[] {
  let all = [...results]
  const named = (what: string, ofCauses: boolean, name: typeof selectLabel) => {
    const isOne = ({ probabilities }: EmoVerseResult) =>
      probabilities !== undefined && areOfCauses(probabilities) === ofCauses
    if (!all.some(isOne)) {
      throw new DataError(
        `${file}: expected probabilities${ofCauses ? ' of causes' : ' of labels'} for ${what}, got none. Infer with byLabels.`,
        { file },
      )
    }
    all = all.map((one) => (isOne(one) ? { ...one, response: name(one.probabilities ?? {}, naming) } : one))
  }
  if (naming.thresholds !== undefined) named('thresholds', false, selectLabel)
  if (naming.causeThreshold !== undefined) named('causeThreshold', true, selectCauses)
  return all
}

/** Return whether the probabilities are of pairs of target and cause, not of labels. */
const areOfCauses = (probabilities: Readonly<Record<string, number>>): boolean => {
  const names = Object.keys(probabilities)
  return names.length > 0 && names.every((name) => readCauses(name).pairs.length === 1)
}

function* collectLines(list: ResultLine[], lines: Iterable<ResultLine>): Generator<ResultLine> {
  for (const line of lines) {
    list.push(line)
    yield line
  }
}

/** Add scores by class, and baselines under the same rules, to the numbers of the published evaluation. */
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
    const answerOf = ({ query, label }: ResultLine, causesOf: (target: number) => number[]) => {
      const target = targetOf(String(query ?? ''), String(label))
      const causes = target ? causesOf(target.number) : []
      return variant === 'other'
        ? causes.join(' ')
        : causes.map((cause) => `${target?.number}_${target?.emotion},${cause}`).join(';')
    }
    for (const [name, causesOf] of Object.entries(CAUSE_RULES)) rule(name, (line) => answerOf(line, causesOf))
    const classes = strictCauseCounts(lines, variant).map(({ name, right, predicted: count, support }) => ({
      name,
      ...classScores(right, count, support),
    }))
    return { records: lines.length, scores: { ...numbersOf(strict), classes }, baselines }
  }
  const { truth, predicted, labels } = strictAnswers(task, lines, options)
  const majority = mostFrequent(truth, labels)
  rule(`always ${majority}`, () => responseFor(majority, variant))
  const { classes, confusion } = labelScores(truth, predicted, labels)
  return { records: truth.length, scores: { ...numbersOf(strict), classes, confusion }, baselines }
}

/** Flatten scores to numbers by name. */
const numbersOf = ({ recalls, ...rest }: StrictScores): Record<string, number> =>
  defined({ ...rest, positiveRecall: recalls?.[0], negativeRecall: recalls?.[1] }) as Record<string, number>

/** Baselines that return the causes of a target utterance. */
const CAUSE_RULES: Readonly<Record<string, (target: number) => number[]>> = {
  itself: (target) => [target],
  'itself and previous': (target) => (target > 1 ? [target - 1, target] : [target]),
}

function mostFrequent(truth: readonly string[], names: readonly string[]): string {
  const counts = names.map((name) => truth.filter((label) => label === name).length)
  return names[counts.indexOf(Math.max(...counts))] as string
}

const TASKS: Readonly<Record<string, ScoredTask>> = { MSA: 'sentiment', MER: 'emotion', ECPE: 'causes' }

/** Return the task of a line. A sentiment label that is a number selects 'number'. */
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
    const numbers = (predicted: readonly string[]) => {
      const { precision, recall, f1, weightedF1 } = causeScores(truth, predicted)
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
    const what = `expected one of ${names.join(', ')}, got ${JSON.stringify(unknown)}. Pass all labels of the file`
    throw new ConfigError(`scoreEmoVerse.labels: ${what}.`, { argument: 'labels' })
  }
  const majority = mostFrequent(truth, names)
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

/** Return the label set of the data set that the true labels belong to. */
function labelsOf(task: ScoredTask, truth: readonly string[]): readonly string[] {
  if (task === 'sentiment') return SENTIMENT_LABELS
  return truth.includes('Happy.') ? EMOTION_LABELS.mosei : EMOTION_LABELS.meld
}

/** Return the target of a question about causes, from the question or else from the label. */
function targetOf(query: string, label: string): { number: number; emotion: string } | undefined {
  const match =
    /^Target utterance:(\d+)_([a-z]+)\./m.exec(query) ?? /^(\d+)_([a-z]+),/.exec(readCauses(label).pairs[0] ?? '')
  return match ? { number: Number(match[1]), emotion: match[2] as string } : undefined
}
