import { argumentError, requireObject, requireOneOf, requireOptions } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { crossEntropy } from '../../nn/losses.js'
import { Module } from '../../nn/module.js'
import { Parameter } from '../../nn/parameter.js'
import type { LoraConfig } from '../../peft/config.js'
import { getPeftModel, peftModelOf } from '../../peft/model.js'
import { arange, noGrad, ops, scope, Tensor, tensor } from '../../tensor/index.js'
import type { LanguageBindModality } from './config.js'
import type { LanguageBindTokens } from './inputs.js'
import { LanguageBind } from './languagebind.js'

/** Logarithms of the initial and the maximum temperature: ln(1 / 0.07) and ln 100. */
const FIRST_SCALE = Math.log(1 / 0.07)
const MOST_SCALE = Math.log(100)

export interface ContrastiveLossOptions {
  /** Logarithm of the factor on the cosines, [] or a number. Default ln(1 / 0.07). */
  logitScale?: Tensor | number
}

/**
 * Compute the symmetric contrastive loss (InfoNCE, Radford et al. 2021, https://arxiv.org/abs/2103.00020) of embeddings [n, dim] and
 * [n, dim], where row i of both is a pair: the mean cross-entropy of both directions, []. Embeddings need not have unit length.
 * @throws ShapeError if the shapes differ
 */
export function contrastiveLoss(first: Tensor, second: Tensor, options: ContrastiveLossOptions = {}): Tensor {
  const where = 'contrastiveLoss'
  requireOptions(where, options, ['logitScale'])
  const { logitScale = FIRST_SCALE } = options
  if (!(logitScale instanceof Tensor) && typeof logitScale !== 'number') {
    throw argumentError(where, 'logitScale', 'a tensor or a number', logitScale)
  }
  for (const [name, value] of Object.entries({ first, second })) {
    if (!(value instanceof Tensor)) throw argumentError(where, name, 'a tensor', value)
  }
  if (first.ndim !== 2 || first.shape[0] === 0 || first.shape.join() !== second.shape.join()) {
    throw new ShapeError(
      `${where}: expected two tensors of the same shape [n, dim], got [${first.shape}] and [${second.shape}]. Check the batch.`,
      {
        first: first.shape,
        second: second.shape,
      },
    )
  }
  return scope(() => lossOf(logitsOf(first, second, logitScale)))
}

const unit = (rows: Tensor): Tensor => rows.div(ops.linalgVectorNorm(rows, 2, [-1], true))

function logitsOf(first: Tensor, second: Tensor, logitScale: Tensor | number): Tensor {
  const scale = typeof logitScale === 'number' ? Math.exp(logitScale) : logitScale.exp()
  return unit(first)
    .matmul(unit(second).t())
    .mul(scale as Tensor)
}

function lossOf(logits: Tensor): Tensor {
  const own = arange(logits.shape[0] as number, { dtype: 'int64', device: logits.device })
  return crossEntropy(logits, own).add(crossEntropy(logits.t(), own)).div(2)
}

export interface ContrastiveOptions {
  /** Modality whose encoder trains. Default: the only one. */
  modality?: LanguageBindModality
  /**
   * LoRA adapters of the encoder. Default: r 16 and loraAlpha 16 on the attention projections; with temporal attention on those of
   * the temporal attention, as published. null: the whole encoder trains.
   */
  lora?: Partial<LoraConfig> | null
  /** 'projection' also trains the projection to the shared space. Default null. */
  also?: 'projection' | null
  /** Whether the temperature is learned. Default true. */
  learnTemperature?: boolean
}

/** A batch: `text` and the input of the modality, as {@link LanguageBind.forward} takes them. Row i of both is a pair. */
export type ContrastiveInputs = { text: LanguageBindTokens } & { [M in LanguageBindModality]?: Tensor }

export interface ContrastiveOutput {
  loss: Tensor
  /** [items, texts]: cosines multiplied by the temperature. */
  logits: Tensor
}

/**
 * Training of one encoder of a LanguageBind on pairs with texts, with the text encoder frozen: the symmetric contrastive loss over
 * a batch, with a learned temperature of at most 100. Use it with the Trainer, or in your own loop:
 *
 *
 * ```ts
 * const training = new ContrastiveModel(model, { modality: 'audio', lora: { r: 8 } })
 * const optimizer = new AdamW(training.parameters().filter(({ requiresGrad }) => requiresGrad), { lr: 1e-3, betas: [0.9, 0.98] })
 * const { loss } = await training.forward({ text, audio })
 * …
 * training.applyTemperature()
 * await model.save('tuned')
 * ```
 *
 * The LanguageBind is trained in place. The caller disposes it.
 */
