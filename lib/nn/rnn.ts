import { requireRecord, shown } from '../base/arguments.js'
import { requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError, DataError, ShapeError } from '../base/errors.js'
import { op } from '../native/call.js'
import { ops, scope, Tensor, tensor, zeros } from '../tensor/index.js'
import {
  explain,
  layerOptions,
  notFloating,
  otherRank,
  otherSize,
  otherType,
  requireLayers,
  requireProbability,
  requireSizes,
  requireTensors,
} from './check.js'
import { uniform_ } from './init.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'
import { sameShape } from './text.js'

export interface RecurrentOptions extends FactoryOptions {
  /** Number of layers. Default: 1. */
  numLayers?: number
  /** Whether the layers have biases. Default: true. */
  bias?: boolean
  /** Input and output are [batch, time, ...] instead of [time, batch, ...]. Default: false. */
  batchFirst?: boolean
  /** Dropout probability between layers in training. Default: 0. */
  dropout?: number
  /** Also run from the end; both outputs are concatenated. Default: false. */
  bidirectional?: boolean
}

export interface RNNOptions extends RecurrentOptions {
  /** Activation function. Default: 'tanh'. */
  nonlinearity?: 'tanh' | 'relu'
}

export interface LSTMOptions extends RecurrentOptions {
  /**
   * Size that the hidden state is projected to, below hiddenSize (https://arxiv.org/abs/1402.1128). Default: 0, no projection.
   */
  projSize?: number
}

type Kind = 'gru' | 'lstm' | 'rnnTanh' | 'rnnRelu'

export interface SequenceOptions {
  /**
   * Length of each item without padding, in any order. Later steps are not run: the output is zero there, and the hidden state
   * is that of the item's last step. The output keeps the input's time.
   */
  lengths?: number[] | Tensor | null
}

/** Input of the network: one padded tensor, or the packed steps of all items. */
interface Steps {
  data: Tensor
  batchSizes: Tensor | null
  /** Permutation of the batch by decreasing length, and its inverse; null if it is sorted already. */
  order: Tensor | null
  inverse: Tensor | null
}

/** Kind of a recurrent network, by PyTorch's name. */
export type RNNMode = 'LSTM' | 'GRU' | 'RNN_TANH' | 'RNN_RELU'

const GATES: Readonly<Record<RNNMode, number>> = { LSTM: 4, GRU: 3, RNN_TANH: 1, RNN_RELU: 1 }

/**
 * Base class of RNN, GRU and LSTM, without a forward of its own. The parameters of layer k are `weight_ih_l<k>` [gates · hidden, input], `weight_hh_l<k>` [gates ·
 * hidden, hidden], `bias_ih_l<k>`, `bias_hh_l<k>`, and the same with `_reverse`; all are initialized uniformly in ±1/√hidden.
 */
export class RNNBase extends Module {
  readonly mode: RNNMode
  readonly inputSize: number
  readonly hiddenSize: number
  /** Size of the projected hidden state, or 0 without projection. */
  readonly projSize: number
  readonly numLayers: number
  readonly batchFirst: boolean
  readonly dropout: number
  readonly bidirectional: boolean
  readonly #hasBias: boolean
  readonly #names: string[] = []

