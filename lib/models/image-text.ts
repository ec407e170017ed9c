import { argumentError } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import type { NativeModule } from '../nn/native-module.js'
import { scope, type Tensor } from '../tensor/index.js'
import type { DecoderLMOutput } from './decoder/decoder-lm.js'
import { type MultimodalGenerateInputs, type MultimodalInputs, MultimodalLM } from './multimodal.js'

/** Images as tiles, features or embeddings: at most one of the three. */
export interface ImageTextImages {
  /** Tiles of all images [tiles, channels, height, width], in the order of their positions in the text. */
  pixelValues?: Tensor | null
  /** Output of `encodeImages`, [tiles, tokens, width]; the vision encoder does not run again. */
  imageFeatures?: Tensor | null
  /** Output of `projectImages`, [tiles, tokens, hiddenSize]. */
  imageEmbeds?: Tensor | null
}

export interface ImageTextInputs extends ImageTextImages, MultimodalInputs {}

export interface ImageTextOutput extends DecoderLMOutput {
  /** Image embeddings in the text, [tiles, tokens, hiddenSize]; null without images. */
  imageEmbeds: Tensor | null
}

export interface ImageTextGenerateInputs extends ImageTextImages, MultimodalGenerateInputs {}

/** Base class of models in which embeddings of images replace image tokens of a language model's text. */
export abstract class ImageTextModel extends MultimodalLM<ImageTextImages> {
  abstract readonly vision_model: NativeModule
  /** Projection to embeddings of the language model. */
  abstract readonly projector: NativeModule & { forward(features: Tensor): Promise<Tensor> }
  /** Id of the image token, its text, and the configuration's key of the id. */
  protected abstract readonly imageToken: { id: number | null; token: string; key: string }

  /** Encode tiles [tiles, channels, height, width] as input of the projection, [tiles, tokens, width]. */
  abstract encodeImages(pixelValues: Tensor): Promise<Tensor>

  protected get mediaEncoder(): NativeModule {
    return this.vision_model
  }
  protected get mediaToken() {
    return { ...this.imageToken, media: 'image' }
  }
  protected get mediaInputs() {
    return { one: ['pixelValues', 'imageFeatures', 'imageEmbeds'] as const }
  }

  /** Project the output of `encodeImages` to embeddings of the language model, [tiles, tokens, hiddenSize]. */
  projectImages(imageFeatures: Tensor): Promise<Tensor> {
    return scope(async () => {
      const { device, dtype } = this.projector.parameters()[0] as Tensor
      const features = requireImages('projectImages', 'imageFeatures', imageFeatures, 3).to({ device, dtype })
      return this.projector.forward(features)
    })
  }

  /**
   * @throws ShapeError with both numbers if the text has more or fewer positions than the images have tokens
   */
  override async forward(inputs: ImageTextInputs): Promise<ImageTextOutput> {
    const { mediaEmbeds, ...output } = await this.run(inputs)
    return { ...output, imageEmbeds: mediaEmbeds }
  }

  protected async mediaEmbeds({ pixelValues, imageFeatures, imageEmbeds }: ImageTextImages): Promise<Tensor | null> {
    if (imageEmbeds) return requireImages(this.constructor.name, 'imageEmbeds', imageEmbeds, 3)
    if (imageFeatures) return this.projectImages(imageFeatures)
    return pixelValues ? this.projectImages(await this.encodeImages(pixelValues)) : null
  }
}

/** Return an input that has so many dimensions. @throws ShapeError */
export function requireImages(where: string, name: string, value: Tensor, dimensions: number): Tensor {
  if (typeof value !== 'object' || value === null || !('ndim' in value))
    throw argumentError(where, name, 'a tensor', value)
  if (value.ndim === dimensions && value.isFloatingPoint()) return value
  const form = dimensions === 4 ? '[tiles, channels, height, width]' : '[tiles, tokens, width]'
  throw new ShapeError(
    `${where}: ${name}: expected floating-point ${form}, got ${value.dtype} [${value.shape.join(', ')}].`,
    {
      shape: value.shape,
    },
  )
}
