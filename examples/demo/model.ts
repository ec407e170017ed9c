/** A small model in the shape of SPECTRA (Yu et al. 2023): an encoder for each kind of input, and one over both. */
import * as vt from 'voxtorch'

export interface Config {
  vocabSize: number
  bands: number
  classes: number
  dim: number
  heads: number
  dropout: number
  /** Inputs of the model. Default both. */
  text: boolean
  speech: boolean
}

export interface Inputs {
  /** Numbers of `Vocabulary`, [batch, words, 14]. */
  text: vt.Tensor
  /** [batch, words], 1 for words and 0 for padding. */
  textMask: vt.Tensor
  /** Log-mel frames, [batch, frames, bands]. */
  speech: vt.Tensor
  speechMask: vt.Tensor
}

/** States [batch, time, dim] and which of them are real, [batch, time]. */
interface Encoded {
  states: vt.Tensor
  mask: vt.Tensor
}

export class SpeechTextClassifier extends vt.Module {
  text: TextEncoder | null
  speech: SpeechEncoder | null
  fusion: vt.TransformerEncoderLayer
  out: vt.Linear

  constructor(readonly config: Config) {
    super()
    const { dim, classes } = config
    this.text = config.text ? new TextEncoder(config) : null
    this.speech = config.speech ? new SpeechEncoder(config) : null
    this.fusion = encoderLayer(config)
    this.out = new vt.Linear(config.text && config.speech ? 2 * dim : dim, classes)
  }

  /** Load a folder that `save` wrote. */
  static fromPretrained(directory: string): Promise<SpeechTextClassifier> {
    return vt.loadPretrained(directory, (config: Config) => new SpeechTextClassifier(config))
  }

  save(directory: string): Promise<void> {
    return vt.savePretrained(directory, this, this.config)
  }

  /** Return parameter groups: word embeddings, of which a step updates few, have a higher learning rate. */
  parameterGroups(): { params: vt.Tensor[]; lr?: number }[] {
    const words = this.text ? [this.text.words.weight] : []
    const rest = this.parameters().filter((parameter) => !words.includes(parameter))
    return [{ params: rest }, ...words.map((table) => ({ params: [table], lr: 3e-3 }))]
  }

  /** Logits [batch, classes]. */
  override async forward(inputs: Inputs): Promise<vt.Tensor> {
    return vt.scope(async () => {
      const parts: Encoded[] = []
      if (this.text) parts.push(await this.text.forward(inputs.text, inputs.textMask))
      if (this.speech) parts.push(this.speech.forward(inputs.speech, inputs.speechMask))
      const states = vt.cat(
        parts.map((part) => part.states),
        1,
      ) // [batch, words + frames / 4, dim]
      const mask = vt.cat(
        parts.map((part) => part.mask),
        1,
      )
      const fused = this.fusion.forward(states, { keyPaddingMask: mask.eq(0) })
      const pieces = fused.splitWithSizes(
        parts.map((part) => part.mask.size(1)),
        1,
      )
      const means = parts.map((part, i) => meanOver(pieces[i]!, part.mask)) // [batch, dim] each
      return this.out.forward(vt.functional.dropout(vt.cat(means, 1), 0.3, this))
    })
  }
}

/** RoBERTa over words, each the mean of the vectors of its bag. */
class TextEncoder extends vt.Module {
  words: vt.Embedding
  roberta: vt.Roberta

  constructor({ vocabSize, dim, heads, dropout }: Config) {
    super()
    this.words = new vt.Embedding(vocabSize, dim, { paddingIdx: 0 })
    vt.init.normal_(this.words.weight, 0, 0.1)
    this.roberta = vt.Roberta.fromConfig({
      ...{ vocabSize: 2, hiddenSize: dim, numHiddenLayers: 1, numAttentionHeads: heads, intermediateSize: 2 * dim },
      ...{ maxPositionEmbeddings: 64, typeVocabSize: 1, addPoolingLayer: false },
      ...{ hiddenDropoutProb: dropout, attentionProbsDropoutProb: dropout },
    })
  }

