import { clipSeconds } from '../../../audio/clip.js'
import { argumentError } from '../../../base/check.js'
import { ConfigError, DataError, VoxtorchError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, instanceOf, settings, type ValuesOf } from '../../../base/settings.js'
import type { Dataset } from '../../../data/dataset.js'
import { Random } from '../../../data/random.js'
import type { OnBadRecord } from '../../../kit/records.js'
import { BadRecords } from '../../../kit/records.js'
import { SALMONN_TRAIN_PROMPTS } from '../published/prompts.js'
import { AUDIO_SETTINGS, SalmonnAudioReader, type SalmonnCuts } from './audio.js'
import type { SalmonnPrompt } from './collate.js'
import { writeEmotionSuffix } from './emotion-suffix.js'
import type { SalmonnEntry } from './entry.js'
import { buildSalmonnPrompt, checkTemplate, SALMONN_TEMPLATE } from './prompt.js'
import { SalmonnPrompts } from './prompt-table.js'

const DATASET_SETTINGS = settings({
  ...AUDIO_SETTINGS.table,
  /** Prompts of tasks. Default {@link SALMONN_TRAIN_PROMPTS}. */
  prompts: { type: instanceOf(SalmonnPrompts), default: SALMONN_TRAIN_PROMPTS },
  /** Whether each sample draws one of its task's prompts in each epoch, instead of taking the first. */
  drawPrompts: { type: 'boolean', default: true },
  /** Prompt template. Default {@link SALMONN_TEMPLATE}. */
  template: { type: 'string', default: SALMONN_TEMPLATE },
  /**
   * Language of the line of emotions at the end of answers to `task1…` tasks with known emotions: Chinese as published (default), English,
   * or false for no line.
   */
  emotionSuffix: { type: ['zh', 'en', false], default: 'zh' },
  /** Random seed. */
  seed: { type: 'integer', default: 42 },
})

/** Settings that training and inference must have in common. */
export const COMMON_SETTINGS = DATASET_SETTINGS.pick(
  ...(['template', 'clips', 'gapSeconds', 'channels', 'longAudio', 'emotionSuffix'] as const),
)

/** @interface */
export type SalmonnDatasetOptions = ChangesOf<typeof DATASET_SETTINGS.table>

/** An entry as a sample of the model. */
export interface SalmonnSample {
  prompt: SalmonnPrompt
  target: string
  entry: SalmonnEntry
}

/**
 * Dataset of entries as samples. Audio is read on access. Random choices depend only on seed, epoch and index, so a continued training
 * gets the same samples.
 */
export class SalmonnDataset implements Dataset<SalmonnSample> {
  readonly entries: readonly SalmonnEntry[]
  readonly #audio: SalmonnAudioReader
  readonly #options: ValuesOf<typeof DATASET_SETTINGS.table>
  readonly #given: SalmonnDatasetOptions
  #seconds: readonly (number | undefined)[] = []

  /** @throws ConfigError naming an entry whose task lacks a prompt */
  constructor(entries: readonly SalmonnEntry[], options: SalmonnDatasetOptions = {}) {
    const where = 'SalmonnDataset'
    const read = DATASET_SETTINGS.read(where, options)
    checkTemplate(read.template)
    requireForm(where, 'entries', entries, [{ task: 'string', source: 'string' }])
    const { prompts } = read
    this.entries = entries
    this.#given = options
    this.#options = read
    this.#audio = new SalmonnAudioReader(AUDIO_SETTINGS.changesIn(read))
    const tasks = new Set<string>()
    for (const { task, source } of entries as readonly SalmonnEntry[]) {
      if (tasks.has(task)) continue
      tasks.add(task)
      named(source, () => prompts.of(task))
    }
  }

  get length(): number {
    return this.entries.length
  }

  /** Statistics of audio that was cut off so far. */
  get cuts(): Readonly<SalmonnCuts> {
    return this.#audio.cuts
  }

  async get(index: number, epoch = 0): Promise<SalmonnSample> {
    const entry = this.entries[index]
    if (!entry) throw argumentError('SalmonnDataset.get', 'index', `below ${this.length}`, index)
    const clips = await this.#audio.read(entry)
    const { prompts, drawPrompts, template, seed } = this.#options
    const random = drawPrompts ? new Random(seed, epoch * 2 ** 32 + index) : undefined
    const text = named(entry.source, () =>
      buildSalmonnPrompt({
        prompt: prompts.pick(entry.task, random),
        question: entry.question,
        blocks: clips.map(() => 1),
        template,
      }),
    )
    return { prompt: { text, clips }, target: this.targetOf(entry), entry }
  }

  /** Return the target text, with its line of emotions if there is one. */
  targetOf({ target, task, emotions = [] }: SalmonnEntry): string {
    const { emotionSuffix } = this.#options
    if (emotionSuffix === false || !task.startsWith('task1')) return target
    return writeEmotionSuffix(target, emotions, emotionSuffix)
  }

  /**
   * Estimate the number of tokens of an entry: one per 0.34 s of audio, a little more than one per Latin word, two per Chinese character.
   * Files without a length in their header count as 10 s.
   */
  lengthOf(index: number): number {
    const { question, target, audio } = this.entries[index] as SalmonnEntry
    const seconds = this.#seconds[index] ?? 10 * audio.length
    const text = question + target
    const wide = text.match(/[\u2e80-\u9fff\uac00-\ud7af]/g)?.length ?? 0
    return Math.ceil(seconds / 0.34 + 2 * wide + (text.length - wide) / 4)
  }

  /**
   * Open every audio file once, to find missing or invalid files before training, and to learn their lengths.
   * @returns the entries with readable files: all of them with 'stop' (default), which throws otherwise
   * @throws DataError naming item and file
   */
  async check(
    onBadItem: OnBadRecord = 'stop',
  ): Promise<{ dataset: SalmonnDataset; badItems: number; badItemErrors: DataError[] }> {
    const bad = new BadRecords(onBadItem)
    const [good, seconds]: [SalmonnEntry[], (number | undefined)[]] = [[], []]
    for (let from = 0; from < this.length; from += 16) {
      const some = this.entries.slice(from, from + 16)
      const results = await Promise.allSettled(some.map(secondsOf))
      for (const [i, result] of results.entries()) {
        if (result.status === 'rejected') bad.add(result.reason)
        else {
          good.push(some[i] as SalmonnEntry)
          seconds.push(result.value)
        }
      }
    }
    this.#seconds = bad.count === 0 ? seconds : []
    return {
      dataset: bad.count === 0 ? this : this.#with(good, seconds),
      badItems: bad.count,
      badItemErrors: bad.errors,
    }
  }

  #with(entries: readonly SalmonnEntry[], seconds: readonly (number | undefined)[]): SalmonnDataset {
    const copy = new SalmonnDataset(entries, this.#given)
    copy.#seconds = seconds
    return copy
  }
}

async function secondsOf({ audio, source, id }: SalmonnEntry): Promise<number | undefined> {
  let sum: number | undefined = 0
  for (const path of audio) {
    const seconds = await clipSeconds(path).catch((cause) => {
      if (!(cause instanceof VoxtorchError)) throw cause
      throw new DataError(`${source} (${id}): ${cause.message}`, { item: source, file: path, cause })
    })
    sum = sum === undefined || seconds === undefined ? undefined : sum + seconds
  }
  return sum
}

function named<T>(source: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!(cause instanceof ConfigError)) throw cause
    throw new ConfigError(`${source}: ${cause.message}`, { item: source, cause })
  }
}
