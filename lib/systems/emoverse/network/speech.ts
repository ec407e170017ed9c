import { join } from 'node:path'
import { readClip } from '../../../audio/clip.js'
import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { argumentError, defined, requireOptions, requireWhole } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { readCheckpointJson, writeJson } from '../../../files/json/json.js'
import { saveSafetensors } from '../../../files/safetensors/safetensors.js'
import { weightFiles } from '../../../files/safetensors/sharded.js'
import { AudioBranch } from '../../../kit/audio-encoding/branch.js'
import { type AudioEncoding, audioEncoding, encodeClips, heardTokens } from '../../../kit/audio-encoding/encode.js'
import { clipKey, SalmonnFrames } from '../../../kit/audio-encoding/frames.js'
import { withTensors } from '../../../models/own-module.js'
import { QFormer, type QFormerConfig } from '../../../models/q-former/q-former.js'
import type { WhisperConfig } from '../../../models/whisper/config.js'
import { WhisperEncoder } from '../../../models/whisper/whisper.js'
import { Linear } from '../../../nn/index.js'
import { type Device, type DType, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import { type EmoVerseAudio, type MediaPlace, placeIn } from '../data/media.js'

/** Settings of a new speech branch. */
export interface NewSpeechBranch {
  /** Whisper model: a folder, a repository of the Hugging Face hub or the name of published weights; or a configuration, for random weights. */
  whisper: string | WhisperConfig
  /** Changes to SALMONN's Q-Former: windows of 17 of Whisper's frames, 2 layers, 1 query. `encoderWidth` follows from Whisper. */
  qformer?: QFormerConfig
  /** Random seed of Q-Former and projection. Default: the default generator. */
  seed?: number
}

/** An audio clip of a record. */
export interface EmoVerseSpeech {
  /** Hash of the samples. */
  key: string
  /** Mono samples at 16 kHz. */
  samples: Float32Array
  /** Number of its tokens in the text. */
  tokens: number
}

interface BranchConfig {
  whisper: WhisperConfig
  qformer: QFormerConfig
  hiddenSize: number
}

const [ENCODER, CONFIG, WEIGHTS] = ['encoder', 'config.json', 'model.safetensors']

/**
 * Audio encoder of an EmoVerse, an addition to the published model: Whisper's frozen encoder, followed by SALMONN's Q-Former over windows of
 * a third of a second (Tang et al. 2024, https://arxiv.org/abs/2310.13289). Its tokens enter the language model's text like those of images.
 */
export class SpeechBranch extends AudioBranch {
  readonly config: BranchConfig
  declare readonly speech_encoder: WhisperEncoder
  readonly qformer: QFormer
  readonly speech_proj: Linear
  readonly #encoding: AudioEncoding

  /** Create a branch, which owns the encoder. @throws ConfigError if the Q-Former does not fit the encoder */
  constructor(encoder: WhisperEncoder, qformer: QFormerConfig, hiddenSize: number, dtype?: DType) {
    const where = 'SpeechBranch'
    requireWhole(where, 'hiddenSize', hiddenSize, 1)
    const { dModel: encoderWidth = 384 } = encoder.config
    if (qformer.encoderWidth !== undefined && qformer.encoderWidth !== encoderWidth) {
      throw new ConfigError(
        `${where}: expected qformer.encoderWidth ${encoderWidth} of the encoder, got ${qformer.encoderWidth}. Leave it out.`,
        { qformer },
      )
    }
    const { device } = encoder.parameters()[0] as Tensor
    const factory = { device: device as Device, ...defined({ dtype }) }
    super(encoder, null, factory)
    this.frames = new SalmonnFrames()
    const complete = { window: 17, stride: 17, ...qformer, encoderWidth }
    this.qformer = new QFormer(complete, factory)
    this.config = { whisper: encoder.config, qformer: this.qformer.config, hiddenSize }
    this.speech_proj = new Linear(this.qformer.config.hiddenSize as number, hiddenSize, factory)
    this.#encoding = audioEncoding(where, encoder.config, {})
    this.train()
  }

  /** Create an untrained branch for a language model with `hiddenSize` dimensions. */
  static async begin(
    { whisper, qformer = {}, seed, ...rest }: NewSpeechBranch,
    hiddenSize: number,
    factory: { device?: Device; dtype?: DType } = {},
  ): Promise<SpeechBranch> {
    requireOptions('EmoVerse: speech', rest, [])
    const options = defined(factory)
    const encoder =
      typeof whisper === 'string'
        ? await WhisperEncoder.fromPretrained(whisper, options)
        : WhisperEncoder.fromConfig(whisper, { ...options, ...defined({ seed }) })
    return withSeed(seed, () => new SpeechBranch(encoder, qformer, hiddenSize, factory.dtype), factory.device)
  }

  /** Load a branch that `save` wrote. @throws CheckpointError for files that do not fit */
  static async fromPretrained(folder: string, factory: { device?: Device; dtype?: DType } = {}): Promise<SpeechBranch> {
    const config = (await readCheckpointJson(join(folder, CONFIG))) as unknown as BranchConfig
    const encoder = await WhisperEncoder.fromPretrained(join(folder, ENCODER), defined(factory))
    const branch = new SpeechBranch(encoder, config.qformer, config.hiddenSize, factory.dtype)
    try {
      await branch.restore(folder)
      return branch
    } catch (error) {
      branch.dispose()
      throw error
    }
  }

  /** Set training mode. The encoder stays in evaluation mode, since its outputs are cached. */
  override train(mode = true): this {
    super.train(mode)
    this.speech_encoder.eval()
    return this
  }

  /** Turn training of everything except the encoder on or off, dropout included. */
  trains(wanted: boolean): void {
    this.train(wanted)
    for (const [name, parameter] of this.namedParameters()) {
      if (!name.startsWith('speech_encoder.')) parameter.requiresGrad = wanted
    }
  }

  /** Save the trained parts; with `whole` the encoder too. */
  async save(folder: string, { whole = true }: { whole?: boolean } = {}): Promise<void> {
    const save = async (temporary: string) => {
      if (whole) await this.speech_encoder.save(join(temporary, ENCODER))
      await saveSafetensors(join(temporary, WEIGHTS), this.#state(false), { format: 'pt' })
      await writeJson(join(temporary, CONFIG), this.config)
    }
    await writeFolderAtomically(folder, CheckpointError, save, weightFiles)
  }

  /** Load the trained parts from a folder that `save` wrote. @throws CheckpointError for tensors that do not fit */
  async restore(folder: string): Promise<void> {
    const encoder = this.#state(true)
    const file = join(folder, WEIGHTS)
    await withTensors(file, (tensors) => {
      const extra = Object.keys(tensors).find((name) => Object.hasOwn(encoder, name))
      if (extra !== undefined) {
        throw new CheckpointError(`${file}: expected no weights of the encoder, got ${extra}.`, { file })
      }
      this.loadStateDict({ ...encoder, ...tensors })
    })
  }

  #state(isEncoder: boolean): Record<string, Tensor> {
    const entries = Object.entries(this.stateDict())
    return Object.fromEntries(entries.filter(([name]) => name.startsWith('speech_encoder.') === isEncoder))
  }

  /** Read the audio clips of a record. @throws DataError for one that is unreadable or empty */
  async read(
    audios: readonly EmoVerseAudio[],
    { mediaRoot, signal }: MediaPlace & { signal?: AbortSignal } = {},
  ): Promise<EmoVerseSpeech[]> {
    const audioInputs: EmoVerseSpeech[] = []
    for (const audio of audios) {
      const place = placeIn(mediaRoot)
      const isPart = typeof audio === 'object' && audio !== null && 'path' in audio
      const here = typeof audio === 'string' ? place(audio) : isPart ? { ...audio, path: place(audio.path) } : audio
      const audioInput = await scope(async () => {
        const clip = await readClip(here, defined({ signal }))
        const samples = (await clip.data()) as Float32Array
        return { key: await clipKey(clip), samples: Float32Array.from(samples) }
      })
      audioInputs.push({ ...audioInput, tokens: heardTokens(this.encoders, audioInput.samples.length, this.#encoding) })
    }
    return audioInputs
  }

  /** Return the embeddings of each clip's tokens, [tokens, hiddenSize]. */
  async encode(audioInputs: readonly EmoVerseSpeech[]): Promise<Tensor[]> {
    if (audioInputs.length === 0) throw argumentError('SpeechBranch.encode', 'audioInputs', 'at least one', audioInputs)
    return scope(async () => {
      const clips = audioInputs.map(({ samples }) => tensor(samples))
      return encodeClips(this.encoders, clips, this.#encoding)
    })
  }

  protected get connector() {
    return { qformer: this.qformer, projection: this.speech_proj }
  }
}
