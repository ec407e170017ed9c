import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { argumentError } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { toCamel } from '../../base/words.js'
import type { GenerationConfig } from '../../generation/config.js'
import { readGenerationConfig, specialTokens, writeGenerationConfig } from '../../generation/files.js'
import {
  type GenerateInputs,
  type GenerateOptions,
  type GenerateOutput,
  type GenerateStep,
  generate,
  stream,
} from '../../generation/generate.js'
import type { KvCache } from '../../generation/kv-cache.js'
import { op, opAsync } from '../../native/call.js'
import { isConfiguration, withActiveAdapters } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import { type NetworkLayout, networkClass } from '../network.js'
import type { SaveNetworkOptions } from '../pretrained.js'
import { architectureOf, checkedLayers, type DecoderLMConfig, decoderKeys, native, published, sizes } from './config.js'
import { MODEL_TYPES } from './families.js'
import { ggufCheckpoint, SAMPLING } from './gguf.js'
import { type ResizeTokenEmbeddingsOptions, resizeTokenEmbeddings } from './resize.js'
import { type SaveDecoderGgufOptions, saveDecoderGguf } from './save-gguf.js'

export interface DecoderLMInputs {
  /** Token ids [batch, time], int64. */
  inputIds?: Tensor
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for tokens and 0 for padding, on either side. */
  attentionMask?: Tensor | null
  /** [batch, time] or [1, time], int64. Default: counted over the tokens without padding, including those in the cache. */
  positionIds?: Tensor | null
  /**
   * Packed rows: the number of tokens of each sequence, in the order of the rows, as `packSequences` returns them. Positions, attention and
   * the sliding window restart in each sequence; no [time, time] mask is created. Use it instead of `attentionMask`; not with a cache.
   */
  sequenceLengths?: readonly number[] | null
  /** [batch, time, hiddenSize], in place of `inputIds`. */
  inputsEmbeds?: Tensor | null
  /**
   * int64 [batch, time]; -100 for tokens that do not contribute to the loss. Each label is predicted from the tokens before it. As in
   * transformers these may be padding, so with padding on the left the first token of a row should have -100.
   */
  labels?: Tensor | null
  /** Label smoothing: the fraction of each target that is spread over the whole vocabulary, 0 … 1. Default 0. */
  labelSmoothing?: number
  /**
   * Reduction of the loss over the labels; 'none' returns one value per predicted token, 0 where the label is -100, which negated is
   * the token's log-probability. Experts' `auxLoss` is added only to the mean. Default 'mean'.
   */
  reduction?: 'mean' | 'sum' | 'none'
  /** Temperature of the loss: the number above 0 by which its logits are divided. Default 1. */
  lossTemperature?: number
  /** KV cache; this pass appends its tokens. With a cache, no gradient is recorded. */
  cache?: KvCache | null
  /** Number of last tokens to compute logits for; 0 for all. Default: all without labels, none with labels. */
  logitsToKeep?: number | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
  /** Mixtures of experts: return `routerLogits` and `auxLoss`, and add `auxLoss` times `routerAuxLossCoef` to the loss. Default: the configuration's. */
  outputRouterLogits?: boolean | null
}

export interface DecoderLMOutput {
  /** Mean cross-entropy over the labels, or [batch, time - 1] with reduction 'none'; float32 (float64 for float64). Null without labels. */
  loss: Tensor | null
  /** [batch, kept, vocabSize]; null without logits. */
  logits: Tensor | null
  /** [batch, time, hiddenSize], after the last norm. */
  lastHiddenState: Tensor
  /** The embeddings and the output of each layer, the last one after the norm; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, time, cache.length + time]; empty without `outputAttentions`. */
  attentions: Tensor[]
  /** Load-balancing loss of the routers over all layers (https://arxiv.org/abs/2101.03961); null without `outputRouterLogits`. */
  auxLoss: Tensor | null
  /** Per layer with experts [batch * time, experts]; empty without `outputRouterLogits`. */
  routerLogits: Tensor[]
}

const embed = op('voxtorch::decoder_lm_embed')
const embedQueued = opAsync('voxtorch::decoder_lm_embed')

/** Model type of a larger network, whose files contain a vision encoder as well. */
const MISTRAL3 = 'mistral3'

