import type { Module } from './module.js'

/** Fields of a layer by name. */
type Fields = Readonly<Record<string, unknown>>

/** Format a number as Python writes a float: `1e-05`, `1.0`. */
export function pythonFloat(value: unknown): string {
  if (typeof value !== 'number') return pythonValue(value)
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  const size = Math.abs(value)
  if (value !== 0 && (size < 1e-4 || size >= 1e16)) {
    const [digits, exponent] = value.toExponential().split('e') as [string, string]
    const sign = exponent.startsWith('-') ? '-' : '+'
    return `${digits}e${sign}${exponent.replace(/^[+-]/, '').padStart(2, '0')}`
  }
  return Number.isInteger(value) ? `${value}.0` : String(value)
}

/** Format a value as Python writes it; a list as a tuple. */
function pythonValue(value: unknown): string {
  if (value === null || value === undefined) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'string') return `'${value}'`
  if (!Array.isArray(value)) return String(value)
  return value.length === 1 ? `(${pythonValue(value[0])},)` : `(${value.map(pythonValue).join(', ')})`
}

/** Format sizes as they were most likely given: one number if all are equal. */
const sizes = (value: unknown): string =>
  Array.isArray(value) && value.every((one) => one === value[0]) ? String(value[0]) : pythonValue(value)

/** Return `name=value` for each name whose value is not the default. */
const others = (entries: readonly (readonly [name: string, value: unknown, usual: unknown])[]): string =>
  entries
    .filter(([, value, usual]) => JSON.stringify(value) !== JSON.stringify(usual))
    .map(([name, value]) => `, ${name}=${pythonValue(value)}`)
    .join('')

const isThere = (value: unknown): string => pythonValue(value !== null && value !== undefined)

const convolution = (layer: Fields): string => {
  const { kernelSize, stride, padding, dilation, outputPadding, groups, bias, paddingMode = 'zeros' } = layer
  const dims = (kernelSize as number[]).length
  const all = (value: number) => Array<number>(dims).fill(value)
  return [
    `${layer.inChannels}, ${layer.outChannels}, kernel_size=${pythonValue(kernelSize)}, stride=${pythonValue(stride)}`,
    // PyTorch writes these two strings without quotes.
    typeof padding === 'string' ? `, padding=${padding}` : others([['padding', padding, all(0)]]),
    others([
      ['dilation', dilation, all(1)],
      ['output_padding', outputPadding ?? all(0), all(0)],
      ['groups', groups, 1],
      ['bias', bias !== null, true],
    ]),
    paddingMode === 'zeros' ? '' : `, padding_mode=${paddingMode}`,
  ].join('')
}

const runningNorm = (layer: Fields): string =>
  `${layer.numFeatures}, eps=${pythonFloat(layer.eps)}, momentum=${pythonFloat(layer.momentum)}, affine=${isThere(layer.weight)}, ` +
  `bias=${isThere(layer.bias)}, track_running_stats=${isThere(layer.running_mean)}`

const recurrent = (layer: Fields): string =>
  `${layer.inputSize}, ${layer.hiddenSize}${others([
    ['proj_size', layer.projSize, 0],
    ['num_layers', layer.numLayers, 1],
    ['bias', layer.bias_ih_l0 !== undefined, true],
    ['batch_first', layer.batchFirst, false],
    ['dropout', layer.dropout, 0],
    ['bidirectional', layer.bidirectional, false],
  ])}`

const cell = (layer: Fields): string => {
  const { nonlinearity = 'tanh' } = layer
  const word = nonlinearity === 'tanh' ? '' : `, nonlinearity=${nonlinearity}`
  return `${layer.inputSize}, ${layer.hiddenSize}${others([['bias', layer.bias_ih !== null, true]])}${word}`
}

const embedding = (layer: Fields): string =>
  others([
    ['max_norm', layer.maxNorm, null],
    ['norm_type', layer.normType, 2],
    ['scale_grad_by_freq', layer.scaleGradByFreq, false],
  ])

const pool = ({ kernelSize, stride, padding }: Fields, text = sizes): string =>
  `kernel_size=${text(kernelSize)}, stride=${text(stride)}, padding=${text(padding)}`

