import { argumentError, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Tokenizer } from '../../../text/index.js'
import { checkDstConfig, type DstConfig } from './config.js'
import type { DstAudio, SlotValues } from './dialog.js'
import type { DstExample } from './labels.js'

/** The part of a `Tokenizer` that tracking uses. */
export type DstTokenizer = Pick<
  Tokenizer,
  'encode' | 'decode' | 'bosTokenId' | 'eosTokenId' | 'padTokenId' | 'clsTokenId' | 'sepTokenId'
>

/** One turn as ids: stage 2 of the published preparation. Arrays have one number per slot. */
export interface DstFeatures {
  dialog: string
  turn: number
  /** `<s>` user `</s></s>` system `</s></s>`, without padding. */
  inputIds: number[]
  /** Number of ids of the user's segment, including separators. */
  userLength: number
  userAudio: DstAudio | null
  systemAudio: DstAudio | null
  classIds: number[]
  /** First and last token of the value in `inputIds`; 0 if it is not in the user's utterance. */
  startPositions: number[]
  endPositions: number[]
  /** 0, or the number of the referenced slot, from 1. */
  referIds: number[]
  /** Class id of each slot's last change before this turn. */
  stateIds: number[]
  /** 1 if the system mentioned the slot's value and it changed. */
  informed: number[]
  informs: SlotValues
  values: SlotValues
}

export interface DstFeatureOptions {
  config: DstConfig
  tokenizer: DstTokenizer
  /** Maximum tokens of a turn; the longer of the two segments is truncated. Default 512. */
  maxLength?: number
}

/** Converts examples to features. Each word is encoded with a leading space, as in the published features. */
export class DstFeaturizer {
  /** Number of turns longer than `maxLength`. */
  truncated = 0
  /** Number of labels whose span was truncated; their class becomes 'none'. */
  lostSpans = 0
  readonly #options: Required<DstFeatureOptions>
  readonly #special: { bos: number; eos: number }
  readonly #words = new Map<string, readonly number[]>()

  constructor(options: DstFeatureOptions) {
    requireForm('DstFeaturizer', 'options', options, 'object')
    checkDstConfig(options.config)
    const { maxLength = 512, tokenizer } = options
    requireWhole('DstFeaturizer', 'maxLength', maxLength, SPECIALS + 2)
    if (typeof tokenizer?.encode !== 'function')
      throw argumentError('DstFeaturizer', 'tokenizer', 'a Tokenizer', tokenizer)
    this.#options = { ...options, maxLength }
    this.#special = dstSpecialIds(tokenizer)
  }

  features(example: DstExample): DstFeatures {
    const { config, maxLength } = this.#options
    const { bos, eos } = this.#special
    const user = example.userWords.map((word) => this.#ids(word))
    const system = example.systemWords.flatMap((word) => this.#ids(word))
    const lengths = { user: sum(user.map((ids) => ids.length)), system: system.length }
    if (lengths.user + lengths.system > maxLength - SPECIALS) this.truncated += 1
    while (lengths.user + lengths.system > maxLength - SPECIALS)
      lengths[lengths.user > lengths.system ? 'user' : 'system'] -= 1

    const first = [1]
    for (const ids of user) first.push(first.at(-1)! + ids.length)
    const span = (slot: string): [number, number] => {
      const words = example.spans[slot]
      if (words === undefined) return [0, 0]
      const [start, end] = [first[words[0]]!, first[words[1]]! - 1]
      return end <= lengths.user && end >= start ? [start, end] : [0, 0]
    }
    const spans = config.slots.map(span)
    const classIds = config.slots.map((slot, i) => {
      const kind = example.classes[slot] ?? 'none'
      const lost = kind === 'copy_value' && spans[i]![0] === 0
      if (lost) this.lostSpans += 1
      return lost ? 0 : classId(config, kind)
    })
    return {
      dialog: example.dialog,
      turn: example.turn,
      inputIds: [bos, ...user.flat().slice(0, lengths.user), eos, eos, ...system.slice(0, lengths.system), eos, eos],
      userLength: lengths.user + 3,
      userAudio: example.userAudio,
      systemAudio: example.systemAudio,
      classIds,
      startPositions: spans.map(([start]) => start),
      endPositions: spans.map(([, end]) => end),
      referIds: config.slots.map((slot) => config.slots.indexOf(example.refers[slot] ?? '') + 1),
      stateIds: config.slots.map((slot) => classId(config, example.stateBefore[slot] ?? 'none')),
      informed: config.slots.map((slot) => (example.informed.includes(slot) ? 1 : 0)),
      informs: example.informs,
      values: example.values,
    }
  }

  #ids(word: string): readonly number[] {
    const known = this.#words.get(word)
    if (known !== undefined) return known
    const ids = this.#options.tokenizer.encode(` ${word}`, { addSpecialTokens: false }).inputIds
    this.#words.set(word, ids)
    return ids
  }
}

/** Number of special tokens: `<s>`, and two `</s>` after each segment. */
const SPECIALS = 5

function classId({ classTypes }: DstConfig, kind: (typeof classTypes)[number]): number {
  const id = classTypes.indexOf(kind)
  if (id < 0) {
    throw new ConfigError(
      `DstConfig.class_types: expected '${kind}', the label of a turn, got only ${classTypes.join(', ')}`,
      { kind },
    )
  }
  return id
}

/** @throws ConfigError for a tokenizer without these tokens */
export function dstSpecialIds(tokenizer: DstTokenizer): { bos: number; eos: number; pad: number } {
  const bos = tokenizer.bosTokenId ?? tokenizer.clsTokenId
  const eos = tokenizer.eosTokenId ?? tokenizer.sepTokenId
  const pad = tokenizer.padTokenId
  if (bos === null || eos === null || pad === null) {
    throw new ConfigError(
      'DstTokenizer: expected a tokenizer with BOS, EOS and padding tokens, such as RoBERTa, got one without.',
      { ...{ bos, eos, pad } },
    )
  }
  return { bos, eos, pad }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