/** Return the configuration of the language model in a larger network. Only its weights tell whether the head is tied. */
function textPartOf(config: DecoderLMConfig, has: (name: string) => boolean): DecoderLMConfig {
  if ((config.modelType as string) !== MISTRAL3) return config
  const { textConfig } = config
  if (!isConfiguration(textConfig)) throw argumentError('DecoderLM', 'textConfig', 'a configuration', textConfig)
  return { modelType: 'mistral', ...toCamel(textConfig), tieWordEmbeddings: !has('lm_head.weight') }
}

/** A decoder saved without its head has no `model.` prefix in its names. */
export const decoderLayout = {
  kind: 'decoder_lm',
  forward: 'voxtorch::decoder_lm_forward',
  modelType: 'llama',
  alike: [...MODEL_TYPES.slice(1), MISTRAL3],
  architecture: 'DecoderLM',
  prefix: '',
  ignored: [/\.rotary_emb\.inv_freq$/, /^(?:vision_tower|multi_modal_projector)\./],
  packed: 'model.layers',
  foreign: ggufCheckpoint,
  rename: (name) => {
    const own = name.replace(/^language_model\./, '')
    return /^(embed_tokens|tok_embeddings|layers|norm)\./.test(own) ? `model.${own}` : own
  },
  found: textPartOf,
  sizes,
  keys: decoderKeys,
  completed: checkedLayers,
  native,
  saved: published,
  savedAs: (config) => ({ modelType: config.modelType as string, architecture: architectureOf(config) }),
  // Some files contain the tied head a second time; only the configuration tells that it is tied.
  tied: ({ tieWordEmbeddings }) => (tieWordEmbeddings === true ? [/^(lm_head|output)\.weight$/] : []),
} satisfies NetworkLayout<DecoderLMConfig> & { forward: string }

/**
 * The decoder language model of the LLaMA family: LLaMA 1 (Touvron et al. 2023, https://arxiv.org/abs/2302.13971), 2
 * (https://arxiv.org/abs/2307.09288), 3 (https://arxiv.org/abs/2407.21783) and Vicuna; Mistral (Jiang et al. 2023,
 * https://arxiv.org/abs/2310.06825), with its sliding window; Ministral and Ministral 3 (also as the language model of `mistral3` files, whose
 * vision encoder is not loaded); Mixtral (https://arxiv.org/abs/2401.04088); Qwen2 (Yang et al. 2024, https://arxiv.org/abs/2407.10671); Qwen3 and Qwen3 MoE (https://arxiv.org/abs/2505.09388); OLMo 2 (https://arxiv.org/abs/2501.00656); SmolLM3 (https://huggingface.co/blog/smollm3); Granite (https://arxiv.org/abs/2405.04324); Gemma 2 (https://arxiv.org/abs/2408.00118); Gemma 3 (text) (https://arxiv.org/abs/2503.19786); Phi-3 (Abdin et
 * al. 2024, https://arxiv.org/abs/2404.14219); InternLM2 (Cai et al. 2024, https://arxiv.org/abs/2403.17297). It matches transformers'
 * LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Phi3ForCausalLM, and InternLM's own InternLM2ForCausalLM. The fused
 * projections of Phi-3 and InternLM2 stay fused. Runs in native code.
 *
 * Outputs of tokens do not depend on padding, on either side. Outputs at padding are undefined. With RoPE scalings 'dynamic' and 'longrope'
 * the outputs depend on the longest row of the batch: beyond `maxPositionEmbeddings` ('dynamic') or `originalMaxPositionEmbeddings`
 * ('longrope'), all tokens of a call get other angles.
 *
 * With a cache, a 'longrope' text that grows beyond that length is computed again with the other angles, so that `forward`, `generate` and
 * `stream` return the same as without a cache; transformers does so in `generate`. With 'dynamic', `generate` uses the angles of the whole
 * length for a prompt, and computes its cached part again; each generated token gets the angles of the text that ends with it. In
 * `forward`, each token has the angles of the call that computed it.
 *
 * Published sizes: `'llama-7b'`, `'llama2-13b'`, `'llama3.1-8b'`, `'vicuna-13b-v1.1'`, `'mistral-7b-v0.1'`, `'qwen2-7b'`,
 * `'phi-3-mini-4k'`, `'internlm2-1.8b'` and so on. Files are safetensors or `.bin`, single or sharded; a config.json of another family is a
 * ConfigError. A GGUF file of llama.cpp, or a folder with only a GGUF file, works as well. On the CPU, tensors in Q8_0, Q4_0, Q4_1, Q4_K
 * and Q6_K stay quantized and frozen (adapters can be trained). Tensors in other quantizations are converted to `dtype`; with
 * `quantize: false`, all are.
 */