const upsample = ({ options }: Fields): string => {
  const { size, scaleFactor, mode = 'nearest' } = options as Fields
  const how = size === undefined ? `scale_factor=${Array.isArray(scaleFactor) ? pythonValue(scaleFactor) : pythonFloat(scaleFactor)}` : `size=${pythonValue(size)}` // biome-ignore format: one line
  return `${how}, mode='${mode}'`
}

const withoutBrackets = (layer: Fields): string => pythonValue(layer.padding)

/** Settings in the text of each layer, by the name of PyTorch's class; subclasses inherit them. */
const EXTRA: Readonly<Record<string, (layer: Fields) => string>> = {
  Linear: (layer) => `in_features=${layer.inFeatures}, out_features=${layer.outFeatures}, bias=${isThere(layer.bias)}`,
  Bilinear: (layer) =>
    `in1_features=${layer.in1Features}, in2_features=${layer.in2Features}, out_features=${layer.outFeatures}, bias=${isThere(layer.bias)}`,
  Flatten: (layer) => `start_dim=${layer.startDim}, end_dim=${layer.endDim}`,
  Unflatten: (layer) => `dim=${layer.dim}, unflattened_size=${pythonValue(layer.unflattenedSize)}`,
  GELU: (layer) => `approximate='${layer.approximate}'`,
  Softmax: (layer) => `dim=${layer.dim}`,
  GLU: (layer) => `dim=${layer.dim}`,
  LeakyReLU: (layer) => `negative_slope=${pythonFloat(layer.negativeSlope)}`,
  ELU: (layer) => `alpha=${pythonFloat(layer.alpha)}`,
  CELU: (layer) => `alpha=${pythonFloat(layer.alpha)}`,
  Hardshrink: (layer) => pythonFloat(layer.lambd),
  Softshrink: (layer) => pythonFloat(layer.lambd),
  Hardtanh: (layer) => `min_val=${pythonFloat(layer.minVal)}, max_val=${pythonFloat(layer.maxVal)}`,
  Softplus: (layer) => `beta=${pythonFloat(layer.beta)}, threshold=${pythonFloat(layer.threshold)}`,
  Threshold: (layer) => `threshold=${pythonValue(layer.threshold)}, value=${pythonValue(layer.value)}`,
  RReLU: (layer) => `lower=${pythonFloat(layer.lower)}, upper=${pythonFloat(layer.upper)}`,
  PReLU: (layer) => `num_parameters=${layer.numParameters}`,
  Dropout: (layer) => `p=${pythonValue(layer.p)}, inplace=False`,
  RunningNorm: runningNorm,
  LayerNorm: (layer) =>
    `${pythonValue(layer.normalizedShape)}, eps=${pythonFloat(layer.eps)}, elementwise_affine=${isThere(layer.weight)}, bias=${isThere(layer.bias)}`,
  RMSNorm: (layer) =>
    `${pythonValue(layer.normalizedShape)}, eps=${pythonFloat(layer.eps)}, elementwise_affine=${isThere(layer.weight)}`,
  GroupNorm: (layer) =>
    `${layer.numGroups}, ${layer.numChannels}, eps=${pythonFloat(layer.eps)}, affine=${isThere(layer.weight)}, bias=${isThere(layer.bias)}`,
  LocalResponseNorm: (layer) =>
    `${layer.size}, alpha=${pythonFloat(layer.alpha)}, beta=${pythonFloat(layer.beta)}, k=${pythonFloat(layer.k)}`,
  Convolution: convolution,
  TransposedConvolution: convolution,
  Embedding: (layer) =>
    `${layer.numEmbeddings}, ${layer.embeddingDim}${others([['padding_idx', layer.paddingIdx, null]])}${embedding(layer)}`,
  EmbeddingBag: (layer) =>
    `${layer.numEmbeddings}, ${layer.embeddingDim}${embedding(layer)}, mode='${layer.mode}'${others([['padding_idx', layer.paddingIdx, null]])}`,
  Pad: withoutBrackets,
  ConstantPad: (layer) => `padding=${pythonValue(layer.padding)}, value=${pythonValue(layer.value)}`,
  ZeroPad1d: withoutBrackets,
  ZeroPad2d: withoutBrackets,
  ZeroPad3d: withoutBrackets,
  MaxPool: (layer) => `${pool(layer)}, dilation=${sizes(layer.dilation)}, ceil_mode=${pythonValue(layer.ceilMode)}`,
  AvgPool: (layer) => pool(layer),
  AvgPool1d: (layer) => pool(layer, pythonValue),
  MaxUnpool: (layer) => pool(layer, pythonValue),
  LPPool: (layer) =>
    `norm_type=${layer.normType}, kernel_size=${sizes(layer.kernelSize)}, stride=${sizes(layer.stride)}, ceil_mode=${pythonValue(layer.ceilMode)}`,
  AdaptivePool: (layer) => `output_size=${sizes(layer.outputSize)}`,
  Upsample: upsample,
  PixelShuffle: (layer) => `upscale_factor=${layer.upscaleFactor}`,
  PixelUnshuffle: (layer) => `downscale_factor=${layer.downscaleFactor}`,
  ChannelShuffle: (layer) => `groups=${layer.groups}`,
  Unfold: (layer) =>
    `kernel_size=${sizes(layer.kernelSize)}, dilation=${sizes(layer.dilation)}, padding=${sizes(layer.padding)}, stride=${sizes(layer.stride)}`,
  Fold: (layer) =>
    `output_size=${sizes(layer.outputSize)}, kernel_size=${sizes(layer.kernelSize)}, dilation=${sizes(layer.dilation)}, padding=${sizes(layer.padding)}, stride=${sizes(layer.stride)}`,
  RNNBase: recurrent,
  Cell: cell,
}

