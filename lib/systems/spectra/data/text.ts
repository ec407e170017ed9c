import { argumentError } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import type { Tokenizer } from '../../../text/tokenizer.js'

export const TEXT_SETTINGS = settings({
  /** Lowercase the text first, as in pre-training. */
  lowercase: { type: 'boolean', default: true },
  /** Maximum number of previous turns. */
  maxContext: { type: 'integer', default: 10 },
})

/** Options of texts. @interface */
export type SpectraDialogTextOptions = ChangesOf<typeof TEXT_SETTINGS.table>

/** A turn as a text with words separated by spaces, or as a list of words. */
export type SpectraTurnText = string | readonly string[]

export interface SpectraEncodedWords {
  inputIds: number[]
  /** Token range of each word, [start, end) in `inputIds`. It is empty for a word without tokens. */
  spans: [number, number][]
}

export interface SpectraEncodedDialog {
  inputIds: number[]
  /** 0 for previous turns, 1 for the current one. */
  turnIds: number[]
}

/**
 * Encodes texts for SPECTRA: each word alone by RoBERTa's byte-level BPE, without a leading space, so that "it's" is always 405 18. `<s>`
 * starts the text, and `</s>` ends each turn.
 */
export class SpectraDialogText {
  readonly #tokenizer: Tokenizer
  readonly #lowercase: boolean
  readonly #maxContext: number
  readonly #bos: number
  readonly #eos: number
  readonly #known = new Map<string, readonly number[]>()

  /** @throws ConfigError for a tokenizer without `<s>` and `</s>`, or one that adds a space before a text */
  constructor(tokenizer: Tokenizer, options: SpectraDialogTextOptions = {}) {
    requireForm('SpectraDialogText', 'tokenizer', tokenizer, { tokenToId: 'function', encode: 'function' })
    const { lowercase, maxContext } = TEXT_SETTINGS.read('SpectraDialogText', options)
    this.#tokenizer = tokenizer
    this.#lowercase = lowercase
    this.#maxContext = maxContext
    const [bos, eos] = [tokenizer.tokenToId('<s>'), tokenizer.tokenToId('</s>')]
    if (bos === undefined || eos === undefined) {
      throw new ConfigError('SpectraDialogText: expected a RoBERTa tokenizer with <s> and </s>, got one without.', {
        argument: 'tokenizer',
      })
    }
    this.#bos = bos
    this.#eos = eos
    const [first] = tokenizer.encode('a', { addSpecialTokens: false }).inputIds
    if (first !== undefined && first === tokenizer.tokenToId('Ġa')) {
      throw new ConfigError(
        'SpectraDialogText: expected a tokenizer that does not add a leading space, got one that does. Load it with add_prefix_space false.',
        { argument: 'tokenizer' },
      )
    }
  }

  /** Encode words without special tokens. */
  words(text: SpectraTurnText): SpectraEncodedWords {
    const inputIds: number[] = []
    const spans = wordsOf(text).map((word): [number, number] => {
      const start = inputIds.length
      for (const id of this.#word(word)) inputIds.push(id)
      return [start, inputIds.length]
    })
    return { inputIds, spans }
  }

  /** Encode one turn alone: `<s>`, its words, `</s>`. Spans count `<s>`. */
  utterance(text: SpectraTurnText): SpectraEncodedWords {
    const { inputIds, spans } = this.words(text)
    return {
      inputIds: [this.#bos, ...inputIds, this.#eos],
      spans: spans.map(([start, end]) => [start + 1, end + 1]),
    }
  }

  /** Encode a turn after previous ones, oldest first, as for IEMOCAP: `<s>`, then each turn's words and `</s>`. */
  dialog(context: readonly SpectraTurnText[], current: SpectraTurnText): SpectraEncodedDialog {
    const kept = this.#maxContext === 0 ? [] : context.slice(-this.#maxContext)
    const inputIds = [this.#bos]
    const turnIds = [kept.length > 0 ? 0 : 1]
    for (const [i, turn] of [...kept, current].entries()) {
      for (const id of [...this.words(turn).inputIds, this.#eos]) {
        inputIds.push(id)
        turnIds.push(i < kept.length ? 0 : 1)
      }
    }
    return { inputIds, turnIds }
  }

  #word(word: string): readonly number[] {
    const text = this.#lowercase ? word.toLowerCase() : word
    let ids = this.#known.get(text)
    if (ids === undefined) {
      ids = this.#tokenizer.encode(text, { addSpecialTokens: false }).inputIds
      this.#known.set(text, ids)
    }
    return ids
  }
}

function wordsOf(text: SpectraTurnText): readonly string[] {
  if (typeof text === 'string') return text.split(/\s+/).filter((word) => word !== '')
  if (Array.isArray(text) && text.every((word) => typeof word === 'string')) return text
  throw argumentError('SpectraDialogText', 'each turn', 'a text or a list of words', text)
}
