import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as vt from '../../lib/index.js'
import {
  BatchNorm1d,
  ConfigError,
  Conv1d,
  Conv2d,
  DataError,
  Dropout,
  DTypeError,
  Embedding,
  functional as F,
  GRU,
  GroupNorm,
  IndexError,
  init,
  LayerNorm,
  Linear,
  LSTM,
  MultiheadAttention,
  ones,
  randn,
  ShapeError,
  scope,
  type Tensor,
  TransformerEncoderLayer,
  tensor,
} from '../../lib/index.js'

type ErrorClass = new (message: string) => Error

/** The class and the sentence of what `run` throws. */
function expectThrow(run: () => unknown, type: ErrorClass, sentence: RegExp): void {
  scope(() => {
    expect(run).toThrow(type)
    expect(run).toThrow(sentence)
  })
}

describe('layers refuse in the words of the layer', () => {
  let floats: Tensor
  let whole: Tensor
  beforeAll(() => {
    floats = randn([2, 5])
    whole = tensor([
      [1, 2],
      [3, 4],
    ])
  })
  afterAll(() => {
    floats.dispose()
    whole.dispose()
  })

  // biome-ignore format: a table
  const refused: [string, () => unknown, ErrorClass, RegExp][] = [
    ['a device of another name', () => new Linear(2, 2, { device: 'gpu' as never }), ConfigError, /^Linear: device: expected a device, 'cpu', 'cuda' or 'cuda:0', got "gpu"\. Did you mean 'cuda'\?$/],
    ['a weight of four dimensions, which is none of native code', () => F.linear(randn([2, 3]), randn([2, 3, 4, 4]), randn([4])), ShapeError, /^linear: expected a weight \[out, in\], got shape \[2,3,4,4\]/],
    ["PyTorch's name of a dtype", () => new Linear(2, 2, { dtype: 'half' as never }), ConfigError, /^Linear: dtype: .* got "half"\. Did you mean 'float16'\?$/],
    ['Module.to another device', () => new Linear(2, 2).to({ device: 'gpu' as never }), ConfigError, /^Module\.to: device: .* Did you mean 'cuda'\?$/],
    ['Module.to another dtype', () => new Linear(2, 2).to({ dtype: 'bf16' as never }), ConfigError, /^Module\.to: dtype: .* Did you mean 'bfloat16'\?$/],
    ['an operator with another dtype', () => ones([2], { dtype: 'fp32' as never }), ConfigError, /^ones: dtype: .* got "fp32"\. Did you mean 'float32'\?$/],
    ['Tensor.to another device', () => tensor([1]).to('gpu' as never), ConfigError, /^to: dtype: .* Did you mean the device 'cuda'\?$/],
    ['tensor on another device', () => tensor([1], { device: 'webgpu' as never }), ConfigError, /^tensor: device: .* Did you mean 'cuda'\?$/],
    ['a network of another dtype', () => vt.Bert.fromConfig({}, { dtype: 'fp32' as never }), ConfigError, /^bert: dtype: expected float32, bfloat16, float16 or float64, got "fp32"\. Did you mean 'float32'\?$/],
    ['a network of integers', () => vt.Bert.fromConfig({}, { dtype: 'int8' }), DTypeError, /Quantization is another option: \{ quantize: 'int8' \}\.$/],
    ['Linear of whole numbers', () => new Linear(2, 2).forward(whole), DTypeError, /got int64. tensor\(\) makes int64.*float32/],
    ['Linear of another width', () => new Linear(3, 2).forward(floats), ShapeError, /dimension 1 .* size 3, got shape \[2,5\]/],
    ['Linear of another type', () => new Linear(5, 2).forward(floats.to({ dtype: 'float64' })), DTypeError, /input and weight of one dtype, got float64 and float32/],
    ['LayerNorm of another width', () => new LayerNorm(4).forward(floats), ShapeError, /layerNorm: expected dimension 1 of the input to have size 4, got shape \[2,5\]/],
    ['LayerNorm of whole numbers', () => new LayerNorm(2).forward(whole), DTypeError, /float32/],
    ['GroupNorm of other channels', () => new GroupNorm(2, 4).forward(floats), ShapeError, /GroupNorm: expected dimension 1 of the input to have size 4, got shape \[2,5\]/],
    ['BatchNorm1d of one value', () => new BatchNorm1d(5).forward(ones([1, 5])), ShapeError, /more than one value per channel/],
    ['BatchNorm1d of four dimensions', () => new BatchNorm1d(5).forward(ones([1, 5, 2, 2])), ShapeError, /\[batch, channels, length\]/],
    ['BatchNorm1d of other channels', () => new BatchNorm1d(4).forward(floats), ShapeError, /dimension 1 .* size 4/],
    ['Embedding of fractions', () => new Embedding(4, 2).forward(floats), DTypeError, /integer indices .* got float32/],
    ['Embedding out of range', () => new Embedding(4, 2).forward(whole), IndexError, /indices from 0 to 3, got 4/],
    ['Conv1d of other channels', () => new Conv1d(4, 2, 3).forward(ones([1, 5, 9])), ShapeError, /conv1d: expected dimension 1 of the input to have size 4, got shape \[1,5,9\]/],
    ['Conv1d of one dimension', () => new Conv1d(4, 2, 3).forward(ones([5])), ShapeError, /\[batch, channels, length\]/],
    ['Conv2d of whole numbers', () => new Conv2d(1, 2, 1).forward(whole.view([1, 1, 2, 2])), DTypeError, /conv2d: expected a floating-point/],
    ['GRU of another width', () => new GRU(4, 2).forward(ones([3, 1, 5])), ShapeError, /GRU: expected dimension 2 of the input to have size 4, got shape \[3,1,5\]/],
    ['LSTM of four dimensions', () => new LSTM(4, 2).forward(ones([3, 1, 5, 4])), ShapeError, /\[time, batch, features\]/],
    ['GRU with a state of another batch', () => new GRU(4, 2).forward(ones([3, 2, 4]), ones([1, 1, 2])), ShapeError, /state \[1,2,2\], got \[1,1,2\]/],
    ['GRU with too many lengths', () => new GRU(4, 2).forward(ones([3, 1, 4]), null, { lengths: [1, 2] }), DataError, /expected 1 lengths, one for each item, got 2/],
    ['GRU with a length of zero', () => new GRU(4, 2).forward(ones([3, 2, 4]), null, { lengths: [3, 0] }), DataError, /lengths\[1\] to be .*, got 0/],
    ['GRU with a length past the end', () => new GRU(4, 2).forward(ones([3, 2, 4]), null, { lengths: [4, 1] }), DataError, /from 1 to 3/],
    ['attention with a mask of another shape', () => attend({ attnMask: ones([2, 2]) }), ShapeError, /attnMask to be \[3,3\], got \[2,2\]/],
    ['attention with a padding mask of another shape', () => attend({ keyPaddingMask: ones([2, 3]) }), ShapeError, /keyPaddingMask to be \[1,3\]/],
  ]

  const attend = (options: object) => {
    const x = ones([3, 1, 4])
    return new MultiheadAttention(4, 2).forward(x, x, x, options)
  }

  test.each(refused)('%s', (_, run, type, sentence) => expectThrow(run, type, sentence))

  // biome-ignore format: a table
  const misbuilt: [string, () => unknown, RegExp][] = [
    ['Linear', () => new Linear(0, 2), /inFeatures to be a positive integer, got 0/],
    ['Linear', () => new Linear(2, 1.5), /outFeatures/],
    ['LayerNorm', () => new LayerNorm([]), /normalizedShape of at least one dimension/],
    ['GroupNorm', () => new GroupNorm(3, 4), /numChannels to be a multiple of numGroups 3, got 4/],
    ['Embedding', () => new Embedding(4, 2, { paddingIdx: 4 }), /paddingIdx to be one of the 4 rows, got 4/],
    ['Dropout', () => new Dropout(1.5), /\[0, 1\], got 1.5/],
    ['Conv1d', () => new Conv1d(4, 3, 3, { groups: 2 }), /multiples of groups 2/],
    ['Conv1d', () => new Conv1d(4, 3, 3, { padding: 'same', stride: 2 }), /stride 1 with padding 'same'/],
    ['Conv2d', () => new Conv2d(4, 3, [3]), /kernelSize to be 2 integers/],
    ['GRU', () => new GRU(4, 3, { numLayers: 0 }), /numLayers/],
    ['MultiheadAttention', () => new MultiheadAttention(5, 2), /embedDim to be a multiple of numHeads 2, got 5/],
    ['TransformerEncoderLayer', () => new TransformerEncoderLayer(4, 2, { activation: 'swish' as 'relu' }), /'relu', 'gelu'/],
    ['truncNormal_', () => init.truncNormal_(ones([2]), 0, 1, 2, 1), /low < high/],
  ]

  test.each(misbuilt)('%s is not built wrong', (_, run, sentence) => expectThrow(run, ConfigError, sentence))
})

