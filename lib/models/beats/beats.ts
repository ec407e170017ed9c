import type { AudioClip } from '../../audio/clip.js'
import { argumentError, requireObject, requireOneOf, shown } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { type NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { arange, scope, Tensor, tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { beatsFbank, framesOf, samplesFor } from './audio.js'
import type { BeatsConfig } from './config.js'
import { beatsLayout, type LoadBeatsOptions, loadBeats } from './files.js'
import { type AudioTag, type TagOptions, tagClips } from './tags.js'

export interface BeatsInputs {
  /** Waveforms [batch, samples], floating point, 16 kHz, full scale 1. Either these or `fbank`. */
  inputValues?: Tensor
  /** Output of the front end, [batch, frames, 128]; see {@link Beats.fbank}. */
  fbank?: Tensor
  /** Valid length of each row, without padding: in samples with `inputValues`, in frames with `fbank`. */
  lengths?: readonly number[]
  /**
   * `'published'` treats padding like the published code: a few patches of it remain, with values that depend on the batch. Default: no
   * padding remains, and the output of a row is that of the clip alone, followed by zeros.
   */
  compat?: 'published'
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface BeatsOutput {
  /** [batch, patches, encoderEmbedDim]; the eight bands of each block of 160 ms, block after block. */
  lastHiddenState: Tensor
  /** Bool [batch, patches], true for padding; null without padding. */
  paddingMask: Tensor | null
  /** Input of the first layer and output of each layer, [batch, patches, encoderEmbedDim]; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, patches, patches]; empty without `outputAttentions`. Layers skipped in training have none. */
  attentions: Tensor[]
}

const forward = opAsync(beatsLayout.forward)
const classify = opAsync('voxtorch::beats_classify')

/**
 * BEATs (Chen et al. 2022, https://arxiv.org/abs/2212.09058), an audio encoder; runs in native code. Parameters have the names of the
 * published checkpoints (https://github.com/microsoft/unilm/tree/master/beats).
 *
 * All layers share one table of relative positions. The state dict contains it under the name of each layer.
 *
 * Published sizes: `'base'` (pre-trained) and `'as2m'` (with the predictor of AudioSet's 527 classes).
 */
export class Beats extends networkClass<Beats, BeatsConfig, BeatsInputs, BeatsOutput>(beatsLayout) {
  constructor(config: BeatsConfig, options: MakeOptions = {}) {
    super(config, options)
    shareBias(this)
  }

  /**
   * Load a published `.pt` file, which contains configuration and labels, or a directory that `save` wrote.
   * @throws CheckpointError for another file or another hash, and for missing, unexpected and mis-shaped names
   */
  static override fromPretrained(from: string, options: LoadBeatsOptions = {}): Promise<Beats> {
    return loadBeats(from, options, (config, factory) => new this(config, factory))
  }

  /** Names of the predictor's classes, in order; null if the checkpoint has none. */
  get labels(): string[] | null {
    const { id2label, predictorClass = 527 } = this.config
    if (!id2label) return null
    return Array.from({ length: predictorClass }, (_, i) => id2label[i] ?? `class ${i}`)
  }

  /**
   * Run the front end: waveforms [batch, samples] with full scale 1 at 16 kHz become [batch, 1 + (samples - 400) / 160, 128], Kaldi's
   * filter bank at full scale 32768, minus 15.41663, divided by 2 · 6.55582.
   */
  fbank(inputValues: Tensor): Promise<Tensor> {
    return beatsFbank(inputValues)
  }

  /**
   * Encode audio. Runs on the executor. Layer skipping and dropout are active in training mode only if a parameter of this network requires
   * a gradient: a frozen encoder computes as in evaluation mode.
   * @throws ShapeError for fewer than 2800 samples (16 frames), and for invalid lengths
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
   * Return the predictor's logits and probabilities, both [batch, predictorClass]: the mean of its outputs over the patches with audio,
   * and its sigmoid.
   * @throws ConfigError if the network has no predictor
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
   * Tag a clip, or each clip of a list: return the most probable classes.
   *
   * ```ts
   * const [first] = await beats.tag('dog.wav', { topK: 3 })
   * ```
   * @throws DataError for a clip of fewer than 2800 samples, or longer than `maxSeconds` with `longAudio: 'error'`
   * @throws ConfigError if the network has no predictor
   */
  tag(audio: AudioClip, options?: TagOptions): Promise<AudioTag[]>
  tag(audio: readonly AudioClip[], options?: TagOptions): Promise<AudioTag[][]>
  async tag(audio: AudioClip | readonly AudioClip[], options: TagOptions = {}): Promise<AudioTag[] | AudioTag[][]> {
    this.#requirePredictor('Beats.tag')
    const list = Array.isArray(audio) ? (audio as readonly AudioClip[]) : [audio as AudioClip]
    const tags = await tagClips(this, this.#leastSamples, list, options)
    return Array.isArray(audio) ? tags : (tags[0] as AudioTag[])
  }

  get #leastSamples(): number {
    return samplesFor(this.config.inputPatchSize ?? 16)
  }

  #requirePredictor(where: string): void {
    if (this.config.finetunedModel === true) return
    throw new ConfigError(
      `${where}: expected a network with a predictor, got one without. Load a checkpoint that was fine-tuned on AudioSet.`,
    )
  }

  async #prepared({ inputValues, fbank, lengths, compat }: BeatsInputs) {
    if ((inputValues === undefined) === (fbank === undefined)) {
      throw new ConfigError(
        `Beats: expected either inputValues or fbank, got ${fbank === undefined ? 'neither' : 'both'}.`,
      )
    }
    if (compat !== undefined) requireOneOf('Beats', 'compat', compat, ['published'])
    const audioInput = (inputValues ?? fbank) as Tensor
    const least = inputValues ? this.#leastSamples : (this.config.inputPatchSize ?? 16)
    const unit = inputValues ? 'samples' : 'frames'
    const name = inputValues ? 'inputValues' : 'fbank'
    const sizes = inputValues ? 2 : 3
    if (!(audioInput instanceof Tensor)) throw argumentError('Beats', name, 'a tensor', audioInput)
    if (audioInput.ndim !== sizes || audioInput.size(0) === 0) {
      throw new ShapeError(
        `Beats: ${name}: expected [batch, ${inputValues ? 'samples' : 'frames, bands'}], got [${audioInput.shape}]`,
      )
    }
    const longest = audioInput.size(1)
    if (longest < least) {
      throw new ShapeError(
        `Beats: ${name}: expected at least ${least} ${unit}, one patch, got ${longest}. Pad the audio with zeros.`,
      )
    }
    checkLengths(lengths, audioInput.size(0), least, longest, unit)
    const input = inputValues ? await beatsFbank(inputValues) : audioInput
    if (!lengths) return { fbank: input, lengths: null, paddingMask: null }
    if (compat === 'published') {
      const ends = tensor([...lengths], { dtype: 'int64', device: audioInput.device }).unsqueeze(1)
      return { fbank: input, lengths: null, paddingMask: arange(longest, { device: audioInput.device }).ge(ends) }
    }
    return { fbank: input, lengths: inputValues ? lengths.map(framesOf) : [...lengths], paddingMask: null }
  }
}

/** Share the first layer's table with the other layers, so that their state dicts contain it too. */
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
    throw new ShapeError(`Beats: lengths: expected a list of ${batch} numbers, one per row, got ${shown(lengths)}`, {
      lengths,
    })
  }
  const row = lengths.findIndex((length) => !Number.isInteger(length) || length < least || length > longest)
  if (row < 0) return
  throw new ShapeError(
    `Beats: lengths[${row}]: expected an integer from ${least} (one patch) to ${longest} ${unit}, got ${shown(lengths[row])}`,
    { lengths },
  )
}