  constructor(mode: RNNMode, inputSize: number, hiddenSize: number, options: RecurrentOptions = {}, projSize = 0) {
    super()
    requireOneOf(this.constructor.name, 'mode', mode, Object.keys(GATES))
    const gates = GATES[mode]
    this.mode = mode
    if (!Number.isSafeInteger(projSize) || projSize < 0 || (projSize > 0 && projSize >= hiddenSize)) {
      throw new ConfigError(
        `LSTM: expected projSize to be an integer below hiddenSize ${hiddenSize}, got ${shown(projSize)}`,
        {},
      )
    }
    const {
      numLayers = 1,
      bias = true,
      batchFirst = false,
      dropout = 0,
      bidirectional = false,
      ...factory
    } = layerOptions(this.constructor.name, options, 'numLayers', 'bias', 'batchFirst', 'dropout', 'bidirectional')
    requireSizes(this.constructor.name, { inputSize, hiddenSize })
    requireLayers(this.constructor.name, numLayers)
    requireProbability(this.constructor.name, dropout)
    this.inputSize = inputSize
    this.hiddenSize = hiddenSize
    this.projSize = projSize
    this.numLayers = numLayers
    this.batchFirst = batchFirst
    this.dropout = dropout
    this.bidirectional = bidirectional
    this.#hasBias = bias
    const add = (name: string, shape: number[]) => {
      this.#names.push(name)
      Reflect.set(this, name, parameter(shape, factory))
    }
    for (let layer = 0; layer < numLayers; layer++) {
      const width = layer === 0 ? inputSize : this.#outputSize * this.directions
      for (const suffix of bidirectional ? [`l${layer}`, `l${layer}_reverse`] : [`l${layer}`]) {
        add(`weight_ih_${suffix}`, [gates * hiddenSize, width])
        add(`weight_hh_${suffix}`, [gates * hiddenSize, this.#outputSize])
        if (bias) add(`bias_ih_${suffix}`, [gates * hiddenSize])
        if (bias) add(`bias_hh_${suffix}`, [gates * hiddenSize])
        if (projSize > 0) add(`weight_hr_${suffix}`, [projSize, hiddenSize])
      }
    }
    this.resetParameters()
  }

  get #outputSize(): number {
    return this.projSize || this.hiddenSize
  }

  get directions(): 1 | 2 {
    return this.bidirectional ? 2 : 1
  }

  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.hiddenSize)
    for (const weight of this.#weights()) uniform_(weight, -bound, bound)
  }

  /** Run the operator; `states` and the returned states are [layers · directions, batch, hidden]. */
  protected run(
    kind: Kind,
    input: Tensor,
    states: Tensor[] | null,
    lengths: number[] | Tensor | null,
  ): [output: Tensor, ...states: Tensor[]] {
    const layer = this.constructor.name
    const layout = this.batchFirst ? '[batch, time, features]' : '[time, batch, features]'
    requireTensors(layer, ...(states ?? []))
    const wrong = otherRank(layer, input, [2, 3], `${layout} or [time, features]`)
    if (wrong) throw wrong
    if (input.ndim === 2) return this.#runUnbatched(kind, input, states, lengths)

    if (states) this.#checkStates(states, input.size(this.batchFirst ? 0 : 1))
    const steps = this.#steps(input, lengths)
    const hidden = (states ?? this.#zeroStates(kind, input)).map((state) =>
      steps.order ? state.indexSelect(1, steps.order) : state,
    )
    let result: Tensor[]
    try {
      result = this.#call(kind, steps, hidden)
    } catch (error) {
      throw explain(error, () => [
        notFloating(layer, input),
        otherSize(layer, input, -1, this.inputSize),
        otherType(layer, input, this.#weights()[0]!),
      ])
    }
    const [output, ...last] = result as [Tensor, ...Tensor[]]
    const restored = steps.inverse ? last.map((state) => state.indexSelect(1, steps.inverse!)) : last
    return [this.#padded(output, steps, input), ...restored]
  }

  #call(kind: Kind, { data, batchSizes }: Steps, hidden: Tensor[]): Tensor[] {
    const settings = [this.#hasBias, this.numLayers, this.dropout, this.training, this.bidirectional] as const
    const weights = this.#weights()
    if (kind !== 'lstm') {
      const run = ops[kind]
      return batchSizes
        ? run(data, batchSizes, hidden[0]!, weights, ...settings)
        : run(data, hidden[0]!, weights, ...settings, this.batchFirst)
    }
    return batchSizes
      ? ops.lstm(data, batchSizes, hidden, weights, ...settings)
      : ops.lstm(data, hidden, weights, ...settings, this.batchFirst)
  }

  #runUnbatched(
    kind: Kind,
    input: Tensor,
    states: Tensor[] | null,
    lengths: number[] | Tensor | null,
  ): [Tensor, ...Tensor[]] {
    if (lengths)
      throw new ConfigError(`${this.constructor.name}: expected an input with a batch dimension with lengths`, {})
    const dim = this.batchFirst ? 0 : 1
    const batched = states?.map((state) => state.unsqueeze(1)) ?? null
    const [output, ...last] = this.run(kind, input.unsqueeze(dim), batched, null)
    return [output.squeeze(dim), ...last.map((state) => state.squeeze(1))]
  }

  #steps(input: Tensor, lengths: number[] | Tensor | null): Steps {
    if (!lengths) return { data: input, batchSizes: null, order: null, inverse: null }
    const [batchDim, timeDim] = this.batchFirst ? [0, 1] : [1, 0]
    const counts = this.#checkLengths(lengths, input.size(batchDim), input.size(timeDim))
    const order = counts.map((_, i) => i).sort((a, b) => counts[b]! - counts[a]! || a - b)
    const sorted = order.every((item, i) => item === i)
    const indices = (list: number[]) => tensor(list, { dtype: 'int64', device: input.device })
    const forth = sorted ? null : indices(order)
    const inverse: number[] = []
    for (const [place, item] of order.entries()) inverse[item] = place
    const [data, batchSizes] = op('aten::_pack_padded_sequence')(
      forth ? input.indexSelect(batchDim, forth) : input,
      tensor(
        order.map((item) => counts[item]!),
        // PyTorch requires the lengths on the CPU, whatever the input's device.
        { dtype: 'int64', device: 'cpu' },
      ),
      this.batchFirst,
    ) as [Tensor, Tensor]
    return { data, batchSizes, order: forth, inverse: sorted ? null : indices(inverse) }
  }

