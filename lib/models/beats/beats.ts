import type { AudioClip } from '../../audio/clip.js'
import { misuse, requireObject, requireOneOf } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { type NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { arange, scope, Tensor, tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { beatsFbank, framesOf, samplesFor } from './audio.js'
import type { BeatsConfig } from './config.js'
import { beatsLayout, type LoadBeatsOptions, loadBeats } from './files.js'
import { type SoundTag, type TagOptions, tagClips } from './tags.js'

export interface BeatsInputs {
  /** Waveforms [batch, samples], floating point, 16 kHz, full scale 1. Either these or `fbank`. */
  inputValues?: Tensor
  /** What the front end makes of them, [batch, frames, 128]; see {@link Beats.fbank}. */
  fbank?: Tensor
  /** How much of each row is audio, the rest being padding: in samples with `inputValues`, in frames with `fbank`. */
  lengths?: readonly number[]
  /**
   * `'published'` treats padding as the published code does: a few patches of it remain, and what they hold depends on
   * the batch. Default: none remains, and a row's output is that of the clip alone, followed by zeros.
   */
  compat?: 'published'
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface BeatsOutput {
  /** [batch, patches, encoderEmbedDim]; eight bands of a block of 160 ms beside each other, block after block. */
  lastHiddenState: Tensor
  /** Bool [batch, patches], true for padding; null where there is none. */
  paddingMask: Tensor | null
  /** The first layer's input and the output of each layer, each [batch, patches, encoderEmbedDim]; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, patches, patches]; empty unless asked for. A layer that training skipped has none. */
  attentions: Tensor[]
}

const forward = opAsync(beatsLayout.forward)
const classify = opAsync('voxtorch::beats_classify')

/**
 * BEATs (Chen et al. 2022, https://arxiv.org/abs/2212.09058), an encoder of sound; runs in native code. Names and
 * numbers are those of the published checkpoints (https://github.com/microsoft/unilm/tree/master/beats).
 *
 * All layers share one table of relative positions, which stands under each one's name in the state dictionary.
 *
 * Published sizes: `'base'` (pre-trained) and `'as2m'` (with the predictor of AudioSet's 527 classes).
 */
export class Beats extends networkClass<Beats, BeatsConfig, BeatsInputs, BeatsOutput>(beatsLayout) {
  constructor(config: BeatsConfig, options: MakeOptions = {}) {
    super(config, options)
    shareBias(this)
  }

  /**
   * A published `.pt` file, whose configuration and labels are in it, or a directory that `save` wrote.
   * @throws CheckpointError for a file that is not one or has another hash, and with missing, unexpected and mis-shaped names
   */
  static override fromPretrained(from: string, options: LoadBeatsOptions = {}): Promise<Beats> {
    return loadBeats(from, options, (config, factory) => new this(config, factory))
  }

  /** Names of the predictor's classes, in their order; null where the checkpoint has none. */
  get labels(): string[] | null {
    const { id2label, predictorClass = 527 } = this.config
    if (!id2label) return null
    return Array.from({ length: predictorClass }, (_, i) => id2label[i] ?? `class ${i}`)
  }

  /**
   * The front end: waveforms [batch, samples] of full scale 1 at 16 kHz become [batch, 1 + (samples - 400) / 160, 128],
   * Kaldi's filter bank at its full scale of 32768, less 15.41663, over 2 · 6.55582.
   */
  fbank(inputValues: Tensor): Promise<Tensor> {
    return beatsFbank(inputValues)
  }

  /**
   * Runs on the executor. In training, layers are skipped and values dropped only where a parameter of this network
   * requires a gradient: a frozen one computes as in evaluation, whatever mode the network around it is in.
   * @throws ShapeError for fewer than 2800 samples (16 frames), and for lengths that do not fit
   * @throws ConfigError for neither or both of `inputValues` and `fbank`
   */
  override forward(inputs: BeatsInputs): Promise<BeatsOutput> {
    requireObject('Beats.forward', 'inputs', inputs)
    const { outputHiddenStates, outputAttentions } = inputs
    return scope(async () => {
      const { fbank, lengths, paddingMask } = await this.#prepared(inputs)
      const settings = { paddingMask, outputHiddenStates, outputAttentions }
      return (await forward(withActiveAdapters(this), fbank, lengths, settings)) as BeatsOutput
    })
  }

  /**
   * The predictor's logits and probabilities, both [batch, predictorClass]: the mean of its outputs over the patches that
   * are audio, and the sigmoid of that.
   * @throws ConfigError where the network has no predictor
   */
  classify(inputs: BeatsInputs): Promise<{ logits: Tensor; probabilities: Tensor }> {
    requireObject('Beats.classify', 'inputs', inputs)
    this.#requirePredictor('Beats.classify')
    return scope(async () => {
      const { fbank, lengths, paddingMask } = await this.#prepared(inputs)
      return (await classify(withActiveAdapters(this), fbank, lengths, { paddingMask })) as {
        logits: Tensor
        probabilities: Tensor
      }
    })
  }

  /**
   * What sounds in a clip: classes by probability, of each clip where a list is given.
   *
   * ```ts
   * const [first] = await beats.tag('dog.wav', { topK: 3 })
   * ```
   * @throws DataError for a clip of fewer than 2800 samples, or longer than `maxSeconds` where that is to be an error
   * @throws ConfigError where the network has no predictor
   */
  tag(audio: AudioClip, options?: TagOptions): Promise<SoundTag[]>
  tag(audio: readonly AudioClip[], options?: TagOptions): Promise<SoundTag[][]>
  async tag(audio: AudioClip | readonly AudioClip[], options: TagOptions = {}): Promise<SoundTag[] | SoundTag[][]> {
    this.#requirePredictor('Beats.tag')
    const list = Array.isArray(audio) ? (audio as readonly AudioClip[]) : [audio as AudioClip]
    const tags = await tagClips(this, this.#leastSamples, list, options)
    return Array.isArray(audio) ? tags : (tags[0] as SoundTag[])
  }

  get #leastSamples(): number {
    return samplesFor(this.config.inputPatchSize ?? 16)
  }

  #requirePredictor(where: string): void {
    if (this.config.finetunedModel === true) return
    throw new ConfigError(
      `${where}: the network has no predictor; load a checkpoint that was fine-tuned on AudioSet`,
      {},
    )
  }

  async #prepared({ inputValues, fbank, lengths, compat }: BeatsInputs) {
    if ((inputValues === undefined) === (fbank === undefined)) {
      throw new ConfigError('Beats: give either inputValues or fbank', {})
    }
    if (compat !== undefined) requireOneOf('Beats', 'compat', compat, ['published'])
    const given = (inputValues ?? fbank) as Tensor
    const least = inputValues ? this.#leastSamples : (this.config.inputPatchSize ?? 16)
    const unit = inputValues ? 'samples' : 'frames'
    const name = inputValues ? 'inputValues' : 'fbank'
    const sizes = inputValues ? 2 : 3
    if (!(given instanceof Tensor)) throw misuse('Beats', name, 'a tensor', given)
    if (given.ndim !== sizes || given.size(0) === 0) {
      throw new ShapeError(
        `Beats: ${name} must be [batch, ${inputValues ? 'samples' : 'frames, bands'}], not [${given.shape}]`,
      )
    }
    const longest = given.size(1)
    if (longest < least) {
      throw new ShapeError(
        `Beats: ${name} has ${longest} ${unit}, but a patch needs ${least}; pad the audio with zeros`,
      )
    }
    checkLengths(lengths, given.size(0), least, longest, unit)
    const input = inputValues ? await beatsFbank(inputValues) : given
    if (!lengths) return { fbank: input, lengths: null, paddingMask: null }
    if (compat === 'published') {
      const ends = tensor([...lengths], { dtype: 'int64', device: given.device }).unsqueeze(1)
      return { fbank: input, lengths: null, paddingMask: arange(longest, { device: given.device }).ge(ends) }
    }
    return { fbank: input, lengths: inputValues ? lengths.map(framesOf) : [...lengths], paddingMask: null }
  }
}

/** The layers after the first have no table of their own; in their state dictionaries they have the first one's. */
function shareBias(model: Beats): void {
  const { encoderLayers = 12, relativePositionEmbedding = false } = model.config
  if (!relativePositionEmbedding || encoderLayers === 0) return
  const attention = (i: number) => model.get(`encoder.layers.${i}.self_attn`) as unknown as Record<string, NativeModule>
  const shared = attention(0).relative_attention_bias as NativeModule
  for (let i = 1; i < encoderLayers; i += 1) attention(i).relative_attention_bias = shared
}

function checkLengths(lengths: unknown, batch: number, least: number, longest: number, unit: string): void {
  if (lengths === undefined) return
  if (!Array.isArray(lengths) || lengths.length !== batch) {
    throw new ShapeError(`Beats: lengths must be a list with a number for each of the ${batch} rows`, { lengths })
  }
  const row = lengths.findIndex((length) => !Number.isInteger(length) || length < least || length > longest)
  if (row < 0) return
  throw new ShapeError(
    `Beats: lengths[${row}] must be a whole number of ${unit} from ${least}, which make a patch, to ${longest}, not ` +
      String(lengths[row]),
    { lengths },
  )
}
