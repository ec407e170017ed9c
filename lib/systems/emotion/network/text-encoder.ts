import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import type { ChangesOf, ValuesOf } from '../../../base/settings.js'
import { writeJson } from '../../../files/json/json.js'
import { resolveModel } from '../../../hub/index.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { padTokens } from '../../../kit/pad.js'
import { Bert } from '../../../models/encoders/bert.js'
import { longestText } from '../../../models/encoders/embed-sentences.js'
import { Roberta } from '../../../models/encoders/roberta.js'
import { readConfig } from '../../../models/pretrained.js'
import { type Device, type DType, noGrad, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { splitWords } from '../../../train/metrics/values.js'
import { TEXT_SETTINGS } from '../configuration/settings.js'
import type { EmotionEncoder } from './encoders.js'

/** Options of an {@link EmotionTextEncoder}. @interface */
export type EmotionTextEncoderOptions = ChangesOf<typeof TEXT_SETTINGS.table>

/** Token ids of an utterance, after those of its history. */
export interface TextInput {
  ids: readonly number[]
  /** Index of the utterance's first token. */
  begin: number
}

/** Text encoder with BERT, MiniLM or RoBERTa. */
export class EmotionTextEncoder implements EmotionEncoder<TextInput> {
  readonly modality = 'text'
  readonly #options: ValuesOf<typeof TEXT_SETTINGS.table>
  #from: string | undefined
  readonly #ids: { first: number; last: number; pad: number }

  /** @throws ConfigError for a tokenizer without begin, end or padding token */
  constructor(
    readonly network: Bert | Roberta,
    readonly tokenizer: Tokenizer,
    options: EmotionTextEncoderOptions = {},
  ) {
    const where = 'EmotionTextEncoder'
    const longest = longestText(network)
    const { defaults } = TEXT_SETTINGS
    this.#options = TEXT_SETTINGS.read(where, options, {
      ...defaults,
      maxLength: Math.min(defaults.maxLength, longest),
    })
    const { maxLength } = this.#options
    if (maxLength > longest)
      throw new ConfigError(
        `${where}: maxLength: expected at most ${longest}, the longest text of the network, got ${maxLength}. Lower it.`,
        {},
      )
    const id = (...tokens: string[]) => {
      const found = tokens.map((token) => tokenizer.tokenToId(token)).find((one) => one !== undefined)
      if (found === undefined)
        throw new ConfigError(
          `${where}: expected a tokenizer with the token ${tokens.join(' or ')}, got one without. Use a tokenizer of BERT or RoBERTa.`,
          {},
        )
      return found
    }
    this.#ids = { first: id('[CLS]', '<s>'), last: id('[SEP]', '</s>'), pad: id('[PAD]', '<pad>') }
  }

  /** Load a BERT or RoBERTa with its tokenizer. @param from a folder, a repository of the hub, or a name that `voxtorch weights` lists */
  static async fromPretrained(
    from: string,
    options: EmotionTextEncoderOptions & { device?: Device; dtype?: DType } = {},
  ): Promise<EmotionTextEncoder> {
    const { device, dtype = 'float32', ...rest } = options
    const folder = await resolveModel(from, {})
    const saved = join(folder, 'encoder.json')
    const own = TEXT_SETTINGS.changesIn(existsSync(saved) ? await readConfig(folder, 'encoder.json') : {})
    const { modelType } = (await readConfig(folder)) as { modelType?: string }
    const Network = modelType === 'roberta' ? Roberta : Bert
    const factory = { dtype, ...(device && { device }) }
    const network = await Network.fromPretrained(folder, factory)
    const encoder = new EmotionTextEncoder(network, await Tokenizer.fromPretrained(folder), { ...own, ...rest })
    encoder.#from = existsSync(from) ? resolve(from) : from
    return encoder
  }

  get reference() {
    return this.#from === undefined ? undefined : { encoder: 'text', from: this.#from, ...this.#options }
  }

  get size(): number {
    return this.network.config.hiddenSize ?? 768
  }

  get recipe() {
    return { encoder: 'text', network: this.network.constructor.name, ...this.#options }
  }

  /** Return the token ids as text, because they depend on the tokenizer. */
  async source(dialog: EmotionDialog, place: number): Promise<string | undefined> {
    const input = await this.read(dialog, place)
    return input && `${input.begin} ${input.ids}`
  }

  async read(dialog: EmotionDialog, place: number): Promise<TextInput | undefined> {
    const texts = this.#texts(dialog, place)
    if (texts === undefined) return undefined
    const { maxLength } = this.#options
    const own = this.#encode(texts.at(-1) as string).slice(0, maxLength - 2)
    // Add as many preceding utterances as fit, the latest first.
    const before: number[] = []
    for (const text of texts.slice(0, -1).reverse()) {
      const ids = [...this.#encode(text), this.#ids.last]
      if (before.length + ids.length + own.length + 2 > maxLength) break
      before.unshift(...ids)
    }
    return { ids: [this.#ids.first, ...before, ...own, this.#ids.last], begin: 1 + before.length }
  }

  /** Return the texts, oldest first, the utterance last; undefined if the utterance is empty. */
  #texts({ utterances }: EmotionDialog, place: number): string[] | undefined {
    const { history, names } = this.#options
    if (utterances[place] === undefined || utterances[place].text.trim() === '') return undefined
    return utterances
      .slice(Math.max(0, place - history), place + 1)
      .map(({ text, speaker }) => (names && speaker !== '' ? `${speaker}: ${text}` : text))
  }

  #encode(text: string): number[] {
    return this.tokenizer.encode(text, { addSpecialTokens: false }).inputIds
  }

  async encode(inputs: readonly TextInput[]): Promise<Tensor> {
    return scope(async () => {
      const groups = likeLengths(inputs.map(({ ids }) => ids.length))
      const parts: Tensor[] = []
      for (const places of groups) parts.push(await this.#pooled(places.map((place) => inputs[place] as TextInput)))
      if (parts.length === 1) return parts[0] as Tensor
      const rows = new BigInt64Array(inputs.length)
      for (const [row, place] of groups.flat().entries()) rows[place] = BigInt(row)
      const all = ops.cat(parts)
      return all.indexSelect(0, tensor(rows, { device: all.device }))
    })
  }

  async #pooled(inputs: readonly TextInput[]): Promise<Tensor> {
    return scope(async () => {
      const { lastHiddenState, weights } = await this.states(inputs)
      if (this.#options.pooling === 'cls') return lastHiddenState.select(1, 0).clone()
      return lastHiddenState.mul(weights.unsqueeze(2)).sum([1])
    })
  }

  /** Compute states of all tokens [inputs, tokens, size], and mean-pooling weights [inputs, tokens] over the utterance's tokens. */
  async states(inputs: readonly TextInput[]): Promise<{ lastHiddenState: Tensor; weights: Tensor }> {
    const rows = inputs.map(({ ids }) => ids)
    const device = (this.network.parameters()[0] as Tensor).device
    return scope(async () => {
      const inputIds = padTokens(rows, { value: this.#ids.pad }).to({ device })
      const places = ops.arange(inputIds.size(1), { device }).unsqueeze(0)
      const column = (values: readonly number[]) => padTokens(values.map((value) => [value])).to({ device })
      const attentionMask = places.lt(column(rows.map(({ length }) => length)))
      const { lastHiddenState } = await this.network.forward({
        ...{ inputIds, attentionMask: attentionMask.to({ dtype: 'int64' }) },
      })
      // As in sentence-transformers, the mean includes the end token, and the begin token if there is no history.
      const own = attentionMask.logicalAnd(places.ge(column(inputs.map(({ begin }) => (begin === 1 ? 0 : begin)))))
      const counted = own.to({ dtype: lastHiddenState.dtype })
      return { lastHiddenState, weights: counted.div(counted.sum([1], true)) }
    })
  }

  /**
   * Compute a vector for each whitespace-separated word: the mean of its tokens' states, without history. Words after `maxLength`
   * tokens get none. Runs without gradients.
   */
  async words(texts: readonly string[]): Promise<Float32Array[][]> {
    const { first, last } = this.#ids
    const spans: [number, number][][] = []
    const inputs = texts.map((text): TextInput => {
      const ids = [first]
      const own: [number, number][] = []
      for (const [i, word] of splitWords(text).entries()) {
        const tokens = this.#encode(this.network instanceof Roberta && i > 0 ? ` ${word}` : word)
        if (ids.length + tokens.length + 1 > this.#options.maxLength) break
        own.push([ids.length, ids.length + tokens.length])
        ids.push(...tokens)
      }
      spans.push(own)
      return { ids: [...ids, last], begin: 1 }
    })
    return noGrad(() =>
      scope(async () => {
        const { lastHiddenState } = await this.states(inputs)
        const rows = lastHiddenState.to({ device: 'cpu', dtype: 'float32' }).contiguous()
        const [width, size] = [rows.size(1), rows.size(2)]
        const values = (await rows.data()) as Float32Array
        return spans.map((own, row) =>
          own.map(([from, to]) => {
            const mean = new Float32Array(size)
            for (let token = from; token < to; token += 1) {
              const at = (row * width + token) * size
              for (let i = 0; i < size; i += 1) mean[i] = (mean[i] as number) + (values[at + i] as number) / (to - from)
            }
            return mean
          }),
        )
      }),
    )
  }

  async save(folder: string): Promise<void> {
    await writeFolderAtomically(folder, CheckpointError, async (temporary) => {
      await this.network.save(temporary)
      this.tokenizer.saveTo(temporary)
      await writeJson(join(temporary, 'encoder.json'), { encoder: 'text', ...this.#options })
    })
  }
}

/**
 * Group the indices of texts by similar length, to limit padding: one text of three times the usual length would triple the work.
 * Within a group, the longest text has at most 1.5 times the tokens of the shortest, plus 4.
 */
function likeLengths(lengths: readonly number[]): number[][] {
  const sorted = [...lengths.keys()].sort((a, b) => (lengths[a] as number) - (lengths[b] as number))
  const groups: number[][] = []
  let least = 0
  for (const place of sorted) {
    const length = lengths[place] as number
    if (groups.length === 0 || length > 1.5 * least + 4) {
      groups.push([])
      least = length
    }
    groups.at(-1)?.push(place)
  }
  return groups.map((places) => places.sort((a, b) => a - b))
}