  #padded(output: Tensor, { batchSizes, inverse }: Steps, input: Tensor): Tensor {
    if (!batchSizes) return output
    const [batchDim, timeDim] = this.batchFirst ? [0, 1] : [1, 0]
    const time = input.size(timeDim)
    const [padded] = op('aten::_pad_packed_sequence')(output, batchSizes, this.batchFirst, 0, time) as [Tensor, Tensor]
    return inverse ? padded.indexSelect(batchDim, inverse) : padded
  }

  #checkLengths(lengths: number[] | Tensor, batch: number, time: number): number[] {
    const counts = [lengths instanceof Tensor ? lengths.toArray() : lengths].flat(1) as number[]
    const bad = counts.findIndex((count) => !Number.isSafeInteger(count) || count < 1 || count > time)
    if (counts.length !== batch || bad >= 0) {
      throw new DataError(
        bad >= 0
          ? `${this.constructor.name}: expected lengths[${bad}] to be an integer from 1 to ${time}, the input's time, got ${shown(counts[bad])}`
          : `${this.constructor.name}: expected ${batch} lengths, one for each item, got ${counts.length}`,
        { lengths: counts },
      )
    }
    return counts
  }

  /** Check the shapes of the states: the operator would broadcast some wrong ones. */
  #checkStates(states: Tensor[], batch: number): void {
    states.forEach(({ shape }, i) => {
      // The cell state is never projected.
      const expected = [this.numLayers * this.directions, batch, i === 0 ? this.#outputSize : this.hiddenSize]
      if (sameShape(shape, expected)) return
      throw new ShapeError(`${this.constructor.name}: expected an initial state [${expected}], got [${shape}]`, {
        shape,
        expected,
      })
    })
  }

  #zeroStates(kind: Kind, input: Tensor): Tensor[] {
    const zero = (size: number) => {
      const shape = [this.numLayers * this.directions, input.size(this.batchFirst ? 0 : 1), size]
      return zeros(shape, { dtype: input.dtype, device: input.device })
    }
    const hidden = zero(this.#outputSize)
    if (kind !== 'lstm') return [hidden]
    return [hidden, this.projSize > 0 ? zero(this.hiddenSize) : hidden]
  }

  #weights(): Parameter[] {
    return this.#names.map((name) => Reflect.get(this, name) as Parameter)
  }
}

