import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as vt from '../../../lib/index.js'
import type * as spectra from '../../../lib/systems/spectra/index.js'

/** A byte-level BPE of ten tokens, in RoBERTa's form. */
export async function tinyTokenizer(folder: string, addPrefixSpace = false): Promise<vt.Tokenizer> {
  const tokens = ['<s>', '<pad>', '</s>', '<unk>', 'a', 'b', 'c', 'ab', 'Ġ', 'Ġa']
  mkdirSync(folder, { recursive: true })
  const write = (name: string, value: object) => writeFileSync(join(folder, name), JSON.stringify(value))
  const special = (content: string, id: number) => {
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  }
  write('tokenizer.json', {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: ['<s>', '<pad>', '</s>', '<unk>'].map(special),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: addPrefixSpace, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: ['a b', 'Ġ a'],
    },
  })
  return vt.Tokenizer.fromPretrained(folder)
}

/**
 * Stands in for SPECTRA where only what is around it is tested: the same batches in, the same logits out. It hears how loud
 * a clip is and sees which tokens there are.
 */
export class StandIn extends vt.Module {
  words: vt.Embedding
  loudness: vt.Linear
  LayerNorm = new vt.LayerNorm([16])
  head: vt.Linear

  constructor(readonly config: { numLabels: number; vocabSize: number }) {
    super()
    this.words = new vt.Embedding(config.vocabSize, 16)
    this.loudness = new vt.Linear(1, 16)
    this.head = new vt.Linear(16, config.numLabels)
  }

  override forward(batch: Omit<spectra.SpectraBatch, 'labels'>): { logits: vt.Tensor } {
    return vt.scope(() => {
      const { inputIds, attentionMask, inputValues, audiosPerText } = batch
      const shown = attentionMask.to({ dtype: 'float32' }).unsqueeze(-1)
      const text = this.words
        .forward(inputIds)
        .mul(shown)
        .sum([1])
        .div(shown.sum([1]))
      const rows = inputValues.abs().mean([1]).reshape([-1, audiosPerText])
      const heard = this.loudness.forward(
        rows
          .select(1, audiosPerText - 1)
          .unsqueeze(-1)
          .mul(4),
      )
      return { logits: this.head.forward(this.LayerNorm.forward(text.add(heard)).tanh()) }
    })
  }
}
