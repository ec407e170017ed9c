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
import { clipSource, type EmotionTower, soundOf } from './towers.js'

export interface LanguageBindTowerOptions {
  /**
   * Whether vectors of video and sound are multiplied with their temperature, as published, which makes them 14 to 100 times
   * as long as those of text [true].
   */
  useTemp?: boolean
  /**
   * Gives states in place of one vector: of a film each frame's, behind the last norm, of a text each token's, and 0 behind its
   * end. They are not taken to the common space, and know no temperature. Not for sound [false].
   */
  states?: boolean
  /**
   * Reads a film or a folder of frames as the video tower takes it: float32 [3, frames, 224, 224]. Default: frames evenly spread
   * over the utterance's seconds, prepared as LanguageBind does; films need the optional package `node-av`.
   */
  readVideo?: (clip: EmotionClip) => Promise<Tensor>
  /** What `readVideo` does, in words: another text, and vectors are computed anew. */
  videoRecipe?: string
}

/** Where a classifier's folder has the model of its towers. */
export const SHARED = 'languagebind'

/** Encoder and projection of one modality: what of a LanguageBind trains with a classifier. */
export class LanguageBindPart extends Module {
  constructor(
    readonly encoder: ClipTextModel | ClipVisionModel,
    readonly proj: Linear,
  ) {
    super()
  }
}

/** Text, video or sound as LanguageBind places them: vectors of length 1 but for their temperature. */
export class LanguageBindTower implements EmotionTower<Tensor> {
  readonly network: LanguageBindPart
  readonly #options: LanguageBindTowerOptions
  #from: string | undefined

  /** @throws ConfigError where the model has no such tower, and for text where it has no tokenizer */
  constructor(
    readonly model: LanguageBind,
    readonly modality: EmotionModality,
    options: LanguageBindTowerOptions & { from?: string | undefined } = {},
  ) {
    const where = 'LanguageBindTower'
    requireOneOf(where, 'modality', modality, ['text', 'video', 'audio'])
    requireOptions(where, options, ['useTemp', 'readVideo', 'videoRecipe', 'states', 'from'])
    const { from, ...rest } = options
    this.#options = rest
    this.#from = from === undefined ? undefined : existsSync(from) ? resolve(from) : from
    if (rest.states && modality === 'audio') {
      throw new ConfigError(`${where}: states are for video and text`, { argument: 'states' })
    }
    if (modality === 'text' && model.tokenizer === null) {
      throw new ConfigError(`${where}: this LanguageBind has no tokenizer; set \`tokenizer\``, { modality })
    }
    const key = modality === 'text' ? 'language' : modality
    this.network = new LanguageBindPart(model.tower(modality), model.modality_proj.at(key))
  }

  get size(): number {
    return this.steps === undefined ? this.network.proj.outFeatures : this.steps * this.network.proj.inFeatures
  }

  get steps(): number | undefined {
    if (!this.#options.states) return undefined
    const { config } = this.model
    if (this.modality === 'video') return config.video?.visionConfig?.numFrames ?? 8
    return this.model.tower('text').config.maxPositionEmbeddings ?? 77
  }

  get #frontEnd() {
    return audioFrontEnd(this.model.config.audio?.visionConfig ?? {})
  }

