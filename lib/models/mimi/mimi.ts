import { join } from 'node:path'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { requireWhole } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { writeJson } from '../../files/json/json.js'
import { opAsync } from '../../native/call.js'
import { requireTensorInputs } from '../../nn/check.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { scope, type Tensor, tensor } from '../../tensor/index.js'
import { readFeatureExtractor } from '../feature-extractor.js'
import { networkClass } from '../network.js'
import type { SaveNetworkOptions } from '../pretrained.js'
import { completedMimi, frameSize, type MimiConfig, mimiKeys, mimiSizes, nativeMimi, savedMimi } from './config.js'
import { MimiDecoderStream, MimiEncoderStream, type MimiStreamOptions } from './stream.js'

export interface MimiInputs {
  /** Samples [batch, audioChannels, time] at `samplingRate`. */
  inputValues?: Tensor | null
  /** [batch, channels, time] or [batch, time]: only its length counts, to which the audio is cut, as in transformers. Default: that of `inputValues`. */
  paddingMask?: Tensor | null
  /** int64 [batch, quantizers, frames], instead of encoding `inputValues`. */
  audioCodes?: Tensor | null
  /** Number of quantizers to encode with. Default all. */
  numQuantizers?: number | null
}

export interface MimiOutput {
  /** int64 [batch, quantizers, frames] */
  audioCodes: Tensor
  /** Samples [batch, audioChannels, time]. */
  audioValues: Tensor
}

export interface MimiEncodeInputs {
  /** Samples [batch, audioChannels, time] at `samplingRate`. */
  inputValues: Tensor
  /** Number of quantizers, from `numSemanticQuantizers`. Default all. */
  numQuantizers?: number | null
  outputHiddenStates?: boolean
}

export interface MimiEncodeOutput {
  /** int64 [batch, numQuantizers, frames], the semantic codes first. */
  audioCodes: Tensor
  /** [batch, hiddenSize, frames], before quantization; the encoder's gradients flow through them. */
  latents: Tensor
  /** Input of each layer of the transformer and the output of the last, [batch, inner frames, hiddenSize]; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
}

export interface MimiDecodeInputs {
  /** int64 [batch, quantizers, frames], those of the first quantizers. */
  audioCodes?: Tensor | null
  /** [batch, hiddenSize, frames], instead of `audioCodes`. */
  latents?: Tensor | null
  outputHiddenStates?: boolean
}

export interface MimiDecodeOutput {
  /** Samples [batch, audioChannels, frames · frameSize]. */
  audioValues: Tensor
  /** [batch, hiddenSize, frames]: the sums of the codes' vectors, or the latents of the call. */
  latents: Tensor
  /** Input of each layer of the decoder's transformer and the output of the last, as in {@link MimiEncodeOutput}. */
  hiddenStates: Tensor[]
}

const encode = opAsync('voxtorch::mimi_encode')
const decode = opAsync('voxtorch::mimi_decode')

/**
 * Mimi (Défossez et al. 2024, https://arxiv.org/abs/2410.00037; https://huggingface.co/kyutai/mimi), a codec that turns speech of 24 kHz into
 * 12.5 frames of codes per second and back: transformers' MimiModel. Runs in native code.
 *
 * ```ts
 * const mimi = await Mimi.fromPretrained('kyutai/mimi')
 * const { audioCodes } = await mimi.encode({ inputValues, numQuantizers: 8 })
 * const { audioValues } = await mimi.decode({ audioCodes })
 * ```
 *
 * The network is causal: {@link encoderStream} and {@link decoderStream} give the same codes and samples frame by frame, up to rounding. As in
 * transformers, encoding takes no mask: rows of a batch are independent, and padding at the end of a row changes only the frames that it
 * reaches. The codes of padding are those for which `audioCodesMask` is false.
 *
 * Published size: `'mimi'`. Codebooks have no gradient. Codes on a CUDA device are not checked, because reading them would make each frame
 * wait.
 */
