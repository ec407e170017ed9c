import { join } from 'node:path'
import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { argumentError } from '../../../base/check.js'
import { CheckpointError, DataError } from '../../../base/errors.js'
import { type ChangesOf, instanceOf, objectOf, settings } from '../../../base/settings.js'
import { readJson, writeJson } from '../../../files/json/json.js'
import { labelNames, scoresOf } from '../../../kit/task.js'
import { requireSaved } from '../../../models/pretrained.js'
import type { Tensor } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { cutText } from '../data/collate.js'
import { SpectraDialogText, TEXT_SETTINGS } from '../data/text.js'
import type { SpectraTask } from '../evaluation/task.js'
import type { LoadSpectraOptions } from '../network/files.js'
import { SpectraForSequenceClassification } from '../network/network.js'
import { requireTrained } from '../network/untrained.js'
import { SPECTRA_LENGTHS } from '../training/recipe.js'
import { embedded, meanOf, rowsOf } from './embed.js'
import {
  readTurns,
  type SpectraTurn,
  type SpectraTurnOptions,
  type SpectraWindow,
  TURN_SETTINGS,
  type TurnReading,
  type TurnRow,
} from './turns.js'

const CLASSIFIER_SETTINGS = settings({
  tokenizer: { type: instanceOf(Tokenizer), required: true },
  task: { type: objectOf<SpectraTask>(), required: true },
  /** Whether texts start with the previous turns. */
  history: { type: 'boolean', default: false },
  /** Whether the network takes the speech of the previous turn. */
  historyAudio: { type: 'boolean', default: false },
  /** Whether token types distinguish previous turns from the current one. Default: the value of `history`. */
  turnIds: { type: 'boolean' },
  ...SPECTRA_LENGTHS.table,
  ...TEXT_SETTINGS.table,
})

/** Settings of a fine-tuned network, saved next to its weights. @interface */
export type SpectraClassifierOptions = ChangesOf<typeof CLASSIFIER_SETTINGS.table>

const CLASSIFY_SETTINGS = settings({
  ...TURN_SETTINGS.table,
  /** Return the attention maps of the fusion layers. */
  attentions: { type: 'boolean', default: false },
})

/** @interface */
export type SpectraClassifyOptions = ChangesOf<typeof CLASSIFY_SETTINGS.table>

/** Attention maps for one window of a turn. */
export interface SpectraAttention {
  window: SpectraWindow
  /** One map per fusion layer, float32 [heads, positions, positions]: weights from a query position (row) to a key position (column). */
  layers: Tensor[]
  /** The text's tokens, the first positions. */
  tokens: string[]
  /** Number of audio positions, which follow the tokens; separators between clips are included. */
  frames: number
}

interface Answer {
  /** Windows of the clip; one if the clip fits or was cut. */
  windows: SpectraWindow[]
  /** Inputs that were truncated. */
  cut: ('text' | 'audio' | 'historyAudio')[]
  /** One entry per window, with `attentions: true`. */
  attentions?: SpectraAttention[]
}

/** A predicted class of a turn. */
export interface SpectraClassAnswer extends Answer {
  kind: 'classification'
  /** Name of the most probable class; its number as text if classes have no names. */
  label: string
  /** Its probability. */
  probability: number
  /** Probabilities of all classes, in order of their numbers. */
  probabilities: { label: string; probability: number }[]
}

/** A predicted value of a turn, such as a sentiment from -3 to 3. */
export interface SpectraValueAnswer extends Answer {
  kind: 'regression'
  value: number
}

export type SpectraAnswer = SpectraClassAnswer | SpectraValueAnswer

/** File with the classifier's settings, next to weights and tokenizer. */
const CARD = 'spectra_classifier.json'