describe('losses refuse in the words of the loss', () => {
  // biome-ignore format: a table
  const refused: [string, () => unknown, ErrorClass, RegExp][] = [
    ['different shapes', () => F.mseLoss(ones([3, 1]), ones([3])), ShapeError, /same shape, got \[3,1\] and \[3\]/],
    ['an unknown reduction', () => F.l1Loss(ones([3]), ones([3]), { reduction: 'avg' as 'mean' }), ConfigError, /'none', 'mean' or 'sum', got .*avg/],
    ['a class that is not there', () => F.crossEntropy(ones([2, 3]), tensor([1, 3])), IndexError, /indices from 0 to 2, got 3/],
    ['classes as fractions', () => F.crossEntropy(ones([2, 3]), tensor([1.5, 2])), DTypeError, /integer indices/],
    ['one-hot classes', () => F.crossEntropy(ones([2, 3]), ones([2, 3], { dtype: 'int64' })), DTypeError, /probabilities.*class indices leave out/],
    ['logits of whole numbers', () => F.crossEntropy(ones([2, 3], { dtype: 'int64' }), tensor([1, 2])), DTypeError, /crossEntropy: expected a floating-point/],
    ['another batch', () => F.crossEntropy(ones([2, 3]), tensor([1, 2, 0])), ShapeError, /dimension 0/],
    ['whole targets', () => F.binaryCrossEntropyWithLogits(ones([2]), tensor([0, 1])), DTypeError, /floating-point/],
    ['mixed lengths', () => F.ctcLoss(ones([2, 1, 2]), tensor([[1]]), [2], tensor([1])), ConfigError, /both arrays/],
    ['neither size nor scale', () => F.interpolate(ones([1, 1, 2]), {}), ConfigError, /either size or scaleFactor/],
    ['an option that nobody reads', () => F.crossEntropy(ones([2, 3]), tensor([1, 2]), { labelSmothing: 0.1 } as never), ConfigError, /crossEntropy: expected a known option, got 'labelSmothing'; did you mean 'labelSmoothing'/],
    ['weights of classes', () => F.linearCrossEntropy(ones([2, 3]), ones([4, 3]), tensor([1, 2]), { weight: ones([4]) } as never), ConfigError, /linearCrossEntropy: expected a known option, got 'weight'/],
    ['antialias where it is not', () => F.interpolate(ones([1, 1, 2]), { size: 2, mode: 'linear', antialias: true }), ConfigError, /mode bilinear, bicubic or lanczos with antialias/],
    ['lanczos without antialias', () => F.interpolate(ones([1, 1, 2, 2]), { size: 2, mode: 'lanczos' }), ConfigError, /antialias: true with mode 'lanczos'/],
    ['a bag without offsets', () => F.embeddingBag(tensor([1, 2]), ones([4, 3])), ConfigError, /expected offsets/],
    ['linear images', () => F.interpolate(ones([1, 1, 2, 2]), { size: 2, mode: 'linear' }), ShapeError, /3 dimensions/],
  ]

  test.each(refused)('%s', (_, run, type, sentence) => expectThrow(run, type, sentence))
})