export interface GRUResult {
  /** Last layer's state at each step, [time, batch, directions · hidden] (or batch first). */
  output: Tensor
  /** Last state of each layer, [layers · directions, batch, hidden]. */
  hidden: Tensor
}

/** Elman network: tanh or relu of two projections, of the input and of the previous state. */
export class RNN extends RNNBase {
  readonly nonlinearity: 'tanh' | 'relu'

  constructor(inputSize: number, hiddenSize: number, options: RNNOptions = {}) {
    requireRecord('RNN', options)
    const { nonlinearity = 'tanh', ...rest } = options
    requireOneOf('RNN', 'nonlinearity', nonlinearity, ['tanh', 'relu'])
    super(nonlinearity === 'tanh' ? 'RNN_TANH' : 'RNN_RELU', inputSize, hiddenSize, rest)
    this.nonlinearity = nonlinearity
  }

  /** Run the network; see {@link GRU.forward}. */
  override forward(input: Tensor, hidden: Tensor | null = null, options: SequenceOptions = {}): GRUResult {
    requireOptions('RNN.forward', options, ['lengths'])
    const { lengths = null } = options
    const kind = this.nonlinearity === 'tanh' ? 'rnnTanh' : 'rnnRelu'
    return scope(() => {
      const [output, last] = this.run(kind, input, hidden === null ? null : [hidden], lengths)
      return { output, hidden: last! }
    })
  }
}

/** Gated recurrent unit (Cho et al. 2014), gates in PyTorch's order: reset, update, new. */
export class GRU extends RNNBase {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    super('GRU', inputSize, hiddenSize, options)
  }

  /**
   * @param input [time, batch, inputSize], with `batchFirst` [batch, time, inputSize], or without a batch [time, inputSize]
   * @param hidden initial state [layers · directions, batch, hidden]; default zeros
   */
  override forward(input: Tensor, hidden: Tensor | null = null, options: SequenceOptions = {}): GRUResult {
    requireOptions('GRU.forward', options, ['lengths'])
    const { lengths = null } = options
    return scope(() => {
      const [output, last] = this.run('gru', input, hidden === null ? null : [hidden], lengths)
      return { output, hidden: last! }
    })
  }
}

export interface LSTMResult extends GRUResult {
  /** Last cell state of each layer, [layers · directions, batch, hidden]. */
  cell: Tensor
}

/** Long short-term memory (Hochreiter and Schmidhuber 1997), gates in PyTorch's order: input, forget, cell, output. */
export class LSTM extends RNNBase {
  constructor(inputSize: number, hiddenSize: number, options: LSTMOptions = {}) {
    requireRecord('LSTM', options)
    const { projSize = 0, ...rest } = options
    super('LSTM', inputSize, hiddenSize, rest, projSize)
  }

  /**
   * @param input [time, batch, inputSize], with `batchFirst` [batch, time, inputSize], or without a batch [time, inputSize]
   * @param state initial states, each [layers · directions, batch, hidden]; default zeros
   */
  override forward(
    input: Tensor,
    state: { hidden: Tensor; cell: Tensor } | null = null,
    options: SequenceOptions = {},
  ): LSTMResult {
    requireOptions('LSTM.forward', options, ['lengths'])
    const { lengths = null } = options
    return scope(() => {
      const [output, hidden, cell] = this.run(
        'lstm',
        input,
        state === null ? null : [state.hidden, state.cell],
        lengths,
      )
      return { output, hidden: hidden!, cell: cell! }
    })
  }
}
