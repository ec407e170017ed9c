import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, type Tensor } from '../tensor/index.js'
import { requireSizes, sizeList } from './check.js'
import { Module } from './module.js'
import { fold, INTERPOLATE_OPTIONS, type InterpolateOptions, interpolate, unfold } from './resize.js'

/** Splits dimension `dim` into several, one of which may be -1: the inverse of `Flatten`. */
export class Unflatten extends Module {
  readonly dim: number
  readonly unflattenedSize: number[]

  constructor(dim: number, unflattenedSize: number[]) {
    super()
    if (!Number.isSafeInteger(dim))
      throw new ConfigError(`Unflatten: expected dim to be an integer, got ${String(dim)}`, {})
    this.dim = dim
    this.unflattenedSize = sizeList('Unflatten', 'unflattenedSize', unflattenedSize, unflattenedSize?.length ?? 1, -1)
  }

  override forward(input: Tensor): Tensor {
    return ops.unflatten(input, this.dim, this.unflattenedSize)
  }
}

/** Resizes the spatial dimensions of [batch, channels, ...]; the options are those of `functional.interpolate`. */
export class Upsample extends Module {
  readonly options: Readonly<InterpolateOptions>

  constructor(options: InterpolateOptions) {
    super()
    requireOptions('Upsample', options, INTERPOLATE_OPTIONS)
    if (((options.size ?? null) === null) === ((options.scaleFactor ?? null) === null)) {
      throw new ConfigError('Upsample: expected either size or scaleFactor', { ...options })
    }
    this.options = { ...options }
  }

  override forward(input: Tensor): Tensor {
    return interpolate(input, this.options)
  }
}

/** {@link Upsample} of [batch, channels, height, width] by nearest neighbor. */
export class UpsamplingNearest2d extends Upsample {
  constructor(options: Pick<InterpolateOptions, 'size' | 'scaleFactor'>) {
    requireOptions('UpsamplingNearest2d', options, ['size', 'scaleFactor'])
    super({ ...options, mode: 'nearest' })
  }
}

/** {@link Upsample} of [batch, channels, height, width] by bilinear interpolation with aligned corners. */
export class UpsamplingBilinear2d extends Upsample {
  constructor(options: Pick<InterpolateOptions, 'size' | 'scaleFactor'>) {
    requireOptions('UpsamplingBilinear2d', options, ['size', 'scaleFactor'])
    super({ ...options, mode: 'bilinear', alignCorners: true })
  }
}

/** [..., channels · r², height, width] → [..., channels, height · r, width · r] (https://arxiv.org/abs/1609.05158) */
export class PixelShuffle extends Module {
  readonly upscaleFactor: number

  constructor(upscaleFactor: number) {
    super()
    requireSizes('PixelShuffle', { upscaleFactor })
    this.upscaleFactor = upscaleFactor
  }

  override forward(input: Tensor): Tensor {
    return ops.pixelShuffle(input, this.upscaleFactor)
  }
}

/** The inverse of {@link PixelShuffle}. */
export class PixelUnshuffle extends Module {
  readonly downscaleFactor: number

  constructor(downscaleFactor: number) {
    super()
    requireSizes('PixelUnshuffle', { downscaleFactor })
    this.downscaleFactor = downscaleFactor
  }

  override forward(input: Tensor): Tensor {
    return ops.pixelUnshuffle(input, this.downscaleFactor)
  }
}

/** Shuffles the channels of [batch, channels, ...] across `groups` (https://arxiv.org/abs/1707.01083). */
export class ChannelShuffle extends Module {
  readonly groups: number

  constructor(groups: number) {
    super()
    requireSizes('ChannelShuffle', { groups })
    this.groups = groups
  }

  override forward(input: Tensor): Tensor {
    return ops.channelShuffle(input, this.groups)
  }
}

export interface FoldOptions {
  /** Stride. Default: 1. */
  stride?: number | number[]
  /** Padding at both ends. Default: 0. */
  padding?: number | number[]
  /** Dilation of the kernel. Default: 1. */
  dilation?: number | number[]
}

class Blocks extends Module {
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[]
  readonly dilation: number[]

  constructor(kernelSize: number | number[], options: FoldOptions) {
    super()
    const layer = new.target.name
    requireOptions(layer, options, ['stride', 'padding', 'dilation'])
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, 2, 1)
    this.stride = sizeList(layer, 'stride', options.stride ?? 1, 2, 1)
    this.padding = sizeList(layer, 'padding', options.padding ?? 0, 2)
    this.dilation = sizeList(layer, 'dilation', options.dilation ?? 1, 2, 1)
  }
}

/** Extracts windows as columns: [batch, channels, height, width] → [batch, channels · kernel, windows] */
export class Unfold extends Blocks {
  constructor(kernelSize: number | number[], options: FoldOptions = {}) {
    super(kernelSize, options)
  }

  override forward(input: Tensor): Tensor {
    return unfold(input, this.kernelSize, this.dilation, this.padding, this.stride)
  }
}

/** Sums columns into windows: [batch, channels · kernel, windows] → [batch, channels, ...outputSize] */
export class Fold extends Blocks {
  readonly outputSize: number[]

  constructor(outputSize: number | number[], kernelSize: number | number[], options: FoldOptions = {}) {
    super(kernelSize, options)
    this.outputSize = sizeList('Fold', 'outputSize', outputSize, 2, 1)
  }

  override forward(input: Tensor): Tensor {
    return fold(input, this.outputSize, this.kernelSize, this.dilation, this.padding, this.stride)
  }
}
