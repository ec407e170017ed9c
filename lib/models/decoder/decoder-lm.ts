import type { GenerationConfig } from '../../generation/config.js'
import { readGenerationConfig, writeGenerationConfig } from '../../generation/files.js'
import {
  type GenerateInputs,
  type GenerateOptions,
  type GenerateOutput,
  type GenerateStep,
  generate,
  stream,
} from '../../generation/generate.js'
import type { KvCache } from '../../generation/kv-cache.js'
import { op } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import { type NetworkLayout, networkClass } from '../network.js'
import type { SaveNetworkOptions } from '../pretrained.js'
import { architectureOf, checkedLayers, type DecoderLMConfig, decoderKeys, native, published, sizes } from './config.js'
import { ggufCheckpoint, SAMPLING } from './gguf.js'
import { type ResizeTokenEmbeddingsOptions, resizeTokenEmbeddings } from './resize.js'
import { type SaveDecoderGgufOptions, saveDecoderGguf } from './save-gguf.js'

export interface DecoderLMInputs {
  /** Token ids [batch, time], int64. */
  inputIds?: Tensor
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding, on either side. */
  attentionMask?: Tensor | null
  /** [batch, time] or [1, time], int64; counted over the real tokens by default, those in the cache included. */
  positionIds?: Tensor | null
  /**
   * Packed rows: how many tokens each sequence has, in the order in which they stand in the rows, as `packSequences` gives
   * them. Positions and attention begin anew in each, and the sliding window is of each; nothing of size [time, time] is made.
   * In place of `attentionMask`; not with a cache.
   */
  sequenceLengths?: readonly number[] | null
  /** [batch, time, hiddenSize], in place of `inputIds`. */
  inputsEmbeds?: Tensor | null
  /**
   * int64 [batch, time]; -100 for what is not to be learned. Each is predicted from the tokens before it; as in transformers
   * that may be padding, so with padding on the left the first real token of a row wants -100.
   */
  labels?: Tensor | null
  /** Share of each target that the loss spreads over the whole vocabulary, 0 … 1. Default 0. */
  labelSmoothing?: number
  /** What was read before; this pass adds its tokens to it. Nothing is recorded for backward then. */
  cache?: KvCache | null
  /** Logits of how many tokens, from the last; 0 for all. Default all without labels, and none with labels. */
  logitsToKeep?: number | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface DecoderLMOutput {
  /** Mean cross-entropy over the labels, float32 (float64 for float64); null without labels. */
  loss: Tensor | null
  /** [batch, kept, vocabSize]; null where none were asked for. */
  logits: Tensor | null
  /** [batch, time, hiddenSize], after the last norm. */
  lastHiddenState: Tensor
  /** The embeddings and the output of each layer, the last one after the norm; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, time, cache.length + time]; empty unless asked for. */
  attentions: Tensor[]
}

const embed = op('voxtorch::decoder_lm_embed')

/** A trunk that was saved without its head has no `model.` before its names. */
export const decoderLayout = {
  kind: 'decoder_lm',
  forward: 'voxtorch::decoder_lm_forward',
  modelType: 'llama',
  alike: ['mistral', 'qwen2', 'phi3', 'internlm2'],
  architecture: 'DecoderLM',
  prefix: '',
  ignored: [/\.rotary_emb\.inv_freq$/],
  packed: 'model.layers',
  foreign: ggufCheckpoint,
  rename: (name) => (/^(embed_tokens|tok_embeddings|layers|norm)\./.test(name) ? `model.${name}` : name),
  sizes,
  keys: decoderKeys,
  completed: checkedLayers,
  native,
  saved: published,
  savedAs: (config) => ({ modelType: config.modelType as string, architecture: architectureOf(config) }),
  // Some files hold the tied head a second time, which only their configuration tells.
  tied: ({ tieWordEmbeddings }) => (tieWordEmbeddings === true ? [/^(lm_head|output)\.weight$/] : []),
} satisfies NetworkLayout<DecoderLMConfig> & { forward: string }

/**
 * The decoder language model of the LLaMA family, by configuration: LLaMA 1 (Touvron et al. 2023,
 * https://arxiv.org/abs/2302.13971), 2 (https://arxiv.org/abs/2307.09288), 3 (https://arxiv.org/abs/2407.21783) and
 * Vicuna; Mistral (Jiang et al. 2023, https://arxiv.org/abs/2310.06825), with its sliding window; Qwen2 (Yang et al. 2024,
 * https://arxiv.org/abs/2407.10671); Phi-3 (Abdin et al. 2024, https://arxiv.org/abs/2404.14219); InternLM2 (Cai et al. 2024,
 * https://arxiv.org/abs/2403.17297). As transformers' LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and
 * Phi3ForCausalLM, and as InternLM's own InternLM2ForCausalLM; the projections that Phi-3 and InternLM2 have in one stay so.
 * Runs in native code.
 *
 * The answer for a real token does not depend on the padding, whichever side it is on. What stands at padding means
 * nothing. With RoPE scalings 'dynamic' and 'longrope' it does depend on the longest row of the batch: beyond
 * `maxPositionEmbeddings`, and beyond `originalMaxPositionEmbeddings`, all tokens of a call have other angles.
 *
 * With a cache, a 'longrope' text that grows beyond that length is computed again with the other angles, so that `forward`,
 * `generate` and `stream` answer as without a cache; transformers does so in `generate`. With 'dynamic', `generate` gives a
 * prompt the angles of its whole length, computing again what a cache has of it, and each generated token the angles of
 * the text that ends with it; in `forward` each token has the angles of the call that read it.
 *
 * Published sizes: `'llama-7b'`, `'llama2-13b'`, `'llama3.1-8b'`, `'vicuna-13b-v1.1'`, `'mistral-7b-v0.1'`, `'qwen2-7b'`,
 * `'phi-3-mini-4k'`, `'internlm2-1.8b'` and so on. Files are safetensors or `.bin`, in one or in shards; a config.json of another family is a ConfigError. A GGUF file of
 * llama.cpp, or a folder that has nothing but one, works as well: on the CPU its tensors in Q8_0, Q4_0, Q4_1, Q4_K and Q6_K
 * stay as they are and are computed with, frozen (adapters train on top); other quantised ones become values of `dtype`, and
 * with `quantize: false` all.
 */
export class DecoderLM extends networkClass<DecoderLM, DecoderLMConfig, DecoderLMInputs, DecoderLMOutput>(
  decoderLayout,
) {
  /** What `generate` and `stream` take for what their own configuration leaves out. */
  generationConfig: GenerationConfig = {}
  /** For the Trainer: the first label of a row is not learnt, and `forward` takes `labelSmoothing`. */
  get shiftsLabels(): true {
    return true
  }
  get smoothsLabels(): true {
    return true
  }

  /** Takes how the directory's network generates. @internal */
  async loaded(directory: string): Promise<void> {
    // A GGUF file has its special tokens and settings in the configuration.
    const sampling = Reflect.get(this.config, SAMPLING) as GenerationConfig | undefined
    this.generationConfig = await readGenerationConfig(directory, { ...this.config, ...sampling })
  }

  /** The embeddings of token ids [...] as [..., hiddenSize], to stand in `inputsEmbeds` beside those of another network. */
  embed(inputIds: Tensor): Tensor {
    return embed(withActiveAdapters(this), inputIds) as Tensor
  }

  /**
   * Gives the embeddings, and the output layer with them, a row for each of `count` tokens, as after tokens were added to the
   * tokenizer. The rows that there were keep their bits; new ones are drawn from N(0, std). With fewer tokens than before
   * the last rows go. `config.vocabSize` follows.
   *
   * The parameters stay the same objects, but an optimiser's state has the old size: a warning says so where one was made
   * before. Gradients of both tables are dropped.
   *
   * ```ts
   * tokenizer.addSpecialTokens(['<|unit0|>', '<|unit1|>'])
   * model.resizeTokenEmbeddings(tokenizer.vocabSize)
   * ```
   * @throws ConfigError where a table is packed in 4 or 8 bits or in a GGUF file's blocks, for a model with adapters, and
   * where the row of `padTokenId` would go
   * @throws BusyError while a queued call still reads the tables; await it first
   */
  resizeTokenEmbeddings(count: number, options: ResizeTokenEmbeddingsOptions = {}): this {
    resizeTokenEmbeddings(this, count, options)
    return this
  }

  /**
   * Goes on from a text, or from embeddings, until every row has ended: greedily, by sampling or by beam search.
   *
   * ```ts
   * const { tokens } = await model.generate({ inputIds, attentionMask }, { maxNewTokens: 64, doSample: true, topP: 0.9 })
   * ```
   * @throws ConfigError for a configuration that is wrong or contradicts itself
   */
  generate(inputs: GenerateInputs, config?: GenerationConfig, options?: GenerateOptions): Promise<GenerateOutput> {
    return generate(this, inputs, config, options)
  }

  /**
   * The same token by token; leaving the loop, or the signal in `options`, gives it up and frees its memory.
   *
   * ```ts
   * for await (const text of streamText(tokenizer, model.stream({ inputIds }))) process.stdout.write(text)
   * ```
   */
  stream(
    inputs: GenerateInputs,
    config?: GenerationConfig,
    options?: GenerateOptions,
  ): AsyncGenerator<GenerateStep, void, void> {
    return stream(this, inputs, config, options)
  }

  /**
   * Writes a GGUF file, which llama.cpp and what builds on it run: with the tokenizer's vocabulary and chat template, in half
   * precision or quantised. Merge adapters first, or write them beside it with `saveGgufAdapter`. Of Mistral's sliding
   * window the file tells, but llama.cpp looks at all tokens.
   *
   * ```ts
   * await model.saveGguf('mine.gguf', { tokenizer, type: 'Q8_0' })
   * ```
   * Layers that are packed in GGUF's blocks are written as they are, whatever `type` says.
   * @throws ConfigError for layers in NF4 or int8, and a tokenizer or RoPE scaling that llama.cpp has no name for
   */
  saveGguf(path: string, options: SaveDecoderGgufOptions = {}): Promise<void> {
    return saveDecoderGguf(this, path, options)
  }

  /** Writes config.json, generation_config.json and model.safetensors, which transformers reads. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    await super.save(directory, options)
    await writeGenerationConfig(directory, this.generationConfig)
  }
}
