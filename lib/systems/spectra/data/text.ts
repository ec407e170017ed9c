import { misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Tokenizer } from '../../../text/tokenizer.js'

export interface SpectraDialogTextOptions {
  /** Writes text in lower case first, as that of pre-training is. Default true. */
  lowercase?: boolean
  /** How many turns before the current one are kept. Default 10. */
  maxContext?: number
}

/** A turn as a text, whose words stand between blanks, or as its words. */
export type SpectraTurnText = string | readonly string[]

export interface SpectraEncodedWords {
  inputIds: number[]
  /** For each word its tokens, [start, end) in `inputIds`. A word of which nothing is left has none: start is end. */
  spans: [number, number][]
}

export interface SpectraEncodedDialog {
  inputIds: number[]
  /** 0 for earlier turns, 1 for the current one. */
  turnIds: number[]
}

/**
 * Texts as SPECTRA reads them: each word is encoded alone by RoBERTa's byte-level BPE, without the blank before it, so that
 * "it's" is 405 18 wherever it stands; `<s>` stands in front of all, `</s>` behind each turn.
 */
export class SpectraDialogText {
  readonly #tokenizer: Tokenizer
  readonly #lowercase: boolean
  readonly #maxContext: number
  readonly #bos: number
  readonly #eos: number
  readonly #known = new Map<string, readonly number[]>()

  /** @throws ConfigError when the tokenizer has no `<s>` and `</s>`, or puts a blank before a text by itself */
  constructor(tokenizer: Tokenizer, options: SpectraDialogTextOptions = {}) {
    requireForm('SpectraDialogText', 'tokenizer', tokenizer, { tokenToId: 'function', encode: 'function' })
    requireOptions('SpectraDialogText', options, ['lowercase', 'maxContext'])
    const { lowercase = true, maxContext = 10 } = options
    if (typeof lowercase !== 'boolean') throw misuse('SpectraDialogText', 'lowercase', 'a boolean', lowercase)
    requireWhole('SpectraDialogText', 'maxContext', maxContext)
    this.#tokenizer = tokenizer
    this.#lowercase = lowercase
    this.#maxContext = maxContext
    const [bos, eos] = [tokenizer.tokenToId('<s>'), tokenizer.tokenToId('</s>')]
    if (bos === undefined || eos === undefined) {
      throw new ConfigError('SPECTRA needs a tokenizer of RoBERTa: this one has no tokens <s> and </s>', {
        argument: 'tokenizer',
      })
    }
    this.#bos = bos
    this.#eos = eos
    const [first] = tokenizer.encode('a', { addSpecialTokens: false }).inputIds
    if (first !== undefined && first === tokenizer.tokenToId('Ġa')) {
      throw new ConfigError(
        'SPECTRA encodes words without a blank before them, and this tokenizer adds one: load it with add_prefix_space false',
        { argument: 'tokenizer' },
      )
    }
  }

  /** Words without special tokens. */
  words(text: SpectraTurnText): SpectraEncodedWords {
    const inputIds: number[] = []
    const spans = wordsOf(text).map((word): [number, number] => {
      const start = inputIds.length
      for (const id of this.#word(word)) inputIds.push(id)
      return [start, inputIds.length]
    })
    return { inputIds, spans }
  }

  /** One turn alone: `<s>`, its words, `</s>`. Spans count `<s>`. */
  utterance(text: SpectraTurnText): SpectraEncodedWords {
    const { inputIds, spans } = this.words(text)
    return {
      inputIds: [this.#bos, ...inputIds, this.#eos],
      spans: spans.map(([start, end]) => [start + 1, end + 1]),
    }
  }

  /** A turn after others, oldest first, as IEMOCAP's are written: `<s>`, then each turn's words and `</s>`. */
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
  throw misuse('SpectraDialogText', 'a turn', 'a text or a list of words', text)
}