/** Return the text that PyTorch writes in the parentheses of a layer of this library; '' for other modules. */
export function layerRepr(layer: Module): string {
  for (let kind = Object.getPrototypeOf(layer); kind !== null; kind = Object.getPrototypeOf(kind)) {
    const { name } = kind.constructor
    if (Object.hasOwn(EXTRA, name)) return (EXTRA[name] as (layer: Fields) => string)(layer as unknown as Fields)
  }
  return ''
}

/** Return the settings that a native layer's weight shape shows; '' for layers of other kinds. */
export function nativeRepr(kind: string, shape: readonly number[], bias: boolean): string {
  const [first, second, third] = shape
  if (kind === 'Linear') return `in_features=${second}, out_features=${first}, bias=${pythonValue(bias)}`
  if (kind === 'Embedding') return `${first}, ${second}`
  if (kind === 'Conv1d') return `out_channels=${first}, kernel_size=(${third},), bias=${pythonValue(bias)}`
  if (kind === 'LayerNorm') return `${pythonValue(shape)}, elementwise_affine=True, bias=${pythonValue(bias)}`
  return kind === 'RmsNorm' ? pythonValue(shape) : ''
}

export interface ReprParts {
  name: string
  /** Settings, before the children, one per line. */
  extra: string
  children: readonly (readonly [name: string, text: string])[]
  /** Whether consecutive children with equal text are one line, as in a ModuleList. */
  joinsAlike: boolean
}

/** Return the text of a module, with its children indented. */
export function reprText({ name, extra, children, joinsAlike }: ReprParts): string {
  const before = extra === '' ? [] : extra.split('\n')
  if (children.length === 0 && before.length < 2) return `${name}(${extra})`
  const lines = [...before, ...(joinsAlike ? joined(children) : children.map(([key, text]) => `(${key}): ${text}`))]
  return `${name}(\n  ${lines.map((line) => line.replaceAll('\n', '\n  ')).join('\n  ')}\n)`
}

/** Join consecutive children with equal text as `(0-11): 12 x …`. */
function joined(children: ReprParts['children']): string[] {
  const lines: string[] = []
  for (let from = 0; from < children.length; ) {
    const [first, text] = children[from] as readonly [string, string]
    let to = from
    while (children[to + 1]?.[1] === text) to += 1
    const count = to - from + 1
    lines.push(count === 1 ? `(${first}): ${text}` : `(${first}-${children[to]?.[0]}): ${count} x ${text}`)
    from = to + 1
  }
  return lines
}