/**
 * A fine-tuned SPECTRA with its tokenizer and task. `finetuneSpectra` saves one in `best/`:
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

  /** @throws ConfigError if network, task and tokenizer do not match */
  constructor(model: SpectraForSequenceClassification, options: SpectraClassifierOptions) {
    const where = 'SpectraClassifier'
    if (!(model instanceof SpectraForSequenceClassification)) {
      throw argumentError(where, 'model', 'a SpectraForSequenceClassification', model)
    }
    const read = CLASSIFIER_SETTINGS.read(where, options)
    const { tokenizer, task, history, historyAudio, turnIds = history } = read
    const outputs = model.config.numLabels ?? 2
    if (task.numLabels !== outputs) {
      throw argumentError(where, 'task.numLabels', `${outputs}, the network's number of outputs`, task.numLabels)
    }
    const { compat, ...lengths } = model.config
    const { maxAudioLength = lengths.maxAudioLength, maxTextLength = lengths.maxTextLength } = read
    const text = new SpectraDialogText(tokenizer, TEXT_SETTINGS.changesIn(read))
    this.model = model
    this.tokenizer = tokenizer
    this.task = task
    const { tokenizer: _tokenizer, task: _task, ...card } = options
    this.#card = card
    this.#reading = { text, history, historyAudio, turnIds, maxAudioLength, maxTextLength, compat }
  }

  /**
   * Load a folder written by `save`.
   * @throws DataError for a folder without a classifier; CheckpointError, ConfigError of the network and the tokenizer
   */
  static async fromPretrained(directory: string, options: LoadSpectraOptions = {}): Promise<SpectraClassifier> {
    requireSaved(directory, 'SpectraClassifier')
    const card = (await readJson(join(directory, CARD))) as Omit<SpectraClassifierOptions, 'tokenizer'>
    if (typeof card?.task?.kind !== 'string') {
      throw new DataError(
        `${join(directory, CARD)}: expected a task, got none. Save the classifier with finetuneSpectra().`,
        { file: CARD },
      )
    }
    const tokenizer = await Tokenizer.fromPretrained(directory)
    return new SpectraClassifier(await SpectraForSequenceClassification.fromPretrained(directory, options), {
      ...card,
      tokenizer,
    })
  }

  /** Names of the classes, in order of their numbers; empty for a regression. */
  get labels(): string[] {
    return labelNames(this.task)
  }

  /** Save weights, configuration, tokenizer and settings. */
  async save(directory: string): Promise<void> {
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await this.model.save(folder)
      await this.saveCard(folder)
    })
  }

  /** Save tokenizer and settings, without the network. */
  async saveCard(directory: string): Promise<void> {
    const { name, kind, numLabels, labels, keyMetric } = this.task
    const task = { name, kind, numLabels, ...(labels && { labels }), keyMetric }
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      this.tokenizer.saveTo(folder)
      await writeJson(join(folder, CARD), { task, ...this.#card }, { indent: 2 })
    })
  }

  /**
   * Classify turns. Results are in the order of the turns, and do not depend on the other turns. The network runs in evaluation mode.
   * Attention maps are tensors of the current scope.
   * @throws ConfigError for wrong arguments, an untrained head, or history if the network was trained without; DataError for audio that
   * cannot be read, is empty, contains NaN, or is too long with `longAudio: 'error'`
   */
  async classify(turns: readonly SpectraTurn[], options: SpectraClassifyOptions = {}): Promise<SpectraAnswer[]> {
    const where = 'SpectraClassifier.classify'
    const { attentions, ...reading } = CLASSIFY_SETTINGS.read(where, options)
    requireTrained(where, this.model, ['head'])
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

  /** Return the hidden state under the classification head for each turn, [hiddenSize]. See `embedTurns`. */
  embed(turns: readonly SpectraTurn[], options: SpectraTurnOptions = {}): Promise<Float32Array[]> {
    return embedded('SpectraClassifier.embed', this.model, turns, this.#reading, options)
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

  /** Return the attention maps of one row, without padding. */
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

  /** Free the network. */
  dispose(): void {
    this.model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