export class DecoderLM extends networkClass<DecoderLM, DecoderLMConfig, DecoderLMInputs, DecoderLMOutput>(
  decoderLayout,
) {
  /**
   * Defaults of `generate` and `stream`, for options missing in their own configuration. Without files: the configuration's `eosTokenId`,
   * `bosTokenId` and `padTokenId`.
   */
  generationConfig: GenerationConfig = specialTokens(this.config)
  /** For the Trainer: labels are shifted by one token, so the first label of a row does not count; `forward` takes `labelSmoothing`. */
  get shiftsLabels(): true {
    return true
  }
  get smoothsLabels(): true {
    return true
  }
  /** Factor on the output of the embedding layer, which is a part of transformers' embeddings (Gemma). @internal */
  get embeddingScale(): number {
    const { family } = native(this.config) as { family?: { embedding_scale?: number } }
    return family?.embedding_scale ?? 1
  }

  /** Load the generation configuration of a directory. @internal */
  async loaded(directory: string): Promise<void> {
    // A GGUF file has its special tokens and sampling settings in the configuration.
    const sampling = Reflect.get(this.config, SAMPLING) as GenerationConfig | undefined
    this.generationConfig = await readGenerationConfig(directory, { ...this.config, ...sampling })
  }

  /** Return the embeddings of token ids [...] as [..., hiddenSize], for `inputsEmbeds` together with those of another network. */
  embed(inputIds: Tensor): Tensor {
    return embed(withActiveAdapters(this), inputIds) as Tensor
  }

  /** Return the same as `embed`, on the executor, where forward hooks such as NEFTune's run. @internal */
  embedQueued(inputIds: Tensor): Promise<Tensor> {
    return embedQueued(withActiveAdapters(this), inputIds) as Promise<Tensor>
  }

  /**
   * Resize the embeddings and the output layer to `count` tokens, for example after tokens were added to the tokenizer. Existing rows are
   * kept exactly; new rows are drawn from N(0, std). With fewer tokens than before, the last rows are dropped. `config.vocabSize` follows.
   *
   * The parameters stay the same objects, but the state of an existing optimizer has the old size, so there is a warning. Gradients of both
   * layers are dropped.
   *
   * ```ts
   * tokenizer.addSpecialTokens(['<|unit0|>', '<|unit1|>'])
   * model.resizeTokenEmbeddings(tokenizer.vocabSize)
   * ```
   * @throws ConfigError for a layer quantized to 4 or 8 bits or to GGUF blocks, for a model with adapters, and if the row of `padTokenId`
   * would be dropped
   * @throws BusyError while a queued call still reads the layers; await it first
   */
  resizeTokenEmbeddings(count: number, options: ResizeTokenEmbeddingsOptions = {}): this {
    resizeTokenEmbeddings(this, count, options)
    return this
  }

  /**
   * Generate tokens after a text, or after embeddings, until every row has ended: greedily, by sampling or by beam search.
   *
   * ```ts
   * const { tokens } = await model.generate({ inputIds, attentionMask }, { maxNewTokens: 64, doSample: true, topP: 0.9 })
   * ```
   * @throws ConfigError for an invalid or contradictory configuration
   */
  generate(inputs: GenerateInputs, config?: GenerationConfig, options?: GenerateOptions): Promise<GenerateOutput> {
    return generate(this, inputs, config, options)
  }

  /**
   * Generate token by token. Leaving the loop, or aborting the signal in `options`, stops generation and frees its memory.
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
   * Save a GGUF file for llama.cpp and tools based on it, with the tokenizer's vocabulary and chat template, in half precision or quantized.
   * Merge adapters first, or save them separately with `saveGgufAdapter`. The file contains Mistral's sliding window, but llama.cpp attends
   * to all tokens.
   *
   * ```ts
   * await model.saveGguf('mine.gguf', { tokenizer, type: 'Q8_0' })
   * ```
   * Layers in GGUF blocks are written unchanged, whatever `type` is.
   * @throws ConfigError for layers in NF4 or int8, and for a tokenizer or RoPE scaling that llama.cpp does not support
   */
  saveGguf(path: string, options: SaveDecoderGgufOptions = {}): Promise<void> {
    return saveDecoderGguf(this, path, options)
  }

  /** Save config.json, generation_config.json and model.safetensors, in transformers' format. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await super.save(folder, options)
      await writeGenerationConfig(folder, this.generationConfig)
    })
  }
}
