import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { defined, requireOneOf, requireOptions } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { readCheckpointJson, writeJson } from '../../../files/json/json.js'
import type { EmotionClip } from '../../../kit/emotion/clips.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { ClipTextModel, ClipVisionModel } from '../../../models/clip/clip.js'
import { audioFrontEnd, languageBindAudio } from '../../../models/languagebind/audio.js'
import { readVideoClip } from '../../../models/languagebind/inputs.js'
import { LanguageBind } from '../../../models/languagebind/languagebind.js'
import { type Linear, Module } from '../../../nn/index.js'
import { cat, type Device, ops, scope, type Tensor } from '../../../tensor/index.js'
import type { EmotionModality } from './config.js'
import { audioOf, clipSource, type EmotionEncoder } from './encoders.js'

export interface LanguageBindEmotionEncoderOptions {
  /**
   * Whether to multiply vectors of video and audio by their temperature, as published, which makes them 14 to 100 times as long
   * as text vectors. Default true.
   */
  useTemp?: boolean
  /**
   * Whether to return the states of all video frames (after the last norm) or text tokens (0 at padding) instead of one vector.
   * They are not projected, and not multiplied by the temperature. Not available for audio. Default false.
   */
  states?: boolean
  /**
   * Function that reads a video or a folder of frames: float32 [3, frames, 224, 224]. Default: frames at regular intervals within
   * the utterance, prepared as in LanguageBind; videos need the optional package `node-av`.
   */
  readVideo?: (clip: EmotionClip) => Promise<Tensor>
  /** Description of `readVideo`, part of the cache key: change it to compute vectors again. */
  videoRecipe?: string
}

/** Name of the folder, within a classifier's folder, for the LanguageBind model that its encoders share. */
export const SHARED = 'languagebind'

/** Encoder and projection of one modality of a LanguageBind: the weights that train with a classifier. */
export class LanguageBindPart extends Module {
  constructor(
    readonly encoder: ClipTextModel | ClipVisionModel,
    readonly proj: Linear,
  ) {
    super()
  }
}

/** Encoder of text, video or audio with LanguageBind: unit vectors, multiplied by the temperature unless `useTemp` is false. */
export class LanguageBindEmotionEncoder implements EmotionEncoder<Tensor> {
  readonly network: LanguageBindPart
  readonly #options: LanguageBindEmotionEncoderOptions
  #from: string | undefined

  /** @throws ConfigError if the model has no encoder of the modality, or for text if it has no tokenizer */
  constructor(
    readonly model: LanguageBind,
    readonly modality: EmotionModality,
    options: LanguageBindEmotionEncoderOptions & { from?: string | undefined } = {},
  ) {
    const where = 'LanguageBindEmotionEncoder'
    requireOneOf(where, 'modality', modality, ['text', 'video', 'audio'])
    requireOptions(where, options, ['useTemp', 'readVideo', 'videoRecipe', 'states', 'from'])
    const { from, ...rest } = options
    this.#options = rest
    this.#from = from === undefined ? undefined : existsSync(from) ? resolve(from) : from
    if (rest.states && modality === 'audio') {
      throw new ConfigError(
        `${where}: states: expected false for modality 'audio', got true. States are available for video and text.`,
        { argument: 'states' },
      )
    }
    if (modality === 'text' && model.tokenizer === null) {
      throw new ConfigError(
        `${where}: expected a LanguageBind with a tokenizer for modality 'text', got none. Set its \`tokenizer\`.`,
        { modality },
      )
    }
    const key = modality === 'text' ? 'language' : modality
    this.network = new LanguageBindPart(model.encoder(modality), model.modality_proj.at(key))
  }

  get size(): number {
    return this.steps === undefined ? this.network.proj.outFeatures : this.steps * this.network.proj.inFeatures
  }

  get steps(): number | undefined {
    if (!this.#options.states) return undefined
    const { config } = this.model
    if (this.modality === 'video') return config.video?.visionConfig?.numFrames ?? 8
    return this.model.encoder('text').config.maxPositionEmbeddings ?? 77
  }

  get #frontEnd() {
    return audioFrontEnd(this.model.config.audio?.visionConfig ?? {})
  }