  get reference() {
    const { useTemp = true, states = false } = this.#options
    return this.#from === undefined
      ? undefined
      : { tower: 'languagebind', modality: this.modality, from: this.#from, useTemp, ...(states && { states }) }
  }

  get recipe() {
    const { useTemp = true, videoRecipe = '', states = false } = this.#options
    if (states) return { tower: 'languagebind', states, ...(this.modality === 'video' && { videoRecipe }) }
    const scaled = this.modality !== 'text' && useTemp
    const own = { text: {}, audio: { ...this.#frontEnd, crop: 'first' }, video: { videoRecipe } }[this.modality]
    return { tower: 'languagebind', scale: scaled ? this.model.temperature(this.modality as 'video') : 1, ...own }
  }

  async source(dialog: EmotionDialog, place: number): Promise<string | undefined> {
    const utterance = dialog.utterances[place] as EmotionDialog['utterances'][number]
    // Tokens are others with another tokenizer.
    if (this.modality === 'text') {
      const ids: Tensor | undefined = await this.read(dialog, place)
      const source = ids && String(ids.toArray())
      ids?.dispose()
      return source
    }
    if (this.modality === 'audio') {
      const sound = soundOf(utterance)
      return sound && clipSource(sound.path, sound.clip)
    }
    const path = utterance.clip?.video ?? utterance.clip?.frames
    return path === undefined ? undefined : clipSource(path, utterance.clip)
  }

  /** Token ids int64 [1, 77], a spectrogram [1, 3, bands, frames], or frames [1, 3, frames, height, width]. */
  async read(dialog: EmotionDialog, place: number): Promise<Tensor | undefined> {
    const utterance = dialog.utterances[place] as EmotionDialog['utterances'][number]
    if (this.modality === 'text') {
      if (utterance.text.trim() === '') return undefined
      return scope(() => this.model.tokenizer?.encode(utterance.text).inputIds)
    }
    if (this.modality === 'audio') {
      const sound = soundOf(utterance)
      if (sound === undefined) return undefined
      const { start, end } = sound.clip
      return languageBindAudio({ path: sound.path, ...defined({ start, end }) }, this.#frontEnd)
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
        // What fills a text up is its end, of which the first one counts; behind the longest text nothing is computed.
        const filled = ops
          .cumsum(rows.eq(end).to({ dtype: 'int64' }), 1)
          .le(1)
          .to({ dtype: 'int64' })
        const longest = Number(filled.sum([1]).max().item())
        const part = (all: Tensor) => all.narrow(1, 0, longest).to({ device })
        const tokens = { inputIds: part(rows), attentionMask: part(filled) }
        if (states) {
          const { lastHiddenState } = await this.model.tower('text').forward(tokens) // [texts, tokens, size]
          const there = tokens.attentionMask.to({ dtype: lastHiddenState.dtype }).unsqueeze(2)
          const room = (this.steps as number) - longest
          return ops.constantPadNd(lastHiddenState.mul(there), [0, 0, 0, room]).reshape([rows.size(0), -1])
        }
        return (await this.model.forward({ text: tokens })).text
      }
      const moved = rows.to({ device, dtype })
      const name = this.modality
      if (states) {
        const { frameOutput } = await this.model.tower('video').forward({ pixelValues: moved }) // [clips, frames, size]
        return frameOutput.reshape([rows.size(0), -1])
      }
      const found = await this.model.forward(name === 'video' ? { video: moved } : { audio: moved }, { useTemp })
      return (found as Record<string, Tensor>)[name] as Tensor
    })
  }

  /** The whole model, beside the folder, once for all of its towers. */
  async save(folder: string, saved: Set<object> = new Set()): Promise<void> {
    if (!saved.has(this.model)) await this.model.save(join(folder, '..', SHARED))
    saved.add(this.model)
    const { useTemp = true, states = false } = this.#options
    const { modality } = this
    await writeJson(join(folder, 'tower.json'), { tower: 'languagebind', modality, useTemp, ...(states && { states }) })
  }
}

/** Whether a folder, or a repository by its name, is a checkpoint of LanguageBind. */
export async function isLanguageBind(place: string): Promise<boolean> {
  const file = join(place, 'config.json')
  if (!existsSync(file)) return /languagebind/i.test(place)
  const { model_type } = await readCheckpointJson(file)
  return typeof model_type === 'string' && /^language_?bind/i.test(model_type)
}

/** Towers of one LanguageBind, in the order of the published heads. */
export async function languageBindTowers(
  from: { video?: string | undefined; audio?: string | undefined },
  modalities: readonly EmotionModality[],
  options: LanguageBindTowerOptions & { device?: Device | undefined } = {},
): Promise<LanguageBindTower[]> {
  const { device, ...rest } = options
  const model = await LanguageBind.fromPretrained(defined(from), defined({ device }))
  return modalities.map((modality) => {
    // Of several checkpoints the last one's text tower is taken.
    const place = modality === 'text' ? (from.audio ?? from.video) : from[modality]
    return new LanguageBindTower(model, modality, { ...rest, from: place })
  })
}
