import { requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError, ShapeError } from '../../../base/errors.js'
import { tensorBytes } from '../../../kit/fingerprint.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { op } from '../../../native/call.js'
import { evaluating } from '../../../nn/index.js'
import { noGrad, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import { IMAGENET_STATISTICS, normalizeImage } from '../../../vision/index.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import { type EmoVerseLook, keyOf, type MediaPlace, type Medium, mediaOf, type TilingRecipe } from '../data/media.js'

/** How an EmoVerse looks at pictures and films; what is left out is as published. */
export interface EmoVerseVisionOptions {
  /** Most tiles of a picture, the thumbnail not counted. Default: the network's `maxDynamicPatch`, 12. */
  maxTiles?: number
  /** Frames of a film. Default 8. */
  frames?: number
}

/** A picture or film of a record: its tiles, or what the network made of them before. */
export interface EmoVersePicture {
  kind: 'image' | 'video'
  /** The same for the same tiles. */
  key: string
  tiles: number
  /** RGB, uint8 [tiles, side, side, 3]; null where there are features. */
  pixels: Uint8Array | null
  /** What the vision part made of it, [tiles, tokens, width] in its dtype. */
  features: Uint8Array | null
}

/** Keeps what the vision part made of pictures, before the projection. */
export interface VisionStore {
  /** Bytes that a key has; undefined for one that is not there. */
  sizeOf(key: string): number | undefined
  get(key: string): Promise<Uint8Array | undefined>
  put(key: string, features: Uint8Array): Promise<void>
}

/** Of what was seen last, so many bytes stay in memory. */
const MEMORY_BYTES = 256e6

/** Files whose number of tiles is kept. */
const MOST_TILES = 200_000

const CONTEXT = '<IMG_CONTEXT>'

const versionOf = op('aten::_version') as (tensor: Tensor) => number

/** The eyes of an EmoVerse: records with media to what stands in the language model's text. */
export class EmoVerseVision {
  readonly recipe: TilingRecipe
  /** Tokens of a tile. */
  readonly tileTokens: number
  /** Id of `<IMG_CONTEXT>`, at whose places they stand. */
  readonly contextTokenId: number
  /** Where features are looked for and put. Default: of the pictures seen last, in memory. */
  store: VisionStore
  /** Of files that were looked at. */
  readonly #tiles = new Map<string, number>()

  /** @throws ConfigError where network and tokenizer have no id of `<IMG_CONTEXT>`, or different ones */
  constructor(
    readonly network: InternVL,
    tokenizer: Tokenizer,
    options: EmoVerseVisionOptions = {},
  ) {
    const where = 'EmoVerse: vision'
    requireOptions(where, options, ['maxTiles', 'frames'])
    const { config } = network
    const { maxDynamicPatch, useThumbnail = true, forceImageSize, visionConfig } = config
    const { maxTiles = maxDynamicPatch ?? 12, frames = 8 } = options
    requireWhole(where, 'maxTiles', maxTiles, 1)
    requireWhole(where, 'frames', frames, 1)
    const size = forceImageSize ?? visionConfig.imageSize ?? 224
    this.recipe = { size, maxTiles, thumbnail: useThumbnail, frames }
    this.tileTokens = network.tileTokens(size)
    const [own, known] = [config.imgContextTokenId, tokenizer.tokenToId(CONTEXT)]
    const id = own ?? known
    if (id === undefined) throw new ConfigError(`${where}: neither network nor tokenizer has ${CONTEXT}`, {})
    if (known !== undefined && known !== id) {
      throw new ConfigError(`${where}: ${CONTEXT} is ${id} to the network, and ${known} to the tokenizer`, {
        id,
        known,
      })
    }
    config.imgContextTokenId = id
    this.contextTokenId = id
    this.store = new VisionMemory(MEMORY_BYTES, () => this.#version)
  }

  /** The pictures and films of a record in the order of their markers, each looked at unless its features are known. */
  async read(
    record: EmoVerseQuestion,
    options: MediaPlace & { signal?: AbortSignal } = {},
  ): Promise<EmoVersePicture[]> {
    const { signal, ...place } = options
    const pictures: EmoVersePicture[] = []
    for (const medium of mediaOf(record, this.recipe, place)) pictures.push(await this.#picture(medium, signal))
    return pictures
  }

  /**
   * Tiles of the pictures and films of a record, in the order of their markers; each file is looked at once.
   * @param remember puts what the store does not have yet into it
   * @throws DataError for what cannot be read
   */
  async tilesOf(
    record: EmoVerseQuestion,
    { remember = false, signal, mediaRoot }: MediaPlace & { remember?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Pick<EmoVersePicture, 'kind' | 'tiles'>[]> {
    const found: Pick<EmoVersePicture, 'kind' | 'tiles'>[] = []
    for (const medium of mediaOf(record, this.recipe, { mediaRoot })) {
      const { kind } = medium
      const source = await medium.source()
      const bytes = source === undefined ? undefined : this.store.sizeOf(source)
      const known = source === undefined || (remember && bytes === undefined) ? undefined : this.#tiles.get(source)
      const tiles = bytes === undefined ? known : bytes / this.#tileBytes
      if (tiles !== undefined) {
        found.push({ kind, tiles })
        continue
      }
      const picture = await this.#picture(medium, signal)
      if (remember && picture.features === null) await scope(() => this.features([picture]))
      if (source !== undefined) this.#keepTiles(source, picture.tiles)
      found.push({ kind, tiles: picture.tiles })
    }
    return found
  }

  #keepTiles(source: string, tiles: number): void {
    if (this.#tiles.size >= MOST_TILES) this.#tiles.clear()
    this.#tiles.set(source, tiles)
  }

  /** What it looks at: of the pictures, then of the films. */
  async look({ images = [], videos = [] }: EmoVerseQuestion, signal?: AbortSignal): Promise<EmoVerseLook[]> {
    const query = '<image>'.repeat(images.length) + '<video>'.repeat(videos.length)
    const looks: EmoVerseLook[] = []
    for (const medium of mediaOf({ query, images, videos }, this.recipe)) looks.push(await medium.look(signal))
    return looks
  }

  async #picture(medium: Medium, signal: AbortSignal | undefined): Promise<EmoVersePicture> {
    signal?.throwIfAborted()
    const source = await medium.source()
    const known = source === undefined ? undefined : await this.#known(medium, source)
    if (source !== undefined && known) return known
    const { pixels, tiles } = await medium.look(signal)
    const key = source ?? keyOf('tiles', pixels)
    const { kind } = medium
    return (source === undefined && (await this.#known(medium, key))) || { kind, key, tiles, pixels, features: null }
  }

  async #known({ kind }: Medium, key: string): Promise<EmoVersePicture | undefined> {
    const features = await this.store.get(key)
    return features && { kind, key, tiles: features.byteLength / this.#tileBytes, pixels: null, features }
  }

  /** Another one when weights were changed in place. */
  get #version(): number {
    return this.network.vision_model.parameters().reduce((sum, one) => sum + versionOf(one), 0)
  }

  get #states(): Tensor {
    return this.network.vision_model.parameters()[0] as Tensor
  }

  get #width(): number {
    const { visionConfig, downsampleRatio = 0.5 } = this.network.config
    return (visionConfig.hiddenSize ?? 3200) * Math.round(1 / downsampleRatio) ** 2
  }

  get #tileBytes(): number {
    const { dtype } = this.#states
    return this.tileTokens * this.#width * (dtype === 'float64' ? 8 : dtype === 'float32' ? 4 : 2)
  }

  /**
   * What the vision part makes of pictures, [tiles, tokens, width]: each by itself, so that its numbers do not depend on what
   * stands beside it, and without a graph.
   */
  features(pictures: readonly EmoVersePicture[]): Promise<Tensor> {
    return noGrad(() =>
      scope(async () => {
        const rows: Tensor[] = []
        for (const picture of pictures) rows.push(await scope(() => this.#featuresOf(picture)))
        return rows.length === 1 ? (rows[0] as Tensor) : ops.async.cat(rows)
      }),
    )
  }

  async #featuresOf({ key, tiles, pixels, features }: EmoVersePicture): Promise<Tensor> {
    const { device, dtype } = this.#states
    const shape = [tiles, this.tileTokens, this.#width]
    // Of two records of a batch with the same picture the second finds what the first left.
    const known = features ?? (await this.store.get(key))
    if (known)
      return tensor(Buffer.from(known.buffer, known.byteOffset, known.byteLength), { dtype, shape }).to({ device })
    if (pixels === null) throw new ShapeError('a picture has neither pixels nor features', { key })
    const { size } = this.recipe
    const bytes = tensor(pixels, { shape: [tiles, size, size, 3] }).to({ device })
    const planes: Tensor = (await ops.async.div(bytes.permute([0, 3, 1, 2]), 255)).contiguous()
    const pixelValues = await normalizeImage(planes, IMAGENET_STATISTICS)
    const { vision_model } = this.network
    const made = await evaluating(vision_model, () => this.network.encodeImages(pixelValues))
    await this.store.put(key, await tensorBytes(made))
    return made
  }
}

/** Features of the pictures that were seen last, as long as the weights are the same. */
class VisionMemory implements VisionStore {
  readonly #kept = new Map<string, Uint8Array>()
  #bytes = 0
  #version: number | undefined

  constructor(
    readonly most: number,
    readonly versionNow: () => number,
  ) {}

  sizeOf(key: string): number | undefined {
    const version = this.versionNow()
    if (version !== this.#version) {
      this.#kept.clear()
      this.#bytes = 0
      this.#version = version
    }
    return this.#kept.get(key)?.byteLength
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    if (this.sizeOf(key) === undefined) return undefined
    const found = this.#kept.get(key) as Uint8Array
    this.#kept.delete(key)
    this.#kept.set(key, found)
    return found
  }

  async put(key: string, features: Uint8Array): Promise<void> {
    if (features.byteLength > this.most || this.sizeOf(key) !== undefined) return
    this.#kept.set(key, features)
    this.#bytes += features.byteLength
    for (const [oldest, bytes] of this.#kept) {
      if (this.#bytes <= this.most) return
      this.#kept.delete(oldest)
      this.#bytes -= bytes.byteLength
    }
  }
}