export class ContrastiveModel extends Module {
  readonly model: LanguageBind
  /** Logarithm of the temperature, []. */
  readonly logit_scale: Parameter
  readonly modality: LanguageBindModality

  /** @throws ConfigError for a modality without an encoder, and for several modalities without `modality` */
  constructor(model: LanguageBind, options: ContrastiveOptions = {}) {
    super()
    const where = 'ContrastiveModel'
    if (!(model instanceof LanguageBind)) throw argumentError(where, 'model', 'a LanguageBind', model)
    requireOptions(where, options, ['modality', 'lora', 'also', 'learnTemperature'])
    const { modality = model.modalities[0], lora = {}, also = null, learnTemperature = true } = options
    if (options.modality === undefined && model.modalities.length > 1) {
      throw new ConfigError(
        `${where}: modality: expected one of ${model.modalities.join(', ')}, got undefined. Name the modality to train.`,
        {},
      )
    }
    if (lora !== null) requireObject(where, 'lora', lora)
    if (also !== null) requireOneOf(where, 'also', also, ['projection'])
    if (typeof learnTemperature !== 'boolean')
      throw argumentError(where, 'learnTemperature', 'true or false', learnTemperature)
    this.modality = modality as LanguageBindModality
    const encoder = model.encoder(this.modality)
    model.freeze()
    if (lora === null) encoder.unfreeze()
    else if (peftModelOf(encoder)) encoder.unfreeze(/\.lora_[AB]\./)
    else {
      const attention = model.config[this.modality]?.visionConfig?.addTimeAttn ? 'temporal_attn' : 'self_attn'
      const targetModules = ['q_proj', 'k_proj', 'v_proj', 'out_proj'].map((name) => `${attention}.${name}`)
      getPeftModel(encoder, { r: 16, loraAlpha: 16, targetModules, ...lora })
    }
    if (also === 'projection') model.modality_proj.at(this.modality).unfreeze()
    this.model = model
    const { device } = model.modality_proj.at(this.modality).weight
    const first = Math.log(model.temperature(this.modality))
    this.logit_scale = scope(
      () =>
        new Parameter(tensor(first, { dtype: 'float32', device }) as Tensor, {
          requiresGrad: learnTemperature,
        }),
    )
    this.train()
  }

  /** Set the training mode. Frozen encoders stay in evaluation mode. */
  override train(mode = true): this {
    super.train(mode)
    for (const [name, part] of this.model.modality_encoder) if (name !== this.modality) part.eval()
    return this
  }

  /**
   * Compute the loss of a batch.
   * @throws ConfigError if the text or the modality's input is missing, and for inputs of other modalities; ShapeError if the
   * numbers of texts and items differ
   */
  override async forward(inputs: ContrastiveInputs): Promise<ContrastiveOutput> {
    const where = 'ContrastiveModel.forward'
    requireObject(where, 'inputs', inputs)
    const { modality } = this
    const { text, [modality]: own, ...others } = inputs
    const other = Object.entries(others).find(([, value]) => value !== undefined)
    if (other)
      throw new ConfigError(`${where}: expected only text and ${modality}, got '${other[0]}'. Leave it out.`, {})
    if (!text || !own)
      throw new ConfigError(
        `${where}: expected text and ${modality}, got ${text ? 'only text' : own ? `only ${modality}` : 'neither'}. Pass both.`,
        {},
      )
    return scope(async () => {
      // Above the maximum, clamping would stop the gradient, so clamp the parameter itself before the forward pass.
      if (this.training) noGrad(() => this.logit_scale.clamp_(null, MOST_SCALE))
      const locked = (await noGrad(() => this.model.forward({ text }))) as { text: Tensor }
      const found = (await this.model.forward({ [modality]: own }, { useTemp: false })) as Record<string, Tensor>
      const items = found[modality] as Tensor
      if (items.shape.join() !== locked.text.shape.join()) {
        throw new ShapeError(
          `${where}: expected as many texts as items of ${modality}, got ${locked.text.shape[0]} and ${items.shape[0]}. Check the batch.`,
          {
            text: locked.text.shape,
            [modality]: items.shape,
          },
        )
      }
      const logits = logitsOf(items, locked.text, this.logit_scale)
      return { loss: lossOf(logits), logits }
    })
  }

  /** Set the LanguageBind's temperature to the learned one, for `embed`, `classify` and `save`. */
  applyTemperature(): void {
    noGrad(() => {
      const own = Reflect.get(this.model.modality_scale, this.modality) as Tensor
      own.copy_(this.logit_scale)
    })
  }
}