  get reference() {
    const { useTemp = true, states = false } = this.#options
    return this.#from === undefined
      ? undefined
      : { encoder: 'languagebind', modality: this.modality, from: this.#from, useTemp, ...(states && { states }) }
  }

  get recipe() {
    const { useTemp = true, videoRecipe = '', states = false } = this.#options
    if (states) return { encoder: 'languagebind', states, ...(this.modality === 'video' && { videoRecipe }) }
    const scaled = this.modality !== 'text' && useTemp
    const own = { text: {}, audio: { ...this.#frontEnd, crop: 'first' }, video: { videoRecipe } }[this.modality]
    return { encoder: 'languagebind', scale: scaled ? this.model.temperature(this.modality as 'video') : 1, ...own }
  }

  async source(dialog: EmotionDialog, place: number): Promise<string | undefined> {
    const utterance = dialog.utterances[place] as EmotionDialog['utterances'][number]
    // Token ids, because they depend on the tokenizer.
    if (this.modality === 'text') {
      const ids: Tensor | undefined = await this.read(dialog, place)
      const source = ids && String(ids.toArray())
      ids?.dispose()
      return source
    }
    if (this.modality === 'audio') {
      const audio = audioOf(utterance)
      return audio && clipSource(audio.path, audio.clip)
    }
    const path = utterance.clip?.video ?? utterance.clip?.frames
    return path === undefined ? undefined : clipSource(path, utterance.clip)
  }

  /** Return token ids int64 [1, 77], a spectrogram [1, 3, bands, frames], or frames [1, 3, frames, height, width]. */
  async read(dialog: EmotionDialog, place: number): Promise<Tensor | undefined> {
    const utterance = dialog.utterances[place] as EmotionDialog['utterances'][number]
    if (this.modality === 'text') {
      if (utterance.text.trim() === '') return undefined
      return scope(() => this.model.tokenizer?.encode(utterance.text).inputIds)
    }
    if (this.modality === 'audio') {
      const audio = audioOf(utterance)
      if (audio === undefined) return undefined
      const { start, end } = audio.clip
      return languageBindAudio({ path: audio.path, ...defined({ start, end }) }, this.#frontEnd)
    }
    const { clip } = utterance
    if (clip === undefined || (clip.video ?? clip.frames) === undefined) return undefined
    const { readVideo = (one) => this.#frames(one) } = this.#options
    return scope(async () => (await readVideo(clip)).unsqueeze(0))
  }

  #frames({ video, frames, start, end }: EmotionClip): Promise<Tensor> {
    return readVideoClip((video ?? frames) as string, this.model.config.video?.visionConfig ?? {}, { start, end })
  }

  async encode(inputs: readonly Tensor[]): Promise<Tensor> {
    const { useTemp = true, states = false } = this.#options
    return scope(async () => {
      const { device, dtype } = this.network.proj.weight
      const rows = cat([...inputs], 0)
      if (this.modality === 'text') {
        const end = this.model.tokenizer?.endTokenId as number
        // Texts are padded with the end token, whose first occurrence counts. The batch is cut to its longest text.
        const filled = ops
          .cumsum(rows.eq(end).to({ dtype: 'int64' }), 1)
          .le(1)
          .to({ dtype: 'int64' })
        const longest = Number(filled.sum([1]).max().item())
        const part = (all: Tensor) => all.narrow(1, 0, longest).to({ device })
        const tokens = { inputIds: part(rows), attentionMask: part(filled) }
        if (states) {
          const { lastHiddenState } = await this.model.encoder('text').forward(tokens) // [texts, tokens, size]
          const tokenMask = tokens.attentionMask.to({ dtype: lastHiddenState.dtype }).unsqueeze(2)
          const padding = (this.steps as number) - longest
          return ops.constantPadNd(lastHiddenState.mul(tokenMask), [0, 0, 0, padding]).reshape([rows.size(0), -1])
        }
        return (await this.model.forward({ text: tokens })).text
      }
      const moved = rows.to({ device, dtype })
      const name = this.modality
      if (states) {
        const { frameOutput } = await this.model.encoder('video').forward({ pixelValues: moved }) // [clips, frames, size]
        return frameOutput.reshape([rows.size(0), -1])
      }
      const found = await this.model.forward(name === 'video' ? { video: moved } : { audio: moved }, { useTemp })
      return (found as Record<string, Tensor>)[name] as Tensor
    })
  }

  /** Save the whole model next to `folder`, once for all of its encoders, and the encoder's options to `folder`. */
  async save(folder: string, saved: Set<object> = new Set()): Promise<void> {
    if (!saved.has(this.model)) await this.model.save(join(folder, '..', SHARED))
    saved.add(this.model)
    const { useTemp = true, states = false } = this.#options
    const { modality } = this
    await writeJson(join(folder, 'encoder.json'), {
      encoder: 'languagebind',
      modality,
      useTemp,
      ...(states && { states }),
    })
  }
}

/** Tell whether a folder, or a repository by its name, is a LanguageBind checkpoint. */
export async function isLanguageBind(place: string): Promise<boolean> {
  const file = join(place, 'config.json')
  if (!existsSync(file)) return /languagebind/i.test(place)
  const { model_type } = await readCheckpointJson(file)
  return typeof model_type === 'string' && /^language_?bind/i.test(model_type)
}

/** Load one LanguageBind and return its encoders, in the order of the published heads. */
export async function languageBindEncoders(
  from: { video?: string | undefined; audio?: string | undefined },
  modalities: readonly EmotionModality[],
  options: LanguageBindEmotionEncoderOptions & { device?: Device | undefined } = {},
): Promise<LanguageBindEmotionEncoder[]> {
  const { device, ...rest } = options
  const model = await LanguageBind.fromPretrained(defined(from), { dtype: 'float32', ...defined({ device }) })
  return modalities.map((modality) => {
    // The text encoder is that of the last checkpoint.
    const place = modality === 'text' ? (from.audio ?? from.video) : from[modality]
    return new LanguageBindEmotionEncoder(model, modality, { ...rest, from: place })
  })
}
