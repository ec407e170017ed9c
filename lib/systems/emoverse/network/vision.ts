import { ConfigError, ShapeError } from '../../../base/errors.js'
import { LruCache } from '../../../base/lru-cache.js'
import type { ChangesOf } from '../../../base/settings.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { op } from '../../../native/call.js'
import { withEvalMode } from '../../../nn/index.js'
import { tensorBytes } from '../../../tensor/bytes.js'
import { noGrad, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import { IMAGENET_STATISTICS, normalizeImage } from '../../../vision/index.js'
import { VISION_SETTINGS } from '../configuration/settings.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import { type EmoVerseLook, keyOf, type MediaPlace, type Medium, mediaOf, type TilingRecipe } from '../data/media.js'

/** Tiling of images and videos. Defaults are the published values. @interface */
export type EmoVerseVisionOptions = ChangesOf<typeof VISION_SETTINGS.table>

/** An image or video of a record: its tiles, or their cached features. */
export interface EmoVerseImage {
  kind: 'image' | 'video'
  /** Hash of the tiles or their source. */
  key: string
  tiles: number
  /** RGB, uint8 [tiles, side, side, 3]; null if `features` is set. */
  pixels: Uint8Array | null
  /** Vision encoder's output, [tiles, tokens, width] in the encoder's dtype; null if it is not cached. */
  features: Uint8Array | null
}

/** Store of the vision encoder's outputs, before the projection. */
export interface VisionStore {
  /** Return the number of bytes of an entry, or undefined. */
  sizeOf(key: string): number | undefined
  get(key: string): Promise<Uint8Array | undefined>
  put(key: string, features: Uint8Array): Promise<void>
}

/** Size of the memory store. */
const MEMORY_BYTES = 256e6

/** Maximum number of cached tile counts. */
const MOST_TILES = 200_000

const CONTEXT = '<IMG_CONTEXT>'

const versionOf = op('aten::_version') as (tensor: Tensor) => number

/** Vision part of an EmoVerse: from the media of records to features for the language model. */
export class EmoVerseVision {
  readonly recipe: TilingRecipe
  /** Number of tokens of a tile. */
  readonly tileTokens: number
  /** Id of `<IMG_CONTEXT>`, the placeholder of image tokens. */
  readonly contextTokenId: number
  /** Store of features. Default: recent images, in memory. */
  store: VisionStore
  /** Tile counts by source. */
  readonly #tiles = new Map<string, number>()

  /** @throws ConfigError if network and tokenizer have no id of `<IMG_CONTEXT>`, or different ones */
  constructor(
    readonly network: InternVL,
    tokenizer: Tokenizer,
    options: EmoVerseVisionOptions = {},
  ) {
    const where = 'EmoVerse: vision'
    const { config } = network
    const { maxDynamicPatch, useThumbnail = true, dynamicImageSize = true, forceImageSize, visionConfig } = config
    const { maxTiles = dynamicImageSize ? (maxDynamicPatch ?? 12) : 1, frames } = VISION_SETTINGS.read(where, options)
    const size = forceImageSize ?? visionConfig.imageSize ?? 224
    this.recipe = { size, maxTiles, thumbnail: useThumbnail, frames }
    this.tileTokens = network.tileTokens(size)
    const [own, known] = [config.imgContextTokenId, tokenizer.tokenToId(CONTEXT)]
    const id = own ?? known
    if (id === undefined)
      throw new ConfigError(
        `${where}: expected ${CONTEXT} in the network's configuration or the tokenizer, got neither. Use the tokenizer of the model.`,
        {},
      )
    if (known !== undefined && known !== id) {
      throw new ConfigError(
        `${where}: expected the id ${id} of ${CONTEXT} as in the network's configuration, got ${known} from the tokenizer. Use the tokenizer of the model.`,
        {
          id,
          known,
        },
      )
    }
    config.imgContextTokenId = id
    this.contextTokenId = id
    this.store = new VisionMemory(() => this.#version)
  }

  /** Read the images and videos of a record in the order of their markers. Files with cached features are not decoded. */
  async read(record: EmoVerseQuestion, options: MediaPlace & { signal?: AbortSignal } = {}): Promise<EmoVerseImage[]> {
    const { signal, ...place } = options
    const imageInputs: EmoVerseImage[] = []
    for (const medium of mediaOf(record, this.recipe, place)) imageInputs.push(await this.#imageInput(medium, signal))
    return imageInputs
  }

  /**
   * Count the tiles of the images and videos of a record, in the order of their markers. Each file is decoded only once.
   * @param remember puts missing features into the store
   * @throws DataError for unreadable media
   */
  async tilesOf(
    record: EmoVerseQuestion,
    { remember = false, signal, mediaRoot }: MediaPlace & { remember?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Pick<EmoVerseImage, 'kind' | 'tiles'>[]> {
    const found: Pick<EmoVerseImage, 'kind' | 'tiles'>[] = []
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
      const imageInput = await this.#imageInput(medium, signal)
      if (remember && imageInput.features === null) await scope(() => this.features([imageInput]))
      if (source !== undefined) this.#keepTiles(source, imageInput.tiles)
      found.push({ kind, tiles: imageInput.tiles })
    }
    return found
  }

  #keepTiles(source: string, tiles: number): void {
    if (this.#tiles.size >= MOST_TILES) this.#tiles.clear()
    this.#tiles.set(source, tiles)
  }

  /** Return the tiles of images, then of videos. */
  async look({ images = [], videos = [] }: EmoVerseQuestion, signal?: AbortSignal): Promise<EmoVerseLook[]> {
    const query = '<image>'.repeat(images.length) + '<video>'.repeat(videos.length)
    const looks: EmoVerseLook[] = []
    for (const medium of mediaOf({ query, images, videos }, this.recipe)) looks.push(await medium.look(signal))
    return looks
  }

  async #imageInput(medium: Medium, signal: AbortSignal | undefined): Promise<EmoVerseImage> {
    signal?.throwIfAborted()
    const source = await medium.source()
    const known = source === undefined ? undefined : await this.#known(medium, source)
    if (source !== undefined && known) return known
    const { pixels, tiles } = await medium.look(signal)
    const key = source ?? keyOf('tiles', pixels)
    const { kind } = medium
    return (source === undefined && (await this.#known(medium, key))) || { kind, key, tiles, pixels, features: null }
  }

  async #known({ kind }: Medium, key: string): Promise<EmoVerseImage | undefined> {
    const features = await this.store.get(key)
    return features && { kind, key, tiles: features.byteLength / this.#tileBytes, pixels: null, features }
  }

  /** Number that changes when weights are changed in place. */
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
   * Compute vision features, [tiles, tokens, width], without a graph. Each image runs separately, so that its numbers do not depend on the
   * rest of the batch.
   */
  features(imageInputs: readonly EmoVerseImage[]): Promise<Tensor> {
    return noGrad(() =>
      scope(async () => {
        const rows: Tensor[] = []
        for (const imageInput of imageInputs) rows.push(await scope(() => this.#featuresOf(imageInput)))
        return rows.length === 1 ? (rows[0] as Tensor) : ops.async.cat(rows)
      }),
    )
  }

  async #featuresOf({ key, tiles, pixels, features }: EmoVerseImage): Promise<Tensor> {
    const { device, dtype } = this.#states
    const shape = [tiles, this.tileTokens, this.#width]
    // Two records of a batch can have the same image; the second one finds the features of the first.
    const known = features ?? (await this.store.get(key))
    if (known)
      return tensor(Buffer.from(known.buffer, known.byteOffset, known.byteLength), { dtype, shape }).to({ device })
    if (pixels === null)
      throw new ShapeError('EmoVerse.vision: expected pixels or features of an image, got neither.', { key })
    const { size } = this.recipe
    const bytes = tensor(pixels, { shape: [tiles, size, size, 3] }).to({ device })
    const planes: Tensor = (await ops.async.div(bytes.permute([0, 3, 1, 2]), 255)).contiguous()
    const pixelValues = await normalizeImage(planes, IMAGENET_STATISTICS)
    const { vision_model } = this.network
    const output = await withEvalMode(vision_model, () => this.network.encodeImages(pixelValues))
    await this.store.put(key, await tensorBytes(output))
    return output
  }
}

/** Memory store of the features of recent images, which is cleared when weights change. */
class VisionMemory implements VisionStore {
  readonly #kept = new LruCache<Uint8Array>(MEMORY_BYTES, ({ byteLength }) => byteLength)
  #version: number | undefined

  constructor(readonly versionNow: () => number) {}

  sizeOf(key: string): number | undefined {
    return this.#current().sizeAt(key)
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    return this.#current().get(key)
  }

  async put(key: string, features: Uint8Array): Promise<void> {
    this.#current().put(key, features)
  }

  #current(): LruCache<Uint8Array> {
    const version = this.versionNow()
    if (version !== this.#version) this.#kept.clear()
    this.#version = version
    return this.#kept
  }
}
