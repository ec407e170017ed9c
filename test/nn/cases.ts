import * as voxtorch from '../../lib/index.js'
import { type Fixture, tensorsOf } from '../helpers.js'

const { manualSeed, Module, Tensor } = voxtorch

/** One entry of the list that test/reference/nn_*.py writes. */
export interface Case {
  name: string
  /** 'nn.Linear' or 'functional.relu' */
  call: string
  /** Constructor arguments of a layer. */
  construct?: unknown[]
  /** Arguments; a string '$x' stands for the input x. */
  args: unknown[]
  train: boolean
  /** Set before the forward pass where it draws random numbers. */
  seed?: number
  /** Names of the state dictionary, in order. */
  state?: string[]
  /** Names of the results; ['out'] is the result itself. */
  outputs: string[]
  /** Inputs whose gradient is known. */
  gradients: string[]
}

export type Tensors = Record<string, voxtorch.Tensor>
type Constructor = new (...args: unknown[]) => voxtorch.Module & { forward(...args: unknown[]): unknown }
type Callable = (...args: unknown[]) => unknown
const library = voxtorch as unknown as Record<string, Constructor> & { functional: Record<string, Callable> }

export function build(call: string, construct: unknown[]): InstanceType<Constructor> {
  const name = call.slice('nn.'.length)
  if (name === 'TransformerEncoder') {
    const { layer, numLayers, norm } = construct[0] as { layer: never; numLayers: number; norm: number | null }
    const template = new voxtorch.TransformerEncoderLayer(...(layer as [number, number]))
    const encoder = new voxtorch.TransformerEncoder(template, numLayers, {
      norm: norm === null ? null : new voxtorch.LayerNorm(norm),
    })
    template.dispose()
    return encoder as unknown as InstanceType<Constructor>
  }
  if (name === 'TransformerDecoder') {
    const { layer, numLayers, norm } = construct[0] as { layer: never; numLayers: number; norm: number | null }
    const template = new voxtorch.TransformerDecoderLayer(...(layer as [number, number]))
    const decoder = new voxtorch.TransformerDecoder(template, numLayers, {
      norm: norm === null ? null : new voxtorch.LayerNorm(norm),
    })
    template.dispose()
    return decoder as unknown as InstanceType<Constructor>
  }
  return new library[name]!(...construct.map(withTensors))
}

/** Constructor arguments, where `{ values }` stands for a float tensor. */
function withTensors(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  if ('values' in value) return voxtorch.tensor(value.values as number[], { dtype: 'float32' })
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withTensors(item)]))
}

export function resolve(value: unknown, inputs: Tensors): unknown {
  if (typeof value === 'string' && value.startsWith('$')) return inputs[value.slice(1)]
  if (Array.isArray(value)) return value.map((item) => resolve(item, inputs))
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, inputs)]))
}

export interface Prepared {
  module: voxtorch.Module | null
  inputs: Tensors
  /** Runs the forward pass and gives its results by name. */
  forward(): Tensors
}

/** Builds the layer with the fixture's weights and the inputs, all of `dtype`. */
export function prepare(file: Fixture<Case>, item: Case, dtype: 'float32' | 'float64' = 'float32'): Prepared {
  const inputs: Tensors = {}
  for (const [name, tensor] of Object.entries(tensorsOf(file, item.name, 'in'))) {
    const own = tensor.isFloatingPoint() ? tensor.to({ dtype }).clone() : tensor.clone()
    own.requiresGrad = item.gradients.includes(name)
    inputs[name] = own
  }
  const args = resolve(item.args, inputs) as unknown[]
  const [module, run] = callee(file, item, dtype)
  const forward = () => {
    if (item.seed !== undefined) manualSeed(item.seed)
    const result = run(...args)
    if (result instanceof Tensor) return { out: result }
    return Object.fromEntries(item.outputs.map((name) => [name, (result as Tensors)[name]!]))
  }
  return { module, inputs, forward }
}

function callee(file: Fixture<Case>, item: Case, dtype: 'float32' | 'float64'): [voxtorch.Module | null, Callable] {
  if (!item.construct) return [null, library.functional[item.call.slice('functional.'.length)]!]
  const module = build(item.call, item.construct)
  if (!(module instanceof Module)) throw new Error(`${item.call} is not a Module`)
  module.to({ dtype })
  module.loadStateDict(tensorsOf(file, item.name, 'param'))
  module.train(item.train)
  return [module, (...args) => module.forward(...args)]
}

export const FILES = [
  'basic',
  'recurrent',
  'attention',
  'functions',
  'losses',
  'resizing',
  'activations',
  'pooling',
  'layers',
  'norms',
  'more-layers',
  'decoder',
  'loss-layers',
  'tables',
  'recurrent-more',
]
