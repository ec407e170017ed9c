import { argumentError } from '../../../base/check.js'
import { type ChangesOf, instanceOf, settings } from '../../../base/settings.js'
import type { Tensor } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { SpectraDialogText, TEXT_SETTINGS } from '../data/text.js'
import {
  Spectra,
  type SpectraClassificationOutput,
  SpectraForPreTraining,
  SpectraForSequenceClassification,
  type SpectraInputs,
  type SpectraOutput,
  type SpectraPrediction,
} from '../network/network.js'
import { readTurns, type SpectraTurn, type SpectraTurnOptions, TURN_SETTINGS, type TurnReading } from './turns.js'

export type AnySpectra = Spectra | SpectraForPreTraining | SpectraForSequenceClassification

const EMBED_SETTINGS = settings({
  tokenizer: { type: instanceOf(Tokenizer), required: true },
  ...TURN_SETTINGS.table,
  ...TEXT_SETTINGS.table,
})

/** @interface */
export type EmbedTurnsOptions = ChangesOf<typeof EMBED_SETTINGS.table>

/**
 * Return an embedding of each turn, [hiddenSize]: the state of `<s>` after fusion, which is the input of the heads. For a clip in several
 * windows, it is the mean. A turn with history or history audio is encoded after them. The network runs in evaluation mode; an embedding
 * does not depend on the other turns.
 * @throws ConfigError for wrong arguments; DataError for audio that cannot be read
 */
export async function embedTurns(
  model: AnySpectra,
  turns: readonly SpectraTurn[],
  options: EmbedTurnsOptions,
): Promise<Float32Array[]> {
  requireSpectra('embedTurns', model)
  const read = EMBED_SETTINGS.read('embedTurns', options)
  return embedded('embedTurns', model, turns, readingOf(model, read), TURN_SETTINGS.changesIn(read))
}

/** Return the reading settings of a network that was only pre-trained. */
export function readingOf(model: AnySpectra, options: { tokenizer: Tokenizer }) {
  const { maxAudioLength, maxTextLength, compat } = model.config
  return {
    text: new SpectraDialogText(options.tokenizer, TEXT_SETTINGS.changesIn({ ...options })),
    ...{ history: undefined, historyAudio: undefined, turnIds: true },
    ...{ maxAudioLength, maxTextLength, compat },
  } satisfies TurnReading
}

export async function embedded(
  where: string,
  model: AnySpectra,
  turns: readonly SpectraTurn[],
  reading: TurnReading,
  options: SpectraTurnOptions,
): Promise<Float32Array[]> {
  const results = await readTurns(where, model, turns, reading, options, async (batch) => {
    const { lastHiddenState } = await statesOf(model, batch)
    return rowsOf(lastHiddenState.select(1, 0))
  })
  return results.map((windows) => meanOf(windows.map(({ said }) => said)))
}

const statesOf = (
  model: AnySpectra,
  inputs: SpectraInputs,
): Promise<SpectraOutput | SpectraPrediction | SpectraClassificationOutput> =>
  model instanceof SpectraForPreTraining ? model.predict(inputs) : model.forward(inputs)

/** Return the rows of [rows, values]. */
export async function rowsOf(values: Tensor): Promise<Float32Array[]> {
  const width = values.size(1)
  const flat = (await values.to({ dtype: 'float32', device: 'cpu' }).data()) as Float32Array
  return Array.from({ length: values.size(0) }, (_, i) => flat.slice(i * width, (i + 1) * width))
}

/** Return the mean of lists of numbers; a single list is returned as it is. */
export function meanOf(lists: readonly Float32Array[]): Float32Array {
  const [first] = lists as [Float32Array]
  return lists.length === 1
    ? first
    : first.map((_, i) => lists.reduce((sum, list) => sum + (list[i] as number), 0) / lists.length)
}

export function requireSpectra(where: string, model: unknown): void {
  const known = [Spectra, SpectraForPreTraining, SpectraForSequenceClassification].some((kind) => model instanceof kind)
  if (!known) throw argumentError(where, 'model', 'a Spectra', model)
}