  override async forward(text: vt.Tensor, mask: vt.Tensor): Promise<Encoded> {
    return vt.scope(async () => {
      let shown = text.ne(0).to({ dtype: 'float32' }) // [batch, words, 14]
      if (this.training) shown = shown.mul(shown.randLike().ge(0.5)) // half of each bag is hidden
      const weights = shown.div(shown.sum([2], { keepdim: true }).clamp(1)).unsqueeze(2) // [batch, words, 1, 14]
      const inputsEmbeds = weights.matmul(this.words.forward(text)).squeeze(2) // [batch, words, dim]
      const { lastHiddenState } = await this.roberta.forward({ inputsEmbeds, attentionMask: mask })
      return { states: lastHiddenState, mask }
    })
  }
}

/** Two strided convolutions and a transformer over log-mel frames: a quarter of them comes out. */
class SpeechEncoder extends vt.Module {
  conv1: vt.Conv2d
  conv2: vt.Conv2d
  project: vt.Linear
  norm: vt.LayerNorm
  layer: vt.TransformerEncoderLayer

  constructor(config: Config) {
    super()
    const { bands, dim } = config
    this.conv1 = new vt.Conv2d(1, 16, 5, { stride: 2, padding: 2 })
    this.conv2 = new vt.Conv2d(16, 32, 3, { stride: 2, padding: 1 })
    this.project = new vt.Linear(32 * Math.ceil(bands / 4), dim)
    this.norm = new vt.LayerNorm(dim)
    this.layer = encoderLayer(config)
  }

  override forward(speech: vt.Tensor, speechMask: vt.Tensor): Encoded {
    return vt.scope(() => {
      const half = speechMask.at(vt.slice(), vt.slice(null, null, 2))
      const mask = half.at(vt.slice(), vt.slice(null, null, 2)) // [batch, frames / 4]
      // Beyond a clip's end stand zeros, so that a padded batch gives what its clips give alone.
      const first = this.conv1.forward(this.#disturbed(speech).unsqueeze(1)).gelu()
      const masked = first.mul(half.unsqueeze(1).unsqueeze(-1)) // [batch, 16, frames / 2, bands / 2]
      const second = this.conv2.forward(masked).gelu().transpose(1, 2).flatten(2) // [batch, frames / 4, 32 * bands / 4]
      const hidden = vt.functional.dropout(this.norm.forward(this.project.forward(second)), 0.1, this)
      const states = this.layer.forward(hidden, { keyPaddingMask: mask.eq(0) })
      return { states, mask }
    })
  }

  /** In training: all bands a little up or down, as another voice has them, and a stripe hidden (SpecAugment). */
  #disturbed(speech: vt.Tensor): vt.Tensor {
    if (!this.training) return speech
    const [batch, , bands] = speech.shape as [number, number, number]
    const start = vt.rand([batch, 1]).mul(bands - 12)
    const band = vt.arange(bands).unsqueeze(0)
    const hidden = band.ge(start).logicalAnd(band.lt(start.add(12))) // [batch, bands]
    const shift = Number(vt.randint(-3, 4, [1]).item())
    return speech.roll([shift], [2]).maskedFill(hidden.unsqueeze(1), 0)
  }
}

function encoderLayer({ dim, heads }: Config): vt.TransformerEncoderLayer {
  const options = { dimFeedforward: 2 * dim, dropout: 0, activation: 'gelu', batchFirst: true } as const
  return new vt.TransformerEncoderLayer(dim, heads, options)
}

/** Return the mean over the states that are not padding: [batch, time, dim] -> [batch, dim]. */
function meanOver(states: vt.Tensor, mask: vt.Tensor): vt.Tensor {
  const real = mask.unsqueeze(-1).to({ dtype: 'float32' })
  return states
    .mul(real)
    .sum([1])
    .div(real.sum([1]))
}
