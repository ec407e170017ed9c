// The real run of EmoVerse's tests, in parts of which each is kept: data, figures and the table that is made of them.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { readJson, writeJson } from '../../../lib/files/index.js'
import {
  type CauseScores,
  type EmoVerse,
  type EmoVerseInputs,
  type EmoVerseStageOptions,
  type EmoVerseStageResults,
  type EmoVerseTask,
  emoverseData,
  inferEmoVerse,
  type LabelScores,
  type RobustTaskScores,
  type StrictScores,
  type SwiftRecord,
  scoreEmoVerse,
  type TaskLogEntry,
  type TrainEmoVerseOptions,
  trainEmoVerse,
} from '../../../lib/systems/emoverse/index.js'

export const RUN_TASKS = ['MSA', 'MER', 'ECPE'] as const
export type RunTask = (typeof RUN_TASKS)[number]
type Counts = Record<RunTask, number>

/** What a run is made of: a folder holds one of a kind. */
export interface RunSettings {
  base: string
  /** Records to learn from and to answer, drawn by the seed. */
  records: Counts
  tested: Counts
  recipe: NonNullable<EmoVerseStageOptions['recipe']>
  lora: NonNullable<EmoVerseStageOptions['lora']>
  /** For the Trainer. */
  args: NonNullable<TrainEmoVerseOptions['args']>
}

/** F1 of the published evaluation on ECF's test data: of rules (`scoring.test.ts` has them), and as it is reported for EmoVerse. */
export const STRICT_F1 = { itself: 0.5784, 'itself and previous': 0.665, 'EmoVerse, reported': 0.6995 } as const
const STRICT_RULES = Object.entries(STRICT_F1)
  .map(([name, f1]) => `${name}: ${f1}`)
  .join('; ')

/** Both ways of training see the same records, in as many steps. */
export const RUNS = { 'two stages': ['first', 'second'], 'one stage': ['all'] } as const
export type Run = keyof typeof RUNS

/** Questions about causes that thresholds are tried on. */
const HELD_OUT = 300

interface StageFigures {
  name: string
  records: number
  steps: number
  tokens: number
  seconds: number
  /** Loss and accuracy of each task, from log to log. */
  curves: TaskLogEntry[]
}
interface AnswerFigures {
  seconds: number
  /** Written freely; and of what is allowed the likeliest label, or the causes that are likely enough. */
  free: RobustTaskScores
  allowed: RobustTaskScores
  /** Of causes: from which likelihood on they are named; and what the published evaluation has of either, or the fault that ends it. */
  causeThreshold?: number
  strict?: Record<How, StrictScores | string>
}
type How = 'free' | 'allowed'
export interface RunFigures {
  settings: RunSettings
  machine: { processor: string; threads: number }
  stages: Partial<Record<Run, StageFigures[]>>
  answers: Partial<Record<Run, Partial<Record<RunTask, AnswerFigures>>>>
}

/** `MSA=600,MER=1500`, over defaults. */
export function countsOf(text: string | undefined, defaults: Counts): Counts {
  const given = (text ?? '').split(',').filter((one) => one !== '').map((one) => one.split('='))
  for (const [name, value] of given) {
    if (RUN_TASKS.includes(name as RunTask) && Number.isSafeInteger(Number(value)) && Number(value) > 0) continue
    throw new Error(`${name}=${value}: one of ${RUN_TASKS.join(', ')} and how many`)
  }
  return { ...defaults, ...Object.fromEntries(given.map(([name, value]) => [name, Number(value)])) }
} // biome-ignore format: one line

/** A run in a folder, whose figures are in `figures.json` there, and as a table in `table.md`. */
export class MeldRun {
  readonly #file: string

  /** @param shared has `meld/` and `ecf/` */
  constructor(
    readonly home: string,
    readonly shared: string,
    readonly settings: RunSettings,
    readonly threads: number,
  ) {
    mkdirSync(home, { recursive: true })
    this.#file = join(home, 'figures.json')
  }