export class Mimi extends networkClass<Mimi, MimiConfig, MimiInputs, MimiOutput>({
  kind: 'mimi',
  forward: 'voxtorch::mimi_forward',
  modelType: 'mimi',
  architecture: 'MimiModel',
  sizes: mimiSizes,
  keys: mimiKeys,
  completed: completedMimi,
  native: nativeMimi,
  saved: savedMimi,
  prefix: '',
  ignored: [/\.rotary_emb\.inv_freq$/],
}) {
  /** Sample rate in Hz: 24,000. */
  get sampleRate(): number {
    return this.config.samplingRate as number
  }

  /** Samples per frame of codes: 1920. */
  get frameSize(): number {
    return frameSize(this.config)
  }

  /** Check the directory's feature extractor. @internal */
  async loaded(directory: string): Promise<void> {
    await readFeatureExtractor(directory, {
      defaults: {},
      only: {
        featureSize: [this.config.audioChannels],
        samplingRate: [this.config.samplingRate],
        paddingValue: [0],
        ...{ chunkLengthS: [null], overlap: [null] },
      },
      unused: ['featureExtractorType', 'processorClass', 'paddingSide', 'returnAttentionMask'],
    })
  }

  /**
   * Encode samples as codes. Runs on the executor. The end is padded to a whole frame.
   * @throws ShapeError for another number of channels or no samples; ConfigError for another number of quantizers
   */
  async encode(inputs: MimiEncodeInputs): Promise<MimiEncodeOutput> {
    requireTensorInputs('Mimi.encode', inputs)
    return encode(withActiveAdapters(this), inputs) as Promise<MimiEncodeOutput>
  }

  /**
   * Decode codes, or latents, as samples. Runs on the executor.
   * @throws ConfigError for a code outside the codebook
   */
  async decode(inputs: MimiDecodeInputs): Promise<MimiDecodeOutput> {
    requireTensorInputs('Mimi.decode', inputs)
    return decode(withActiveAdapters(this), inputs) as Promise<MimiDecodeOutput>
  }

  /** Return the number of frames for clips with these numbers of samples. */
  encodedLengths(lengths: readonly number[]): number[] {
    for (const length of lengths) requireWhole('Mimi.encodedLengths', 'lengths', length)
    return lengths.map((length) => Math.ceil(length / this.frameSize))
  }

  /**
   * Return which frames of codes hold samples, bool [batch, longest].
   * @param paddingMask [batch, time] or [batch, 1, time]: 1 for samples and 0 for padding at the end
   */
  audioCodesMask(paddingMask: Tensor): Tensor {
    return scope(() => {
      const rows = (paddingMask.ndim === 3 ? paddingMask.select(1, 0) : paddingMask).ne(0).sum([-1])
      const lengths = this.encodedLengths((rows.toArray() as (number | bigint)[]).map(Number))
      const longest = Math.max(0, ...lengths)
      const mask = lengths.map((length) => Array.from({ length: longest }, (_, i) => (i < length ? 1 : 0)))
      return tensor(mask, { dtype: 'uint8' }).to({ dtype: 'bool', device: paddingMask.device })
    })
  }

  /**
   * Return a stream that encodes samples as they arrive; `dispose` or `using` frees its memory.
   *
   * ```ts
   * using stream = mimi.encoderStream({ numQuantizers: 8 })
   * for await (const samples of microphone) handle(await stream.push(samples))
   * handle(await stream.flush())
   * ```
   * @throws ConfigError for another number of quantizers
   */
  encoderStream(options: MimiStreamOptions = {}): MimiEncoderStream {
    return new MimiEncoderStream(this, options)
  }

  /**
   * Return a stream that decodes codes as they arrive: each frame gives `frameSize` samples at once.
   *
   * ```ts
   * using stream = mimi.decoderStream()
   * for await (const codes of model.speak()) play(await stream.push(codes))
   * ```
   */
  decoderStream(): MimiDecoderStream {
    return new MimiDecoderStream(this)
  }

  /** Save config.json, preprocessor_config.json and model.safetensors, with the names of the published checkpoint. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    const preprocessor = {
      feature_extractor_type: 'EncodecFeatureExtractor',
      chunk_length_s: null,
      feature_size: this.config.audioChannels,
      overlap: null,
      padding_side: 'right',
      padding_value: 0,
      return_attention_mask: true,
      sampling_rate: this.config.samplingRate,
    }
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await super.save(folder, options)
      await writeJson(join(folder, 'preprocessor_config.json'), preprocessor, { indent: 2 })
    })
  }
}
