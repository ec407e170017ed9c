import { join } from 'node:path'
import { defined, misuse, requireObject, requireOptions, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { readJson, writeJson } from '../../../files/json/json.js'
import { labelNames, scoresOf } from '../../../kit/task.js'
import { requireSaved } from '../../../models/pretrained.js'
import type { Tensor } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { cutText } from '../data/collate.js'
import { SpectraDialogText, type SpectraDialogTextOptions } from '../data/text.js'
import type { SpectraTask } from '../evaluation/task.js'
import type { LoadSpectraOptions } from '../network/files.js'
import { SpectraForSequenceClassification } from '../network/network.js'
import { requireTrained } from '../network/untrained.js'
import { embedded, meanOf, rowsOf } from './embed.js'
import {
  readTurns,
  type SpectraTurn,
  type SpectraTurnOptions,
  type SpectraWindow,
  type TurnReading,
  type TurnRow,
} from './turns.js'

/** What a fine-tuned network was taught, beside its weights. */
export interface SpectraClassifierOptions extends SpectraDialogTextOptions {
  tokenizer: Tokenizer
  task: SpectraTask
  /** Whether texts begin with the turns before. Default false. */
  history?: boolean
  /** Whether the speech of the turn before is heard. Default false. */
  historyAudio?: boolean
  /** Whether token types tell turns before from the current one. Default: as `history`. */
  turnIds?: boolean
  /** In samples and tokens. Default: the network's. */
  maxAudioLength?: number
  maxTextLength?: number
}

export interface SpectraClassifyOptions extends SpectraTurnOptions {
  /** Adds what the fused layers attend to. Default false. */
  attentions?: boolean
}

/** What the network attends to in a window of a turn. */
export interface SpectraAttention {
  window: SpectraWindow
  /** Per fused layer, float32 [heads, positions, positions]: how much a position (row) takes from another (column). */
  layers: Tensor[]
  /** The text's tokens, the first positions. */
  tokens: string[]
  /** What is heard, with the vectors that separate clips: the positions after the tokens. */
  frames: number
}

interface Answer {
  /** Of what was heard at once; one for a clip that is no longer than that, or cut. */
  windows: SpectraWindow[]
  /** What was too long and lost something. */
  cut: ('text' | 'audio' | 'historyAudio')[]
  /** One for each window; only on request. */
  attentions?: SpectraAttention[]
}

/** A class of a turn. */
export interface SpectraClassAnswer extends Answer {
  kind: 'classification'
  /** The most probable class: its name, or where classes have no names its number as text. */
  label: string
  /** Its probability. */
  probability: number
  /** Of all classes, in the order of their numbers. */
  probabilities: { label: string; probability: number }[]
}

/** A quantity of a turn, such as its sentiment from -3 to 3. */
export interface SpectraValueAnswer extends Answer {
  kind: 'regression'
  value: number
}

export type SpectraAnswer = SpectraClassAnswer | SpectraValueAnswer

/** The file beside weights and tokenizer that says what the network was taught. */
const CARD = 'spectra_classifier.json'

/**
 * A fine-tuned SPECTRA with all that it needs to be asked. `finetuneSpectra` leaves one in `best/`:
 *
 * ```ts
 * using classifier = await SpectraClassifier.fromPretrained('spectra-mood/best')
 * const [answer] = await classifier.classify([{ audio: 'clips/7.wav', text: "that's great" }])
 * ```
 */
export class SpectraClassifier {
  readonly model: SpectraForSequenceClassification
  readonly tokenizer: Tokenizer
  readonly task: SpectraTask
  readonly #card: Omit<SpectraClassifierOptions, 'tokenizer' | 'task'>
  readonly #reading: TurnReading

  /** @throws ConfigError where network, task and tokenizer do not fit */
  constructor(model: SpectraForSequenceClassification, options: SpectraClassifierOptions) {
    const where = 'SpectraClassifier'
    if (!(model instanceof SpectraForSequenceClassification)) {
      throw misuse(where, 'model', 'a SpectraForSequenceClassification', model)
    }
    requireOptions(where, options, [
      'tokenizer',
      'task',
      'history',
      'historyAudio',
      'turnIds',
      'maxAudioLength',
      'maxTextLength',
      'lowercase',
      'maxContext',
    ])
    const { tokenizer, task, ...card } = options
    if (!(tokenizer instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
    requireObject(where, 'task', task)
    const outputs = model.config.numLabels ?? 2
    if (task.numLabels !== outputs) throw misuse(where, 'task.numLabels', `${outputs}, as the network`, task.numLabels)
    const { history = false, historyAudio = false, turnIds = history, lowercase, maxContext } = card
    for (const [name, value] of Object.entries({ history, historyAudio, turnIds })) {
      if (typeof value !== 'boolean') throw misuse(where, name, 'a boolean', value)
    }
    const { maxAudioLength = model.config.maxAudioLength, maxTextLength = model.config.maxTextLength } = card
    requireWhole(where, 'maxAudioLength', maxAudioLength, 1)
    requireWhole(where, 'maxTextLength', maxTextLength, 2)
    const text = new SpectraDialogText(tokenizer, {
      ...defined({ lowercase, maxContext }),
    })
    this.model = model
    this.tokenizer = tokenizer
    this.task = task
    this.#card = card
    const { compat } = model.config
    this.#reading = { text, history, historyAudio, turnIds, maxAudioLength, maxTextLength, compat }
  }

  /**
   * What `save` wrote.
   * @throws DataError where the folder holds no classifier; CheckpointError, ConfigError as the network and the tokenizer
   */
  static async fromPretrained(directory: string, options: LoadSpectraOptions = {}): Promise<SpectraClassifier> {
    requireSaved(directory, 'SpectraClassifier')
    const card = (await readJson(join(directory, CARD))) as Omit<SpectraClassifierOptions, 'tokenizer'>
    if (typeof card?.task?.kind !== 'string') {
      throw new DataError(`${join(directory, CARD)} has no task: finetuneSpectra() writes it`, { file: CARD })
    }
    const tokenizer = await Tokenizer.fromPretrained(directory)
    return new SpectraClassifier(await SpectraForSequenceClassification.fromPretrained(directory, options), {
      ...card,
      tokenizer,
    })
  }

  /** The names of the classes by their number; none for a quantity. */
  get labels(): string[] {
    return labelNames(this.task)
  }

  /** Weights, configuration and tokenizer, and what the network was taught. */
  async save(directory: string): Promise<void> {
    await this.model.save(directory)
    await this.saveCard(directory)
  }

  /** The same without the network. */
  async saveCard(directory: string): Promise<void> {
    const { name, kind, numLabels, labels, keyMetric } = this.task
    this.tokenizer.saveTo(directory)
    const task = { name, kind, numLabels, ...(labels && { labels }), keyMetric }
    await writeJson(join(directory, CARD), { task, ...this.#card }, { indent: 2 })
  }

  /**
   * What the network says of each turn, in the order of the turns. An answer does not depend on the other turns. The
   * network is in evaluation mode meanwhile. Attention maps are tensors of the current scope.
   * @throws ConfigError for wrong arguments, a head that holds random numbers, or history where the network was trained
   * without; DataError for audio that
   * cannot be read, is empty, holds NaN, or is too long with `longAudio: 'error'`
   */
  async classify(turns: readonly SpectraTurn[], options: SpectraClassifyOptions = {}): Promise<SpectraAnswer[]> {
    const where = 'SpectraClassifier.classify'
    requireOptions(where, options, ['attentions', 'batchSize', 'longAudio'])
    requireTrained(where, this.model, ['head'])
    const { attentions = false, ...reading } = options
    if (typeof attentions !== 'boolean') throw misuse(where, 'attentions', 'a boolean', attentions)
    const { task, model } = this
    const results = await readTurns(where, model, turns, this.#reading, reading, async (batch, rows) => {
      const output = await model.forward({ ...batch, outputAttentions: attentions })
      const scores = await rowsOf(scoresOf(task, output.logits))
      return scores.map((values, i) => ({
        values,
        ...(attentions && { attention: this.#attention(output, batch.inputIds.size(1), i, rows[i] as TurnRow) }),
      }))
    })
    return results.map((windows) => {
      const values = meanOf(windows.map(({ said }) => said.values))
      const answer = {
        windows: windows.map(({ row }) => row.window),
        cut: this.#cutOf(windows.map(({ row }) => row)),
        ...(attentions && { attentions: windows.map(({ said }) => said.attention as SpectraAttention) }),
      }
      if (task.kind === 'regression') return { kind: 'regression', value: values[0] as number, ...answer }
      const probabilities = this.labels.map((label, i) => ({ label, probability: values[i] as number }))
      const best = probabilities.reduce((most, one) => (one.probability > most.probability ? one : most))
      return { kind: 'classification', ...best, probabilities, ...answer }
    })
  }

  /** See `embedTurns`: the state of each turn on which the head stands, [hiddenSize]. */
  embed(turns: readonly SpectraTurn[], options: SpectraTurnOptions = {}): Promise<Float32Array[]> {
    const where = 'SpectraClassifier.embed'
    requireOptions(where, options, ['batchSize', 'longAudio'])
    return embedded(where, this.model, turns, this.#reading, options)
  }

  #cutOf(rows: readonly TurnRow[]): Answer['cut'] {
    const { maxAudioLength, maxTextLength } = this.#reading
    const { inputIds, historySamples, seconds } = rows[0] as TurnRow
    const windowEnd = (rows.at(-1) as TurnRow).window.end
    return [
      ...(inputIds.length > maxTextLength ? (['text'] as const) : []),
      ...(seconds > windowEnd ? (['audio'] as const) : []),
      ...(historySamples > maxAudioLength ? (['historyAudio'] as const) : []),
    ]
  }

  /** The maps of one row, without padding. */
  #attention(
    { attentions, attentionMask }: { attentions: Tensor[]; attentionMask: Tensor },
    width: number,
    row: number,
    { inputIds, window }: TurnRow,
  ): SpectraAttention {
    const shown = attentionMask.select(0, row).nonzero().reshape([-1])
    const layers = attentions.map((layer) =>
      layer.select(0, row).indexSelect(1, shown).indexSelect(2, shown).to({ dtype: 'float32', device: 'cpu' }),
    )
    const text = (shown.toArray() as number[]).filter((position) => position < width).length
    const kept = cutText(inputIds, this.#reading.maxTextLength)
    const tokens = kept.map((id) => this.tokenizer.idToToken(id) ?? String(id))
    return { window, layers, tokens, frames: shown.size(0) - text }
  }

  /** Frees the network. */
  dispose(): void {
    this.model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
