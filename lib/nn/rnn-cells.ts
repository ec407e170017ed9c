import { requireObject, requireOneOf } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { ops, scope, type Tensor, zeros } from '../tensor/index.js'
import { layerOptions, otherRank, requireSizes, requireTensors } from './check.js'
import { uniform_ } from './init.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface CellOptions extends FactoryOptions {
  /** Default: true. */
  bias?: boolean
}

export interface RNNCellOptions extends CellOptions {
  /** Default: 'tanh'. */
  nonlinearity?: 'tanh' | 'relu'
}

type Weights = [input: Tensor, hidden: Tensor, inputBias: Tensor | null, hiddenBias: Tensor | null]

/** One step of a recurrent layer; parameters start uniform in ±1/√hidden. */
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

  /** Runs a step; without a batch, on a batch of one. Missing states are zeros. */
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
      throw new ShapeError(`${layer}: a state must be [${expected}], not [${shape}]`, { shape, expected })
    }
    const x = single ? input.unsqueeze(0) : input
    const zero = () => zeros([x.size(0), this.hiddenSize], { dtype: x.dtype, device: x.device })
    const before = states.map((state) => (state ? (single ? state.unsqueeze(0) : state) : zero()))
    const after = run(x, before, [this.weight_ih, this.weight_hh, this.bias_ih, this.bias_hh])
    return single ? after.map((state) => state.squeeze(0)) : after
  }
}

/** tanh or relu of two projections, of the input and of the state before. */
export class RNNCell extends Cell {
  readonly nonlinearity: 'tanh' | 'relu'

  constructor(inputSize: number, hiddenSize: number, options: RNNCellOptions = {}) {
    requireObject('RNNCell', 'options', options)
    const { nonlinearity = 'tanh', ...rest } = options
    requireOneOf('RNNCell', 'nonlinearity', nonlinearity, ['tanh', 'relu'])
    super(1, inputSize, hiddenSize, rest)
    this.nonlinearity = nonlinearity
  }

  /** [batch, inputSize] (or [inputSize]) and the state before, [batch, hiddenSize] → the state */
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

  /** [batch, inputSize] (or [inputSize]) and the state before, [batch, hiddenSize] → the state */
  override forward(input: Tensor, hidden: Tensor | null = null): Tensor {
    return scope(() => this.step(input, [hidden], (x, [h], weights) => [ops.gruCell(x, h!, ...weights)])[0]!)
  }
}

/** One step of an LSTM. */
export class LSTMCell extends Cell {
  constructor(inputSize: number, hiddenSize: number, options: CellOptions = {}) {
    super(4, inputSize, hiddenSize, options)
  }

  /** [batch, inputSize] (or [inputSize]) and the states before, each [batch, hiddenSize] → the states */
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