  /** What is known so far. @throws Error where the folder has a run of another kind */
  async figures(): Promise<RunFigures> {
    const machine = { processor: cpus()[0]?.model ?? '', threads: this.threads }
    if (!existsSync(this.#file)) return { settings: this.settings, machine, stages: {}, answers: {} }
    const found = (await readJson(this.#file)) as unknown as RunFigures
    if (JSON.stringify(found.settings) === JSON.stringify(this.settings)) return found
    throw new Error(`${this.#file} is of another run: ${JSON.stringify(found.settings)}`)
  }

  /** Whether the model of a run is there. */
  isTrained = (run: Run): boolean => existsSync(this.modelOf(run))
  modelOf = (run: Run): string => join(this.#folderOf(run), 'model')
  #folderOf = (run: Run): string => join(this.home, run.replace(' ', '-'))

  /** Trains what is not trained yet, and goes on where it was ended. */
  async train(run: Run, load: () => Promise<EmoVerse>): Promise<void> {
    if ((await this.figures()).stages[run] !== undefined) return
    using model = await load()
    const stages = await this.#stagesOf(run, model)
    const outputDir = this.#folderOf(run)
    const { stages: results } = await trainEmoVerse(model, { outputDir, stages, args: this.settings.args })
    const figures: StageFigures[] = []
    for (const [i, result] of results.entries()) {
      const data = stages[i]?.data as SwiftRecord[]
      const lengths = data.map((record) => model.lengthOf(record))
      figures.push({
        ...stageFigures(join(outputDir, result.name), result),
        tokens: lengths.reduce((a, b) => a + b, 0),
      })
    }
    await this.#keep((all) => ({ ...all, stages: { ...all.stages, [run]: figures } }))
  }

  /** Answers the test questions that are not answered yet. */
  async answer(run: Run, load: () => Promise<EmoVerse>): Promise<void> {
    const known = (await this.figures()).answers[run] ?? {}
    const missing = RUN_TASKS.filter((task) => known[task] === undefined)
    if (missing.length === 0) return
    using model = await load()
    for (const task of missing) {
      const began = performance.now()
      const data = await this.#recordsOf(task, 'test', this.settings.tested[task])
      // Questions about one conversation, one after another: what they begin with alike is read once.
      data.sort((a, b) => (a.query < b.query ? -1 : Number(a.query > b.query)))
      const output = (how: string) => join(this.#folderOf(run), `${task}-${how}.jsonl`)
      const onProgress = (done: number, all: number) => console.log(`${run}, ${task}: ${done} of ${all}`)
      const causeThreshold = task === 'ECPE' ? await this.#causeThreshold(model, output('held-out')) : undefined
      const scored = async (how: How) => {
        const byLabels = how === 'allowed' && {
          byLabels: true,
          ...(causeThreshold !== undefined && { causeThreshold }),
        }
        const options = { data, output: output(how), maxNewTokens: 48, batchSize: 32, onProgress, ...byLabels }
        const { file } = await inferEmoVerse(model, options)
        return Object.values((await scoreEmoVerse(file)).tasks)[0] as RobustTaskScores
      }
      const strictly = async (how: How): Promise<StrictScores | string> => {
        try {
          return (await scoreEmoVerse(output(how), { mode: 'strict', task: 'causes' })).strict as StrictScores
        } catch (error) {
          return (error as Error).message
        }
      }
      const both = { free: await scored('free'), allowed: await scored('allowed') }
      const ofCauses = causeThreshold !== undefined && {
        causeThreshold,
        strict: { free: await strictly('free'), allowed: await strictly('allowed') },
      }
      const seconds = (performance.now() - began) / 1000
      await this.#keep((all) => ({
        ...all,
        answers: { ...all.answers, [run]: { ...all.answers[run], [task]: { seconds, ...both, ...ofCauses } } },
      }))
    }
  }

  /** From which likelihood on causes are best named, in conversations of the training data that nothing was learnt of. */
  async #causeThreshold(model: EmoVerse, output: string): Promise<number> {
    const all = await this.#recordsOf('ECPE', 'train', Infinity)
    const conversation = ({ query }: SwiftRecord) => query.slice(0, query.indexOf('\nCandidate utterances:'))
    const seen = new Set((await this.#learntOf('ECPE', model)).map(conversation))
    const data = all.filter((record) => !seen.has(conversation(record))).slice(0, HELD_OUT)
    await inferEmoVerse(model, { data, output, byLabels: true, batchSize: 32 })
    let best = { f1: -1, causeThreshold: 0 }
    for (let hundredths = 5; hundredths <= 95; hundredths += 5) {
      const causeThreshold = hundredths / 100
      const { causes } = (await scoreEmoVerse(output, { causeThreshold })).tasks
      const { f1 } = (causes as { scores: CauseScores }).scores
      if (f1 > best.f1) best = { f1, causeThreshold }
    }
    return best.causeThreshold
  }

  async #keep(change: (figures: RunFigures) => RunFigures): Promise<void> {
    const figures = change(await this.figures())
    await writeJson(this.#file, figures)
    writeFileSync(join(this.home, 'table.md'), tableOf(figures))
  }

  /** In the first stage mostly sentiment, in the second the rest; in one stage all of it. */
  async #stagesOf(run: Run, model: EmoVerse): Promise<EmoVerseStageOptions[]> {
    const { recipe, lora } = this.settings
    const learnt = await Promise.all(RUN_TASKS.map((task) => this.#learntOf(task, model)))
    const [sentiment, emotion, causes] = learnt as [SwiftRecord[], SwiftRecord[], SwiftRecord[]]
    const { batchSize = 1, accumulation = 8 } = recipe
    const [most, some] = [Math.round((sentiment.length * 2) / 3), Math.round(emotion.length / 5)]
    const early = [...sentiment.slice(0, most), ...emotion.slice(0, some)]
    // Whole steps, so that both ways have as many.
    const whole = early.length - (early.length % (batchSize * accumulation))
    const first = early.slice(0, whole)
    const second = [...early.slice(whole), ...sentiment.slice(most), ...emotion.slice(some), ...causes]
    const data = run === 'two stages' ? [first, second] : [[...first, ...second]]
    return RUNS[run].map((name, i) => ({ name, data: data[i] as SwiftRecord[], recipe, lora }))
  }

  #learntOf(task: RunTask, model: EmoVerse): Promise<SwiftRecord[]> {
    const { records, recipe } = this.settings
    return this.#recordsOf(task, 'train', records[task], (one) => model.lengthOf(one) <= (recipe.maxLength ?? Infinity))
  }

  async #recordsOf(
    task: RunTask,
    part: 'train' | 'test',
    most: number,
    isGood: (record: SwiftRecord) => boolean = () => true,
  ): Promise<SwiftRecord[]> {
    const ecf = join(this.shared, 'ecf', part === 'train' ? 'Subtask_1_train.json' : 'Subtask_2_test.json')
    const inputs: EmoVerseInputs = task === 'ECPE' ? { ecf } : { meld: join(this.shared, 'meld') }
    const others: readonly EmoVerseTask[] = ['MSA', 'MER', 'FER', 'ERI', 'ECPE']
    const weights = Object.fromEntries(others.map((one) => [one, one === task ? 1 : 0]))
    const found: SwiftRecord[] = []
    for (const record of (await emoverseData(inputs, { part, weights })).records) {
      if (found.length === most) break
      if (isGood(record)) found.push(record)
    }
    return found
  }
}

function stageFigures(folder: string, { name, samples, globalStep: steps }: EmoVerseStageResults) {
  const lines = readFileSync(join(folder, 'tasks.jsonl'), 'utf8').trim().split('\n')
  const curves = lines.map((line) => JSON.parse(line) as TaskLogEntry)
  // Those of all sittings, where the results have the last one's alone.
  const seconds = curves.flatMap(({ tasks }) => Object.values(tasks)).reduce((sum, task) => sum + task.seconds, 0)
  return { name, records: samples.train, steps, seconds, curves }
}

const percent = (value: number): string => `${(100 * value).toFixed(1)} %`
const decimals = (value: number): string => value.toFixed(3)

/** The figures as Markdown, for the page of the documentation. */
export function tableOf({ settings, machine, stages, answers }: RunFigures): string {
  const lines = [
    `${settings.base}, ${machine.processor}, ${machine.threads} threads. Learnt from: ${told(settings.records)}. Answered: ${told(settings.tested)}.`,
    '',
    '| | steps | tokens | seconds a step | loss of each task, in quarters |',
    '| --- | --- | --- | --- | --- |',
  ]
  for (const [run, all] of Object.entries(stages)) {
    for (const { name, steps, tokens, seconds, curves } of all ?? []) {
      lines.push(`| ${run}, ${name} | ${steps} | ${tokens} | ${(seconds / steps).toFixed(2)} | ${RUN_TASKS.map((task) => quarters(curves, task)).filter((one) => one !== '').join('; ')} |`)
    }
  }
  lines.push('', '| | what | freely | by likelihood | the simple rules |', '| --- | --- | --- | --- | --- |')
  for (const [run, all] of Object.entries(answers)) {
    for (const [task, { free, allowed, strict, causeThreshold }] of Object.entries(all ?? {})) {
      const of = (what: string, read: (scores: never) => number, show: (value: number) => string, name: string) => {
        const rules = Object.entries(free.baselines).map(([rule, scores]) => `${rule}: ${show(scores[name] as number)}`)
        const numbers = [free, allowed].map((one) => show(read(one.scores as never)))
        lines.push(`| ${run} | ${what} | ${numbers.join(' | ')} | ${rules.join('; ')} |`)
      }
      if (task === 'ECPE') {
        of(`causes, F1; named from ${causeThreshold} on`, ({ f1 }: CauseScores) => f1, decimals, 'f1')
        const numbers = Object.values(strict ?? {}).map((one) => (typeof one === 'object' ? decimals(one.f1 as number) : one))
        lines.push(`| ${run} | the same by the published evaluation | ${numbers.join(' | ')} | of all of them ${STRICT_RULES} |`)
      }
      else of(task === 'MSA' ? 'sentiment, accuracy' : 'emotion, accuracy', ({ accuracy }: LabelScores) => accuracy, percent, 'accuracy')
      if (task === 'MER') of('emotion, weighted F1', ({ weightedF1 }: LabelScores) => weightedF1, decimals, 'weightedF1')
    }
  }
  return `${lines.join('\n')}\n`
} // biome-ignore format: long lines

const told = (counts: Counts): string => RUN_TASKS.map((task) => `${task} ${counts[task]}`).join(', ')

/** The mean loss of a task in each quarter of a stage. */
function quarters(curves: readonly TaskLogEntry[], task: RunTask): string {
  const own = curves.flatMap(({ tasks }) => tasks[task] ?? [])
  if (own.length === 0) return ''
  const means = [0, 1, 2, 3].flatMap((i) => {
    const part = own.slice(Math.floor((i * own.length) / 4), Math.floor(((i + 1) * own.length) / 4))
    const tokens = part.reduce((sum, one) => sum + one.tokens, 0)
    return tokens === 0 ? [] : [decimals(part.reduce((sum, one) => sum + one.loss * one.tokens, 0) / tokens)]
  })
  return `${task} ${means.join(', ')}`
}
