import { requireRecord } from '../base/arguments.js'
import { requireOneOf } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { ops, scope, type Tensor, zeros } from '../tensor/index.js'
import { layerOptions, otherRank, requireSizes, requireTensors } from './check.js'
import { uniform_ } from './init.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface CellOptions extends FactoryOptions {
  /** Whether the cell has biases. Default: true. */
  bias?: boolean
}

export interface RNNCellOptions extends CellOptions {
  /** Activation function. Default: 'tanh'. */
  nonlinearity?: 'tanh' | 'relu'
}

type Weights = [input: Tensor, hidden: Tensor, inputBias: Tensor | null, hiddenBias: Tensor | null]

/** Base class of recurrent cells, one step of a recurrent layer; parameters are initialized uniformly in ±1/√hidden. */
abstract class Cell extends Module {
  readonly inputSize: number
  readonly hiddenSize: number
  weight_ih: Parameter
  weight_hh: Parameter
  bias_ih: Parameter | null
  bias_hh: Parameter | null

  constructor(gates: number, inputSize: number, hiddenSize: number, options: CellOptions) {
    super()
    const layer = new.target.name
    const { bias = true, ...factory } = layerOptions(layer, options, 'bias')
    requireSizes(layer, { inputSize, hiddenSize })
    this.inputSize = inputSize
    this.hiddenSize = hiddenSize
    this.weight_ih = parameter([gates * hiddenSize, inputSize], factory)
    this.weight_hh = parameter([gates * hiddenSize, hiddenSize], factory)
    this.bias_ih = bias ? parameter([gates * hiddenSize], factory) : null
    this.bias_hh = bias ? parameter([gates * hiddenSize], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.hiddenSize)
    for (const weight of this.parameters()) uniform_(weight, -bound, bound)
  }

  /** Run a step; an input without a batch runs as a batch of one. Missing states are zeros. */
  protected step(
    input: Tensor,
    states: (Tensor | null)[],
    run: (x: Tensor, h: Tensor[], w: Weights) => Tensor[],
  ): Tensor[] {
    const layer = this.constructor.name
    const wrong = otherRank(layer, input, [1, 2], '[batch, features] or [features]')
    if (wrong) throw wrong
    const given = states.filter((state) => state !== null)
    requireTensors(layer, ...given)
    const single = input.ndim === 1
    const expected = single ? [this.hiddenSize] : [input.size(0), this.hiddenSize]
    for (const { shape } of given) {
      if (shape.join() === expected.join()) continue
      throw new ShapeError(`${layer}: expected a state [${expected}], got [${shape}]`, { shape, expected })
    }
    const x = single ? input.unsqueeze(0) : input
    const zero = () => zeros([x.size(0), this.hiddenSize], { dtype: x.dtype, device: x.device })
    const before = states.map((state) => (state ? (single ? state.unsqueeze(0) : state) : zero()))
    const after = run(x, before, [this.weight_ih, this.weight_hh, this.bias_ih, this.bias_hh])
    return single ? after.map((state) => state.squeeze(0)) : after
  }
}

/** tanh or relu of two projections, of the input and of the previous state. */
export class RNNCell extends Cell {
  readonly nonlinearity: 'tanh' | 'relu'

  constructor(inputSize: number, hiddenSize: number, options: RNNCellOptions = {}) {
    requireRecord('RNNCell', options)
    const { nonlinearity = 'tanh', ...rest } = options
    requireOneOf('RNNCell', 'nonlinearity', nonlinearity, ['tanh', 'relu'])
    super(1, inputSize, hiddenSize, rest)
    this.nonlinearity = nonlinearity
  }

  /** Map [batch, inputSize] (or [inputSize]) and the previous state [batch, hiddenSize] to the new state. */
  override forward(input: Tensor, hidden: Tensor | null = null): Tensor {
    const run = this.nonlinearity === 'tanh' ? ops.rnnTanhCell : ops.rnnReluCell
    return scope(() => this.step(input, [hidden], (x, [h], weights) => [run(x, h!, ...weights)])[0]!)
  }
}

/** One step of a GRU. */
export class GRUCell extends Cell {
  constructor(inputSize: number, hiddenSize: number, options: CellOptions = {}) {
    super(3, inputSize, hiddenSize, options)
  }

  /** Map [batch, inputSize] (or [inputSize]) and the previous state [batch, hiddenSize] to the new state. */
  override forward(input: Tensor, hidden: Tensor | null = null): Tensor {
    return scope(() => this.step(input, [hidden], (x, [h], weights) => [ops.gruCell(x, h!, ...weights)])[0]!)
  }
}

/** One step of an LSTM. */
export class LSTMCell extends Cell {
  constructor(inputSize: number, hiddenSize: number, options: CellOptions = {}) {
    super(4, inputSize, hiddenSize, options)
  }

  /** Map [batch, inputSize] (or [inputSize]) and the previous states, each [batch, hiddenSize], to the new states. */
  override forward(
    input: Tensor,
    state: { hidden: Tensor; cell: Tensor } | null = null,
  ): { hidden: Tensor; cell: Tensor } {
    return scope(() => {
      const before = [state?.hidden ?? null, state?.cell ?? null]
      const [hidden, cell] = this.step(input, before, (x, states, weights) => ops.lstmCell(x, states, ...weights))
      return { hidden: hidden!, cell: cell! }
    })
  }
}
