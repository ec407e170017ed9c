import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DecoderLM, type DecoderLMConfig, Random } from '../../../lib/index.js'
import {
  UsdmTokenizer as Units,
  type UsdmExample,
  type UsdmTokenizer,
  usdmExample,
} from '../../../lib/systems/usdm/index.js'

/** A tokenizer whose tokens are bytes, with `<s>` before each text: 258 tokens, written into a folder. */
export async function byteTokenizer(folder: string, units: number): Promise<UsdmTokenizer> {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173)
  let other = 256
  const letters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : other++))
  const special = ['<s>', '</s>']
  const vocab = Object.fromEntries([...special, ...letters].map((token, id) => [token, id]))
  const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }
  mkdirSync(folder, { recursive: true })
  writeFileSync(
    join(folder, 'tokenizer.json'),
    JSON.stringify({
      version: '1.0',
      added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
      pre_tokenizer: bytes,
      post_processor: {
        type: 'TemplateProcessing',
        single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
        pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 0 } }],
        special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } },
      },
      decoder: bytes,
      model: { type: 'BPE', vocab, merges: [] },
    }),
  )
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>', eos_token: '</s>' }))
  return Units.fromPretrained(folder, { units })
}

export const TINY: DecoderLMConfig = {
  hiddenSize: 32,
  intermediateSize: 64,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 512,
}

/** A network with as many rows as the tokenizer has tokens, or as it says. */
export const tinyNetwork = (tokenizer: UsdmTokenizer, config: DecoderLMConfig = {}, seed = 7): DecoderLM =>
  DecoderLM.fromConfig({ ...TINY, vocabSize: tokenizer.vocabSize, ...config }, { seed })

/** Dialogs of one turn each: words drawn from a few, units drawn evenly. */
export function tinyDialogs(tokenizer: UsdmTokenizer, count: number, seed = 3): UsdmExample[] {
  const random = new Random(seed)
  const words = ['good', 'morning', 'tea', 'please', 'thanks', 'where', 'is', 'it']
  const say = () => ({
    text: Array.from({ length: 1 + random.below(4) }, () => words[random.below(words.length)]).join(' '),
    units: Array.from({ length: 2 + random.below(8) }, () => random.below(tokenizer.units)),
  })
  return Array.from({ length: count }, () => usdmExample(tokenizer, [{ user: say(), agent: say() }]))
}
