import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  Conv1d,
  cat,
  Embedding,
  Linear,
  Module,
  scope,
  type Tensor,
  Tokenizer,
  TransformerEncoderLayer,
  tensor,
  writeWav,
} from '../../../../lib/index.js'
import type { DstConfig, DstEncoderInputs, DstFusedStates } from '../../../../lib/systems/spectra/index.js'

export const config: DstConfig = {
  classTypes: ['none', 'dontcare', 'copy_value', 'true', 'false', 'refer', 'inform'],
  slots: ['hotel-pricerange', 'hotel-area', 'hotel-name', 'hotel-parking', 'hotel-book day', 'taxi-destination'],
  labelMaps: { centre: ['center', 'downtown'], 'acorn guest house': ['acorn'] },
}

const NAMES = ['acorn guest house', 'ashley', 'warkworth']
const PRICES = ['cheap', 'moderate', 'expensive', 'any']
const AREAS = ['centre', 'north', 'south', 'downtown']
const DAYS = ['monday', 'tuesday', 'friday']
const SENTENCES = {
  ask: (price: string, area: string) => `i want a ${price} hotel in the ${area} please`,
  offer: (name: string) => `how about the ${name} ?`,
  accept: 'yes that one and the parking is up to how i say it',
  taxi: (day: string) => `also a taxi to the hotel , it is for ${day}`,
}
const words = [
  ...Object.values(SENTENCES).map((make) => (typeof make === 'string' ? make : make('', ''))),
  ...[NAMES, PRICES, AREAS, DAYS].flat(),
  'done all good',
].join(' ')

/** A tokenizer whose tokens are whole words with the blank before them, as far as it knows them. */
export function makeTokenizer(folder: string): Promise<Tokenizer> {
  const known = [...new Set(words.split(' ').filter((word) => word !== ''))].sort()
  const specials = ['<s>', '<pad>', '</s>', '<unk>']
  const vocab = Object.fromEntries([...specials, ...known.map((word) => `Ġ${word}`)].map((token, id) => [token, id]))
  mkdirSync(folder, { recursive: true })
  const write = (name: string, value: object) => writeFileSync(join(folder, name), JSON.stringify(value))
  write('tokenizer.json', {
    version: '1.0',
    added_tokens: specials.map((content, id) => ({
      ...{ id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: { type: 'WordLevel', vocab, unk_token: '<unk>' },
  })
  write('tokenizer_config.json', { bos_token: '<s>', eos_token: '</s>', pad_token: '<pad>', unk_token: '<unk>' })
  return Tokenizer.fromPretrained(folder)
}

/**
 * Writes `train.jsonl` with `count` dialogs of three turns, and their speech. Price, area and day are said, the name is
 * told by the system, the taxi goes where the hotel is, and a high or a low voice alone says whether there is parking.
 */
export async function makeDialogs(folder: string, count: number): Promise<string> {
  mkdirSync(folder, { recursive: true })
  const rows: string[] = []
  for (let i = 0; i < count; i++) {
    const pick = <T>(from: readonly T[], step: number) => from[(i * step + (i >> 2)) % from.length] as T
    const [price, area, name, day] = [pick(PRICES, 1), pick(AREAS, 3), pick(NAMES, 1), pick(DAYS, 2)]
    const parking = (i * 7) % 3 === 0
    await scope(async () => {
      const wave = Float32Array.from({ length: 4800 }, (_, t) => {
        const tone = t < 1600 || t >= 3200 ? 500 : parking ? 1500 : 300
        return 0.3 * Math.sin((2 * Math.PI * tone * t) / 16000 + i)
      })
      await writeWav(join(folder, `d${i}.wav`), tensor(wave), { sampleRate: 16000 })
    })
    const first = {
      'hotel-pricerange': price === 'any' ? 'dontcare' : price,
      'hotel-area': area.replace('downtown', 'centre'),
    }
    const second = { ...first, 'hotel-name': name, 'hotel-parking': parking ? 'yes' : 'no' }
    const third = { ...second, 'hotel-book day': day, 'taxi-destination': name }
    const spoken = (text: string, turn: number) => ({ text, start: turn * 0.1, end: turn * 0.1 + 0.1 })
    rows.push(
      JSON.stringify({
        dialog: `d${i}`,
        audio: `d${i}.wav`,
        turns: [
          {
            user: spoken(SENTENCES.ask(price, area), 0),
            system: { text: SENTENCES.offer(name) },
            informed: { 'hotel-name': name },
            state: first,
          },
          { user: spoken(SENTENCES.accept, 1), system: { text: 'done' }, state: second },
          { user: spoken(SENTENCES.taxi(day), 2), system: { text: 'all good' }, state: third },
        ].map((turn) => ({ ...turn, system: { ...turn.system, audio: null } })),
      }),
    )
  }
  const path = join(folder, 'train.jsonl')
  writeFileSync(path, `${rows.join('\n')}\n`)
  return path
}

/** Stands in for SPECTRA: words and one state for each clip, through two layers of attention. */
export class SmallEncoder extends Module {
  words: Embedding
  places: Embedding
  kinds: Embedding
  listen: Conv1d
  heard: Linear
  first: TransformerEncoderLayer
  second: TransformerEncoderLayer

  constructor(readonly config: { vocab: number; hidden: number }) {
    super()
    const { vocab, hidden } = config
    this.words = new Embedding(vocab, hidden)
    this.places = new Embedding(64, hidden)
    this.kinds = new Embedding(3, hidden)
    this.listen = new Conv1d(1, 16, 64, { stride: 8 })
    this.heard = new Linear(16, hidden)
    const layer = () =>
      new TransformerEncoderLayer(hidden, 4, { dimFeedforward: 2 * hidden, dropout: 0, batchFirst: true })
    this.first = layer()
    this.second = layer()
  }

  override forward(inputs: DstEncoderInputs): DstFusedStates {
    return scope(() => {
      const { inputIds, attentionMask, tokenTypeIds, inputValues, audioLengths } = inputs
      const [batch, length] = inputIds.shape as [number, number]
      const places = tensor(Array.from({ length }, (_, i) => i))
      const text = this.words.forward(inputIds).add(this.places.forward(places)).add(this.kinds.forward(tokenTypeIds))
      const frames = this.listen.forward(inputValues.unsqueeze(1)).relu() // [2 batch, 16, frames]
      const ends = audioLengths.sub(64).floorDivide(8).unsqueeze(1)
      const shown = tensor(Array.from({ length: frames.size(2) }, (_, i) => i)).le(ends)
      const mean = frames
        .mul(shown.unsqueeze(1))
        .sum([2])
        .div(shown.sum([1], { keepdim: true }).clamp(1))
      const clips = this.heard.forward(mean).reshape([batch, 2, -1]).add(this.kinds.weight.select(0, 2))
      const mask: Tensor = cat([attentionMask, audioLengths.gt(0).reshape([batch, 2])], 1)
      const masks = { keyPaddingMask: mask.logicalNot() }
      const states = this.second.forward(this.first.forward(cat([text, clips], 1), masks), masks)
      return { lastHiddenState: states, attentionMask: mask }
    })
  }
}