describe('modules that cannot be gone through', () => {
  const nested = (levels: number) => {
    let inner: vt.Module = new vt.Linear(1, 1)
    for (let i = 0; i < levels; i += 1) inner = new vt.ModuleList([inner])
    return inner
  }
  const ask: [string, (module: vt.Module) => unknown][] = [
    ['parameters', (module) => module.parameters()],
    ['namedBuffers', (module) => module.namedBuffers()],
    ['modules', (module) => module.modules()],
    ['stateDict', (module) => module.stateDict()],
    ['loadStateDict', (module) => module.loadStateDict({})],
    ['to', (module) => module.to({ dtype: 'float64' })],
    ['train', (module) => module.train()],
    ['freeze', (module) => module.freeze()],
    ['apply', (module) => module.apply(() => {})],
    ['summary', (module) => module.summary()],
    ['dispose', (module) => module.dispose()],
  ]

  test.each(ask)('%s refuses what is nested 10,000 deep, and a proxy', (_, call) => {
    expect(() => call(nested(10_000))).toThrow(vt.ConfigError)
    expect(() => call(nested(10_000))).toThrow(/at most 1000 levels of modules/)
    expect(() => call(new Proxy(new vt.Linear(1, 1), {}))).toThrow(vt.ConfigError)
    expect(() => call(new vt.ModuleList([new Proxy(new vt.Linear(1, 1), {})]))).toThrow(/is a Proxy around one/)
  })

  test('a proxy of a layer refuses to compute', () => {
    for (const layer of [new vt.Linear(1, 1), new vt.Conv1d(1, 1, 1), new vt.Embedding(1, 1)]) {
      expect(() => new Proxy(layer, {}).forward(vt.zeros([1, 1, 1]))).toThrow(/is a Proxy around one/)
    }
  })

  test('a thousand levels are gone through', () => {
    const module = nested(999)
    expect(module.parameters()).toHaveLength(2)
    let seen = 0
    module.apply(() => void seen++)
    expect(seen).toBe(1000)
  })
})
